"""Norms of vectors and matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.plan import FLOATING
from ...autograd.primitive import primitive
from ...runtime import dtypes
from ...runtime.arrays import Array
from ..kernels import compiled
from . import arithmetic as ar
from . import cast, reduction, shaping, solving, spectra, summing
from . import pointwise as pw
from .matrices import check_matrix, check_square
from .reduction import Dim, as_dims

MATRIX_ORDERS = ("fro", "nuc", math.inf, -math.inf, 1, -1, 2, -2)


@primitive
def power_norm(xp, input: Array, ord: float, dim: Dim = None, keepdim: bool = False):
    """sum(|input|**ord)**(1 / ord) of real numbers along dim, with the limits at 0 and at plus and minus infinity."""
    dims = as_dims(dim, input.ndim)
    if ord == 2:
        return xp.sqrt((input * input).sum(dims, keepdims=keepdim))
    size = xp.abs(input)
    if ord == math.inf:
        return size.max(dims, keepdims=keepdim)
    if ord == -math.inf:
        return size.min(dims, keepdims=keepdim)
    if ord == 0:
        return (input != 0).sum(dims, keepdims=keepdim).astype(input.dtype)
    if ord == 1:
        return size.sum(dims, keepdims=keepdim)
    with numpy.errstate(divide="ignore"):  # 0**ord for negative orders
        total = (size**ord).sum(dims, keepdims=keepdim) ** (1 / ord)
    return total.astype(input.dtype)  # beside a number bfloat16 becomes float32


@compiled(power_norm, light=True)
def _power_norm(input: Array, ord: float, dim: Dim = None, keepdim: bool = False) -> Any:
    if ord not in (1, 2):
        return NotImplemented
    total = summing.sum_along(
        input, as_dims(dim, input.ndim), keepdim, summing.SQUARE if ord == 2 else summing.SIZE
    )
    return numpy.sqrt(total) if ord == 2 and total is not NotImplemented else total


def _power_norm_input(F: Any, g: Any, input: Any, out: Any, ord: float, dim: Dim, keepdim: bool) -> Any:
    """PyTorch's choice where there is no derivative: 0 from elements that are 0, equal shares for equal extremes."""
    shape = tuple(input.shape)
    if not keepdim:
        kept = _with_ones(shape, as_dims(dim, len(shape)))
        g, out = F.reshape(g, kept), F.reshape(out, kept)
    if ord == 0:
        return F.zeros_like(input)
    if ord == 1:
        return g * F.sign(input)
    if ord == 2:
        return input * (g / _without_zeros(F, out))
    if abs(ord) == math.inf:
        hits = F.eq(F.abs(input), out)
        return F.sign(input) * (hits * (g / F.sum(hits, as_dims(dim, len(shape)), True)))
    size = _without_zeros(F, F.abs(input))
    base = _without_zeros(F, out) if ord > 1 else out
    return F.sign(input) * F.pow(size, ord - 1) * (g * F.pow(base, 1 - ord))


def _without_zeros(F: Any, x: Any) -> Any:
    return F.where(F.eq(x, 0), F.ones_like(x), x)


power_norm.vjp(input=_power_norm_input)


@takes_out
def vector_norm(
    x: Any, ord: float = 2, dim: Dim = None, keepdim: bool = False, *, dtype: dtypes.dtype | None = None
) -> Any:
    """The p-norm of vectors: sum(|x|**ord)**(1 / ord) along dim, or of all elements.

    Args:
        x: any shape, floating or complex.
        ord: any number; inf is the largest size, -inf the smallest, 0 counts the elements that are not 0.
        dim: one dim or several, None for all.
        dtype: to compute in.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.vector_norm(torch.tensor([3.0, 4.0]))
        tensor(5.)
    """
    if isinstance(ord, bool) or not isinstance(ord, int | float):
        raise RuntimeError(f"linalg.vector_norm: ord must be a number, got {ord!r}")
    x = _real_sizes(x, dtype, "linalg.vector_norm")
    dims = as_dims(dim, x.array.ndim)
    if (ord < 0 or ord == math.inf) and x.array.size == 0 and 0 in (x.array.shape[d] for d in dims):
        raise RuntimeError(
            f"linalg.vector_norm cannot compute the {ord} norm on an empty tensor because the operation does not have "
            f"an identity; the input has shape {list(x.array.shape)}"
        )
    return power_norm(x, ord, dims, keepdim)


def _real_sizes(x: Any, dtype: dtypes.dtype | None, name: str) -> Any:
    if x.array.dtype not in FLOATING:
        found = dtypes.of(x.array.dtype).name
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {found}")
    if dtype is not None:
        x = cast.to_dtype(x, dtype)
    return pw.abs(x) if x.array.dtype.kind == "c" else x


@takes_out
def matrix_norm(
    A: Any,
    ord: float | str = "fro",
    dim: tuple[int, int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: dtypes.dtype | None = None,
) -> Any:
    """A norm of matrices.

    Args:
        A: [..., m, n], floating or complex.
        ord: "fro" (Frobenius), "nuc" (sum of the singular values), 2 or -2 (the largest or smallest of them), 1 or -1
            (the largest or smallest column sum of sizes), inf or -inf (row sum).
        dim: the two dims of the matrices.
        dtype: to compute in.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.matrix_norm(torch.eye(4))
        tensor(2.)
    """
    check_matrix(A, "linalg.matrix_norm", low_precision=True)
    if ord not in MATRIX_ORDERS:
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported; the orders are {MATRIX_ORDERS}")
    dims = as_dims(tuple(dim), A.array.ndim)
    if len(dims) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple, got {dim}")
    if dtype is not None:
        A = cast.to_dtype(A, dtype)
    if ord == "fro":
        return vector_norm(A, 2, dims, keepdim)
    if ord in ("nuc", 2, -2):
        values = spectra.svdvals(shaping.movedim(A, dims, (-2, -1)))
        result = reduction.sum(values, -1) if ord == "nuc" else _extreme(values, ord, -1)
        return shaping.reshape(result, _with_ones(A.array.shape, dims)) if keepdim else result
    sizes = pw.abs(A)
    summed, compared = dims if abs(ord) == 1 else dims[::-1]  # type: ignore[arg-type]
    result = _extreme(reduction.sum(sizes, summed, True), ord, compared, True)
    return result if keepdim else shaping.squeeze(result, dims)


def _extreme(x: Any, ord: Any, dim: int, keepdim: bool = False) -> Any:
    return (reduction.amax if ord > 0 else reduction.amin)(x, dim, keepdim)


def _with_ones(shape: tuple, dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


@takes_out
def norm(
    A: Any,
    ord: float | str | None = None,
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: dtypes.dtype | None = None,
) -> Any:
    """The norm of a vector or of matrices: `vector_norm` along one dim, `matrix_norm` along two.

    Args:
        A: any shape, floating or complex.
        ord: see there; None is 2 for vectors and "fro" for matrices, over all elements if dim is None too.
        dim: one dim, two dims, or None: then A must have one or two dims, unless ord is None.
        dtype: to compute in.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.norm(torch.ones(2, 2), "nuc")
        tensor(2.)
    """
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if dim is None and A.array.ndim not in (1, 2):
        raise RuntimeError(
            f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.array.ndim}D."
        )
    dims = as_dims(dim, A.array.ndim)
    if len(dims) == 2:
        return matrix_norm(A, ord, dims, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.norm: order {ord!r} is for matrices; dim {dim} names {len(dims)}")
    return vector_norm(A, ord, dims, keepdim, dtype=dtype)


@takes_out
def cond(A: Any, p: float | str | None = None) -> Any:
    """The condition number of matrices: norm(A, p) * norm(inverse of A, p); p None is 2.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.cond(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
        tensor(2.)
    """
    if p is None or p in (2, -2):
        values = spectra.svdvals(A)
        largest, smallest = shaping.select(values, -1, 0), shaping.select(values, -1, -1)
        return ar.true_divide(smallest, largest) if p == -2 else ar.true_divide(largest, smallest)
    check_square(A, "linalg.cond")
    if A.array.size == 0:
        return reduction.sum(_real_sizes(A, None, "linalg.cond"), (-2, -1))
    inverse, info = solving.inv_ex(A)
    product = ar.mul(matrix_norm(A, p), matrix_norm(inverse, p))
    return ar.where(ar.eq(info, 0), product, math.inf)
