"""Convolution and its transpose."""

from __future__ import annotations

import functools
from typing import Any

from ...runtime import dtypes
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import convolution as ops
from ...tensor.ops import shaping

Sizes = int | tuple[int, ...]


def as_sizes(value: Any, spatial: int, name: str, function: str) -> tuple[int, ...]:
    """A number for all spatial dimensions, or one for each."""
    sizes = (value,) * spatial if isinstance(value, int) else tuple(value)
    if len(sizes) == 1:
        sizes *= spatial
    if len(sizes) != spatial or not all(isinstance(n, int) for n in sizes):
        raise RuntimeError(f"{function}(): expected {name} to be an int or {spatial} ints, got {value!r}")
    return sizes


def hashable(value: Any) -> Any:
    """Lists as tuples, for functions that remember what they have computed."""
    return tuple(value) if isinstance(value, list) else value


def same_padding(kernel: tuple, dilation: tuple) -> list[tuple[int, int]]:
    """For each dimension the (before, after) that keep its size at stride 1."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


# -- convolution -------------------------------------------------------------------------------------------------------


def _convolution(
    function: str, spatial: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    groups: int,
) -> Any:  # fmt: skip
    batch = _batched(function, spatial, input, weight)
    image, kernel = batch.array.shape, weight.array.shape
    extra, *geometry = _checked(function, image, kernel, *map(hashable, (stride, padding, dilation)), groups)
    _check_parameters(batch, weight, bias, kernel[0])
    if extra:
        batch = shaping.pad_constant(batch, extra)
    out = ops.convolution(batch, weight, bias, *geometry, groups)
    return out if batch is input or input.array.ndim > spatial + 1 else shaping.squeeze(out, 0)


def _batched(function: str, spatial: int, input: Any, weight: Any) -> Any:
    """The input [n, channels, ...], where it may come without n."""
    ndim = input.array.ndim
    if ndim not in (spatial + 1, spatial + 2) or weight.array.ndim != spatial + 2:
        raise RuntimeError(
            f"Expected {spatial + 1}D (unbatched) or {spatial + 2}D (batched) input to {function} and a {spatial + 2}D "
            f"weight, but got input of size: {list(input.array.shape)} and weight of size: {list(weight.array.shape)}"
        )
    return input if ndim == spatial + 2 else shaping.unsqueeze(input, 0)


@functools.lru_cache(maxsize=1024)
def _checked(
    function: str, image: tuple, kernel: tuple, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[tuple, tuple, tuple, tuple]:
    """What to pad unevenly before, and stride, padding and dilation by dimension."""
    spatial = len(kernel) - 2
    stride = as_sizes(stride, spatial, "stride", function)
    dilation = as_sizes(dilation, spatial, "dilation", function)
    extra: tuple = ()
    if isinstance(padding, str):
        if padding == "same":
            if set(stride) != {1}:
                raise RuntimeError("padding='same' is not supported for strided convolutions")
            pairs = same_padding(kernel[2:], dilation)
            padding = tuple(before for before, _ in pairs)
            if any(before != after for before, after in pairs):
                extra = ((0, 0), (0, 0), *((0, after - before) for before, after in pairs))
        elif padding == "valid":
            padding = 0
        else:
            raise RuntimeError(f"Invalid padding string: {padding!r}; expected 'same' or 'valid'")
    padding = as_sizes(padding, spatial, "padding", function)
    if min(stride) <= 0 or min(padding) < 0 or min(dilation) <= 0:
        raise RuntimeError(
            f"{function}(): stride and dilation must be positive and padding not negative, got stride={stride}, "
            f"padding={padding}, dilation={dilation}"
        )
    if groups <= 0 or kernel[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight's dimension 0 to be divisible by it, but got {list(kernel)}"
        )
    if image[1] != kernel[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(kernel)}, expected input{list(image)} to have "
            f"{kernel[1] * groups} channels, but got {image[1]} channels instead"
        )
    size = [n + after for n, (_, after) in zip(image, extra, strict=True)][2:] if extra else image[2:]
    if min(ops.output_size(*n) for n in zip(size, kernel[2:], stride, padding, dilation, strict=True)) <= 0:
        padded = " x ".join(str(n + 2 * p) for n, p in zip(size, padding, strict=True))
        reach = " x ".join(str(d * (k - 1) + 1) for k, d in zip(kernel[2:], dilation, strict=True))
        raise RuntimeError(
            f"Calculated padded input size per channel: ({padded}). Kernel size: ({reach}). Kernel size can't be "
            "greater than actual input size"
        )
    return extra, stride, padding, dilation


def _check_parameters(input: Any, weight: Any, bias: Any, channels: int) -> None:
    if input.array.dtype != weight.array.dtype:
        raise RuntimeError(
            f"Input type ({dtypes.of(input.array.dtype).name}) and weight type ({dtypes.of(weight.array.dtype).name}) "
            "should be the same; convert one with .to(dtype)"
        )
    if bias is not None and bias.array.shape != (channels,):
        raise RuntimeError(
            f"Given weight of size {list(weight.array.shape)}, expected bias to be 1-dimensional with {channels} "
            f"elements, but got bias of size {list(bias.array.shape)} instead"
        )


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlation of sequences with kernels.

    Args:
        input: [n, in_channels, length], or without n.
        weight: [out_channels, in_channels / groups, kernel length].
        bias, stride, padding, dilation, groups: as for `conv2d`.
    """
    return _convolution("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
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
    return _convolution("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlation of volumes with kernels.

    Args:
        input: [n, in_channels, depth, height, width], or without n.
        weight: [out_channels, in_channels / groups, kernel depth, kernel height, kernel width].
        bias, stride, padding, dilation, groups: as for `conv2d`.
    """
    return _convolution("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


# -- transposed convolution --------------------------------------------------------------------------------------------


def _transposed(
    function: str, spatial: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Any:  # fmt: skip
    """The map that a convolution's gradient takes from its output to its input."""
    batch = _batched(function, spatial, input, weight)
    image, kernel = batch.array.shape, weight.array.shape
    arguments = map(hashable, (stride, padding, dilation, output_padding))
    stride, padding, dilation, size, crop = _checked_transposed(function, image, kernel, *arguments, groups)
    _check_parameters(batch, weight, bias, size[1])
    out = ops.convolution_input(batch, weight, size, stride, padding, dilation, groups)
    if crop:
        out = shaping.pad_constant(out, crop)
    if bias is not None:
        out = ar.add(out, shaping.reshape(bias, (bias.array.size,) + (1,) * spatial))
    return out if input.array.ndim > spatial + 1 else shaping.squeeze(out, 0)


@functools.lru_cache(maxsize=1024)
def _checked_transposed(
    function: str, image: tuple, kernel: tuple, stride: Any, padding: Any, dilation: Any, output_padding: Any,
    groups: int,
) -> tuple[tuple, tuple, tuple, tuple, tuple]:  # fmt: skip
    """Stride, padding and dilation by dimension, the size of the output, and what to crop from it afterwards."""
    spatial = len(kernel) - 2
    stride, padding, dilation, more = (
        as_sizes(value, spatial, name, function)
        for name, value in (
            ("stride", stride), ("padding", padding), ("dilation", dilation), ("output_padding", output_padding),
        )
    )  # fmt: skip
    if min(stride) <= 0 or min(padding) < 0 or min(dilation) <= 0 or min(more) < 0:
        raise RuntimeError(
            f"{function}(): stride and dilation must be positive, padding and output_padding not negative, got "
            f"stride={stride}, padding={padding}, dilation={dilation}, output_padding={more}"
        )
    if groups <= 0 or kernel[0] % groups or image[1] != kernel[0]:
        raise RuntimeError(
            f"Given transposed=1, weight of size {list(kernel)} and groups={groups}, expected input{list(image)} to "
            f"have {kernel[0]} channels, divisible by groups, but got {image[1]} channels"
        )
    if any(o >= max(s, d) for o, s, d in zip(more, stride, dilation, strict=True)):
        raise RuntimeError(
            f"output padding must be smaller than either stride or dilation, but got output_padding={more}, "
            f"stride={stride} and dilation={dilation}"
        )
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(image[2:], stride, dilation, kernel[2:], strict=True)]
    out = [r - 2 * p + o for r, p, o in zip(reach, padding, more, strict=True)]
    if min(out) <= 0 or min(image[1:]) <= 0:
        raise RuntimeError(
            f"Given input size per channel: {list(image[2:])}. Calculated output size per channel: {out}. Output size "
            "is too small"
        )
    channels = kernel[1] * groups
    if all(o < s for o, s in zip(more, stride, strict=True)):
        return stride, padding, dilation, (image[0], channels, *out), ()
    # a convolution of that size would have more outputs than there are: take all that is reached, then cut or add
    crop = ((0, 0), (0, 0), *((-p, o - p) for p, o in zip(padding, more, strict=True)))
    return stride, (0,) * spatial, dilation, (image[0], channels, *reach), crop


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Any:
    """The transpose of `conv1d`: input [n, in_channels, length], weight [in_channels, out_channels / groups, kernel].

    The arguments are those of `conv_transpose2d`.
    """
    return _transposed("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Any:
    """The transpose of `conv2d`: every input element adds a kernel, scaled by it, to the output.

    Args:
        input: [n, in_channels, height, width], or without n.
        weight: [in_channels, out_channels / groups, kernel height, kernel width].
        bias: [out_channels].
        stride: how far the kernels of neighbouring input elements are apart.
        padding: how much is cut off around the output.
        output_padding: how much is added at the end, less than stride or dilation.
        groups: into how many independent parts the channels are split.
        dilation: steps between the elements of a kernel.

    Returns:
        [n, out_channels, (height - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1, likewise].

    Source: Zeiler et al., Deconvolutional Networks, 2010.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.conv_transpose2d(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
        tensor([[[[1., 2., 1.]]]])
    """
    return _transposed("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Any:
    """The transpose of `conv3d`: weight [in_channels, out_channels / groups, *kernel]; see `conv_transpose2d`."""
    return _transposed("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation)
