"""Functions of matrices: powers, exponential, inverses as maps of tensors, products of reflections."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.variable import box
from ...runtime import arrays
from ...runtime.arrays import Array
from . import arithmetic as ar
from . import linalg, shaping, triangles
from . import pointwise as pw
from .matrices import check_matrix, check_square, mH
from .solving import inv, solve, solve_triangular_left


@primitive
def matrix_exponential(xp, input: Array):
    """exp of square matrices, by scaling and squaring (Al-Mohy and Higham, 2009)."""
    out = xp.empty(input.shape, input.dtype)
    wide = input.astype(xp.float32) if input.dtype.itemsize == 2 else input
    for i in numpy.ndindex(input.shape[:-2] if input.size else (0,)):
        out[i] = arrays.scipy_linalg(xp).expm(wide[i])
    return out


def _matrix_exponential_input(F: Any, g: Any, input: Any) -> Any:
    """exp [[A, G], [0, A]] has the derivative in the direction G as its upper right block (Mathias, 1996)."""
    n, A = input.shape[-1], F.transpose(input, -2, -1)
    blocks = F.cat([F.cat([A, g], -1), F.cat([F.zeros_like(A), A], -1)], -2)
    return F.narrow(F.narrow(F.matrix_exponential(blocks), -2, 0, n), -1, n, n)


matrix_exponential.vjp(input=_matrix_exponential_input)


@takes_out
def matrix_power(A: Any, n: int) -> Any:
    """The n-th power of square matrices, by repeated squaring; of the inverse if n is negative.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.matrix_power(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), 3)
        tensor([[1., 3.],
                [0., 1.]])
    """
    if A.array.ndim < 2 or A.array.shape[-1] != A.array.shape[-2]:
        raise RuntimeError(f"linalg.matrix_power: A must be batches of square matrices, got {list(A.array.shape)}")
    if n < 0:
        A, n = inv(A), -n
    result = None
    while n:
        if n % 2:
            result = A if result is None else linalg.matmul_nd(result, A)
        n //= 2
        A = linalg.matmul_nd(A, A) if n else A
    if result is None:
        size = A.array.shape[-1]
        nothing = triangles.triu(A, size)  # zeros that keep the result on the tape
        return ar.add(nothing, box(arrays.module_of(A.array).eye(size, dtype=A.array.dtype)))
    return result


def matrix_exp(A: Any) -> Any:
    """The exponential of square matrices: the sum of A^k / k!.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.matrix_exp(torch.zeros(2, 2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    check_square(A, "linalg.matrix_exp", low_precision=True)
    return matrix_exponential(A)


@takes_out
def tensorinv(A: Any, ind: int = 2) -> Any:
    """The inverse of A as a map from its last dims to its first `ind`: tensordot(tensorinv(A), A, ind) is identity."""
    if ind <= 0:
        raise RuntimeError(f"linalg.tensorinv: Expected a strictly positive integer for 'ind', got {ind}")
    shape = A.array.shape
    rows, columns = math.prod(shape[:ind]), math.prod(shape[ind:])
    if rows != columns:
        raise RuntimeError(
            f"linalg.tensorinv: Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {columns} != {rows}"
        )
    return shaping.reshape(inv(shaping.reshape(A, (rows, columns))), (*shape[ind:], *shape[:ind]))


@takes_out
def tensorsolve(A: Any, B: Any, dims: Any = None) -> Any:
    """The X with tensordot(A, X, X.ndim) = B; `dims` of A are moved to its end first.

    Args:
        A: B.shape + X.shape, with as many elements in B as in X.
        B: any shape.
    """
    if dims is not None:
        A = shaping.movedim(A, tuple(dims), tuple(range(A.array.ndim - len(dims), A.array.ndim)))
    shape = A.array.shape[B.array.ndim :]
    size = math.prod(shape)
    if size != B.array.size:
        raise RuntimeError(
            "linalg.tensorsolve: Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            f"prod(self.shape[:other.ndim]), but got {size} != {B.array.size}"
        )
    solution = solve(shaping.reshape(A, (size, size)), shaping.reshape(B, (size,)))
    return shaping.reshape(solution, shape)


@takes_out
def householder_product(A: Any, tau: Any) -> Any:
    """The first columns of the product of reflections 1 - tau_i v_i v_i^H, as `geqrf` packs them.

    The product is 1 - V T V^H with the inverse of T = 1 / tau + the strict upper triangle of V^H V (Joffrain et al.,
    "Accumulating Householder transformations, revisited", 2006).

    Args:
        A: [..., m, n] with m >= n, v_i below the diagonal of column i.
        tau: [..., k] with k <= n.
    """
    check_matrix(A, "linalg.householder_product")
    rows, columns = A.array.shape[-2:]
    if rows < columns or tau.array.shape[-1] > columns:
        raise RuntimeError(
            f"linalg.householder_product: expected A [..., m, n] with m >= n and tau [..., k] with k <= n, got "
            f"{list(A.array.shape)} and {list(tau.array.shape)}"
        )
    first = box(arrays.module_of(A.array).eye(rows, columns, dtype=A.array.dtype))
    return reflected(A, tau, first, False)


def reflected(A: Any, tau: Any, C: Any, adjoint: bool) -> Any:
    """The product of the reflections, or its adjoint, times C."""
    k = tau.array.shape[-1]
    ones = box(arrays.module_of(A.array).eye(A.array.shape[-2], k, dtype=A.array.dtype))
    V = ar.add(triangles.tril(shaping.narrow(A, -1, 0, k), -1), ones)
    scale = shaping.unsqueeze(tau, -1)
    triangle = ar.mul(scale, triangles.triu(linalg.matmul_nd(mH(V), V), 1))  # with ones on its diagonal
    inner = linalg.matmul_nd(mH(V), C)
    if adjoint:
        inner = ar.mul(pw.conj(scale), solve_triangular_left(mH(triangle), inner, False, True))
    else:
        inner = solve_triangular_left(triangle, ar.mul(scale, inner), True, True)
    return ar.sub(C, linalg.matmul_nd(V, inner))


@takes_out
def ormqr(input: Any, tau: Any, other: Any, left: bool = True, transpose: bool = False) -> Any:
    """Q other, Q^H other if transpose, or the product from the right if not left; Q from `geqrf`'s reflections."""
    if left:
        return reflected(input, tau, other, transpose)
    return mH(reflected(input, tau, mH(other), not transpose))
