"""Optimizer steps in one pass over flat arrays, each with the arithmetic of the `update` that stands beside its user.

The arithmetic is the same to the last bit, so nothing is left to the compiler's choice here: bits must not depend on
how many parameters share an update, for ranks that keep a part of the optimizer each would then disagree with one that
keeps all of it.

Numbers come as NumPy scalars of the arrays' dtype, so that float32 stays float32, and differences like 1 - beta are
made by the caller: a literal 1 would be an int64 and the result float64. Options that are off are False; the loops
have the choice in them, as these passes wait for memory and not for arithmetic.
"""

import functools
import math

from . import compiler
from .compiler import prange

jit = functools.partial(compiler.jit, fastmath=False)
serial = functools.partial(compiler.serial, fastmath=False)


@serial()
def _descent(p, g, decay, penalized, maximize):
    """The gradient of what is minimized."""
    if maximize:
        g = -g
    return g + p * decay if penalized else g


@jit()
def sgd(p, g, lr, decay, penalized, maximize):
    for i in prange(p.size):
        p[i] -= _descent(p[i], g[i], decay, penalized, maximize) * lr


@jit()
def sgd_momentum(p, g, v, lr, momentum, fresh, nesterov, decay, penalized, maximize):
    """`fresh` is the part of the gradient that enters the momentum."""
    for i in prange(p.size):
        d = _descent(p[i], g[i], decay, penalized, maximize)
        v[i] = v[i] * momentum + d * fresh
        p[i] -= (d + v[i] * momentum if nesterov else v[i]) * lr


@jit()
def adam(p, g, m, v, rate, eps, keep, beta1, fresh1, beta2, fresh2, decay, penalized, maximize):
    """`keep` is what decoupled weight decay leaves of p; rate and eps contain the corrections of the means."""
    for i in prange(p.size):
        old = p[i] * keep
        d = _descent(old, g[i], decay, penalized, maximize)
        m[i] = m[i] * beta1 + d * fresh1
        v[i] = v[i] * beta2 + d * d * fresh2
        p[i] = old - m[i] / (math.sqrt(v[i]) + eps) * rate


@jit()
def rmsprop(p, g, s, lr, alpha, fresh, eps, decay, penalized, maximize):
    for i in prange(p.size):
        d = _descent(p[i], g[i], decay, penalized, maximize)
        s[i] = s[i] * alpha + d * d * fresh
        p[i] -= d / (math.sqrt(s[i]) + eps) * lr


@jit()
def rmsprop_momentum(p, g, s, v, momentum, lr, alpha, fresh, eps, decay, penalized, maximize):
    for i in prange(p.size):
        d = _descent(p[i], g[i], decay, penalized, maximize)
        s[i] = s[i] * alpha + d * d * fresh
        v[i] = v[i] * momentum + d / (math.sqrt(s[i]) + eps)
        p[i] -= v[i] * lr


@jit()
def adagrad(p, g, s, lr, eps, decay, penalized, maximize):
    for i in prange(p.size):
        d = _descent(p[i], g[i], decay, penalized, maximize)
        s[i] += d * d
        p[i] -= d / (math.sqrt(s[i]) + eps) * lr


@jit()
def adam_means(p, g, m, v, keep, beta1, fresh1, beta2, fresh2, decay, penalized, maximize):
    """The first half of amsgrad's step: with all five arrays in one loop it would not be vectorized."""
    for i in prange(p.size):
        old = p[i] * keep
        d = _descent(old, g[i], decay, penalized, maximize)
        m[i] = m[i] * beta1 + d * fresh1
        v[i] = v[i] * beta2 + d * d * fresh2
        p[i] = old


@jit()
def amsgrad(p, m, v, largest, rate, eps):
    for i in prange(p.size):
        most = v[i] if v[i] > largest[i] or v[i] != v[i] else largest[i]  # a NaN stays, as in numpy.maximum
        largest[i] = most
        p[i] -= m[i] / (math.sqrt(most) + eps) * rate


@jit()
def nadam(p, g, m, v, rate, part_g, part_m, eps, keep, beta1, fresh1, beta2, fresh2, decay, penalized, maximize):
    for i in prange(p.size):
        old = p[i] * keep
        d = _descent(old, g[i], decay, penalized, maximize)
        m[i] = m[i] * beta1 + d * fresh1
        v[i] = v[i] * beta2 + d * d * fresh2
        p[i] = old - (d * part_g + m[i] * part_m) / (math.sqrt(v[i]) + eps) * rate


@jit()
def radam(p, g, m, v, rate, divided, eps, keep, beta1, fresh1, beta2, fresh2, decay, penalized, maximize):
    for i in prange(p.size):
        old = p[i] * keep
        d = _descent(old, g[i], decay, penalized, maximize)
        m[i] = m[i] * beta1 + d * fresh1
        v[i] = v[i] * beta2 + d * d * fresh2
        p[i] = old - (m[i] / (math.sqrt(v[i]) + eps) if divided else m[i]) * rate


@jit()
def adamax(p, g, m, u, rate, eps, beta1, fresh1, beta2, decay, penalized, maximize):
    for i in prange(p.size):
        d = _descent(p[i], g[i], decay, penalized, maximize)
        m[i] = m[i] * beta1 + d * fresh1
        size = abs(d) + eps
        faded = u[i] * beta2
        u[i] = size if size > faded or size != size else faded
        p[i] -= m[i] / u[i] * rate


@jit()
def adadelta(p, g, s, u, lr, rho, fresh, eps, decay, penalized, maximize):
    for i in prange(p.size):
        d = _descent(p[i], g[i], decay, penalized, maximize)
        s[i] = s[i] * rho + d * d * fresh
        d = d / math.sqrt(s[i] + eps) * math.sqrt(u[i] + eps)
        u[i] = u[i] * rho + d * d * fresh
        p[i] -= d * lr


@jit()
def asgd(p, g, mean, eta, keep, mu, restart, decay, penalized, maximize):
    for i in prange(p.size):
        d = _descent(p[i], g[i], decay, penalized, maximize)
        p[i] = p[i] * keep - d * eta
        mean[i] = p[i] if restart else mean[i] + (p[i] - mean[i]) * mu


@jit()
def rprop(p, g, before, size, grow, shrink, least, most, zero, maximize):
    for i in prange(p.size):
        d = -g[i] if maximize else g[i]
        product = d * before[i]
        length = size[i]
        if product > zero:
            length *= grow
        if product < zero:
            length *= shrink
            d = zero
        length = least if length < least else length
        length = most if length > most else length
        size[i] = length
        before[i] = d
        towards = length if d > zero else (-length if d < zero else d * length)  # of a NaN: itself
        p[i] -= towards


@jit()
def scale(x, factor):
    for i in prange(x.size):
        x[i] *= factor


@jit()
def clamp(x, least, most):
    for i in prange(x.size):
        x[i] = least if x[i] < least else (most if x[i] > most else x[i])
