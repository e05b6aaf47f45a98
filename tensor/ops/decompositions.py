"""Matrix decompositions into triangular factors: Cholesky, QR, LU, LDL.

The derivatives are the published ones: Giles, "Collected matrix derivative results for forward and reverse mode
algorithmic differentiation" (2008); Seeger et al., "Auto-differentiating linear algebra" (2017).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.return_types import return_type
from ...autograd.variable import box
from ...runtime import arrays, dtypes
from ...runtime.arrays import Array
from . import arithmetic as ar
from . import linalg, shaping, triangles
from .matrices import (
    LinAlgError,
    adjoint,
    attempt,
    check_matrix,
    check_square,
    conjugate,
    identity,
    mH,
    on_diagonal,
    product,
)

# -- Cholesky ----------------------------------------------------------------------------------------------------------


@primitive(holomorphic=False)
def cholesky_factor(xp, input: Array, upper: bool):
    """The factor L of input = L L^H or U of U^H U; only the factor's triangle of the input is read."""
    why = "linalg.cholesky: The factorization could not be completed because the input is not positive-definite"
    lower = attempt(xp, why, xp.linalg.cholesky, xp.conj(input).swapaxes(-2, -1) if upper else input)
    return xp.conj(lower).swapaxes(-2, -1) if upper else lower


def _cholesky_input(F: Any, g: Any, out: Any, upper: bool) -> Any:
    g, upper = (adjoint(F, g), out) if upper else (g, adjoint(F, out))
    inner = F.tril(product(F, upper, g))
    inner = (inner + adjoint(F, F.tril(inner, -1))) * 0.5
    left = F.solve_triangular_left(upper, inner, True)
    return adjoint(F, F.solve_triangular_left(upper, adjoint(F, left), True))


cholesky_factor.vjp(input=_cholesky_input)


@takes_out
def cholesky(A: Any, *, upper: bool = False) -> Any:
    """The triangular factor of a Hermitian positive-definite matrix: A = L L^H, or U^H U if upper.

    Args:
        A: [..., n, n]; only the triangle of the factor is read.
        upper: whether to return the upper factor.

    Raises:
        LinAlgError: a matrix is not positive-definite.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.cholesky(torch.tensor([[4.0, 2.0], [2.0, 5.0]]))
        tensor([[2., 0.],
                [1., 2.]])
    """
    check_square(A, "linalg.cholesky")
    return cholesky_factor(A, upper)


@takes_out
def cholesky_of(input: Any, upper: bool = False) -> Any:
    """torch.cholesky, the older form of `linalg.cholesky`."""
    return cholesky(input, upper=upper)


# -- QR ----------------------------------------------------------------------------------------------------------------


@primitive(outputs=("Q", "R"))
def qr_factors(xp, input: Array, mode: str):
    """The factors of input = Q R for at least as many rows as columns; mode is NumPy's."""
    if mode != "r":
        return tuple(xp.linalg.qr(input, mode))
    return xp.zeros((0,), input.dtype), xp.linalg.qr(input, mode)


@qr_factors.joint_vjp
def _qr_factors(F: Any, g: tuple, needs: tuple, Q: Any, R: Any, mode: str) -> tuple:
    gQ, gR = g
    if mode == "r":
        raise RuntimeError(
            "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Use mode='reduced'."
        )
    if Q.shape[-1] != R.shape[-1]:
        raise RuntimeError(
            "The QR decomposition is not differentiable when mode='complete' and nrows > ncols; use mode='reduced'."
        )
    inner = F.triu(product(F, gR, adjoint(F, R)) - product(F, adjoint(F, Q), gQ))
    inner = inner + adjoint(F, inner)
    inner = F.where(on_diagonal(F, inner), inner * 0.5, inner)
    total = gQ + product(F, Q, inner)
    return (adjoint(F, F.solve_triangular_left(R, adjoint(F, total), True)),)


_QR = return_type("linalg_qr", "Q", "R")


@takes_out
def qr(A: Any, mode: str = "reduced") -> Any:
    """The QR decomposition A = Q R: Q with orthonormal columns, R upper triangular.

    Args:
        A: [..., m, n].
        mode: "reduced" (Q is [..., m, k] with k = min(m, n)), "complete" (Q is [..., m, m]) or "r" (Q is empty).

    Example:
        >>> import paceline as torch
        >>> Q, R = torch.linalg.qr(torch.tensor([[3.0, 1.0], [4.0, 2.0]]))
        >>> torch.allclose(Q @ R, torch.tensor([[3.0, 1.0], [4.0, 2.0]]))
        True
    """
    check_matrix(A, "linalg.qr")
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced', 'r', or 'complete'")
    rows, columns = A.array.shape[-2:]
    if columns <= rows or mode == "r":
        return _QR(*qr_factors(A, mode))
    # the reflections are those of the first columns
    Q, R = qr_factors(shaping.narrow(A, -1, 0, rows), "reduced")
    rest = linalg.matmul_nd(mH(Q), shaping.narrow(A, -1, rows, columns - rows))
    return _QR(Q, shaping.cat([R, rest], -1))


@takes_out
def qr_reduced(input: Any, some: bool = True) -> Any:
    """torch.qr, the older form of `linalg.qr`; complete if not `some`."""
    return qr(input, "reduced" if some else "complete")


@primitive(outputs=("a", "tau"))
def geqrf(xp, input: Array):
    """The reflections of a QR decomposition as LAPACK packs them: R above, the vectors below the diagonal, and tau."""
    packed, tau = xp.linalg.qr(input, "raw")
    return xp.swapaxes(packed, -2, -1), tau


# -- LU ----------------------------------------------------------------------------------------------------------------


@primitive(outputs=("LU", "pivots", "info"))
def lu_packed(xp, input: Array):
    """L (below the diagonal, its own is 1) and U of a row exchanged input, the exchanges from 1 up, and the place of
    the first zero on U's diagonal (0 if there is none)."""
    rows, columns = input.shape[-2:]
    k = min(rows, columns)
    packed = xp.empty(input.shape, input.dtype)
    pivots = xp.empty((*input.shape[:-2], k), numpy.int32)
    for i in numpy.ndindex(input.shape[:-2] if input.size else (0,)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a singular matrix: `info` says so
            packed[i], pivots[i] = arrays.scipy_linalg(xp).lu_factor(input[i], check_finite=False)
    zero = xp.diagonal(packed, 0, -2, -1) == 0
    info = xp.where(zero.any(-1), zero.argmax(-1) + 1, 0) if k else xp.zeros(input.shape[:-2])
    return packed, pivots + 1 if k else pivots, info.astype(numpy.int32)


@lu_packed.joint_vjp
def _lu_packed(F: Any, g: tuple, needs: tuple, LU: Any, pivots: Any) -> tuple:
    """The square part by the rule for L U, after what flows back from the rest: L2 = B2 / U1, U2 = L1 \\ B2."""
    rows, columns = LU.shape[-2:]
    k = min(rows, columns)

    def split(x: Any) -> tuple:
        top = F.narrow(x, -2, 0, k)
        return F.narrow(top, -1, 0, k), F.narrow(x, -2, k, rows - k), F.narrow(top, -1, k, columns - k)

    square, low, right = (conjugate(F, x) for x in split(LU))
    g_square, g_low, g_right = split(g[0])
    square_t = F.transpose(square, -2, -1)

    def over_upper(x: Any) -> Any:
        return F.transpose(F.solve_triangular_left(square, F.transpose(x, -2, -1), True), -2, -1)

    if columns > rows:
        g_right = F.solve_triangular_left(square_t, g_right, True, True)
        g_square = g_square - F.tril(product(F, g_right, F.transpose(right, -2, -1)), -1)
    if rows > columns:
        g_low = over_upper(g_low)
        g_square = g_square - F.triu(product(F, F.transpose(low, -2, -1), g_low))
    lower_t = F.triu(square_t, 1) + identity(F, square)
    inner = F.tril(product(F, lower_t, F.tril(g_square, -1)), -1)
    inner = inner + F.triu(product(F, F.triu(g_square), F.tril(square_t)))
    gradient = over_upper(F.solve_triangular_left(square_t, inner, True, True))
    if columns > rows:
        gradient = F.cat([gradient, g_right], -1)
    if rows > columns:
        gradient = F.cat([gradient, g_low], -2)
    return (product(F, F.permutation_matrix(pivots, rows, dtypes.of(LU.dtype)), gradient),)


@primitive
def permutation_matrix(xp, pivots: Array, rows: int, dtype: dtypes.dtype):
    """The matrix P with input = P L U, from the row exchanges that led to L U."""
    flat = pivots.reshape(math.prod(pivots.shape[:-1]), pivots.shape[-1])
    order = xp.arange(rows) + xp.zeros((len(flat), 1), numpy.int64)
    lines = xp.arange(len(flat))
    for i in range(pivots.shape[-1]):
        other = flat[:, i] - 1
        order[lines, i], order[lines, other] = order[lines, other], order[lines, i]
    matrix = xp.eye(rows, dtype=dtype.numpy)[order].swapaxes(-2, -1)
    return matrix.reshape(*pivots.shape[:-1], rows, rows)


_LUFactor = return_type("linalg_lu_factor", "LU", "pivots")
_LUFactorEx = return_type("linalg_lu_factor_ex", "LU", "pivots", "info")
_LU = return_type("linalg_lu", "P", "L", "U")


def _check_pivoting(pivot: bool, name: str) -> None:
    if not pivot:
        raise NotImplementedError(f"{name}: LU without pivoting is not implemented; use pivot=True")


@takes_out
def lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """`lu_factor` with a third result `info`: 0, or the place i from 1 up where U[i, i] is the first that is 0."""
    check_matrix(A, "linalg.lu_factor_ex")
    _check_pivoting(pivot, "linalg.lu_factor_ex")
    result = lu_packed(A)
    if check_errors and result.info.array.any():
        raise LinAlgError(
            f"linalg.lu_factor: U has a zero on its diagonal at {result.info.tolist()} (from 1 up, 0 for none), so "
            "that lu_solve would divide by it. Use linalg.lu or linalg.lu_factor_ex to have the factors anyway."
        )
    return _LUFactorEx(*result)


@takes_out
def lu_factor(A: Any, *, pivot: bool = True) -> Any:
    """The LU decomposition with exchanged rows in the compact form that `lu_solve` takes.

    Args:
        A: [..., m, n].

    Returns:
        (LU, pivots): L without its diagonal of ones below U in one matrix, and int32 [..., min(m, n)]: step i exchanged
        the rows i and pivots[i], counted from 1.

    Raises:
        LinAlgError: a matrix is singular.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.lu_factor(torch.tensor([[1.0, 2.0], [4.0, 4.0]])).LU
        tensor([[4.0000, 4.0000],
                [0.2500, 1.0000]])
    """
    return _LUFactor(*lu_factor_ex(A, pivot=pivot, check_errors=True)[:2])


@takes_out
def lu_compact(A: Any, pivot: bool = True, get_infos: bool = False) -> tuple:
    """torch.lu, the older form of `linalg.lu_factor`; with `info` as third result if get_infos."""
    result = lu_factor_ex(A, pivot=pivot)
    return tuple(result) if get_infos else tuple(result[:2])


@takes_out
def lu(A: Any, *, pivot: bool = True) -> Any:
    """The decomposition A = P L U: a permutation, a lower triangle with ones on its diagonal, an upper triangle."""
    check_matrix(A, "linalg.lu")
    _check_pivoting(pivot, "linalg.lu")
    return lu_unpack(*lu_packed(A)[:2])


@takes_out
def lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """P, L and U from the compact form of `lu_factor`; what is not asked for comes out empty."""
    rows, columns = LU_data.array.shape[-2:]
    k = min(rows, columns)
    P, L, U = (box(arrays.module_of(LU_data.array).zeros((0,), LU_data.array.dtype)) for _ in range(3))
    if unpack_pivots:
        P = permutation_matrix(LU_pivots, rows, dtypes.of(LU_data.array.dtype))
    if unpack_data:
        ones = box(arrays.module_of(LU_data.array).eye(rows, k, dtype=LU_data.array.dtype))
        L = ar.add(triangles.tril(shaping.narrow(LU_data, -1, 0, k), -1), ones)
        U = triangles.triu(shaping.narrow(LU_data, -2, 0, k))
    return _LU(P, L, U)


# -- LDL ---------------------------------------------------------------------------------------------------------------


def _lapack(xp: Any, name: str, like: Array) -> Any:
    """A LAPACK routine for the dtype of an array."""
    if xp is not numpy:
        raise NotImplementedError("linalg.ldl_factor and ldl_solve run on the CPU only; move the tensor with .cpu()")
    return arrays.scipy_linalg(xp).get_lapack_funcs((name,), (like,))[0]


@primitive(outputs=("LD", "pivots", "info"))
def ldl_packed(xp, input: Array, hermitian: bool):
    """The factors L D L^T (or L D L^H) as LAPACK packs them, its exchanges, and the first zero block of D."""
    factor = _lapack(xp, "hetrf" if hermitian and input.dtype.kind == "c" else "sytrf", input)
    packed = xp.empty(input.shape, input.dtype)
    pivots = xp.empty(input.shape[:-1], numpy.int32)
    info = xp.zeros(input.shape[:-2], numpy.int32)
    for i in numpy.ndindex(input.shape[:-2] if input.size else (0,)):
        packed[i], pivots[i], info[i] = factor(input[i], lower=1)
    return xp.tril(packed), pivots, info


@primitive
def ldl_solve_packed(xp, LD: Array, pivots: Array, B: Array, hermitian: bool):
    """The solution X of (L D L^T) X = B."""
    solve = _lapack(xp, "hetrs" if hermitian and LD.dtype.kind == "c" else "sytrs", LD)
    batch = numpy.broadcast_shapes(LD.shape[:-2], B.shape[:-2])
    LD, pivots = xp.broadcast_to(LD, (*batch, *LD.shape[-2:])), xp.broadcast_to(pivots, (*batch, LD.shape[-1]))
    out = xp.array(xp.broadcast_to(B, (*batch, *B.shape[-2:])))
    for i in numpy.ndindex(batch if out.size else (0,)):
        out[i] = solve(LD[i], pivots[i], out[i], lower=1)[0]
    return out


def _ldl_solve_b(F: Any, g: Any, LD: Any, pivots: Any, hermitian: bool) -> Any:
    """The matrix is its own transpose, or for complex Hermitian ones the transpose is the conjugate."""
    if not hermitian:
        return F.ldl_solve_packed(LD, pivots, g, hermitian)
    return conjugate(F, F.ldl_solve_packed(LD, pivots, conjugate(F, g), hermitian))


ldl_solve_packed.vjp(B=_ldl_solve_b)

_LDLFactor = return_type("linalg_ldl_factor", "LD", "pivots")
_LDLFactorEx = return_type("linalg_ldl_factor_ex", "LD", "pivots", "info")


@takes_out
def ldl_factor_ex(A: Any, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    """`ldl_factor` with a third result `info`: 0, or the place from 1 up of the first zero block of D."""
    check_square(A, "linalg.ldl_factor_ex")
    result = ldl_packed(A.detach(), hermitian)
    if check_errors and result.info.array.any():
        raise LinAlgError(f"linalg.ldl_factor_ex: D is singular; info is {result.info.tolist()}")
    return _LDLFactorEx(*result)


@takes_out
def ldl_factor(A: Any, *, hermitian: bool = False) -> Any:
    """The decomposition of a symmetric (or Hermitian) matrix, A = L D L^T, in LAPACK's compact form for `ldl_solve`."""
    return _LDLFactor(*ldl_factor_ex(A, hermitian=hermitian)[:2])


@takes_out
def ldl_solve(LD: Any, pivots: Any, B: Any, *, hermitian: bool = False) -> Any:
    """The solution X of A X = B from the factors of `ldl_factor(A)`."""
    return ldl_solve_packed(LD, pivots, B, hermitian)
