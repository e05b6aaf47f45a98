"""Special functions: the gamma and zeta family, error functions and the normal distribution, entropies.

Values come from SciPy (CuPy's copy of it on CUDA devices), derivatives are written here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...runtime import arrays
from ...runtime.arrays import Array
from . import arithmetic as ar

floating = primitive(promote="float")

_SQRT_2PI = math.sqrt(2 * math.pi)


def evaluate(xp: ModuleType, name: str, *operands: Any, output: int | None = None) -> Array:
    """A function of scipy.special in the operands' dtype; `output` picks one where it returns several.

    What CuPy lacks is computed on the host. 16-bit numbers, which SciPy does not know, go through float32.
    """
    dtype = next(x.dtype for x in operands if hasattr(x, "dtype"))
    if dtype.itemsize == 2:
        operands = tuple(x.astype(xp.float32) if hasattr(x, "dtype") else x for x in operands)
    function = getattr(arrays.special(xp), name, None)
    if function is None:
        host = [arrays.to_host(x) if hasattr(x, "dtype") else x for x in operands]
        values = getattr(arrays.special(numpy), name)(*host)
    else:
        values = function(*operands)
    return xp.asarray(values if output is None else values[output]).astype(dtype, copy=False)


def no_derivative(what: str) -> Callable:
    """The rule for an input that nobody knows the derivative for."""

    def rule(F: Any, g: Any) -> Any:
        raise NotImplementedError(f"the derivative for '{what}' is not implemented.")

    return rule


# -- gamma and zeta ----------------------------------------------------------------------------------------------------


@floating
def lgamma(xp, input: Array):
    """log|Gamma(input)|."""
    value = evaluate(xp, "gammaln", input)
    return xp.where(xp.equal(value, -math.inf), -value, value)  # SciPy has -inf at -inf


lgamma.vjp(input=lambda F, g, input: g * F.digamma(input))


@floating
def digamma(xp, input: Array):
    """The derivative of log Gamma."""
    return evaluate(xp, "digamma", input)


digamma.vjp(input=lambda F, g, input: g * F.polygamma(input, 1))


@floating
def polygamma(xp, input: Array, n: int):
    """The n-th derivative of digamma."""
    return evaluate(xp, "polygamma", n, input)


polygamma.vjp(input=lambda F, g, input, n: g * F.polygamma(input, n + 1))


@takes_out
def polygamma_of_order(n: int, input: Any) -> Any:
    """The n-th derivative of digamma; as a method `input.polygamma(n)`.

    Example:
        >>> import paceline as torch
        >>> torch.polygamma(1, torch.tensor([1.0, 0.5]))
        tensor([1.6449, 4.9348])
    """
    if not isinstance(n, int):  # the method's order
        n, input = input, n
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n, got n={n}")
    return polygamma(input, n)


@takes_out
def mvlgamma(input: Any, p: int) -> Any:
    """The multivariate log-gamma function of dimension p: the sum over i < p of lgamma(input - i/2), plus
    p(p-1)/4 log(pi)."""
    if p < 1:
        raise RuntimeError(f"mvlgamma(): p has to be greater than or equal to 1, got {p}")
    total = ar.add(lgamma(input), p * (p - 1) / 4 * math.log(math.pi))
    for i in range(1, p):
        total = ar.add(total, lgamma(ar.sub(input, i / 2)))
    return total


@floating
def igamma(xp, input: Array, other: Array):
    """The regularized lower incomplete gamma function P(input, other)."""
    return evaluate(xp, "gammainc", input, other)


@floating
def igammac(xp, input: Array, other: Array):
    """The regularized upper incomplete gamma function Q(input, other) = 1 - P(input, other)."""
    return evaluate(xp, "gammaincc", input, other)


def _gamma_density(F: Any, a: Any, x: Any) -> Any:
    """The derivative of P(a, x) with respect to x."""
    return F.exp(F.xlogy(a - 1, x) - x - F.lgamma(a))


igamma.vjp(
    input=no_derivative("igamma: input"),
    other=lambda F, g, input, other: g * _gamma_density(F, input, other),
)
igammac.vjp(
    input=no_derivative("igammac: input"),
    other=lambda F, g, input, other: -g * _gamma_density(F, input, other),
)


@floating
def zeta(xp, input: Array, other: Array):
    """The Hurwitz zeta function, the sum over k >= 0 of (k + other)**-input."""
    return evaluate(xp, "zeta", input, other)


zeta.vjp(
    input=no_derivative("zeta: input"),
    other=lambda F, g, input, other: -g * input * F.zeta(input + 1, other),
)


# -- error functions and the normal distribution -----------------------------------------------------------------------


@floating
def erfinv(xp, input: Array):
    """The inverse of erf."""
    return evaluate(xp, "erfinv", input)


erfinv.vjp(input=lambda F, g, out: g * (F.exp(out * out) * (0.5 * math.sqrt(math.pi))))


@floating
def erfcx(xp, input: Array):
    """exp(input**2) * erfc(input), without overflow."""
    return evaluate(xp, "erfcx", input)


erfcx.vjp(input=lambda F, g, input, out: g * (2 * input * out - 2 / math.sqrt(math.pi)))


@floating
def ndtr(xp, input: Array):
    """The distribution function of the standard normal distribution."""
    return evaluate(xp, "ndtr", input)


ndtr.vjp(input=lambda F, g, input: g * (F.exp(input * input * -0.5) * (1 / _SQRT_2PI)))


@floating
def ndtri(xp, input: Array):
    """The inverse of ndtr: quantiles of the standard normal distribution."""
    return evaluate(xp, "ndtri", input)


ndtri.vjp(input=lambda F, g, out: g * (F.exp(out * out * 0.5) * _SQRT_2PI))


@floating
def log_ndtr(xp, input: Array):
    """log(ndtr(input)), accurate in the lower tail."""
    return evaluate(xp, "log_ndtr", input)


log_ndtr.vjp(input=lambda F, g, input: g * (math.sqrt(2 / math.pi) / F.erfcx(input * -math.sqrt(0.5))))


# -- logarithms and entropies ------------------------------------------------------------------------------------------


@floating
def entr(xp, input: Array):
    """-input * log(input), 0 at 0 and -inf below."""
    return evaluate(xp, "entr", input)


entr.vjp(input=lambda F, g, input: g * (-F.log(input) - 1))


@floating
def logit(xp, input: Array, eps: float | None = None):
    """log(input / (1 - input)), the inverse of sigmoid; with eps, of the input limited to [eps, 1 - eps]."""
    if eps is not None:
        input = xp.clip(input, eps, 1 - eps).astype(input.dtype, copy=False)
    return evaluate(xp, "logit", input)


def _logit_input(F: Any, g: Any, input: Any, eps: float | None) -> Any:
    low, outside = (0.0, math.nan) if eps is None else (eps, 0.0)
    inside = F.logical_and(F.ge(input, low), F.le(input, 1 - low))
    return F.where(inside, g / (input * (1 - input)), F.zeros_like(g) + outside)


logit.vjp(input=_logit_input)


@floating
def xlogy(xp, input: Array, other: Array):
    """input * log(other), 0 where the input is 0."""
    return evaluate(xp, "xlogy", input, other)


@floating
def xlog1py(xp, input: Array, other: Array):
    """input * log(1 + other), 0 where the input is 0."""
    return evaluate(xp, "xlog1py", input, other)


def _without_pole(F: Any, gradient: Any, input: Any, other: Any, pole: float) -> Any:
    """0 where the input is 0 and the logarithm is infinite or undefined."""
    zeros = F.zeros_like(gradient)  # also makes tensors of numbers
    return F.where(F.logical_and(F.eq(zeros + input, 0), F.le(zeros + other, pole)), zeros, gradient)


xlogy.vjp(
    input=lambda F, g, input, other: _without_pole(F, F.xlogy(g, other), input, other, 0.0),
    other=lambda F, g, input, other: g * input / other,
)
xlog1py.vjp(
    input=lambda F, g, input, other: _without_pole(F, F.xlog1py(g, other), input, other, -1.0),
    other=lambda F, g, input, other: g * input / (other + 1),
)
