"""Softmax and what is built on it."""

from __future__ import annotations

from typing import Any

from ...autograd.primitive import primitive
from ...runtime.arrays import Array


@primitive(promote="float")
def softmax(xp, input: Array, dim: int):
    """exp(input) / sum(exp(input)) along dim, without overflow."""
    e = xp.exp(input - input.max(dim, keepdims=True))
    e /= e.sum(dim, keepdims=True)
    return e


softmax.vjp(input=lambda F, g, out, dim: out * (g - F.sum(g * out, dim, True)))


@primitive(promote="float")
def log_softmax(xp, input: Array, dim: int):
    """log(softmax(input)) along dim, without overflow."""
    shifted = input - input.max(dim, keepdims=True)
    shifted -= xp.log(xp.exp(shifted).sum(dim, keepdims=True))
    return shifted


log_softmax.vjp(input=lambda F, g, out, dim: g - F.exp(out) * F.sum(g, dim, True))


@primitive
def softmax_cross_entropy(xp, input: Array, target: Array):
    """For logits [n, classes] and class indices [n]: -log(softmax(input))[i, target[i]], shape [n]."""
    shifted = input - input.max(1, keepdims=True)
    chosen = shifted[xp.arange(len(target)), target]
    return xp.log(xp.exp(shifted).sum(1)) - chosen


softmax_cross_entropy.vjp(input=lambda F, g, input, target: F.softmax_cross_entropy_backward(g, input, target))


@primitive
def softmax_cross_entropy_backward(xp, gradient: Array, input: Array, target: Array):
    """(softmax(input) - one_hot(target)) * gradient, row by row."""
    p = xp.exp(input - input.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[xp.arange(len(target)), target] -= 1
    p *= gradient[:, None]
    return p


def _weigh(F: Any, p: Any, u: Any) -> Any:
    """The product of the Jacobian of softmax with u, row by row."""
    return p * (u - F.sum(p * u, 1, True))


softmax_cross_entropy_backward.vjp(
    gradient=lambda F, g, input, target: F.sum(
        g * F.softmax_cross_entropy_backward(F.ones_like(F.select(input, 1, 0)), input, target), 1
    ),
    input=lambda F, g, gradient, input: _weigh(F, F.softmax(input, 1), g) * F.unsqueeze(gradient, 1),
)
