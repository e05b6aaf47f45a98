"""Normalization."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.variable import changed
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import normalization as ops
from ...tensor.ops import pointwise as pw
from ...tensor.ops import distances, reduction, shaping


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """(input - mean) / sqrt(variance + eps) * weight + bias for each channel.

    Args:
        input: [n, channels, ...].
        running_mean, running_var: [channels] or None; in training moved towards the batch's mean and unbiased variance
            by the factor momentum, otherwise used in their place.
        weight, bias: [channels] or None.
        training: whether to normalize with the batch's own mean and biased variance.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.

    Raises:
        ValueError: in training each channel has only one value, which has no variance.

    Source: Ioffe and Szegedy, Batch Normalization, 2015.
    """
    shape = input.array.shape
    if len(shape) < 2:
        raise RuntimeError(f"batch_norm(): expected input [n, channels, ...], got shape {list(shape)}")
    parameters = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, parameter in parameters.items():
        if parameter is not None and parameter.array.shape != shape[1:2]:
            raise RuntimeError(
                f"batch_norm(): {name} should contain {shape[1]} elements not {list(parameter.array.shape)} "
                f"(input shape {list(shape)})"
            )
    weight, bias = (_per_channel(x, len(shape)) for x in (weight, bias))
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when training=False")
        mean, variance = (_per_channel(x, len(shape)) for x in (running_mean, running_var))
        scale = pw.rsqrt(ar.add(variance, eps))
        return _affine(ar.mul(ar.sub(input, mean), scale if weight is None else ar.mul(scale, weight)), None, bias)
    dims = (0, *range(2, len(shape)))
    count = math.prod(shape[d] for d in dims)
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(shape)}")
    mean, variance = ops.moments(input, dims)
    _move_towards(running_mean, mean.array, momentum)
    _move_towards(running_var, variance.array * (count / max(count - 1, 1)), momentum)
    return ops.normalize(input, mean, variance, weight, bias, dims, eps)


def _move_towards(running: Any, new: Any, momentum: float) -> None:
    if running is not None:
        running.array[...] = running.array * (1 - momentum) + new.reshape(-1) * momentum
        changed(running, "batch_norm")


def _per_channel(parameter: Any, ndim: int) -> Any:
    """A parameter [channels] in the shape in which it broadcasts to [n, channels, ...]."""
    return None if parameter is None else shaping.reshape(parameter, (1, parameter.array.size) + (1,) * (ndim - 2))


def _affine(normal: Any, weight: Any, bias: Any) -> Any:
    if weight is not None:
        normal = ar.mul(normal, weight)
    return normal if bias is None else ar.add(normal, bias)


def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """(input - mean) / sqrt(variance + eps) * weight + bias, with mean and biased variance over the last dimensions.

    Args:
        input: [..., *normalized_shape].
        normalized_shape: the sizes of the dimensions to normalize over.
        weight, bias: of normalized_shape, or None.
        eps: added to the variance.

    Source: Ba, Kiros and Hinton, Layer Normalization, 2016.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.layer_norm(torch.tensor([1.0, 3.0]), (2,), eps=0.0)
        tensor([-1.,  1.])
    """
    size = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    shape = input.array.shape
    if not size or shape[-len(size) :] != size:
        raise RuntimeError(
            f"Given normalized_shape={list(size)}, expected input with shape [*, {', '.join(map(str, size))}], but got "
            f"input of size {list(shape)}"
        )
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.array.shape != size:
            raise RuntimeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                f"{list(parameter.array.shape)} and normalized_shape = {list(size)}"
            )
    dims = tuple(range(len(shape) - len(size), len(shape)))
    mean, variance = ops.moments(input, dims)
    return ops.normalize(input, mean, variance, weight, bias, dims, eps)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """(input - mean) / sqrt(variance + eps) * weight + bias, with mean and variance over groups of channels.

    Args:
        input: [n, channels, ...].
        num_groups: how many groups the channels form.
        weight, bias: [channels], or None.
        eps: added to the variance.

    Source: Wu and He, Group Normalization, 2018.
    """
    shape = input.array.shape
    if len(shape) < 2 or shape[1] % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(shape)} and num_groups={num_groups}"
        )
    groups = shaping.reshape(input, (shape[0], num_groups, math.prod(shape[1:]) // num_groups))
    normal = shaping.reshape(layer_norm(groups, groups.array.shape[2:], eps=eps), shape)
    return _affine(normal, _per_channel(weight, len(shape)), _per_channel(bias, len(shape)))


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    """input / max(norm, eps), with the p-norm along dim.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.normalize(torch.tensor([3.0, 4.0]), dim=0)
        tensor([0.6000, 0.8000])
    """
    return ar.true_divide(input, pw.clamp(distances.norm(input, p, dim, True), eps))
