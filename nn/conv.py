"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

from ..tensor import creation
from . import functional as F
from . import init
from .functional.convolution import same_padding
from .linear import empty_parameter
from .module import Module
from .parameter import Parameter

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def sizes_of(layer: Module, value: Any, spatial: int, name: str) -> tuple[int, ...]:
    """A number for all spatial dimensions, or one for each."""
    sizes = tuple(value) if isinstance(value, tuple | list) else (value,) * spatial
    if len(sizes) != spatial:
        raise ValueError(f"{layer._get_name()}: {name} must be an int or {spatial} ints, got {value!r}")
    return sizes


class _ConvBase(Module):
    """What convolutions and their transposes of any number of dimensions share."""

    spatial: int
    function: Any
    transposed: bool

    def _set_up(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
        output_padding: Any, groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError(f"in_channels must be divisible by groups, got {in_channels} and {groups}")
        if out_channels % groups:
            raise ValueError(f"out_channels must be divisible by groups, got {out_channels} and {groups}")
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {_PADDING_MODES}, but got padding_mode='{padding_mode}'")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sizes_of(self, kernel_size, self.spatial, "kernel_size")
        self.stride = sizes_of(self, stride, self.spatial, "stride")
        self.dilation = sizes_of(self, dilation, self.spatial, "dilation")
        self.output_padding = sizes_of(self, output_padding, self.spatial, "output_padding")
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of 'valid', 'same'")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
            self.padding: tuple[int, ...] | str = padding
        else:
            self.padding = sizes_of(self, padding, self.spatial, "padding")
        self.weight = Parameter(creation.empty(*self._weight_size(), device=device, dtype=dtype))
        self.register_parameter("bias", empty_parameter(bias, (out_channels,), device, dtype))
        self.reset_parameters()

    def _weight_size(self) -> tuple[int, ...]:
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        return (first, second // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw new values."""
        fan_in = math.prod(self._weight_size()[1:])
        if not fan_in:
            return
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # which is uniform in +-1 / sqrt(fan in)
        if self.bias is not None:
            bound = 1 / math.sqrt(fan_in)
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.spatial:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.spatial:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.spatial:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_ConvBase):
    """What convolutions of any number of dimensions share."""

    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode, device,
            dtype,
        )  # fmt: skip

    def forward(self, input: Any) -> Any:
        padding: Any = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            input, padding = F.pad(input, self._around(), self.padding_mode), 0
        return self.function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _around(self) -> list[int]:
        """The padding as F.pad takes it: (before, after) from the last dimension to the first."""
        if isinstance(self.padding, str):
            pairs = same_padding(self.kernel_size, self.dilation)
        else:
            pairs = [(p, p) for p in self.padding]
        return [n for pair in reversed(pairs) for n in pair]


class Conv2d(_Conv):
    """Cross-correlation of images with learned kernels; see `functional.conv2d` for the formula.

    weight and bias are drawn uniformly from +-1 / sqrt(in_channels / groups * kernel height * kernel width).

    Args:
        in_channels, out_channels: channels of input and output.
        kernel_size: height and width of the window, or one number for both; so are the next three.
        stride: steps between windows.
        padding: what is added around the images, or "same" or "valid".
        dilation: steps between the elements of a window.
        groups: into how many independent parts the channels are split.
        bias: whether to add one.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device, dtype: of the parameters.

    Shape:
        input [n, in_channels, height, width] or without n; output [n, out_channels, out height, out width].

    Attributes:
        weight: [out_channels, in_channels / groups, kernel height, kernel width].
        bias: [out_channels], or None.

    Example:
        >>> import paceline as torch
        >>> torch.nn.Conv2d(3, 8, 5, padding=2)(torch.zeros(4, 3, 32, 32)).shape
        paceline.Size([4, 8, 32, 32])
    """

    spatial = 2
    function = staticmethod(F.conv2d)


class Conv1d(_Conv):
    """Cross-correlation of sequences [n, in_channels, length] with learned kernels; arguments as for `Conv2d`.

    Example:
        >>> import paceline as torch
        >>> torch.nn.Conv1d(3, 8, 5)(torch.zeros(4, 3, 32)).shape
        paceline.Size([4, 8, 28])
    """

    spatial = 1
    function = staticmethod(F.conv1d)


class Conv3d(_Conv):
    """Cross-correlation of volumes [n, in_channels, depth, height, width] with learned kernels; see `Conv2d`.

    Example:
        >>> import paceline as torch
        >>> torch.nn.Conv3d(1, 2, 3)(torch.zeros(1, 1, 5, 6, 7)).shape
        paceline.Size([1, 2, 3, 4, 5])
    """

    spatial = 3
    function = staticmethod(F.conv3d)


class _ConvTranspose(_ConvBase):
    """What transposed convolutions of any number of dimensions share."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {self._get_name()}')
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Any, output_size: Any = None) -> Any:
        more = self.output_padding if output_size is None else self._padding_for(input, output_size)
        return self.function(input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation)

    def _padding_for(self, input: Any, output_size: Any) -> tuple[int, ...]:
        """The output_padding that leads to a size, given with or without n and channels."""
        image, size = input.array.shape[-self.spatial :], tuple(output_size)
        lead = input.array.ndim - self.spatial
        if len(size) == lead + self.spatial:
            size = size[lead:]
        if len(size) != self.spatial:
            raise ValueError(
                f"{self._get_name()}: for {input.array.ndim}D input, output_size must have {self.spatial} or "
                f"{lead + self.spatial} elements (got {len(size)})"
            )
        geometry: tuple[Any, ...] = (image, self.stride, self.padding, self.dilation, self.kernel_size)
        smallest = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(*geometry, strict=True)
        )
        more = tuple(m - low for m, low in zip(size, smallest, strict=True))
        if any(not 0 <= o < s for o, s in zip(more, self.stride, strict=True)):
            largest = [low + s - 1 for low, s in zip(smallest, self.stride, strict=True)]
            raise ValueError(
                f"requested an output size of {list(size)}, but valid sizes range from {list(smallest)} to {largest} "
                f"(for an input of {list(image)})"
            )
        return more


class ConvTranspose2d(_ConvTranspose):
    """The transpose of `Conv2d`, which upsamples; see `functional.conv_transpose2d`.

    weight and bias are drawn uniformly from +-1 / sqrt(out_channels / groups * kernel height * kernel width).

    Args:
        in_channels, out_channels: channels of input and output.
        kernel_size: height and width of the kernels, or one number for both; so are the next three.
        stride: how far the kernels of neighbouring input elements are apart.
        padding: how much is cut off around the output.
        output_padding: how much is added at its end; `forward(input, output_size)` chooses it by the size wanted.
        groups: into how many independent parts the channels are split.
        bias: whether to add one.
        dilation: steps between the elements of a kernel.
        padding_mode: "zeros".
        device, dtype: of the parameters.

    Attributes:
        weight: [in_channels, out_channels / groups, kernel height, kernel width].
        bias: [out_channels], or None.

    Example:
        >>> import paceline as torch
        >>> torch.nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)(torch.zeros(1, 8, 16, 16)).shape
        paceline.Size([1, 3, 32, 32])
    """

    spatial = 2
    function = staticmethod(F.conv_transpose2d)


class ConvTranspose1d(_ConvTranspose):
    """The transpose of `Conv1d`; arguments as for `ConvTranspose2d`."""

    spatial = 1
    function = staticmethod(F.conv_transpose1d)


class ConvTranspose3d(_ConvTranspose):
    """The transpose of `Conv3d`; arguments as for `ConvTranspose2d`."""

    spatial = 3
    function = staticmethod(F.conv_transpose3d)
