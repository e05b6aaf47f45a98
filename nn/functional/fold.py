"""Patches of images, and elements moved between channels and space."""

from __future__ import annotations

import math
from typing import Any

from ...tensor.ops import shaping
from ...tensor.ops.sliding_windows import Windows, col2im, im2col
from .convolution import Sizes, as_sizes


def _windows(function: str, image: tuple, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Windows:
    kernel = as_sizes(kernel_size, 2, "kernel_size", function)
    spread = as_sizes(dilation, 2, "dilation", function)
    around = as_sizes(padding, 2, "padding", function)
    step = as_sizes(stride, 2, "stride", function)
    if min(*kernel, *spread, *step) <= 0 or min(around) < 0:
        raise RuntimeError(
            f"{function}(): kernel_size, dilation and stride should be greater than zero and padding not negative, got "
            f"kernel_size={kernel}, dilation={spread}, stride={step}, padding={around}"
        )
    windows = Windows.over(image, kernel, step, around, spread)
    if min(windows.out) < 1:
        raise RuntimeError(
            f"{function}(): Given image size {list(image)}, kernel_size={kernel}, dilation={spread}, padding={around} "
            f"and stride={step}, calculated shape of the array of sliding blocks as {list(windows.out)}, "
            "which is too small"
        )
    return windows


def unfold(input: Any, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Any:
    """The patches that a window covers, as columns.

    Args:
        input: [n, channels, height, width], or without n.
        kernel_size: height and width of the window; so are the next three.
        dilation: steps between its elements.
        padding: zeros around the images.
        stride: steps between windows.

    Returns:
        [n, channels * kernel height * kernel width, windows].

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.unfold(torch.tensor([[[[1.0, 2.0, 3.0]]]]), (1, 2))
        tensor([[[1., 2.],
                 [2., 3.]]])
    """
    ndim = input.array.ndim
    if ndim not in (3, 4):
        raise RuntimeError(f"unfold(): expected 3D or 4D (batch mode) input, got {list(input.array.shape)}")
    images = input if ndim == 4 else shaping.unsqueeze(input, 0)
    windows = _windows("unfold", images.array.shape[2:], kernel_size, dilation, padding, stride)
    columns = im2col(images, windows)
    return columns if ndim == 4 else shaping.squeeze(columns, 0)


def fold(
    input: Any, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> Any:
    """Images of output_size with patches added where `unfold` takes them from.

    Args:
        input: [n, channels * kernel height * kernel width, windows], or without n.
        output_size: height and width of the images.
        kernel_size, dilation, padding, stride: as for `unfold`.

    Returns:
        [n, channels, height, width].
    """
    shape = input.array.shape
    size = as_sizes(output_size, 2, "output_size", "fold")
    windows = _windows("fold", size, kernel_size, dilation, padding, stride)
    members, count = math.prod(windows.kernel), math.prod(windows.out)
    if len(shape) not in (2, 3) or shape[-2] % members or shape[-1] != count or not shape[-2]:
        raise RuntimeError(
            f"fold(): expected input [n, channels * {members}, {count}] or without n for output_size={size} and "
            f"kernel_size={windows.kernel}, got {list(shape)}"
        )
    columns = input if len(shape) == 3 else shaping.unsqueeze(input, 0)
    images = col2im(columns, (columns.array.shape[0], shape[-2] // members, *size), windows)
    return images if len(shape) == 3 else shaping.squeeze(images, 0)


def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """[..., channels * r * r, height, width] as [..., channels, height * r, width * r] for upscale_factor r.

    Source: Shi et al., Real-Time Single Image and Video Super-Resolution, 2016.
    """
    shape, r = input.array.shape, upscale_factor
    if len(shape) < 3:
        raise RuntimeError(f"pixel_shuffle expects input to have at least 3 dimensions, but got {len(shape)}")
    *batch, channels, height, width = shape
    if r <= 0 or channels % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of a positive "
            f"upscale_factor, but input.size(-3)={channels} is not divisible by {r} * {r}"
        )
    split = shaping.reshape(input, (*batch, channels // (r * r), r, r, height, width))
    n = len(batch)
    moved = shaping.permute(split, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return shaping.reshape(moved, (*batch, channels // (r * r), height * r, width * r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """The inverse of `pixel_shuffle`: [..., c, height * r, width * r] as [..., c * r * r, height, width]."""
    shape, r = input.array.shape, downscale_factor
    if len(shape) < 3:
        raise RuntimeError(f"pixel_unshuffle expects input to have at least 3 dimensions, but got {len(shape)}")
    *batch, channels, height, width = shape
    if r <= 0 or height % r or width % r:
        raise RuntimeError(
            "pixel_unshuffle expects height and width to be divisible by a positive downscale_factor, but "
            f"{height} x {width} is not divisible by {r}"
        )
    split = shaping.reshape(input, (*batch, channels, height // r, r, width // r, r))
    n = len(batch)
    moved = shaping.permute(split, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return shaping.reshape(moved, (*batch, channels * r * r, height // r, width // r))


def channel_shuffle(input: Any, groups: int) -> Any:
    """Channels [n, groups * k, ...] taken in turn from each group. Source: Zhang et al., ShuffleNet, 2017."""
    shape = input.array.shape
    if len(shape) < 3:
        raise RuntimeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(shape)}")
    if groups <= 0 or shape[1] % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by a positive number of groups. Got {shape[1]} channels and "
            f"{groups} groups."
        )
    split = shaping.reshape(input, (shape[0], groups, shape[1] // groups, *shape[2:]))
    return shaping.reshape(shaping.transpose(split, 1, 2), shape)
