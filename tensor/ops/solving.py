"""Solving linear systems, and inverses."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.return_types import return_type
from ...autograd.variable import box
from ...runtime import arrays, dtypes
from ...runtime.arrays import Array
from . import arithmetic as ar
from . import decompositions, linalg, shaping
from .matrices import LinAlgError, attempt, check_square, mH, product

# -- primitives --------------------------------------------------------------------------------------------------------


def _over_one_batch(xp: Any, A: Array, B: Array) -> tuple[Array, Array]:
    """Both with the same batch dimensions."""
    batch = numpy.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    return xp.broadcast_to(A, (*batch, *A.shape[-2:])), xp.broadcast_to(B, (*batch, *B.shape[-2:]))


@primitive
def solve_nd(xp, input: Array, other: Array):
    """The solution X of input X = other, for matrices."""
    why = "linalg.solve: The solver failed because the input matrix is singular"
    return attempt(xp, why, xp.linalg.solve, *_over_one_batch(xp, input, other))


@solve_nd.joint_vjp
def _solve_nd(F: Any, g: Any, needs: tuple, input: Any, out: Any) -> tuple:
    g_other = F.solve_nd(F.transpose(input, -2, -1), g)
    return -F.matmul_nd(g_other, F.transpose(out, -2, -1)) if needs[0] else None, g_other


@primitive
def solve_triangular_left(xp, input: Array, other: Array, upper: bool, unitriangular: bool = False):
    """The solution X of input X = other, where only one triangle of input counts; infinite where that is singular."""
    A, B = _over_one_batch(xp, input, other)
    if B.size == 0:
        return xp.zeros(B.shape, B.dtype)
    if xp is not numpy:
        return arrays.scipy_linalg(xp).solve_triangular(A, B, lower=not upper, unit_diagonal=unitriangular)
    (trsm,) = arrays.scipy_linalg(xp).get_blas_funcs(("trsm",), (A, B))
    out = numpy.empty(B.shape, B.dtype)
    for i in numpy.ndindex(A.shape[:-2]):
        out[i] = trsm(1.0, A[i], B[i], lower=not upper, diag=unitriangular)
    return out


@solve_triangular_left.joint_vjp
def _solve_triangular_left(
    F: Any, g: Any, needs: tuple, input: Any, out: Any, upper: bool, unitriangular: bool
) -> tuple:
    g_other = F.solve_triangular_left(F.transpose(input, -2, -1), g, not upper, unitriangular)
    if not needs[0]:
        return None, g_other
    g_input = -F.matmul_nd(g_other, F.transpose(out, -2, -1))
    return F.triu(g_input, int(unitriangular)) if upper else F.tril(g_input, -int(unitriangular)), g_other


@primitive
def inverse(xp, input: Array):
    """The inverse of square matrices."""
    return attempt(
        xp,
        "linalg.inv: The inversion could not be completed because the input matrix is singular",
        xp.linalg.inv,
        input,
    )


def _inverse_input(F: Any, g: Any, out: Any) -> Any:
    turned = F.transpose(out, -2, -1)
    return -product(F, turned, g, turned)


inverse.vjp(input=_inverse_input)


# -- systems -----------------------------------------------------------------------------------------------------------


def is_vector(A: Any, B: Any) -> bool:
    """Whether B is one right-hand side, or one for each matrix of the batch."""
    a, b = A.array.shape, B.array.shape
    return len(b) == 1 or (len(a) - 1 == len(b) and b == a[:-1])


@takes_out
def solve(A: Any, B: Any, *, left: bool = True) -> Any:
    """The solution X of A X = B, or of X A = B.

    Args:
        A: [..., n, n], invertible.
        B: [..., n, k], or [..., n] as one column for each matrix.
        left: False for X A = B, with B [..., k, n].

    Raises:
        LinAlgError: a matrix is singular.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.solve(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.ones(2))
        tensor([0.5000, 0.2500])
    """
    check_square(A, "linalg.solve")
    vector = is_vector(A, B)
    if vector and not left:
        raise RuntimeError("linalg.solve: Vector broadcasting of the left hand side is not supported for left=False")
    if vector:
        return shaping.squeeze(solve(A, shaping.unsqueeze(B, -1)), -1)
    _check_right_hand_side(A, B, left, "linalg.solve")
    return solve_nd(A, B) if left else _transposed(solve_nd(_transposed(A), _transposed(B)))


def _transposed(x: Any) -> Any:
    return shaping.transpose(x, -2, -1)


def _check_right_hand_side(A: Any, B: Any, left: bool, name: str) -> None:
    rows = B.array.shape[-2 if left else -1] if B.array.ndim > 1 else None
    if rows != A.array.shape[-1]:
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
            f"({list(A.array.shape)} and {list(B.array.shape)})"
        )
    if A.array.dtype != B.array.dtype:
        found = dtypes.of(A.array.dtype).name, dtypes.of(B.array.dtype).name
        raise RuntimeError(f"{name}: Expected A and B to have the same dtype, but found {found[0]} and {found[1]}")


_SolveEx = return_type("linalg_solve_ex", "result", "info")
_InvEx = return_type("linalg_inv_ex", "inverse", "info")
_CholeskyEx = return_type("linalg_cholesky_ex", "L", "info")


def _regular(A: Any, name: str, check_errors: bool) -> tuple[Any, Any]:
    """The matrices, the identity for singular ones, and `info`: where the LU decomposition meets the first zero."""
    info = decompositions.lu_packed(A.detach()).info
    if not info.array.any():
        return A, info
    if check_errors:
        raise LinAlgError(f"{name}: an input matrix is singular; info is {info.tolist()}")
    xp = arrays.module_of(A.array)
    singular = box((info.array != 0)[..., None, None])
    return ar.where(singular, box(xp.eye(A.array.shape[-1], dtype=A.array.dtype)), A), info


@takes_out
def solve_ex(A: Any, B: Any, *, left: bool = True, check_errors: bool = False) -> Any:
    """`solve` that does not raise: `info` is not 0 for singular matrices, and their solutions mean nothing."""
    check_square(A, "linalg.solve_ex")
    vector = is_vector(A, B)
    A, info = _regular(A, "linalg.solve_ex", check_errors)
    solution = solve(A, shaping.unsqueeze(B, -1) if vector else B, left=left)
    return _SolveEx(shaping.squeeze(solution, -1) if vector else solution, info)


@takes_out
def inv(A: Any) -> Any:
    """The inverse of square matrices.

    Args:
        A: [..., n, n].

    Raises:
        LinAlgError: a matrix is singular.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.inv(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
        tensor([[0.5000, 0.0000],
                [0.0000, 0.2500]])
    """
    check_square(A, "linalg.inv")
    return inverse(A)


@takes_out
def inv_ex(A: Any, *, check_errors: bool = False) -> Any:
    """`inv` that does not raise: `info` is not 0 for singular matrices, and their inverses mean nothing."""
    check_square(A, "linalg.inv_ex")
    A, info = _regular(A, "linalg.inv_ex", check_errors)
    return _InvEx(inverse(A), info)


@takes_out
def cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False) -> Any:
    """`cholesky` that does not raise: `info` is the order of the first leading minor that is not positive, or 0."""
    check_square(A, "linalg.cholesky_ex")
    array = A.array
    xp = arrays.module_of(array)
    info = xp.zeros(array.shape[:-2], numpy.int32)
    try:
        return _CholeskyEx(decompositions.cholesky(A, upper=upper), box(info))
    except LinAlgError:
        if check_errors:
            raise
    read = xp.conj(array).swapaxes(-2, -1) if upper else array
    for i in numpy.ndindex(array.shape[:-2]):
        info[i] = _first_bad_minor(read[i])
    identity = box(xp.eye(array.shape[-1], dtype=array.dtype))
    safe = ar.where(box((info != 0)[..., None, None]), identity, A)
    return _CholeskyEx(decompositions.cholesky(safe, upper=upper), box(info))


def _first_bad_minor(matrix: Array) -> int:
    for order in range(1, len(matrix) + 1):
        try:
            decompositions.cholesky_factor(box(matrix[:order, :order]), False)
        except LinAlgError:
            return order
    return 0


@takes_out
def solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """The solution X of A X = B for a triangular A, of which only that triangle is read.

    Args:
        A: [..., n, n].
        B: [..., n, k].
        upper: which triangle.
        left: False for X A = B, with B [..., k, n].
        unitriangular: take the diagonal for ones.

    Example:
        >>> import paceline as torch
        >>> A = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
        >>> torch.linalg.solve_triangular(A, torch.ones(2, 1), upper=False)
        tensor([[0.5000],
                [0.5000]])
    """
    check_square(A, "linalg.solve_triangular")
    _check_right_hand_side(A, B, left, "linalg.solve_triangular")
    if left:
        return solve_triangular_left(A, B, upper, unitriangular)
    return _transposed(solve_triangular_left(_transposed(A), _transposed(B), not upper, unitriangular))


_TriangularSolve = return_type("triangular_solve", "solution", "cloned_coefficient")


@takes_out
def triangular_solve(
    b: Any, A: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    """torch.triangular_solve, the older form of `linalg.solve_triangular`; transpose solves A^T X = b."""
    matrix = _transposed(A) if transpose else A
    solution = solve_triangular(matrix, b, upper=upper != transpose, unitriangular=unitriangular)
    return _TriangularSolve(solution, shaping.clone(A))


@takes_out
def cholesky_solve(B: Any, L: Any, upper: bool = False) -> Any:
    """The solution X of (L L^H) X = B, or of (L^H L) X = B if upper, from a Cholesky factor."""
    check_square(L, "cholesky_solve")
    _check_right_hand_side(L, B, True, "cholesky_solve")
    lower = mH(L) if upper else L
    return solve_triangular_left(mH(lower), solve_triangular_left(lower, B, False), True)


@takes_out
def cholesky_inverse(L: Any, upper: bool = False) -> Any:
    """The inverse of L L^H, or of L^H L if upper, from a Cholesky factor."""
    check_square(L, "cholesky_inverse")
    xp = arrays.module_of(L.array)
    return cholesky_solve(box(xp.eye(L.array.shape[-1], dtype=L.array.dtype)), L, upper)


@takes_out
def lu_solve(LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False) -> Any:
    """The solution X of A X = B from `lu_factor(A)`; of X A = B if not left, of A^H X = B if adjoint."""
    check_square(LU, "linalg.lu_solve")
    _check_right_hand_side(LU, B, left, "linalg.lu_solve")
    if not left:
        return mH(lu_solve(LU, pivots, mH(B), adjoint=not adjoint))
    P = decompositions.permutation_matrix(pivots, LU.array.shape[-1], dtypes.of(LU.array.dtype))
    if adjoint:
        X = solve_triangular_left(mH(LU), solve_triangular_left(mH(LU), B, False), True, True)
        return linalg.matmul_nd(P, X)
    X = solve_triangular_left(LU, linalg.matmul_nd(_transposed(P), B), False, True)
    return solve_triangular_left(LU, X, True)


@takes_out
def lu_solve_from(b: Any, LU_data: Any, LU_pivots: Any) -> Any:
    """torch.lu_solve: `linalg.lu_solve` with the right-hand side first."""
    return lu_solve(LU_data, LU_pivots, b)
