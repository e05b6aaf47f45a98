"""Collectives of small arrays through a window, with all decided beforehand that can be.

Summing a kilobyte between two cores takes a microsecond, and what takes it is Python: attributes, frames, large
numbers. So the one function here does at once what `Comm._perform`, `Recorder.begin` and `Window.meet` do step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .. import timeline
from ..recorder import Recorder
from .deadlock import failures
from .signature import Call, user_line

if TYPE_CHECKING:
    from .base import Comm
    from .window import Window

# Looks at another's word before waiting is worth a note: some microseconds, within which most ranks come.
_GLANCES = 100

Finish = Callable[[np.ndarray], object]
Perform = Callable[[np.ndarray], None]


def prepare(
    comm: Comm, window: Window, recorder: Recorder, call: Call, finish: Callable[[list[np.ndarray]], Finish]
) -> Perform:
    """The collective as a function of its array, which the user's call has to call itself.

    Args:
        comm, window, recorder: of the ranks that make the call.
        call: the array is of its shape and dtype.
        finish: given where the arrays of all ranks will be, what to do with them then to the array.
    """
    cells = [(words, arrays[window.rank], finish(arrays)) for words, arrays in window.cells(call.dtype, call.shape)]
    own_word, others, digest = window.own_word, window.other_words, call.digest
    note = recorder.prepare(comm._group_name, call, depth=3)
    glances = range(_GLANCES if window.spins > 1 else 1)

    def perform(array: np.ndarray) -> None:
        if failures:
            raise failures[0]
        comm._calls = number = comm._calls + 1
        step = window.step = window.step.next
        words, own, conclude = cells[step.cell]
        own[...] = array
        words[own_word] = word = step.stamp | digest ^ number
        entry = note(number)  # that it is over; meanwhile the others' arrays come
        for other in others:
            if words[other] != word and not await_word(words, other, word, entry):
                comm._raise_mismatch(call, user_line())
        conclude(array)

    def await_word(words: memoryview, other: int, word: int, entry: int) -> bool:
        for _ in glances:
            if words[other] == word:
                return True
        recorder.reopen(entry)
        try:
            return window.wait(words, other, word)
        finally:
            recorder.end(entry)

    return timeline.traced("collective", lambda array: str(call))(perform)
