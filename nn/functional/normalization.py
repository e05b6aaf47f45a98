"""Normalization."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.mode import later
from ...autograd.variable import changed
from ...tensor import creation
from ...tensor.inspection import finfo
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import distances, reduction, shaping
from ...tensor.ops import normalization as ops
from ...tensor.ops import pointwise as pw
from ...tensor.ops.collective import all_reduce_sum
from .pooling import avg_pool2d


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
    if not input.array.size:
        first = (None if x is None else shaping.select(x, 0, 0) for x in (weight, bias))
        return _affine(shaping.clone(input), *first)  # nothing to normalize, but the parameters get gradients of 0
    if len(shape) < 2:
        raise RuntimeError(f"batch_norm(): expected input [n, channels, ...], got shape {list(shape)}")
    _check_channels("batch_norm", shape, running_mean, running_var, weight, bias)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when training=False")
        return ops.normalize_by(input, running_mean, running_var, weight, bias, eps)
    dims = (0, *range(2, len(shape)))
    count = input.array.size // shape[1]
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(shape)}")
    mean, variance = ops.moments(input, dims)
    _track(running_mean, running_var, mean, variance, count, momentum)
    each = (1, shape[1]) + (1,) * (len(shape) - 2)
    return ops.normalize(input, mean, variance, weight, bias, dims, eps, True, each, None)


def _track(running_mean: Any, running_var: Any, mean: Any, variance: Any, count: int, momentum: float) -> None:
    """Move running statistics towards those of a batch; by samples, if there are such, they are averaged."""
    if running_mean is not None:
        _move_towards(running_mean, mean, 1, momentum)
    if running_var is not None:
        _move_towards(running_var, variance, count / max(count - 1, 1), momentum)


@later
def _move_towards(running: Any, new: Any, factor: Any, momentum: float) -> None:
    """Both are tensors: statistics, and what they move towards divided by the factor."""
    old = running.array
    array = new.array if new.array.size == old.size else new.array.mean(0)
    old *= 1 - momentum
    old += array.reshape(-1) * (factor * momentum)
    changed(running, "batch_norm")


def sync_batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, momentum: float, eps: float, comm: Any
) -> Any:
    """`batch_norm` in training, with the statistics of all ranks' batches together.

    Its gradient is that of the sum of all ranks' losses.
    """
    shape = input.array.shape
    dims = (0, *range(2, len(shape)))
    here = creation.tensor(float(math.prod(shape[d] for d in dims)), dtype=input.dtype, device=input.device)
    count = all_reduce_sum(here, comm)
    if float(count) <= 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(shape)}")
    mean = ar.true_divide(all_reduce_sum(reduction.sum(input, dims, True), comm), count)
    deviation = ar.sub(input, mean)
    squares = reduction.sum(ar.mul(deviation, deviation), dims, True)
    variance = ar.true_divide(all_reduce_sum(squares, comm), count)
    if running_mean is not None:
        _move_towards(running_mean, mean, 1, momentum)
    if running_var is not None:
        _move_towards(running_var, variance, count.array / (count.array - 1), momentum)
    weight, bias = (_per_channel(x, len(shape)) for x in (weight, bias))
    return _affine(ar.mul(deviation, pw.rsqrt(ar.add(variance, eps))), weight, bias)


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """(input - mean) / sqrt(variance + eps) * weight + bias for each channel of each sample.

    Args:
        input: [n, channels, ...].
        running_mean, running_var: [channels] or None; moved towards the mean over the samples of their statistics.
        weight, bias: [channels] or None.
        use_input_stats: whether to normalize with the samples' own statistics instead of the running ones.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.

    Raises:
        ValueError: each channel has only one value, which has no variance.

    Source: Ulyanov et al., Instance Normalization, 2016.
    """
    shape = input.array.shape
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if len(shape) < 3 or math.prod(shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {list(shape)}")
    _check_channels("instance_norm", shape, running_mean, running_var, weight, bias)
    if running_mean is not None or running_var is not None:
        mean, variance = ops.moments(input, tuple(range(2, len(shape))))
        _track(running_mean, running_var, mean, variance, math.prod(shape[2:]), momentum)
    return _by_group(input, shape[1], weight, bias, eps)


def _check_channels(function: str, shape: tuple, running_mean: Any, running_var: Any, weight: Any, bias: Any) -> None:
    names = ("running_mean", "running_var", "weight", "bias")
    for name, parameter in zip(names, (running_mean, running_var, weight, bias), strict=False):
        if parameter is not None and parameter.array.shape != shape[1:2]:
            raise RuntimeError(
                f"{function}(): {name} should contain {shape[1]} elements not {list(parameter.array.shape)} "
                f"(input shape {list(shape)})"
            )


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
    dims = _last_dims(input, normalized_shape, weight, bias)
    return ops.normalize(input, None, None, weight, bias, dims, eps, True, None, None)


def _last_dims(input: Any, normalized_shape: Any, weight: Any, bias: Any) -> tuple[int, ...]:
    """The dimensions to normalize over, with everything checked to be of that shape."""
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
    return tuple(range(len(shape) - len(size), len(shape)))


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """input / sqrt(mean(input**2) + eps) * weight, with the mean over the last dimensions.

    Args:
        input: [..., *normalized_shape].
        normalized_shape: the sizes of the dimensions to normalize over.
        weight: of normalized_shape, or None.
        eps: added to the mean; the smallest number that changes 1 in the input's dtype if None.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.rms_norm(torch.tensor([3.0, 3.0]), (2,))
        tensor([1., 1.])
    """
    dims = _last_dims(input, normalized_shape, weight, None)
    if eps is None:
        eps = finfo(input.dtype).eps
    return ops.normalize(input, None, None, weight, None, dims, eps, False, None, None)


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """input / (k + alpha * mean of input**2 over size neighbouring channels) ** beta.

    Args:
        input: [n, channels, ...] with at least one more dimension.
        size: how many channels, centred at the one to normalize; missing ones count as 0.

    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012.
    """
    shape = input.array.shape
    if len(shape) < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {len(shape)} dimensions)")
    if not input.array.size:
        return input
    squares = shaping.reshape(ar.mul(input, input), (shape[0], 1, shape[1], math.prod(shape[2:])))
    around = shaping.pad_constant(squares, ((0, 0), (0, 0), (size // 2, (size - 1) // 2), (0, 0)))
    means = shaping.reshape(avg_pool2d(around, (size, 1), 1), shape)
    return ar.true_divide(input, ar.pow(ar.add(ar.mul(means, alpha), k), beta))


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
    if len(shape) < 2 or num_groups < 1 or shape[1] % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(shape)} and num_groups={num_groups}"
        )
    _check_channels("group_norm", shape, None, None, weight, bias)
    return _by_group(input, num_groups, weight, bias, eps)


def _by_group(input: Any, num_groups: int, weight: Any, bias: Any, eps: float) -> Any:
    """Normalization over groups of channels, as [n, num_groups, channels of a group, places]."""
    shape = input.array.shape
    size = (shape[0], num_groups, shape[1] // max(num_groups, 1), math.prod(shape[2:]))
    return ops.normalize(input, None, None, weight, bias, (2, 3), eps, True, (1, *size[1:3], 1), size)


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    """input / max(norm, eps), with the p-norm along dim.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.normalize(torch.tensor([3.0, 4.0]), dim=0)
        tensor([0.6000, 0.8000])
    """
    return ar.true_divide(input, pw.clamp(distances.norm(input, p, dim, True), eps))
