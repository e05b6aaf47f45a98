"""Pooling."""

from __future__ import annotations

import functools
from typing import Any

import numpy

from ...autograd.variable import box
from ...runtime import device as devices
from ...tensor.ops import linalg, reduction, shaping
from ...tensor.ops import pooling as ops
from .convolution import Pair, as_pair


@functools.lru_cache(maxsize=1024)
def _windows(
    function: str, shape: tuple, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> ops.Windows:
    """The windows on images of a shape, with the arguments checked."""
    kernel = as_pair(kernel_size, "kernel_size", function)
    step = kernel if stride is None or stride == () else as_pair(stride, "stride", function)
    around, spread = as_pair(padding, "padding", function), as_pair(dilation, "dilation", function)
    if len(shape) != 4:
        raise RuntimeError(f"{function}(): Expected 3D or 4D (batch mode) tensor, but got input of size: {list(shape)}")
    if min(*kernel, *step, *spread) <= 0:
        raise RuntimeError(
            f"{function}(): kernel_size, stride and dilation must be greater than zero, got {kernel}, {step}, {spread}"
        )
    if any(p < 0 or 2 * p > k for p, k in zip(around, kernel, strict=True)):
        raise RuntimeError(
            f"{function}(): pad should be at most half of effective kernel size, but got pad={around} and "
            f"kernel_size={kernel}"
        )
    windows = ops.Windows.over(shape[2:], kernel, step, around, spread, ceil_mode)
    if min(windows.out) <= 0:
        raise RuntimeError(
            f"{function}(): Given input size {list(shape[1:])}, calculated output size {list(windows.out)}. Output "
            f"size is too small for kernel_size {kernel}"
        )
    return windows


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def max_pool2d(
    input: Any,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
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
    images = shaping.unsqueeze(input, 0) if input.array.ndim == 3 else input
    windows = _windows(
        "max_pool2d", images.array.shape, *map(_hashable, (kernel_size, stride, padding, dilation)), ceil_mode
    )
    out = ops.max_pool2d(images, windows)
    results = (out, ops.max_pool2d_indices(images, out, windows)) if return_indices else (out,)
    if images is not input:
        results = tuple(shaping.squeeze(x, 0) for x in results)
    return results if return_indices else results[0]


def avg_pool2d(
    input: Any,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
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
    if divisor_override == 0:
        raise RuntimeError("avg_pool2d(): divisor must be not zero")
    images = shaping.unsqueeze(input, 0) if input.array.ndim == 3 else input
    windows = _windows(
        "avg_pool2d", images.array.shape, *map(_hashable, (kernel_size, stride, padding)), 1, ceil_mode
    )
    out = ops.avg_pool2d(images, windows, count_include_pad, divisor_override)
    return out if images is input else shaping.squeeze(out, 0)


def adaptive_avg_pool2d(input: Any, output_size: int | tuple[int | None, int | None]) -> Any:
    """The means over output_size windows that cover the image evenly.

    Window i of a dimension goes from floor(i * n / size) to ceil((i + 1) * n / size).

    Args:
        input: [..., height, width].
        output_size: height and width of the output; None keeps the input's.
    """
    shape = input.array.shape
    if len(shape) not in (3, 4):
        raise RuntimeError(f"adaptive_avg_pool2d(): Expected 3D or 4D tensor, but got {list(shape)}")
    wanted = (output_size, output_size) if isinstance(output_size, int) or output_size is None else tuple(output_size)
    size = tuple(n if want is None else want for n, want in zip(shape[-2:], wanted, strict=True))
    if size == (1, 1):
        return reduction.mean(input, (-2, -1), True)
    if min(size) > 0 and not any(n % m for n, m in zip(shape[-2:], size, strict=True)):
        return avg_pool2d(input, tuple(n // m for n, m in zip(shape[-2:], size, strict=True)))
    rows, columns = (_averages(n, m, input) for n, m in zip(shape[-2:], size, strict=True))
    return linalg.matmul_nd(linalg.matmul_nd(rows, input), shaping.transpose(columns, 0, 1))


def _averages(n: int, size: int, like: Any) -> Any:
    """The matrix [size, n] that takes the mean of each window of a dimension."""
    matrix = numpy.zeros((size, n), like.array.dtype)
    for i in range(size):
        window = slice(i * n // size, -(-(i + 1) * n // size))
        matrix[i, window] = 1 / (window.stop - window.start)
    return box(devices.move(matrix, like.device))
