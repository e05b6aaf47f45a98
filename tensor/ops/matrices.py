"""What the rules of linear algebra are written with: checks, matrices and their diagonals as functions of F."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from ...autograd.plan import FLOATING
from ...runtime import arrays, dtypes
from . import pointwise as pw
from . import shaping


class LinAlgError(RuntimeError):
    """A decomposition does not exist or did not converge: the matrix is singular, not positive-definite ..."""



def check_matrix(A: Any, name: str, low_precision: bool = False) -> None:
    """Refuse what is not a floating matrix or a batch of them."""
    if A.array.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions, got {A.array.ndim}")
    if A.array.dtype not in FLOATING:
        raise RuntimeError(
            f"{name}: Expected a floating point or complex tensor as input. Got {dtypes.of(A.array.dtype).name}; "
            "convert with .float()"
        )
    if A.array.dtype.itemsize == 2 and not low_precision:
        found = dtypes.of(A.array.dtype).name
        raise RuntimeError(f"{name}: Low precision dtypes not supported. Got {found}; convert with .float()")


def check_square(A: Any, name: str, low_precision: bool = False) -> None:
    """Refuse what is not a floating square matrix or a batch of them."""
    check_matrix(A, name, low_precision)
    if A.array.shape[-1] != A.array.shape[-2]:
        rows, columns = A.array.shape[-2:]
        raise RuntimeError(f"{name}: A must be batches of square matrices, but they are {rows} by {columns} matrices")


def attempt(xp: Any, failure: str, function: Callable, *args: Any, **options: Any) -> Any:
    """A call into LAPACK or cuSOLVER; `failure` says what it means if that gives up."""
    try:
        with arrays.linalg_errors(xp):
            return function(*args, **options)
    except numpy.linalg.LinAlgError as error:
        raise LinAlgError(f"{failure} ({error})") from None


def mH(x: Any) -> Any:
    """The conjugate transpose of matrices."""
    return pw.conj(shaping.transpose(x, -2, -1)) if is_complex(x) else shaping.transpose(x, -2, -1)


def adjoint(F: Any, x: Any) -> Any:
    """The conjugate transpose."""
    return conjugate(F, F.transpose(x, -2, -1))


def conjugate(F: Any, x: Any) -> Any:
    """The conjugate, without a copy of what is real."""
    return F.conj(x) if is_complex(x) else x


def is_complex(x: Any) -> bool:
    return getattr(x, "array", x).dtype.kind == "c"


def product(F: Any, *factors: Any) -> Any:
    """The matrix product, from left to right."""
    result = factors[0]
    for factor in factors[1:]:
        result = F.matmul_nd(result, factor)
    return result


def as_columns(F: Any, x: Any) -> Any:
    """Vectors [..., n] as matrices of one column."""
    return F.unsqueeze(x, -1)


def as_rows(F: Any, x: Any) -> Any:
    """Vectors [..., n] as matrices of one row."""
    return F.unsqueeze(x, -2)


def as_diagonal(F: Any, x: Any) -> Any:
    """Vectors [..., n] as diagonal matrices."""
    ndim, n = len(x.shape), x.shape[-1]
    return F.embed_diagonal(x, (*x.shape, n), 0, ndim - 1, ndim)


def diagonal_of(F: Any, x: Any) -> Any:
    """The diagonals of matrices as vectors."""
    return F.diagonal(x, 0, len(x.shape) - 2, len(x.shape) - 1)


def identity(F: Any, x: Any) -> Any:
    """Identity matrices of the shape of square matrices x."""
    return as_diagonal(F, F.ones_like(diagonal_of(F, x)))


def on_diagonal(F: Any, x: Any) -> Any:
    """Where the diagonal of square matrices is."""
    return F.identity_like(x, x.shape[-1], len(x.shape) - 1, len(x.shape) - 2)


def quotient(F: Any, x: Any, divisor: Any) -> Any:
    """x / divisor where 0 / 0 is 0: equal eigenvalues do no harm to a loss that does not see the vectors."""
    nothing = F.logical_and(F.eq(x, 0), F.eq(divisor, 0))
    return x / F.where(nothing, F.ones_like(divisor), divisor)


def coupling(F: Any, x: Any, values: Any) -> Any:
    """x_ij / (values_j - values_i) off the diagonal, 0 on it."""
    gaps = as_rows(F, values) - as_columns(F, values)
    return quotient(F, F.where(on_diagonal(F, x), F.zeros_like(x), x), gaps)


def like_input(F: Any, gradient: Any, input: Any) -> Any:
    """The real part, if the input is real."""
    if is_complex(input) or not is_complex(gradient):
        return gradient
    return F.cast(gradient, dtypes.of(input.dtype), dtypes.of(gradient.dtype))
