"""Bessel functions of integer order and the Airy function; the derivative of one order is made of its neighbours."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from .special import evaluate

floating = primitive(promote="float")


def _of_order(xp: ModuleType, n: int, input: Array, zeroth: str, first: str, general: str) -> Array:
    """A Bessel function by its SciPy names: orders 0 and 1 have faster functions of their own."""
    return evaluate(xp, zeroth if n == 0 else first, input) if n < 2 else evaluate(xp, general, n, input)


@floating
def bessel_j(xp, input: Array, n: int):
    """The Bessel function of the first kind J_n."""
    return _of_order(xp, n, input, "j0", "j1", "jn")


bessel_j.vjp(
    input=lambda F, g, input, n: -g * F.bessel_j(input, 1) if n == 0
    else g * (0.5 * (F.bessel_j(input, n - 1) - F.bessel_j(input, n + 1)))
)  # fmt: skip


@floating
def bessel_y(xp, input: Array, n: int):
    """The Bessel function of the second kind Y_n."""
    return _of_order(xp, n, input, "y0", "y1", "yn")


bessel_y.vjp(
    input=lambda F, g, input, n: -g * F.bessel_y(input, 1) if n == 0
    else g * (0.5 * (F.bessel_y(input, n - 1) - F.bessel_y(input, n + 1)))
)  # fmt: skip


@floating
def modified_bessel_i(xp, input: Array, n: int):
    """The modified Bessel function of the first kind I_n."""
    return _of_order(xp, n, input, "i0", "i1", "iv")


modified_bessel_i.vjp(
    input=lambda F, g, input, n: g * F.modified_bessel_i(input, 1) if n == 0
    else g * (0.5 * (F.modified_bessel_i(input, n - 1) + F.modified_bessel_i(input, n + 1)))
)  # fmt: skip


@floating
def modified_bessel_k(xp, input: Array, n: int):
    """The modified Bessel function of the second kind K_n."""
    return _of_order(xp, n, input, "k0", "k1", "kn")


modified_bessel_k.vjp(
    input=lambda F, g, input, n: -g * F.modified_bessel_k(input, 1) if n == 0
    else g * (-0.5 * (F.modified_bessel_k(input, n - 1) + F.modified_bessel_k(input, n + 1)))
)  # fmt: skip


@floating
def scaled_modified_bessel_i(xp, input: Array, n: int):
    """exp(-|input|) * I_n(input)."""
    return _of_order(xp, n, input, "i0e", "i1e", "ive")


def _scaled_i_input(F: Any, g: Any, input: Any, n: int, out: Any) -> Any:
    above = F.scaled_modified_bessel_i(input, n + 1)
    unscaled = above if n == 0 else 0.5 * (F.scaled_modified_bessel_i(input, n - 1) + above)
    return g * (unscaled - F.sign(input) * out)


scaled_modified_bessel_i.vjp(input=_scaled_i_input)


@floating
def scaled_modified_bessel_k(xp, input: Array, n: int):
    """exp(input) * K_n(input)."""
    return _of_order(xp, n, input, "k0e", "k1e", "kve")


def _scaled_k_input(F: Any, g: Any, input: Any, n: int, out: Any) -> Any:
    above = F.scaled_modified_bessel_k(input, n + 1)
    unscaled = above if n == 0 else 0.5 * (F.scaled_modified_bessel_k(input, n - 1) + above)
    return g * (out - unscaled)


scaled_modified_bessel_k.vjp(input=_scaled_k_input)


@floating
def spherical_bessel_j(xp, input: Array, n: int):
    """The spherical Bessel function of the first kind j_n; j_0(x) = sin(x) / x."""
    return evaluate(xp, "spherical_jn", n, input)


def _spherical_input(F: Any, g: Any, input: Any, n: int) -> Any:
    above = F.spherical_bessel_j(input, n + 1)
    if n == 0:
        return -g * above
    return g * ((n * F.spherical_bessel_j(input, n - 1) - (n + 1) * above) * (1 / (2 * n + 1)))


spherical_bessel_j.vjp(input=_spherical_input)


@floating
def sinc(xp, input: Array):
    """sin(pi * input) / (pi * input), 1 at 0."""
    zero = xp.equal(input, 0)
    angle = xp.where(zero, 1, input) * math.pi
    return xp.where(zero, 1, xp.sin(angle) / angle).astype(input.dtype, copy=False)


# through j_1, which unlike (cos - sinc) / input has no gap at 0
sinc.vjp(input=lambda F, g, input: g * (-math.pi * F.spherical_bessel_j(input * math.pi, 1)))


@floating
def airy(xp, input: Array, derivative: bool = False):
    """The Airy function Ai, or its derivative."""
    near = xp.minimum(input, 110)  # 0 from there on; SciPy has nan far out
    value = evaluate(xp, "airy", near, output=1 if derivative else 0)
    return xp.where(xp.isnan(input), input, value)


airy.vjp(
    input=lambda F, g, input, derivative: g * (input * F.airy(input) if derivative else F.airy(input, True))
)


# -- the orders that have names ----------------------------------------------------------------------------------------


@takes_out
def bessel_j0(input: Any) -> Any:
    """The Bessel function of the first kind of order 0."""
    return bessel_j(input, 0)


@takes_out
def bessel_j1(input: Any) -> Any:
    """The Bessel function of the first kind of order 1."""
    return bessel_j(input, 1)


@takes_out
def bessel_y0(input: Any) -> Any:
    """The Bessel function of the second kind of order 0."""
    return bessel_y(input, 0)


@takes_out
def bessel_y1(input: Any) -> Any:
    """The Bessel function of the second kind of order 1."""
    return bessel_y(input, 1)


@takes_out
def modified_bessel_i0(input: Any) -> Any:
    """The modified Bessel function of the first kind of order 0.

    Example:
        >>> import paceline as torch
        >>> torch.i0(torch.tensor([0.0, 1.0]))
        tensor([1.0000, 1.2661])
    """
    return modified_bessel_i(input, 0)


@takes_out
def modified_bessel_i1(input: Any) -> Any:
    """The modified Bessel function of the first kind of order 1."""
    return modified_bessel_i(input, 1)


@takes_out
def i0e(input: Any) -> Any:
    """exp(-|input|) * i0(input), without overflow."""
    return scaled_modified_bessel_i(input, 0)


@takes_out
def i1e(input: Any) -> Any:
    """exp(-|input|) * i1(input), without overflow."""
    return scaled_modified_bessel_i(input, 1)


@takes_out
def modified_bessel_k0(input: Any) -> Any:
    """The modified Bessel function of the second kind of order 0."""
    return modified_bessel_k(input, 0)


@takes_out
def modified_bessel_k1(input: Any) -> Any:
    """The modified Bessel function of the second kind of order 1."""
    return modified_bessel_k(input, 1)


@takes_out
def scaled_modified_bessel_k0(x: Any) -> Any:
    """exp(x) * modified_bessel_k0(x)."""
    return scaled_modified_bessel_k(x, 0)


@takes_out
def scaled_modified_bessel_k1(x: Any) -> Any:
    """exp(x) * modified_bessel_k1(x)."""
    return scaled_modified_bessel_k(x, 1)


@takes_out
def spherical_bessel_j0(x: Any) -> Any:
    """The spherical Bessel function of the first kind of order 0, sin(x) / x."""
    return spherical_bessel_j(x, 0)


@takes_out
def airy_ai(x: Any) -> Any:
    """The Airy function Ai."""
    return airy(x, False)
