"""Determinants."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.return_types import return_type
from ...runtime.arrays import Array
from . import arithmetic as ar
from . import pointwise as pw
from .matrices import (
    adjoint,
    as_columns,
    as_diagonal,
    attempt,
    check_square,
    conjugate,
    diagonal_of,
    is_complex,
    on_diagonal,
    product,
)


@primitive
def determinant(xp, input: Array):
    """The determinant of square matrices."""
    return xp.linalg.det(input)


determinant.vjp(input=lambda F, g, input: as_columns(F, as_columns(F, g)) * F.cofactors(input))


@primitive
def cofactors(xp, input: Array):
    """The derivative of the determinant by the elements, det(A) A^-T, right for singular matrices too."""
    U, S, Vh = attempt(xp, "linalg.det: the singular values did not converge", xp.linalg.svd, input)
    n = S.shape[-1]
    others = xp.where(xp.eye(n, dtype=bool), 1, S[..., None, :]).prod(-1)  # products of all other singular values
    sign = xp.linalg.det(U) * xp.linalg.det(Vh)
    return sign[..., None, None] * xp.matmul(xp.conj(U) * others[..., None, :], xp.conj(Vh))


def _cofactors_input(F: Any, g: Any, input: Any) -> Any:
    """In the basis of the singular vectors the matrix is diagonal, so only products that leave out two values occur."""
    U, S, Vh = F.svd_factors(input, True)
    n, ndim = S.shape[-1], len(S.shape)
    spread = F.expand(F.reshape(S, (*S.shape[:-1], 1, 1, n)), (*S.shape[:-1], n, n, n))
    left_out = F.unsqueeze(F.identity_like(S, n, ndim, ndim - 1), -2)
    left_out = F.logical_or(left_out, F.transpose(left_out, -3, -2))
    pairs = F.prod(F.where(left_out, F.ones_like(spread), spread), -1)
    pairs = F.where(on_diagonal(F, pairs), F.zeros_like(pairs), pairs)
    weights = product(F, adjoint(F, U), g, adjoint(F, Vh))
    sums = F.sum(pairs * as_columns(F, diagonal_of(F, weights)), -2)
    inner = as_diagonal(F, sums) - F.transpose(pairs * weights, -2, -1)
    sign = F.determinant(U) * F.determinant(Vh)
    return as_columns(F, as_columns(F, sign)) * product(F, conjugate(F, U), inner, conjugate(F, Vh))


cofactors.vjp(input=_cofactors_input)


@primitive(outputs=("sign", "logabsdet"))
def log_determinant(xp, input: Array):
    """The sign and the logarithm of the size of the determinant."""
    sign, size = xp.linalg.slogdet(input)
    return xp.asarray(sign, input.dtype), size


@log_determinant.joint_vjp
def _log_determinant(F: Any, g: tuple, needs: tuple, input: Any, sign: Any) -> tuple:
    total = g[1]
    if is_complex(sign):
        turn = F.conj(sign) * g[0]
        total = total + (turn - F.conj(turn)) * 0.5  # i times the imaginary part: what turns the phase
    return (as_columns(F, as_columns(F, total)) * adjoint(F, F.inverse(input)),)


_SLogDet = return_type("linalg_slogdet", "sign", "logabsdet")


@takes_out
def det(A: Any) -> Any:
    """The determinant of square matrices [..., n, n].

    Example:
        >>> import paceline as torch
        >>> torch.linalg.det(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
        tensor(8.)
    """
    check_square(A, "linalg.det")
    return determinant(A)


@takes_out
def slogdet(A: Any) -> Any:
    """The sign (for complex matrices the phase) and the logarithm of the size of the determinant, without overflow.

    Args:
        A: [..., n, n].

    Returns:
        (sign, logabsdet) with det(A) = sign * exp(logabsdet); logabsdet is real, -inf for singular matrices.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.slogdet(torch.eye(2)).logabsdet
        tensor(0.)
    """
    check_square(A, "linalg.slogdet")
    return _SLogDet(*log_determinant(A))


def logdet(input: Any) -> Any:
    """The logarithm of the determinant; nan where that of a real matrix is negative."""
    check_square(input, "logdet")
    sign, size = log_determinant(input)
    if is_complex(input):
        return ar.add(pw.log(sign), size)
    return ar.where(ar.eq(sign, -1), math.nan, size)
