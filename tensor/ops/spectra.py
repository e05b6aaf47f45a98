"""Eigenvalues and singular values.

Vectors are determined only up to a sign or a phase, and up to a rotation where values are equal: the derivatives hold
for losses that do not depend on that choice. Formulas: Giles, "Collected matrix derivative results" (2008); for
complex vectors Wan and Zhang, "Automatic differentiation for complex valued SVD" (2019).
"""

from __future__ import annotations

from typing import Any

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.return_types import return_type
from ...autograd.variable import box
from ...runtime import arrays
from ...runtime.arrays import Array
from . import rounding
from .matrices import (
    adjoint,
    as_columns,
    as_diagonal,
    as_rows,
    attempt,
    check_matrix,
    check_square,
    coupling,
    diagonal_of,
    is_complex,
    like_input,
    mH,
    product,
    quotient,
)

_NO_EIGENVALUES = (
    "{}: The algorithm failed to converge because the input matrix is ill-conditioned or has too many repeated "
    "eigenvalues"
)
_NO_SINGULAR_VALUES = (
    "linalg.svd: The algorithm failed to converge because the input matrix contained non-finite values or is "
    "ill-conditioned"
)

# -- of Hermitian matrices ---------------------------------------------------------------------------------------------


@primitive(outputs=("eigenvalues", "eigenvectors"))
def eigh_factors(xp, input: Array, UPLO: str):
    """Eigenvalues in ascending order and eigenvectors of Hermitian matrices, of which one triangle is read."""
    return tuple(attempt(xp, _NO_EIGENVALUES.format("linalg.eigh"), xp.linalg.eigh, input, UPLO))


@eigh_factors.joint_vjp
def _eigh_factors(F: Any, g: tuple, needs: tuple, eigenvalues: Any, eigenvectors: Any) -> tuple:
    values, V = eigenvalues, eigenvectors
    turned = product(F, adjoint(F, V), g[1])
    turned = (turned - adjoint(F, turned)) * 0.5  # unitary matrices turn by skew-Hermitian ones
    inner = coupling(F, turned, values) + as_diagonal(F, g[0])
    return (product(F, V, inner, adjoint(F, V)),)


@primitive(holomorphic=False)
def eigenvalues_of_hermitian(xp, input: Array, UPLO: str):
    """The eigenvalues alone."""
    return attempt(xp, _NO_EIGENVALUES.format("linalg.eigvalsh"), xp.linalg.eigvalsh, input, UPLO)


def _eigvalsh_input(F: Any, g: Any, input: Any, UPLO: str) -> Any:
    V = F.eigh_factors(input, UPLO)[1]
    return product(F, V * as_rows(F, g), adjoint(F, V))


eigenvalues_of_hermitian.vjp(input=_eigvalsh_input)

_Eigh = return_type("linalg_eigh", "eigenvalues", "eigenvectors")


def _check_hermitian(A: Any, UPLO: str, name: str) -> None:
    check_square(A, name)
    if UPLO not in ("L", "U", "l", "u"):
        raise RuntimeError(f"{name}: Expected UPLO argument to be 'L' or 'U', but got {UPLO}")


@takes_out
def eigh(A: Any, UPLO: str = "L") -> Any:
    """The eigenvalue decomposition of Hermitian matrices: A = V diag(w) V^H.

    Args:
        A: [..., n, n], real symmetric or complex Hermitian.
        UPLO: the triangle that is read, "L" or "U".

    Returns:
        (eigenvalues, eigenvectors): real [..., n] in ascending order, and [..., n, n] with the vectors as columns.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.eigh(torch.tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues
        tensor([1., 2.])
    """
    _check_hermitian(A, UPLO, "linalg.eigh")
    return _Eigh(*eigh_factors(A, UPLO.upper()))


@takes_out
def eigvalsh(A: Any, UPLO: str = "L") -> Any:
    """The eigenvalues of Hermitian matrices, ascending; see `eigh`."""
    _check_hermitian(A, UPLO, "linalg.eigvalsh")
    return eigenvalues_of_hermitian(A, UPLO.upper())


# -- of any square matrix ----------------------------------------------------------------------------------------------


def _as_complex(xp: Any, x: Array) -> Array:
    """NumPy gives real eigenvalues where all are."""
    return x if x.dtype.kind == "c" else x.astype(xp.result_type(x.dtype, xp.complex64))


@primitive(outputs=("eigenvalues", "eigenvectors"))
def eig_any(xp, input: Array):
    """Eigenvalues and eigenvectors of length 1, always complex."""
    values, vectors = attempt(xp, _NO_EIGENVALUES.format("linalg.eig"), xp.linalg.eig, input)
    return _as_complex(xp, values), _as_complex(xp, vectors)


@eig_any.joint_vjp
def _eig_any(F: Any, g: tuple, needs: tuple, input: Any, eigenvalues: Any, eigenvectors: Any) -> tuple:
    """The vectors keep their length: what would change it is taken out (Boeddeker et al., 2017)."""
    Vh = adjoint(F, eigenvectors)
    inner = product(F, Vh, g[1])
    along = diagonal_of(F, (inner + F.conj(inner)) * 0.5)
    inner = inner - product(F, Vh, eigenvectors) * as_rows(F, along)
    inner = coupling(F, inner, F.conj(eigenvalues)) + as_diagonal(F, g[0])
    return (like_input(F, F.solve_nd(Vh, product(F, inner, Vh)), input),)


@primitive(holomorphic=False)
def eigvals_any(xp, input: Array):
    """The eigenvalues alone, always complex."""
    return _as_complex(xp, attempt(xp, _NO_EIGENVALUES.format("linalg.eigvals"), xp.linalg.eigvals, input))


def _eigvals_input(F: Any, g: Any, input: Any) -> Any:
    Vh = adjoint(F, F.eig_any(input)[1])
    return like_input(F, F.solve_nd(Vh, as_columns(F, g) * Vh), input)


eigvals_any.vjp(input=_eigvals_input)

_Eig = return_type("linalg_eig", "eigenvalues", "eigenvectors")


def _check_finite(A: Any, name: str) -> None:
    check_square(A, name)
    if not bool(rounding.isfinite(A).array.all()):
        raise RuntimeError(f"{name}: input tensor should not contain infs or NaNs.")


@takes_out
def eig(A: Any) -> Any:
    """The eigenvalue decomposition of square matrices: A V = V diag(w).

    Args:
        A: [..., n, n].

    Returns:
        (eigenvalues, eigenvectors): complex [..., n] in no order, and [..., n, n] with vectors of length 1 as columns.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.eig(torch.tensor([[0.0, -1.0], [1.0, 0.0]])).eigenvalues
        tensor([0.+1.j, 0.-1.j])
    """
    _check_finite(A, "linalg.eig")
    return _Eig(*eig_any(A))


@takes_out
def eigvals(A: Any) -> Any:
    """The eigenvalues of square matrices, complex, in no order; see `eig`."""
    _check_finite(A, "linalg.eigvals")
    return eigvals_any(A)


# -- singular values ---------------------------------------------------------------------------------------------------


@primitive(outputs=("U", "S", "Vh"))
def svd_factors(xp, input: Array, full_matrices: bool):
    """input = U diag(S) Vh with S in descending order."""
    return tuple(attempt(xp, _NO_SINGULAR_VALUES, xp.linalg.svd, input, full_matrices))


@svd_factors.joint_vjp
def _svd_factors(F: Any, g: tuple, needs: tuple, U: Any, S: Any, Vh: Any) -> tuple:
    k = S.shape[-1]
    rows, columns = U.shape[-2], Vh.shape[-1]
    U, gU = F.narrow(U, -1, 0, k), F.narrow(g[0], -1, 0, k)
    Vh, gVh = F.narrow(Vh, -2, 0, k), F.narrow(g[2], -2, 0, k)
    turned_u, turned_v = product(F, adjoint(F, U), gU), product(F, Vh, adjoint(F, gVh))
    skew_u, skew_v = turned_u - adjoint(F, turned_u), turned_v - adjoint(F, turned_v)
    squares = S * S
    inner = coupling(F, skew_u, squares) * as_rows(F, S) + coupling(F, skew_v, squares) * as_columns(F, S)
    inner = inner + as_diagonal(F, g[1])
    if is_complex(U):
        inner = inner + as_diagonal(F, quotient(F, diagonal_of(F, skew_u), S * 2))
    gradient = product(F, U, inner, Vh)
    if rows > k:
        gradient = gradient + product(F, quotient(F, gU - product(F, U, turned_u), as_rows(F, S)), Vh)
    if columns > k:
        rest = gVh - product(F, adjoint(F, turned_v), Vh)
        gradient = gradient + product(F, U, quotient(F, rest, as_columns(F, S)))
    return (gradient,)


@primitive(holomorphic=False)
def singular_values(xp, input: Array):
    """The singular values alone."""
    return attempt(xp, _NO_SINGULAR_VALUES, xp.linalg.svd, input, compute_uv=False)


def _singular_values_input(F: Any, g: Any, input: Any) -> Any:
    U, _, Vh = F.svd_factors(input, False)
    return product(F, U * as_rows(F, g), Vh)


singular_values.vjp(input=_singular_values_input)

_SVD = return_type("linalg_svd", "U", "S", "Vh")
_LegacySVD = return_type("svd", "U", "S", "V")


@takes_out
def svd(A: Any, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """The singular value decomposition A = U diag(S) Vh.

    Args:
        A: [..., m, n].
        full_matrices: U is [..., m, m] and Vh [..., n, n] if True; else they have k = min(m, n) columns and rows.
        driver: accepted for PyTorch's sake; the library chooses.

    Returns:
        (U, S, Vh): S real, [..., k], descending.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.svd(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).S
        tensor([4., 3.])
    """
    check_matrix(A, "linalg.svd")
    return _SVD(*svd_factors(A, full_matrices))


@takes_out
def svdvals(A: Any, *, driver: str | None = None) -> Any:
    """The singular values of matrices, descending; see `svd`."""
    check_matrix(A, "linalg.svdvals")
    return singular_values(A)


@takes_out
def svd_with_v(input: Any, some: bool = True, compute_uv: bool = True) -> Any:
    """torch.svd, the older form: A = U diag(S) V^H, reduced if `some`; without vectors U and V are zeros."""
    check_matrix(input, "svd")
    if compute_uv:
        U, S, Vh = svd_factors(input, not some)
        return _LegacySVD(U, S, mH(Vh))
    rows, columns = input.array.shape[-2:]
    xp, batch = arrays.module_of(input.array), input.array.shape[:-2]
    U, V = (box(xp.zeros((*batch, n, n), input.array.dtype)) for n in (rows, columns))
    return _LegacySVD(U, singular_values(input), V)
