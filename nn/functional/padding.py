"""Padding."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.variable import box
from ...runtime import device as devices
from ...tensor.ops import indexing, shaping

# numpy.pad on the indices of a dimension says which element each place repeats
_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """The input with elements added around it.

    Args:
        pad: (before, after) of the last dimension, then of the one before it, and so on; with mode "constant" negative
            numbers crop.
        mode: "constant", "reflect" (without repeating the edge), "replicate" or "circular".
        value: the constant, 0 if None.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.pad(torch.ones(2), (1, 0))
        tensor([0., 1., 1.])
    """
    pad, shape = tuple(pad), input.array.shape
    if len(pad) % 2 or len(pad) // 2 > len(shape):
        raise RuntimeError(
            f"pad(): expected an even number of lengths, at most two for each of the input's {len(shape)} dimensions, "
            f"got {list(pad)}"
        )
    pairs = ((0, 0),) * (len(shape) - len(pad) // 2) + tuple(zip(pad[-2::-2], pad[-1::-2], strict=True))
    if mode == "constant":
        if any(n + before + after < 0 for n, (before, after) in zip(shape, pairs, strict=True)):
            raise RuntimeError(f"pad(): {list(pad)} takes away more than the input of shape {list(shape)} has")
        return shaping.pad_constant(input, pairs, 0 if value is None else value)
    if mode not in _MODES:
        raise NotImplementedError(f"Unrecognised padding mode {mode}: expected constant, {', '.join(_MODES)}")
    if value:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            input = indexing.index_select_rows(input, _repeats(input, dim, before, after, mode), dim)
    return input


def _repeats(input: Any, dim: int, before: int, after: int, mode: str) -> Any:
    """For each place along a padded dimension the index of the element that it repeats."""
    n = input.array.shape[dim]
    most = {"reflect": n - 1, "circular": n, "replicate": max(before, after) if n else -1}[mode]
    if not (0 <= before <= most and 0 <= after <= most):
        raise RuntimeError(
            f"pad(): padding ({before}, {after}) at dimension {dim} of input {list(input.array.shape)} must not be "
            f"negative, nor more than {most} in mode {mode!r}"
        )
    return box(devices.move(numpy.pad(numpy.arange(n), (before, after), _MODES[mode]), input.device))
