"""Activation functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ...tensor.inplace import assign
from ...tensor.ops import activation as act
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import indexing, shaping
from ...tensor.ops import pointwise as pw
from ...tensor.ops.softmax import log_softmax as _log_softmax
from ...tensor.ops.softmax import softmax as _softmax
from ...tensor.random import rand_like

sigmoid, tanh = pw.sigmoid, pw.tanh
softsign, tanhshrink, logsigmoid = act.softsign, act.tanhshrink, act.logsigmoid
softplus, gelu = act.softplus, act.gelu


def _applied(function: Callable, input: Any, inplace: bool, *options: Any) -> Any:
    """The function's value, or the input with that written into it."""
    if not inplace:
        return function(input, *options)
    # of a copy: the backward of what the function is made of needs the input as it was
    return assign(input, function(shaping.clone(input), *options), function.__name__ + "_")


def relu(input: Any, inplace: bool = False) -> Any:
    """max(input, 0), elementwise.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.relu(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    return input.relu_() if inplace else act.relu(input)


def relu6(input: Any, inplace: bool = False) -> Any:
    """min(max(input, 0), 6), elementwise."""
    return _applied(act.relu6, input, inplace)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """The input limited to [min_val, max_val]."""
    if min_val > max_val:
        raise ValueError(f"hardtanh(): min_val cannot be greater than max_val, got {min_val} and {max_val}")
    return _applied(act.hardtanh, input, inplace, min_val, max_val)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """The input where positive, negative_slope * input elsewhere."""
    return _applied(act.leaky_relu, input, inplace, negative_slope)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """The input where positive, alpha * (exp(input) - 1) elsewhere.

    Source: Clevert et al., Fast and Accurate Deep Network Learning by Exponential Linear Units, 2015.
    """
    return _applied(act.elu, input, inplace, alpha)


def selu(input: Any, inplace: bool = False) -> Any:
    """scale * elu(input, alpha) with the constants that keep mean 0 and variance 1.

    Source: Klambauer et al., Self-Normalizing Neural Networks, 2017.
    """
    return _applied(act.selu, input, inplace)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """The input where positive, alpha * (exp(input / alpha) - 1) elsewhere.

    Source: Barron, Continuously differentiable exponential linear units, 2017.
    """
    if alpha == 0:
        raise ZeroDivisionError("celu(): alpha must not be 0")
    return _applied(_celu, input, inplace, alpha)


def _celu(input: Any, alpha: float) -> Any:
    return act.elu(input / alpha) * alpha


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """The input where its absolute value is above lambd, 0 elsewhere."""
    return indexing.masked_fill(input, ar.le(pw.abs(input), lambd), 0.0)


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """The input moved towards 0 by lambd, 0 where that would pass it."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return input - pw.clamp(input, -lambd, lambd)


def rrelu(
    input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Any:
    """The input where positive; elsewhere times a slope drawn uniformly from [lower, upper], or their mean.

    Source: Xu et al., Empirical evaluation of rectified activations in convolutional network, 2015.
    """
    if lower > upper:
        raise RuntimeError(f"Lower bound should be less than or equal to the upper bound, got {lower} and {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slopes = rand_like(input) * (upper - lower) + lower
    return _applied(_sloped, input, inplace, slopes)


def _sloped(input: Any, slopes: Any) -> Any:
    return ar.where(ar.ge(input, 0), input, input * slopes)


def gumbel_softmax(logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Any:
    """softmax((logits + gumbel noise) / tau); with hard its one-hot maximum, with the gradient of the soft one.

    Source: Jang et al., Categorical reparameterization with Gumbel-softmax, 2017.
    """
    noise = -pw.log(-pw.log(rand_like(logits).clamp(min=1e-20)))
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    one_hot = logits.new_zeros(logits.shape).scatter(dim, soft.argmax(dim, True), 1.0)
    return one_hot - soft.detach() + soft


def silu(input: Any, inplace: bool = False) -> Any:
    """input * sigmoid(input)."""
    return _applied(act.silu, input, inplace)


def mish(input: Any, inplace: bool = False) -> Any:
    """input * tanh(softplus(input)). Source: Misra, Mish, 2019."""
    return _applied(act.mish, input, inplace)


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """min(max(input + 3, 0), 6) / 6."""
    return _applied(act.hardsigmoid, input, inplace)


def hardswish(input: Any, inplace: bool = False) -> Any:
    """input * hardsigmoid(input). Source: Howard et al., Searching for MobileNetV3, 2019."""
    return _applied(act.hardswish, input, inplace)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """The input where it is greater than threshold, value elsewhere."""
    value_below = indexing.fill_where(input, ar.le(input, threshold), value)
    return assign(input, value_below, "threshold_") if inplace else value_below


def prelu(input: Any, weight: Any) -> Any:
    """The input where positive, weight * input elsewhere.

    Args:
        input: [n, channels, ...].
        weight: [channels], or [1] for all of them.

    Source: He et al., Delving Deep into Rectifiers, 2015.
    """
    shape, count = input.array.shape, weight.array.size
    if weight.array.ndim > 1:
        raise RuntimeError(f"prelu(): weight must be a scalar or have one dimension, its shape is {list(weight.shape)}")
    if count == 1:
        weight = shaping.reshape(weight, (1,) * len(shape))
    else:
        channels = shape[1] if len(shape) > 1 else 1
        if count != channels:
            raise RuntimeError(
                f"prelu(): weight has {count} elements, expected 1 or the number of input channels, {channels} "
                f"(input shape {list(shape)})"
            )
        weight = shaping.reshape(weight, (count,) + (1,) * (len(shape) - 2))
    return ar.where(ar.gt(input, 0), input, ar.mul(input, weight))


def glu(input: Any, dim: int = -1) -> Any:
    """a * sigmoid(b), where a and b are the halves of the input along dim. Source: Dauphin et al., 2016."""
    size = input.size(dim)
    if size % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {size}")
    return act.glu(input, dim)


def softmax(input: Any, dim: int | None = None, *, dtype: Any = None) -> Any:
    """exp(input) / sum(exp(input)) along dim.

    Without a dim, which is deprecated, it is 0 for inputs of 0, 1 or 3 dimensions, else 1.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.softmax(torch.zeros(4), dim=0)
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    return _softmax(input if dtype is None else input.to(dtype), _checked_dim(dim, input, "softmax"))


def log_softmax(input: Any, dim: int | None = None, *, dtype: Any = None) -> Any:
    """log(softmax(input)) along dim, without overflow."""
    return _log_softmax(input if dtype is None else input.to(dtype), _checked_dim(dim, input, "log_softmax"))


def softmin(input: Any, dim: int | None = None, *, dtype: Any = None) -> Any:
    """softmax(-input) along dim."""
    x = input if dtype is None else input.to(dtype)
    return _softmax(pw.neg(x), _checked_dim(dim, input, "softmin"))


def _checked_dim(dim: int | None, input: Any, function: str) -> int:
    ndim = input.array.ndim
    if dim is None:
        dim = 0 if ndim in (0, 1, 3) else 1
        warnings.warn(f"{function}(): a call without dim is deprecated; dim={dim} is taken", stacklevel=3)
    return shaping.one_dim(dim, ndim)
