"""Dropout. The mask is drawn first and is an input of the product, so that every derivative sees the same one; for a
large input only a key is drawn, from which the mask is made anew wherever it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from ...autograd.mode import recording_now
from ...autograd.variable import box
from ...runtime import device as devices
from ...tensor.inplace import assign
from ...tensor.ops import arithmetic as ar
from ...tensor.ops.dropout import dropout as dropout_by_key
from ...tensor.random import draw_key, uniform_array

# elements; a size of its own, so that a seed gives the same masks with and without compiled kernels
_LARGE = 1 << 12


def _checked(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _drawn(draw: Callable[..., numpy.ndarray], *args: Any) -> Any:
    """Random numbers as a tensor; replays of a recorded call draw them anew."""
    recording = recording_now.get()
    return box(draw(*args)) if recording is None else recording.drawn(draw, *args)


def _kept(shape: tuple, p: float) -> numpy.ndarray:
    """Which elements of a mask are not dropped."""
    return uniform_array(shape, numpy.dtype(numpy.float32)) >= p


def _key() -> numpy.ndarray:
    """What `draw_key` draws, as replays take it."""
    return numpy.asarray(draw_key(), numpy.uint64)


def _mask(shape: tuple, p: float, dtype: numpy.dtype, device: devices.device) -> Any:
    return devices.move(numpy.asarray(_kept(shape, p) * dtype.type(1 / (1 - p) if p < 1 else 0)), device)


def _dropout(input: Any, shape: tuple, p: float, training: bool, inplace: bool) -> Any:
    """Zeros where a mask of that shape says so, and the rest scaled up by 1 / (1 - p)."""
    _checked(p)
    if not training or p == 0:
        return input
    if shape == input.array.shape and input.array.size >= _LARGE:
        recording = recording_now.get()
        value = dropout_by_key(input, draw_key() if recording is None else recording.drawn(_key).array, p)
    else:
        value = ar.mul(input, _drawn(_mask, shape, p, input.array.dtype, input.device))
    return assign(input, value, "dropout_") if inplace else value


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """In training each element is 0 with probability p, otherwise divided by 1 - p, which keeps the mean.

    Source: Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.dropout(torch.ones(2), training=False)
        tensor([1., 1.])
    """
    return _dropout(input, input.array.shape, p, training, inplace)


def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """`dropout` of whole channels: input [n, channels, length] or [channels, length]."""
    return _dropout(input, _channels(input, 1), p, training, inplace)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """`dropout` of whole channels: input [n, channels, height, width] or [channels, height, width]."""
    return _dropout(input, _channels(input, 2), p, training, inplace)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """`dropout` of whole channels: input [n, channels, depth, height, width], or without n."""
    return _dropout(input, _channels(input, 3), p, training, inplace)


def _channels(input: Any, spatial: int) -> tuple:
    """The shape of a mask with one element per channel."""
    shape = input.array.shape
    if len(shape) - spatial not in (1, 2):
        raise RuntimeError(f"dropout{spatial}d(): expected {spatial + 1}D or {spatial + 2}D input, got {list(shape)}")
    return shape[: len(shape) - spatial] + (1,) * spatial


_SATURATION = 1.7580993408473766  # selu tends to the negative of it: its scale * alpha


def _alpha_dropout(input: Any, shape: tuple, p: float, training: bool, inplace: bool) -> Any:
    _checked(p)
    if not training or p == 0:
        return input
    dtype, kept = input.array.dtype, _kept(shape, p)
    scale = 1 / math.sqrt((_SATURATION**2 * p + 1) * (1 - p)) if p < 1 else 0.0
    factor = numpy.asarray(kept * dtype.type(scale))
    offset = numpy.asarray((p - ~kept) * dtype.type(_SATURATION * scale), dtype)
    factor_there, offset_there = (box(devices.move(x, input.device)) for x in (factor, offset))
    value = ar.add(ar.mul(input, factor_there), offset_there)
    return assign(input, value, "alpha_dropout_") if inplace else value


def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """In training each element is selu's saturation value with probability p; then scaled and shifted, so that mean 0
    and variance 1 stay.

    Source: Klambauer et al., Self-Normalizing Neural Networks, 2017.
    """
    return _alpha_dropout(input, input.array.shape, p, training, inplace)


def feature_alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """`alpha_dropout` of whole channels: input [n, channels, ...]."""
    shape = input.array.shape
    if len(shape) < 2 and training:
        raise RuntimeError(f"feature_alpha_dropout(): expected at least 2 dimensions [n, channels], got {list(shape)}")
    return _alpha_dropout(input, shape[:2] + (1,) * (len(shape) - 2), p, training, inplace)
