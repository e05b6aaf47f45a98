"""Softmax and what is built on it."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled, compiled_vjp, sources, takes
from . import few
from .cast import accepts_dtype
from .loss import mean_divisor
from .shaping import one_dim

_WORK = 8  # that of an exponential function
_WORTH = 4
_LOSS_WORK = 2  # a kernel spares a loss of few classes some microseconds, and takes a second to compile


def largest(xp: Any, input: Array, dim: int) -> Array:
    """The largest element along dim; for an empty tensor, which has none, nothing that changes it."""
    return input.max(dim, keepdims=True) if input.size else input.sum(dim, keepdims=True)


@primitive(promote="float")
def softmax(xp, input: Array, dim: int):
    """exp(input) / sum(exp(input)) along dim, without overflow."""
    e = xp.exp(input - largest(xp, input, dim))
    e /= e.sum(dim, keepdims=True)
    return e


softmax.vjp(input=lambda F, g, out, dim: out * (g - F.sum(g * out, dim, True)))


@primitive(promote="float")
def log_softmax(xp, input: Array, dim: int):
    """log(softmax(input)) along dim, without overflow."""
    shifted = input - largest(xp, input, dim)
    shifted -= xp.log(xp.exp(shifted).sum(dim, keepdims=True))
    return shifted


log_softmax.vjp(input=lambda F, g, out, dim: g - F.exp(out) * F.sum(g, dim, True))


def _compiled_softmax(input: numpy.ndarray, dim: int, logarithm: bool) -> Any:
    if not input.size or not input.ndim:
        return NotImplemented
    dim, x, out = one_dim(dim, input.ndim), numpy.ascontiguousarray(input), numpy.empty(input.shape, input.dtype)
    after = math.prod(input.shape[dim + 1 :])
    if after == 1:
        shape = (-1, input.shape[dim])
        sources.softmax.rows(x.reshape(shape), logarithm, out.reshape(shape))
    else:
        cut = (-1, input.shape[dim], after)
        sources.softmax.columns(x.reshape(cut), logarithm, out.reshape(cut))
    return out


def _compiled_softmax_input(g: numpy.ndarray, out: numpy.ndarray, dim: int, logarithm: bool) -> Any:
    if not g.size or g.dtype is not out.dtype:
        return NotImplemented
    dim, gradient = one_dim(dim, g.ndim), numpy.empty(g.shape, g.dtype)
    after = math.prod(g.shape[dim + 1 :])
    shape = (-1, g.shape[dim]) if after == 1 else (-1, g.shape[dim], after)
    kernel = sources.softmax.rows_backward if after == 1 else sources.softmax.columns_backward
    g, out = (numpy.ascontiguousarray(x).reshape(shape) for x in (g, out))
    kernel(g, out, logarithm, gradient.reshape(shape))
    return (gradient,)


@compiled(softmax, _WORK, light=True, worth=_WORTH)
def _compiled_plain(input: numpy.ndarray, dim: int) -> Any:
    return _compiled_softmax(input, dim, False)


@compiled(log_softmax, _WORK, light=True, worth=_WORTH)
def _compiled_logarithm(input: numpy.ndarray, dim: int) -> Any:
    return _compiled_softmax(input, dim, True)


@compiled_vjp(softmax, _WORK, light=True, worth=_WORTH)
def _compiled_plain_input(xp: Any, g: numpy.ndarray, needs: tuple, out: numpy.ndarray, dim: int) -> Any:
    return _compiled_softmax_input(g, out, dim, False)


@compiled_vjp(log_softmax, _WORK, light=True, worth=_WORTH)
def _compiled_logarithm_input(xp: Any, g: numpy.ndarray, needs: tuple, out: numpy.ndarray, dim: int) -> Any:
    return _compiled_softmax_input(g, out, dim, True)


softmax_as = accepts_dtype(softmax)
log_softmax_as = accepts_dtype(log_softmax)


@primitive(residuals=("exponentials", "totals"))
def softmax_cross_entropy(xp, input: Array, target: Array, reduction: str = "none"):
    """For logits [n, classes] and class indices [n]: -log(softmax(input))[i, target[i]], [n] or reduced to one."""
    shifted = input - input.max(1, keepdims=True)
    chosen = shifted[xp.arange(len(target)), target]
    exponentials = xp.exp(shifted, out=shifted)
    totals = exponentials.sum(1)
    losses = xp.log(totals)
    losses -= chosen
    if reduction != "none":
        losses = losses.sum() / mean_divisor(len(target), reduction)
    return losses, exponentials, totals


def _softmax_cross_entropy_input(F: Any, g: Any, input: Any, target: Any, reduction: str) -> Any:
    rows = len(target)
    if reduction != "none":
        g = F.expand(g / mean_divisor(rows, reduction), (rows,))
    return F.softmax_cross_entropy_backward(g, input, target)


softmax_cross_entropy.vjp(input=_softmax_cross_entropy_input)


def _few_cross_entropies(input: numpy.ndarray, target: numpy.ndarray, reduction: str = "none") -> Any:
    if not few.is_few(input):
        return NotImplemented
    rows, classes = input.shape
    elements = input.reshape(-1)
    starts = few.row_starts(rows, classes)
    largest = elements.take(starts + input.argmax(1))
    exponentials = input - largest[:, None]
    numpy.exp(exponentials, exponentials)
    totals = exponentials.dot(few.ones(input, classes))
    losses = numpy.log(totals)
    largest -= elements.take(starts + target)
    losses += largest
    if reduction != "none":
        losses = losses.dot(few.ones(input, rows)) / input.dtype.type(mean_divisor(rows, reduction))
    return losses, exponentials, totals


@compiled(softmax_cross_entropy, _LOSS_WORK, light=True, few=_few_cross_entropies)
def _compiled_cross_entropy(input: numpy.ndarray, target: numpy.ndarray, reduction: str = "none") -> Any:
    """Keeps largest elements and totals of the rows; backward computes the exponentials anew."""
    if input.ndim != 2 or target.ndim != 1 or not input.size:
        return NotImplemented
    losses, peaks, totals = (numpy.empty(len(input), input.dtype) for _ in range(3))
    chosen = numpy.ascontiguousarray(target, numpy.int64)
    sources.softmax.cross_entropy(numpy.ascontiguousarray(input), chosen, losses, peaks, totals)
    if reduction != "none":
        losses = losses.sum() / input.dtype.type(mean_divisor(len(target), reduction))
    return losses, None, (peaks, totals)


def _fused_input(
    xp: Any, g: Any, needs: tuple, input: Any, target: Any, reduction: str, exponentials: Any, totals: Any
) -> Any:
    """softmax(input) - one_hot(target) from what the forward pass computed, times the gradient."""
    rows = len(target)
    if reduction == "mean":
        g = g[()] * (1 / mean_divisor(rows, reduction))  # [()]: see mean_squared_error
    if exponentials is None:
        if not takes(input, _LOSS_WORK, light=True):
            return NotImplemented  # the process was forked since
        gradient = numpy.empty(input.shape, input.dtype)
        factors = numpy.array(numpy.broadcast_to(g, rows), input.dtype)
        arrays = (numpy.ascontiguousarray(input), numpy.ascontiguousarray(target, numpy.int64), *totals)
        sources.softmax.cross_entropy_backward(factors, *arrays, gradient)
        return gradient, None
    gradient = exponentials * (g / totals)[:, None]
    gradient[xp.arange(rows), target] -= g
    return gradient, None


for _device in ("cpu", "cuda"):
    softmax_cross_entropy.fused_vjp(_device)(_fused_input)


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
