"""What `compile` records: a call of a function as a list of primitive calls.

While a thread records, every operation in it, also of plain host arrays, comes to its Recording, which runs it for real
and answers with a tensor whose array is a Traced: it has a shape and a dtype, and refuses everything else. Whatever
reads values or writes into memory therefore ends the recording, and the function is run again as it is.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy

from ..runtime import arrays, rng
from . import declaration as declarations
from .declaration import LARGE, Declaration
from .mode import recording_now
from .variable import Node, Variable, box, next_number


class Unrecordable(Exception):  # not a RuntimeError: nobody on the way may take it for an error of the user's
    """The call cannot be replayed; the text says why."""


class Traced(arrays.StandIn):
    """What an operation of the recorded call sees in place of an array."""

    def __init__(self, real: Variable, name: str, recording: Recording) -> None:
        self.real = real
        self.name = name
        self.recording = recording
        array = real.array
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype
        self.size, self.itemsize, self.nbytes = array.size, array.itemsize, array.nbytes

    @property
    def real_array(self) -> Any:
        """The array at the bottom, for its module and device."""
        return self.real.array

    def promise(self, check: Callable, *values: Any) -> bool:
        """Whether `check(array, *values)` holds; a replay is only for calls of which it does, too."""
        if not check(self.real.array, *values):
            self.recording.refuse("the values of a tensor are checked")
        self.recording.checks.append((check, self.name, values))
        return True

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.recording.refuse("the values of a tensor are read, or its memory is changed")

    def __getattr__(self, name: str) -> NoReturn:
        self.recording.refuse(f"the values or the memory of a tensor are looked at ({name})")


class Step(NamedTuple):
    """One primitive call; arrays and constants go by their names in the replay."""

    declaration: Declaration
    body: Callable
    inputs: tuple[str, ...]
    attributes: tuple
    outputs: tuple[str, ...]
    residuals: tuple[str, ...]
    results: tuple  # the real tensors
    node: Any  # the Node on the tape, or None


one_at_a_time = threading.RLock()

_PLAIN = (int, float, bool, str, bytes, type(None), slice, type(Ellipsis), numpy.dtype, type)


class Recording:
    """A call that is being recorded."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.arguments: list[Variable] = []
        self.stand_ins: list[tuple[Variable, Any]] = []  # argument, what stands for it
        self.twins: dict[int, str] = {}  # id of what stands for an argument -> its name
        self.externals: dict[int, tuple[str, Variable]] = {}
        self.constants: dict[str, Any] = {}
        self.checks: list[tuple[Callable, str, tuple]] = []  # what the function made sure of its arguments' values
        self.made: list[weakref.ref] = []  # tensors that stand for results
        self.reason: str | None = None
        self.mark = 0

    def refuse(self, reason: str) -> NoReturn:
        self.reason = self.reason or reason
        raise Unrecordable(reason)

    def stand_in(self, tensor: Variable) -> Any:
        """What the function sees in place of an argument; the same for the same one."""
        for known, twin in self.stand_ins:
            if known is tensor:
                return twin
        name = f"x{len(self.arguments)}"
        self.arguments.append(tensor)
        twin = object.__new__(type(tensor))
        twin.array = Traced(tensor, name, self)
        twin.node = tensor.node
        twin.view_of = twin.counter = None
        self.twins[id(twin)] = name
        self.stand_ins.append((tensor, twin))
        return twin

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def external(self, x: Variable) -> str:
        if id(x) not in self.externals:
            if isinstance(x.node, Node) and x.node.number > self.mark:
                self.refuse(f"it computes with a result of {x.node.plan.title}, which cannot be replayed")
            self.externals[id(x)] = (f"p{len(self.externals)}", x)
        return self.externals[id(x)][0]

    def real_of(self, x: Variable) -> Variable:
        """The tensor that was computed, off the tape if the function took it off."""
        real = x.array.real
        if x.node is real.node:
            return real
        if x.node is not None:
            self.refuse("a tensor within it was given another place on the tape (autograd.Function, requires_grad_)")
        return box(real.array)

    def call(self, declaration: Declaration, inputs: tuple, attributes: tuple) -> Any:
        names, real = [], []
        for x in inputs:
            if not isinstance(x, Variable):
                names.append(self.constant(x))
                real.append(x)
            elif x.array.__class__ is Traced:
                if x.array.recording is not self:
                    self.refuse("it keeps tensors of another recorded call")
                names.append(x.array.name)
                real.append(self.real_of(x))
            elif x.array.__class__ is numpy.ndarray:
                names.append(self.external(x))
                real.append(x)
            else:
                return NotImplemented
        if not all(map(_plain, attributes)):
            self.refuse(f"{declaration.name}() takes an array that is no tensor input")
        if declaration.name == "all_reduce_sum":
            self.refuse("it waits for other processes")
        token = recording_now.set(None)
        try:
            given = (real,) if declaration.variadic else tuple(real)
            result = declaration.call(given, attributes)
        finally:
            recording_now.reset(token)
        results = (result,) if declaration.multiple is None else tuple(result)
        self.note(declaration, tuple(names), real, attributes, results)
        twins = [self.twin(r, name) for r, name in zip(results, self.steps[-1].outputs, strict=True)]
        return twins[0] if declaration.multiple is None else declaration.multiple(*twins)

    def note(self, declaration: Declaration, names: tuple, real: list, attributes: tuple, results: tuple) -> None:
        tensors = [x for x in real if isinstance(x, Variable)]
        if any(t.array.dtype.kind == "c" for t in (*tensors, *results)):
            self.refuse("complex tensors")
        first = tensors[0].array
        body = declaration.body_for(first)
        if declaration.large is not None and first.size >= LARGE:
            body = declaration.large
        k = len(self.steps)
        node = results[0].node
        if declaration.multiple is not None:
            node = next((r.node.edges[0] for r in results if r.node is not None), None)
        outputs = tuple(f"v{k}_{i}" for i in range(len(results)))
        residuals = tuple(f"r{k}_{i}" for i in range(len(declaration.residuals)))
        self.steps.append(Step(declaration, body, names, attributes, outputs, residuals, results, node))

    def twin(self, real: Variable, name: str) -> Any:
        twin = box(Traced(real, name, self))  # type: ignore[arg-type]
        twin.node = real.node
        self.made.append(weakref.ref(twin))
        return twin

    def close(self) -> None:
        """The function has ended: where it did by an exception, no tensor of its may stay without an array."""
        for tensor, twin in self.stand_ins:
            twin.array = tensor.array
        if sys.exc_info()[0] is not None:
            for reference in self.made:
                twin = reference()
                if twin is not None:
                    twin.array = twin.array.real.array

    def settle(self, outputs: list) -> None:
        """Give the results that the function keeps elsewhere their arrays; refuse to replay such a function."""
        returned = {id(x) for x in outputs}
        kept = [twin for twin in (reference() for reference in self.made) if twin is not None]
        for twin in kept:
            twin.array = twin.array.real.array
        if any(id(twin) not in returned for twin in kept):
            self.refuse("it keeps a tensor that it does not return")


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list | frozenset):
        return all(map(_plain, value))
    if isinstance(value, numpy.generic):
        return True
    return isinstance(value, _PLAIN) or (not hasattr(value, "array") and not hasattr(value, "__array__"))


def _note(declaration: Declaration, inputs: tuple, attributes: tuple) -> Any:
    recording = recording_now.get()
    return NotImplemented if recording is None else recording.call(declaration, inputs, attributes)


@contextlib.contextmanager
def recording() -> Iterator[Recording]:
    """Record the operations of this thread within the block."""
    with one_at_a_time:
        found = Recording()
        found.mark = next_number()
        declarations.start_recording(_note)
        token = recording_now.set(found)
        try:
            with rng.refused("it draws random numbers"):
                yield found
        finally:
            recording_now.reset(token)
            declarations.stop_recording()
