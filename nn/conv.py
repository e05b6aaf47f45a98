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

__all__ = ["Conv1d", "Conv2d"]


class _Conv(Module):
    """What convolutions of any number of dimensions share."""

    spatial: int
    function: Any

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
        self.kernel_size = self._sizes(kernel_size, "kernel_size")
        self.stride = self._sizes(stride, "stride")
        self.dilation = self._sizes(dilation, "dilation")
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of 'valid', 'same'")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
            self.padding: tuple[int, ...] | str = padding
        else:
            self.padding = self._sizes(padding, "padding")
        size = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(creation.empty(*size, device=device, dtype=dtype))
        self.register_parameter("bias", empty_parameter(bias, (out_channels,), device, dtype))
        self.reset_parameters()

    def _sizes(self, value: int | tuple[int, ...], name: str) -> tuple[int, ...]:
        sizes = (value,) * self.spatial if isinstance(value, int) else tuple(value)
        if len(sizes) != self.spatial:
            raise ValueError(f"{self._get_name()}: {name} must be an int or {self.spatial} ints, got {value!r}")
        return sizes

    def reset_parameters(self) -> None:
        """Draw new values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # which is uniform in +-1 / sqrt(fan in)
        fan_in = self.weight.numel() // self.out_channels if self.out_channels else 0
        if self.bias is not None and fan_in:
            bound = 1 / math.sqrt(fan_in)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Any:
        padding = self.padding
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

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.spatial:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.spatial:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


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
