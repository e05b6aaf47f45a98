"""The programs, and how both libraries start from the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy

# A program gets the library and `same`, and yields numbers: losses of its steps, norms, rates.
Program = Callable[[Any, Callable[[Any], Any]], Iterator[float]]

PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


class Recorder:
    """`same` of the first run: keeps the weights of modules and the random tensors that the program shows it."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def __call__(self, value: Any) -> Any:
        if hasattr(value, "state_dict"):
            self.kept.append({name: _copied(tensor) for name, tensor in value.state_dict().items()})
        else:
            self.kept.append(_copied(value))
        return value


class Player:
    """`same` of the second run: puts what was kept into modules, and in the place of random tensors."""

    def __init__(self, library: Any, kept: list[Any]) -> None:
        self.library, self.kept = library, iter(kept)

    def __call__(self, value: Any) -> Any:
        kept = next(self.kept)
        if isinstance(kept, dict):
            value.load_state_dict({name: self.library.from_numpy(array) for name, array in kept.items()})
            return value
        ours, theirs = value.detach().cpu().numpy(), kept
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), f"drew {ours.shape}, {ours.dtype}"
        return self.library.from_numpy(theirs)


def _copied(tensor: Any) -> numpy.ndarray:
    return numpy.array(tensor.detach().cpu().numpy())
