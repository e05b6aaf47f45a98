"""Pooling."""

from __future__ import annotations

import functools
import math
from typing import Any

from ...tensor.ops import activation, ordering, shaping
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import pointwise as pw
from ...tensor.ops import pooling as ops
from ...tensor.ops.sliding_windows import Windows
from .convolution import Sizes, as_sizes, hashable


@functools.lru_cache(maxsize=1024)
def _windows(
    function: str, shape: tuple, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Windows:
    """The windows on images of a shape, with the arguments checked."""
    spatial = len(shape) - 2
    kernel = as_sizes(kernel_size, spatial, "kernel_size", function)
    step = kernel if stride is None or stride == () else as_sizes(stride, spatial, "stride", function)
    around = as_sizes(padding, spatial, "padding", function)
    spread = as_sizes(dilation, spatial, "dilation", function)
    if min(*kernel, *step, *spread) <= 0:
        raise RuntimeError(
            f"{function}(): kernel_size, stride and dilation must be greater than zero, got {kernel}, {step}, {spread}"
        )
    if any(p < 0 or 2 * p > d * (k - 1) + 1 for p, k, d in zip(around, kernel, spread, strict=True)):
        raise RuntimeError(
            f"{function}(): pad should be at most half of effective kernel size, but got pad={around} and "
            f"kernel_size={kernel}"
        )
    windows = Windows.over(shape[2:], kernel, step, around, spread, ceil_mode)
    if min(*windows.out, *shape[1:]) <= 0:
        raise RuntimeError(
            f"{function}(): Given input size {list(shape[1:])}, calculated output size {list(windows.out)}. Output "
            f"size is too small for kernel_size {kernel}"
        )
    return windows


def with_batch(function: str, spatial: int, input: Any) -> Any:
    """The input [n, channels, ...], where it may come without n."""
    ndim = input.array.ndim
    if ndim == spatial + 2:
        return input
    if ndim != spatial + 1:
        raise RuntimeError(
            f"{function}(): Expected {spatial + 1}D or {spatial + 2}D (batch mode) tensor, but got input of size: "
            f"{list(input.array.shape)}"
        )
    return shaping.unsqueeze(input, 0)


# -- the largest element -----------------------------------------------------------------------------------------------


def _max_pool(
    function: str, spatial: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    images = with_batch(function, spatial, input)
    geometry = map(hashable, (kernel_size, stride, padding, dilation))
    windows = _windows(function, images.array.shape, *geometry, ceil_mode)
    if windows.is_one_over(images.array.shape[2:]) and not return_indices:  # of several nans it names another one
        largest, _ = ordering.max(shaping.flatten(images, 2), 2)
        results: tuple = (shaping.reshape(largest, (*largest.array.shape, *windows.out)),)
    else:
        out = ops.max_pool(images, windows)
        results = (out, ops.max_pool_indices(images, windows)) if return_indices else (out,)
    if images is not input:
        results = tuple(shaping.squeeze(x, 0) for x in results)
    return results if return_indices else results[0]


def max_pool1d(
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of [n, channels, length]; arguments as for `max_pool2d`."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window.

    Args:
        input: [n, channels, height, width], or without n.
        kernel_size: height and width of a window.
        stride: steps between windows, kernel_size if None.
        padding: how much around the images counts as minus infinity; at most half the kernel.
        dilation: steps between the elements of a window.
        ceil_mode: whether windows that reach past the end count.
        return_indices: whether to return also where in its flattened image each element was.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.max_pool2d(torch.tensor([[[1.0, 2.0], [4.0, 3.0]]]), 2)
        tensor([[[4.]]])
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of [n, channels, depth, height, width]; arguments as for `max_pool2d`."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


# -- the mean ----------------------------------------------------------------------------------------------------------


def _avg_pool(
    function: str, spatial: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    if divisor_override == 0:
        raise RuntimeError(f"{function}(): divisor must be not zero")
    images = with_batch(function, spatial, input)
    geometry = map(hashable, (kernel_size, stride, padding))
    windows = _windows(function, images.array.shape, *geometry, 1, ceil_mode)
    out = ops.avg_pool(images, windows, count_include_pad, divisor_override)
    return out if images is input else shaping.squeeze(out, 0)


def avg_pool1d(
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window of [n, channels, length]; arguments as for `avg_pool2d`."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The mean of each window.

    Args:
        input: [n, channels, height, width], or without n.
        kernel_size, stride, ceil_mode: as for `max_pool2d`.
        padding: zeros around the images; at most half the kernel.
        count_include_pad: whether these zeros count.
        divisor_override: what the sums are divided by instead.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.avg_pool2d(torch.tensor([[[1.0, 2.0], [4.0, 3.0]]]), 2)
        tensor([[[2.5000]]])
    """
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The mean of each window of [n, channels, depth, height, width]; arguments as for `avg_pool2d`."""
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


# -- the p-norm --------------------------------------------------------------------------------------------------------


def _lp_pool(
    function: str, spatial: int, input: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Any:
    kernel = as_sizes(kernel_size, spatial, "kernel_size", function)
    means = _avg_pool(function, spatial, ar.pow(input, norm_type), kernel, stride, 0, ceil_mode, True)
    sums = ar.mul(ar.mul(pw.sign(means), activation.relu(pw.abs(means))), math.prod(kernel))
    return ar.pow(sums, 1.0 / norm_type)


def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Any:
    """The p-norm of each window of [n, channels, length]; arguments as for `lp_pool2d`."""
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Any:
    """(sum of input ** norm_type over each window) ** (1 / norm_type).

    Args:
        input: [n, channels, height, width], or without n.
        norm_type: the exponent.
        kernel_size, stride, ceil_mode: as for `max_pool2d`.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.lp_pool2d(torch.tensor([[[3.0, 0.0], [4.0, 0.0]]]), 2, 2)
        tensor([[[5.]]])
    """
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Any, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Any:
    """The p-norm of each window of [n, channels, depth, height, width]; arguments as for `lp_pool2d`."""
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)
