"""Orthogonal polynomials, by the three-term recurrences that define them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...runtime.arrays import Array


def _chebyshev(first: tuple[float, float]) -> Callable:
    """P_1 differs from kind to kind, what follows is P_{k+1} = 2 x P_k - P_{k-1}."""
    return lambda k: (*first, 0) if k == 0 else (2, 0, 1)


def _shifted(recurrence: Callable) -> Callable:
    """The same polynomials of 2x - 1."""

    def of(k: int) -> tuple:
        a, b, c = recurrence(k)
        return 2 * a, b - a, c

    return of


# family -> (a, b, c) of P_{k+1} = (a x + b) P_k - c P_{k-1}, as a function of k; P_0 = 1
_RECURRENCES: dict[str, Callable[[int], tuple]] = {
    "chebyshev_t": _chebyshev((1, 0)),
    "chebyshev_u": _chebyshev((2, 0)),
    "chebyshev_v": _chebyshev((2, -1)),
    "chebyshev_w": _chebyshev((2, 1)),
    "hermite_h": lambda k: (2, 0, 2 * k),
    "hermite_he": lambda k: (1, 0, k),
    "laguerre_l": lambda k: (-1 / (k + 1), (2 * k + 1) / (k + 1), k / (k + 1)),
    "legendre_p": lambda k: ((2 * k + 1) / (k + 1), 0, k / (k + 1)),
}
_RECURRENCES |= {f"shifted_{name}": _shifted(of) for name, of in _RECURRENCES.items() if name.startswith("chebyshev")}


@primitive(promote="float")
def orthogonal_polynomial(xp, input: Array, n: Array, family: str, derivative: int = 0):
    """The polynomial of degree n of a family, or its derivative of some order; degrees below 0 give 0.

    The derivatives of orders up to m of one degree follow from those of the two degrees before:
    P_{k+1}^(m) = (a x + b) P_k^(m) + m a P_k^(m-1) - c P_{k-1}^(m).
    """
    dtype = getattr(input, "dtype", None) or n.dtype  # either may be a number
    input, n = xp.broadcast_arrays(xp.asarray(input, dtype), xp.trunc(xp.asarray(n, dtype)))
    zeros = xp.zeros_like(input)
    older = [zeros] * (derivative + 1)
    newer = [xp.ones_like(input)] + [zeros] * derivative
    out = zeros
    for k in range(int(n.max()) + 1 if n.size else 0):
        out = xp.where(xp.equal(n, k), newer[-1], out)
        a, b, c = _RECURRENCES[family](k)
        factor = a * input + b
        following = [factor * p - c * q for p, q in zip(newer, older, strict=True)]
        for m in range(1, derivative + 1):
            following[m] = following[m] + m * a * newer[m - 1]
        older, newer = newer, following
    return out


orthogonal_polynomial.vjp(
    input=lambda F, g, input, n, family, derivative: g * F.orthogonal_polynomial(input, n, family, derivative + 1)
)


@takes_out
def chebyshev_polynomial_t(input: Any, n: Any) -> Any:
    """The Chebyshev polynomial of the first kind T_n(input).

    Example:
        >>> import paceline as torch
        >>> torch.special.chebyshev_polynomial_t(torch.tensor([0.5, 1.0]), 2)
        tensor([-0.5000,  1.0000])
    """
    return orthogonal_polynomial(input, n, "chebyshev_t")


@takes_out
def chebyshev_polynomial_u(input: Any, n: Any) -> Any:
    """The Chebyshev polynomial of the second kind U_n(input)."""
    return orthogonal_polynomial(input, n, "chebyshev_u")


@takes_out
def chebyshev_polynomial_v(input: Any, n: Any) -> Any:
    """The Chebyshev polynomial of the third kind V_n(input)."""
    return orthogonal_polynomial(input, n, "chebyshev_v")


@takes_out
def chebyshev_polynomial_w(input: Any, n: Any) -> Any:
    """The Chebyshev polynomial of the fourth kind W_n(input)."""
    return orthogonal_polynomial(input, n, "chebyshev_w")


@takes_out
def shifted_chebyshev_polynomial_t(input: Any, n: Any) -> Any:
    """T_n(2 * input - 1)."""
    return orthogonal_polynomial(input, n, "shifted_chebyshev_t")


@takes_out
def shifted_chebyshev_polynomial_u(input: Any, n: Any) -> Any:
    """U_n(2 * input - 1)."""
    return orthogonal_polynomial(input, n, "shifted_chebyshev_u")


@takes_out
def shifted_chebyshev_polynomial_v(input: Any, n: Any) -> Any:
    """V_n(2 * input - 1)."""
    return orthogonal_polynomial(input, n, "shifted_chebyshev_v")


@takes_out
def shifted_chebyshev_polynomial_w(input: Any, n: Any) -> Any:
    """W_n(2 * input - 1)."""
    return orthogonal_polynomial(input, n, "shifted_chebyshev_w")


@takes_out
def hermite_polynomial_h(input: Any, n: Any) -> Any:
    """The physicist's Hermite polynomial H_n(input)."""
    return orthogonal_polynomial(input, n, "hermite_h")


@takes_out
def hermite_polynomial_he(input: Any, n: Any) -> Any:
    """The probabilist's Hermite polynomial He_n(input)."""
    return orthogonal_polynomial(input, n, "hermite_he")


@takes_out
def laguerre_polynomial_l(input: Any, n: Any) -> Any:
    """The Laguerre polynomial L_n(input)."""
    return orthogonal_polynomial(input, n, "laguerre_l")


@takes_out
def legendre_polynomial_p(input: Any, n: Any) -> Any:
    """The Legendre polynomial P_n(input)."""
    return orthogonal_polynomial(input, n, "legendre_p")
