"""Pooling to a given size, over windows that chance lays, and back to where the largest elements were."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from ...autograd.variable import box
from ...runtime import device as devices
from ...tensor import creation
from ...tensor.ops import indexing, reduction, resampling, scattering, shaping
from ...tensor.ops.indexing import check_range
from ...tensor.random import uniform_array
from .convolution import Sizes, as_sizes
from .pooling import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d, with_batch

Wanted = int | tuple[int | None, ...] | None

_AVG = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
_MAX = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}


def _wanted(function: str, spatial: int, input: Any, output_size: Any) -> tuple[int, ...]:
    """The output's size; None keeps the input's."""
    shape = input.array.shape
    if len(shape) not in (spatial + 1, spatial + 2):
        raise RuntimeError(f"{function}(): Expected {spatial + 1}D or {spatial + 2}D tensor, but got {list(shape)}")
    if min(shape[-spatial - 1 :]) == 0:
        raise RuntimeError(
            f"{function}(): Expected input to have non-zero size for non-batch dimensions, but input has sizes "
            f"{list(shape)}"
        )
    wanted = (output_size,) * spatial if isinstance(output_size, int) or output_size is None else tuple(output_size)
    if len(wanted) == 1:
        wanted *= spatial
    if len(wanted) != spatial:
        raise RuntimeError(f"{function}(): expected output_size to be one number or {spatial}, got {output_size!r}")
    size = tuple(n if want is None else want for n, want in zip(shape[-spatial:], wanted, strict=True))
    if min(size) < 0:
        raise RuntimeError(f"{function}(): elements of output_size must not be negative, got {list(size)}")
    return size


def _even(image: tuple, size: tuple) -> tuple | None:
    """The kernel, if windows that do not overlap cover the image exactly."""
    if min(size) == 0 or any(n % m for n, m in zip(image, size, strict=True)):
        return None
    return tuple(n // m for n, m in zip(image, size, strict=True))


@functools.lru_cache(maxsize=1024)
def _members(n: int, size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """For window i, from floor(i * n / size) to ceil((i + 1) * n / size): its elements, repeating the last to make all
    windows as wide as the widest, and their number."""
    i = numpy.arange(size)
    start, stop = i * n // size, -(-(i + 1) * n // size)
    places = start[:, None] + numpy.arange((stop - start).max(initial=1))
    return numpy.minimum(places, stop[:, None] - 1), stop - start


@functools.lru_cache(maxsize=1024)
def _averages(n: int, size: int) -> resampling.Taps:
    """The map that takes the mean of each window of a dimension."""
    index, counts = _members(n, size)
    inside = numpy.arange(index.shape[1]) < counts[:, None]
    return resampling.Taps(n, index, inside / counts[:, None])


def _adaptive_avg(function: str, spatial: int, input: Any, output_size: Any) -> Any:
    size = _wanted(function, spatial, input, output_size)
    image = input.array.shape[-spatial:]
    if set(size) == {1}:
        return reduction.mean(input, tuple(range(-spatial, 0)), True)
    kernel = _even(image, size)
    if kernel is not None:
        return _AVG[spatial](input, kernel)
    for dim, (n, m) in enumerate(zip(image, size, strict=True), input.array.ndim - spatial):
        if n != m:
            input = resampling.resample(input, dim, _averages(n, m))
    return input


def adaptive_avg_pool1d(input: Any, output_size: Wanted) -> Any:
    """The means over output_size windows that cover the sequence evenly; see `adaptive_avg_pool2d`."""
    return _adaptive_avg("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Wanted) -> Any:
    """The means over output_size windows that cover the image evenly.

    Window i of a dimension goes from floor(i * n / size) to ceil((i + 1) * n / size).

    Args:
        input: [..., height, width].
        output_size: height and width of the output; None keeps the input's.
    """
    return _adaptive_avg("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Wanted) -> Any:
    """The means over output_size windows that cover the volume evenly; see `adaptive_avg_pool2d`."""
    return _adaptive_avg("adaptive_avg_pool3d", 3, input, output_size)


# -- the largest element -----------------------------------------------------------------------------------------------


def _flat_places(members: list[numpy.ndarray], image: tuple) -> numpy.ndarray:
    """From each dimension's window members [..., out_i, width_i] their places in the flattened image
    [..., *out, product of the widths]."""
    spatial = len(members)
    total: Any = 0
    for i, (index, n) in enumerate(zip(members, image, strict=True)):
        shape = [1] * (2 * spatial)
        shape[i], shape[spatial + i] = index.shape[-2:]
        total = total * n + index.reshape(*index.shape[:-2], *shape)
    return total.reshape(*total.shape[:-spatial], math.prod(total.shape[-spatial:]))


def _largest(images: Any, places: numpy.ndarray, spatial: int, return_indices: bool) -> Any:
    """The largest among the elements at places [(n, channels,) *out, members], and where it is."""
    n, channels = images.array.shape[:2]
    flat = shaping.flatten(images, 2)
    size, members = (n, channels, *places.shape[-spatial - 1 : -1]), places.shape[-1]
    count = math.prod(size[2:])
    every = numpy.ascontiguousarray(numpy.broadcast_to(places, (*size, members)))
    everything = box(devices.move(every.reshape(n, channels, count * members), images.device))
    candidates = shaping.reshape(indexing.gather_along(flat.detach(), everything, 2), (n, channels, count, members))
    if everything.array.size:
        which = reduction.argmax(candidates, -1, True)
        index = indexing.gather_along(shaping.reshape(everything, candidates.array.shape), which, 3)
    else:
        index = everything  # none: nothing has no largest element
    index = shaping.reshape(index, (n, channels, count))
    values = shaping.reshape(indexing.gather_along(flat, index, 2), size)
    return (values, shaping.reshape(index, size)) if return_indices else values


def _unbatched(results: Any, wanted: bool) -> Any:
    if not wanted:
        return results
    return tuple(shaping.squeeze(x, 0) for x in results) if isinstance(results, tuple) else shaping.squeeze(results, 0)


def _adaptive_max(function: str, spatial: int, input: Any, output_size: Any, return_indices: bool) -> Any:
    size = _wanted(function, spatial, input, output_size)
    image = input.array.shape[-spatial:]
    kernel = _even(image, size)
    if kernel is not None:
        return _MAX[spatial](input, kernel, return_indices=return_indices)
    images = with_batch(function, spatial, input)
    places = _flat_places([_members(n, m)[0] for n, m in zip(image, size, strict=True)], image)
    return _unbatched(_largest(images, places, spatial, return_indices), images is not input)


def adaptive_max_pool1d(input: Any, output_size: Wanted, return_indices: bool = False) -> Any:
    """The largest elements of output_size windows that cover the sequence evenly; see `adaptive_max_pool2d`."""
    return _adaptive_max("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Any, output_size: Wanted, return_indices: bool = False) -> Any:
    """The largest elements of output_size windows that cover the image evenly, as in `adaptive_avg_pool2d`.

    Args:
        input: [n, channels, height, width], or without n.
        output_size: height and width of the output; None keeps the input's.
        return_indices: whether to return also where in its flattened image each element was.
    """
    return _adaptive_max("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Any, output_size: Wanted, return_indices: bool = False) -> Any:
    """The largest elements of output_size windows that cover the volume evenly; see `adaptive_max_pool2d`."""
    return _adaptive_max("adaptive_max_pool3d", 3, input, output_size, return_indices)


# -- windows laid by chance --------------------------------------------------------------------------------------------


def _fractional_max(
    function: str, spatial: int, input: Any, kernel_size: Any, output_size: Any, output_ratio: Any,
    return_indices: bool, samples: Any,
) -> Any:  # fmt: skip
    images = with_batch(function, spatial, input)
    n, channels, *image = images.array.shape
    kernel = as_sizes(kernel_size, spatial, "kernel_size", function)
    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"{function} requires specifying either an output_size or an output_ratio")
    if output_size is None:
        ratios = (output_ratio,) * spatial if isinstance(output_ratio, float) else tuple(output_ratio)
        size = tuple(int(m * ratio) for m, ratio in zip(image, ratios, strict=True))
    else:
        size = as_sizes(output_size, spatial, "output_size", function)
    if any(m + k - 1 > i for m, k, i in zip(size, kernel, image, strict=True)) or min(size) < 1:
        raise RuntimeError(
            f"{function}(): pool size {kernel} with output_size {size} is too large relative to the input size {image}"
        )
    if samples is None:
        drawn = uniform_array((n, channels, spatial), images.array.dtype)
    else:
        drawn = samples.detach().cpu().numpy()[:n]
    members = []
    for i in range(spatial):
        sample = drawn[:, :, 1 - i if spatial == 2 else i]  # width, height, but depth, height, width: PyTorch's order
        start = _starts(sample, image[i], size[i], kernel[i])
        members.append(start[..., None] + numpy.arange(kernel[i]))
    results = _largest(images, _flat_places(members, tuple(image)), spatial, return_indices)
    return _unbatched(results, images is not input)


def _starts(sample: numpy.ndarray, n: int, out: int, kernel: int) -> numpy.ndarray:
    """Where the windows of a dimension begin, for samples [n, channels]: [n, channels, out]."""
    start = numpy.full((*sample.shape, out), n - kernel)
    if out > 1:
        alpha = sample.dtype.type((n - kernel) / (out - 1))
        i = numpy.arange(out - 1, dtype=sample.dtype)
        start[..., :-1] = ((i + sample[..., None]) * alpha).astype(int) - (sample * alpha).astype(int)[..., None]
    return start


def fractional_max_pool2d(
    input: Any,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | tuple[float, float] | None = None,
    return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:
    """The largest element of each of output_size windows whose distances are drawn at random.

    Args:
        input: [n, channels, height, width], or without n.
        kernel_size: height and width of a window.
        output_size: height and width of the output; or
        output_ratio: their ratio to the input's, between 0 and 1.
        return_indices: whether to return also where in its flattened image each element was.
        _random_samples: numbers in [0, 1) [n, channels, 2] to take instead of drawing them.

    Source: Graham, Fractional Max-Pooling, 2014.
    """
    arguments = (kernel_size, output_size, output_ratio, return_indices, _random_samples)
    return _fractional_max("fractional_max_pool2d", 2, input, *arguments)


def fractional_max_pool3d(
    input: Any,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | tuple[float, float, float] | None = None,
    return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:
    """`fractional_max_pool2d` of volumes [n, channels, depth, height, width]."""
    arguments = (kernel_size, output_size, output_ratio, return_indices, _random_samples)
    return _fractional_max("fractional_max_pool3d", 3, input, *arguments)


# -- back to where they were -------------------------------------------------------------------------------------------


def _max_unpool(
    function: str, spatial: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Any:
    images, places = (with_batch(function, spatial, x) for x in (input, indices))
    if places.array.dtype != numpy.int64:
        raise RuntimeError(f"{function}(): elements in indices should be type int64, got {indices.dtype}")
    if places.array.shape != images.array.shape:
        raise RuntimeError(
            f"{function}(): expected shape of indices to be that of the input, {list(input.array.shape)}, but got "
            f"{list(indices.array.shape)}"
        )
    n, channels, *image = images.array.shape
    kernel = as_sizes(kernel_size, spatial, "kernel_size", function)
    step = kernel if stride is None else as_sizes(stride, spatial, "stride", function)
    around = as_sizes(padding, spatial, "padding", function)
    size = _unpooled_size(function, image, kernel, step, around, output_size)
    flat, where = shaping.flatten(images, 2), shaping.flatten(places, 2)
    count = math.prod(size)
    if where.array.size:
        check_range(where.array, count, f"{function}() with an output of size {list(size)}")
    zeros = creation.zeros(n, channels, count, dtype=input.dtype, device=input.device)
    out = shaping.reshape(scattering.scatter_write(zeros, flat, where, 2), (n, channels, *size))
    return _unbatched(out, images is not input)


def _unpooled_size(
    function: str, image: list, kernel: tuple, stride: tuple, padding: tuple, output_size: Any
) -> tuple[int, ...]:
    default = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(image, stride, padding, kernel, strict=True))
    if output_size is None:
        return default
    size = tuple(output_size)
    if len(size) == len(kernel) + 2:
        size = size[2:]
    if len(size) != len(kernel):
        raise ValueError(
            f"output_size should be a sequence containing {len(kernel)} or {len(kernel) + 2} elements, but it has a "
            f"length of '{len(size)}'"
        )
    for m, d, s in zip(size, default, stride, strict=True):
        if not d - s < m < d + s:
            raise ValueError(
                f"invalid output_size {size!r}: {function} expects each element less than a stride ({stride}) away "
                f"from {default}"
            )
    return size


def max_unpool1d(
    input: Any,
    indices: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Any = None,
) -> Any:
    """The partial inverse of `max_pool1d`; arguments as for `max_unpool2d`."""
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any,
    indices: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Any = None,
) -> Any:
    """The partial inverse of `max_pool2d`: the elements where they were, zeros elsewhere.

    Args:
        input: [n, channels, height, width], or without n.
        indices: of the input's shape, as `max_pool2d(..., return_indices=True)` gives them.
        kernel_size, stride, padding: as they were for the pooling.
        output_size: of the result, where more than one size would have been pooled to the input's.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.max_unpool2d(torch.tensor([[[5.0]]]), torch.tensor([[[2]]]), 2)
        tensor([[[0., 0.],
                 [5., 0.]]])
    """
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any,
    indices: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Any = None,
) -> Any:
    """The partial inverse of `max_pool3d`; arguments as for `max_unpool2d`."""
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)
