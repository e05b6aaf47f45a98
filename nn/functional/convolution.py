"""Convolution."""

from __future__ import annotations

from typing import Any

from ...runtime import dtypes
from ...tensor.ops import convolution as ops
from ...tensor.ops import shaping
from .padding import pad

Pair = tuple[int, int]


def as_pair(value: Any, name: str, function: str) -> Pair:
    """A number for both dimensions, or one for each."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2 or not all(isinstance(n, int) for n in pair):
        raise RuntimeError(f"{function}(): expected {name} to be an int or a pair of ints, got {value!r}")
    return pair


def same_padding(kernel: tuple, dilation: tuple) -> list[Pair]:
    """For each dimension the (before, after) that keep its size at stride 1."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlation of images with kernels.

    out[n, o, y, x] = bias[o] + sum over c, i, j of weight[o, c, i, j] * padded[n, c, y * s + i * d, x * s + j * d]
    for stride s and dilation d, padded being the input with its padding.

    Args:
        input: [n, in_channels, height, width], or without n.
        weight: [out_channels, in_channels / groups, kernel height, kernel width].
        bias: [out_channels].
        stride: steps between windows.
        padding: zeros around the images; "valid" for none, "same" for an output of the input's size (at stride 1).
        dilation: steps between the elements of a window.
        groups: into how many independent parts the channels are split.

    Returns:
        [n, out_channels, (height + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1, likewise for the width].

    Raises:
        RuntimeError: shapes or dtypes do not fit, or the kernel is larger than the padded input.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2))
        tensor([[[[4., 4.],
                  [4., 4.]]]])
    """
    stride, dilation = as_pair(stride, "stride", "conv2d"), as_pair(dilation, "dilation", "conv2d")
    image, kernel = input.array.shape, weight.array.shape
    if len(image) == 3:
        batch = conv2d(shaping.unsqueeze(input, 0), weight, bias, stride, padding, dilation, groups)
        return shaping.squeeze(batch, 0)
    if len(image) != 4 or len(kernel) != 4:
        raise RuntimeError(
            "Expected 3D (unbatched) or 4D (batched) input to conv2d and a 4D weight, but got input of size: "
            f"{list(image)} and weight of size: {list(kernel)}"
        )
    if isinstance(padding, str):
        if padding == "same":
            if stride != (1, 1):
                raise RuntimeError("padding='same' is not supported for strided convolutions")
            (top, bottom), (left, right) = same_padding(kernel[2:], dilation)
            if top != bottom or left != right:
                input, top, left = pad(input, (left, right, top, bottom)), 0, 0
                image = input.array.shape
            padding = (top, left)
        elif padding == "valid":
            padding = (0, 0)
        else:
            raise RuntimeError(f"Invalid padding string: {padding!r}; expected 'same' or 'valid'")
    padding = as_pair(padding, "padding", "conv2d")
    out = [ops.output_size(*sizes) for sizes in zip(image[2:], kernel[2:], stride, padding, dilation, strict=True)]
    if (
        image[1] != kernel[1] * groups
        or kernel[0] % groups
        or min(out) <= 0
        or input.array.dtype != weight.array.dtype
        or (bias is not None and bias.array.shape != kernel[:1])
    ):
        raise RuntimeError(_mistake(input, weight, bias, padding, dilation, groups))
    return ops.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _mistake(input: Any, weight: Any, bias: Any, padding: Pair, dilation: Pair, groups: int) -> str:
    image, kernel = input.array.shape, weight.array.shape
    if groups <= 0 or kernel[0] % groups:
        return f"Given groups={groups}, expected weight's dimension 0 to be divisible by it, but got {list(kernel)}"
    if image[1] != kernel[1] * groups:
        return (
            f"Given groups={groups}, weight of size {list(kernel)}, expected input{list(image)} to have "
            f"{kernel[1] * groups} channels, but got {image[1]} channels instead"
        )
    if input.array.dtype != weight.array.dtype:
        return (
            f"Input type ({dtypes.of(input.array.dtype).name}) and weight type ({dtypes.of(weight.array.dtype).name}) "
            "should be the same; convert one with .to(dtype)"
        )
    if bias is not None and bias.array.shape != kernel[:1]:
        return (
            f"Given weight of size {list(kernel)}, expected bias to be 1-dimensional with {kernel[0]} elements, but "
            f"got bias of size {list(bias.array.shape)} instead"
        )
    padded = " x ".join(str(n + 2 * p) for n, p in zip(image[2:], padding, strict=True))
    reach = " x ".join(str(d * (k - 1) + 1) for k, d in zip(kernel[2:], dilation, strict=True))
    return (
        f"Calculated padded input size per channel: ({padded}). Kernel size: ({reach}). Kernel size can't be greater "
        "than actual input size"
    )


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] | str = 0,
    dilation: int | tuple[int] = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlation of sequences with kernels: `conv2d` with a height of 1.

    Args:
        input: [n, in_channels, length], or without n.
        weight: [out_channels, in_channels / groups, kernel length].
        bias, stride, padding, dilation, groups: as for `conv2d`.
    """
    if input.array.ndim not in (2, 3) or weight.array.ndim != 3:
        raise RuntimeError(
            "Expected 2D (unbatched) or 3D (batched) input to conv1d and a 3D weight, but got input of size: "
            f"{list(input.array.shape)} and weight of size: {list(weight.array.shape)}"
        )
    out = conv2d(
        shaping.unsqueeze(input, -2),
        shaping.unsqueeze(weight, -2),
        bias,
        (1, _single(stride)),
        padding if isinstance(padding, str) else (0, _single(padding)),
        (1, _single(dilation)),
        groups,
    )
    return shaping.squeeze(out, -2)


def _single(value: int | tuple[int]) -> int:
    return value if isinstance(value, int) else value[0]
