"""Padding."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.variable import box
from ...runtime import device as devices
from ...tensor.ops import indexing, shaping


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """The input with elements added around it.

    Args:
        pad: (before, after) of the last dimension, then of the one before it, and so on; negative numbers crop.
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
    if any(n + before + after < 0 for n, (before, after) in zip(shape, pairs, strict=True)):
        raise RuntimeError(f"pad(): {list(pad)} takes away more than the input of shape {list(shape)} has")
    if mode == "constant":
        return shaping.pad_constant(input, pairs, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(
            f"Unrecognised padding mode {mode}: expected constant, reflect, replicate or circular"
        )
    if value:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            input = indexing.index_select_rows(input, _repeats(input, dim, before, after, mode), dim)
    return input


def _repeats(input: Any, dim: int, before: int, after: int, mode: str) -> Any:
    """For each place along a padded dimension the index of the element that it repeats."""
    n = input.array.shape[dim]
    most = {"reflect": n - 1, "circular": n, "replicate": max(before, after) if n else 0}[mode]
    if max(before, after) > most:
        raise RuntimeError(
            f"pad(): padding ({before}, {after}) at dimension {dim} of input {list(input.array.shape)} must not be "
            f"more than {most} in mode {mode!r}"
        )
    place = numpy.arange(-before, n + after)
    if mode == "circular":
        first = max(0, -before)  # negative padding crops first: what is repeated is what is left
        index = first + (place - first) % (n - first - max(0, -after))
    elif mode == "replicate":
        index = place.clip(0, n - 1)
    else:
        index = n - 1 - abs(n - 1 - abs(place))
    return box(devices.move(index, input.device))
