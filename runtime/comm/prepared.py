"""Collectives of small arrays through a window, with all decided beforehand that can be.

Summing a kilobyte between two cores takes a microsecond, and what takes it is Python: attributes, frames, large
numbers. So the one function here does at once what `Comm._perform`, `Recorder.begin` and `Window.meet` do step by step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import timeline
from ..callers import user_line
from ..recorder import Recorder
from .deadlock import failures
from .reduction import combiner
from .signature import Call, call_of, reduction_of

if TYPE_CHECKING:
    from .base import Comm
    from .window import Window

# Looks at another's word before waiting is worth a note: some microseconds, within which most ranks come.
_GLANCES = 100

# What each rank reads of the others' slots: for more, other ways are quicker.
MOST_BYTES = {"all_reduce": 256 << 10, "broadcast": 256 << 10, "all_gather": 1 << 20, "reduce_scatter": 512 << 10}

Finish = Callable[[np.ndarray], object]
Perform = Callable[[np.ndarray, np.ndarray], None]


class Cell(NamedTuple):
    """What a call needs in one of the window's steps.

    Attributes:
        words: where the ranks' words are.
        own: where to show this rank's array.
        finish: makes the output of what the ranks have shown.
    """

    words: memoryview
    own: np.ndarray
    finish: Finish


def call_for(size: int, kind: str, dtype: np.dtype, shape: tuple, *others: Any) -> Call | None:
    """The call of a method with such arguments; None if they do not fit together."""
    if dtype.hasobject:
        return None
    if kind == "all_reduce":
        return reduction_of(kind, dtype, shape, *others)
    if kind == "broadcast":
        (root,) = others
        return call_of(kind, dtype, shape, root) if isinstance(root, int) and 0 <= root < size else None
    output_dtype, output_shape, *options = others
    part, whole = (shape, output_shape) if kind == "all_gather" else (output_shape, shape)
    if output_dtype != dtype or math.prod(whole) != size * math.prod(part):
        return None
    return call_of(kind, dtype, part) if kind == "all_gather" else reduction_of(kind, dtype, part, *options)


def cells_of(window: Window, call: Call, shape: tuple) -> list[Cell] | None:
    """The cells for a call that shows an array of this shape, or None if it is too large, or of another kind."""
    if call.kind not in MOST_BYTES or call.dtype is None or call.shape is None:
        return None
    nbytes = call.dtype.itemsize * math.prod(shape)
    if nbytes * (window.size if call.kind in ("all_reduce", "all_gather") else 1) > MOST_BYTES[call.kind]:
        return None
    return [
        Cell(words, rows[window.rank, ...], _finish(call, call.shape, rows, window.rank))
        for words, rows in window.cells(call.dtype, shape)
    ]


def _finish(call: Call, shape: tuple, rows: np.ndarray, rank: int) -> Finish:
    """What a call does with the ranks' arrays; `shape` is the call's."""
    arrays = [rows[each, ...] for each in range(len(rows))]  # of a row without a dimension, rows[each] would be a copy
    if call.kind == "all_reduce":
        return combiner(call.op, arrays)
    if call.kind == "reduce_scatter":
        return combiner(call.op, [each.reshape(len(rows), *shape)[rank, ...] for each in arrays])
    if call.kind == "broadcast":
        return _keep if rank == call.root else functools.partial(_copy, arrays[call.root])
    return functools.partial(_copy, rows)


def _keep(output: np.ndarray) -> None:
    """The root of a broadcast has its array already."""


def _copy(source: np.ndarray, output: np.ndarray) -> None:
    output[...] = source if source.shape == output.shape else source.reshape(output.shape)


def prepare(comm: Comm, window: Window, recorder: Recorder, call: Call, cells: Sequence[Cell]) -> Perform:
    """The collective as a function of the array to show and the one to fill, which the user's call has to call itself.

    Args:
        comm, window, recorder: of the ranks that make the call.
        call: the arrays are of its dtype and fit together.
        cells: as `cells_of` gives them.
    """
    own_word, others, digest = window.own_word, window.other_words, call.digest
    note = recorder.prepare(comm._group_name, call, depth=3)
    glances = range(_GLANCES if window.spins > 1 else 1)

    def perform(array: np.ndarray, output: np.ndarray) -> None:
        if failures:
            raise failures[0]
        comm._calls = number = comm._calls + 1
        step = window.step = window.step.next
        words, own, finish = cells[step.cell]
        own[...] = array
        words[own_word] = word = step.stamp | digest ^ number
        entry = note(number)  # that it is over; meanwhile the others' arrays come
        for other in others:
            if words[other] != word and not await_word(words, other, word, entry):
                comm._raise_mismatch(call, user_line())
        finish(output)

    def await_word(words: memoryview, other: int, word: int, entry: int) -> bool:
        for _ in glances:
            if words[other] == word:
                return True
        recorder.reopen(entry)
        try:
            return window.wait(words, other, word)
        finally:
            recorder.end(entry)

    return timeline.traced("collective", lambda array, output: str(call))(perform)
