"""Padding layers."""

from __future__ import annotations

from typing import Any

from . import functional as F
from .module import Module

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    """`functional.pad` in one mode: padding is (before, after) of the last dimension, then of the one before it; or one
    number for all."""

    spatial: int
    mode = "constant"

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self.spatial) if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != 2 * self.spatial:
            raise ValueError(f"{self._get_name()}: padding must be an int or {2 * self.spatial} ints, got {padding!r}")

    def forward(self, input: Any) -> Any:
        self._check(input)
        return F.pad(input, self.padding, self.mode)

    def _check(self, input: Any) -> None:
        pass

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _CircularPad(_Pad):
    mode = "circular"

    def _check(self, input: Any) -> None:
        ndim = input.array.ndim
        if ndim not in (self.spatial + 1, self.spatial + 2):
            raise ValueError(f"expected {self.spatial + 1}D or {self.spatial + 2}D input (got {ndim}D input)")


class ConstantPad1d(_ConstantPad):
    """A constant around sequences.

    Example:
        >>> import paceline as torch
        >>> torch.nn.ConstantPad1d((1, 2), 7.0)(torch.zeros(1, 1))
        tensor([[7., 0., 7., 7.]])
    """

    spatial = 1


class ConstantPad2d(_ConstantPad):
    """A constant around images; padding is (left, right, top, bottom)."""

    spatial = 2


class ConstantPad3d(_ConstantPad):
    """A constant around volumes; padding is (left, right, top, bottom, front, back)."""

    spatial = 3


class ZeroPad1d(_Pad):
    """Zeros around sequences."""

    spatial = 1


class ZeroPad2d(_Pad):
    """Zeros around images; padding is (left, right, top, bottom)."""

    spatial = 2


class ZeroPad3d(_Pad):
    """Zeros around volumes; padding is (left, right, top, bottom, front, back)."""

    spatial = 3


class ReflectionPad1d(_Pad):
    """Sequences mirrored at their ends, without repeating the last element."""

    spatial, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Images mirrored at their borders, without repeating them; padding is (left, right, top, bottom)."""

    spatial, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """Volumes mirrored at their borders, without repeating them."""

    spatial, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """Sequences with their ends repeated."""

    spatial, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """Images with their borders repeated; padding is (left, right, top, bottom)."""

    spatial, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """Volumes with their borders repeated."""

    spatial, mode = 3, "replicate"


class CircularPad1d(_CircularPad):
    """Sequences continued from their other end."""

    spatial = 1


class CircularPad2d(_CircularPad):
    """Images continued from their other side; padding is (left, right, top, bottom)."""

    spatial = 2


class CircularPad3d(_CircularPad):
    """Volumes continued from their other side."""

    spatial = 3
