"""What `compile` records: a call of a function as a list of primitive calls.

While a thread records, every operation in it, also of plain host arrays, comes to its Recording, which runs it for real
and answers with a tensor whose array is a Traced: it has a shape and a dtype, and refuses everything else. Whatever
reads values or writes into memory therefore ends the recording, and the function is run again as it is.

Until then nothing outside has changed: calls that change something (backward, an optimizer's step) are noted by
`Recording.later` instead of made, and a replay makes them after the operations.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy
from numpy.lib.stride_tricks import as_strided

from ..runtime import arrays, rng, tree
from . import declaration as declarations
from .declaration import Declaration
from .mode import is_grad_enabled, no_grad, recording_now
from .variable import Node, Variable, box, counter_of, next_number


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
        self.flags, self.strides = array.flags, array.strides

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


class Unknown:
    """What the recorded function sees in place of what only a replay knows: it can be returned, and nothing else.

    One that the function keeps is what it stands for as soon as the call has ended.
    """

    def __init__(self, recording: Recording, text: str) -> None:
        self._recording = recording
        self._text = text

    def __getattr__(self, name: str) -> Any:
        if "_value" not in self.__dict__:
            self._recording.refuse("the values of a tensor are read")
        return getattr(self._value, name)


def _asking(name: str) -> Callable:
    return lambda self, *others: self.__getattr__(name)(*others)


for _name in (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow neg pos abs round lt le gt ge eq "
    "ne bool int float index str repr format array getitem"
).split():
    setattr(Unknown, f"__{_name}__", _asking(f"__{_name}__"))
Unknown.__hash__ = object.__hash__  # type: ignore[method-assign]


class Later(NamedTuple):
    """A call that changes something outside, to be made after the operations."""

    function: Callable
    arguments: tuple
    result: str  # its name in the replay


class Step(NamedTuple):
    """One primitive call; arrays and constants go by their names in the replay."""

    declaration: Declaration
    body: Callable
    inputs: tuple[str, ...]
    attributes: tuple  # values; a Traced in place of one that is computed
    outputs: tuple[str, ...]
    residuals: tuple[str, ...]
    results: tuple  # the real tensors
    node: Any  # the Node on the tape, or None

    def operands(self) -> tuple[str, ...]:
        """The names of what it computes with, attributes included."""
        return *self.inputs, *(a.name for a in self.attributes if a.__class__ is Traced)


def draw(xp: Any) -> Any:
    """Stands in for what draws random numbers, where a step needs a declaration."""


_DRAW = Declaration(draw, promote="none", keep=(), outputs=(), residuals=(), view=False, holomorphic=False)


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
        self.owners: dict[str, str] = {}  # name of a result -> of the tensor that its memory belongs to
        self.writable: set[str] = set()  # results that only their names, and views of them, refer to
        self.unknown: list[weakref.ref] = []  # what stands for other results
        self.later_calls: list[Later] = []
        self.roots: list[Variable] = []  # those of the calls of backward
        self.steps_before_backward = 0
        self.needed: list[str] = []  # results that are used by something else than operations
        self.changing: dict[int, list] = {}  # counters of the memory that later calls change
        self.draws = False  # whether random numbers are drawn
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
        twin.view_of, twin.counter = None, counter_of(tensor)
        self.twins[id(twin)] = name
        self.stand_ins.append((tensor, twin))
        return twin

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def later(self, function: Callable, *arguments: Any, changes: Iterable[Variable] = ()) -> Unknown:
        """Note a call that changes something outside, among it the memory of the tensors `changes`.

        What it returns can only be returned.
        """
        for x in arguments:
            if isinstance(x, Variable):
                if x.array.__class__ is Traced:
                    self.needed.append(x.array.name)
            elif any(y.__class__ is Unknown or type(getattr(y, "array", None)) is Traced for y in tree.flatten(x)[0]):
                self.refuse("it changes something outside by lists of tensors or by numbers that it computed")
        self.changing.update((id(counter_of(x)), counter_of(x)) for x in changes)
        self.later_calls.append(Later(function, arguments, f"l{len(self.later_calls)}"))
        return self._unknown(self.later_calls[-1].result)

    def backward(self, function: Callable, root: Variable, retain_graph: bool) -> None:
        """Note a call of backward."""
        if root.array.__class__ is not Traced or root.array.name[0] != "v":
            self.refuse("it calls backward on a tensor that it did not compute")
        if self.roots:
            if len(self.steps) > self.steps_before_backward:  # eagerly these follow when memory is free again
                self.refuse("it computes another loss after backward")
            # The graph of the other loss will be a part of the same node.
            self.later_calls = [call if call.function is not function else call._replace(
                arguments=(call.arguments[0], True)) for call in self.later_calls]  # fmt: skip
        self.roots.append(root)
        self.steps_before_backward = len(self.steps)
        self.later(function, root, retain_graph)

    def later_in_place(self, function: Callable, tensor: Variable, args: tuple, kwargs: dict) -> bool:
        """Note a call that changes a tensor from outside, if that is one; it may be no part of the tape."""
        if tensor.array.__class__ is Traced:
            return False
        operands = [x for x in (*args, *kwargs.values()) if isinstance(x, Variable)]
        if tensor.node is not None or (is_grad_enabled() and any(x.node is not None for x in operands)):
            self.refuse("it changes a tensor in place that requires a gradient")
        self.later(no_grad()(functools.partial(function, **kwargs)), tensor, *args, changes=(tensor,))
        return True

    def assign(self, tensor: Variable, value: Any) -> Variable:
        """Let a result stand for another value, which eagerly is written into its memory."""
        if tensor.array.__class__ is not Traced or tensor.array.name[0] != "v":
            self.refuse("it changes an argument, or a tensor from outside, in place")
        if not isinstance(value, Variable) or value.array.__class__ is not Traced:
            self.refuse("it writes something into a tensor in place that it did not compute")
        old, new = tensor.array, value.array
        if (old.shape, old.dtype) != (new.shape, new.dtype) or self._is_shared(tensor):
            self.refuse("it changes a tensor in place whose memory is used elsewhere, or to other shapes or dtypes")
        if tensor.node is not None and value.node is None:
            self.refuse("it writes a constant over a tensor that requires a gradient")
        tensor.array, tensor.node, tensor.counter = new, value.node, value.counter
        return tensor

    def _is_shared(self, tensor: Variable) -> bool:
        """Whether the memory of a result is also that of another tensor, or kept for backward."""
        counter = tensor.counter
        others = [x for x in (reference() for reference in self.made) if x is not None and x is not tensor]
        outside = [*self.arguments, *(x for _, x in self.externals.values())]
        saved = [node for node in (step.node for step in self.steps) if node is not None]
        return any(x.counter is counter for x in (*others, *outside)) or any(
            kept is counter for node in saved for kept in node.versions)  # fmt: skip

    def number(self, x: Variable) -> Unknown:
        """What stands for the only element of a result."""
        if x.array.__class__ is not Traced or x.array.name[0] != "v" or x.array.size != 1:
            self.refuse("it reads the values of a tensor")
        self.needed.append(x.array.name)
        return self._unknown(f"{x.array.name}.item()")

    def _unknown(self, text: str) -> Unknown:
        found = Unknown(self, text)
        self.unknown.append(weakref.ref(found))
        return found

    def check_unchanged(self, x: Variable) -> None:
        """An operation uses a tensor: refuse one whose memory will have been changed."""
        if id(x.counter) in self.changing:
            self.refuse("it uses a tensor after it changes it (a parameter after the optimizer's step)")

    def external(self, x: Variable) -> str:
        if id(x) not in self.externals:
            if isinstance(x.node, Node) and x.node.number > self.mark:
                self.refuse(f"it computes with a result of {x.node.plan.title}, which cannot be replayed")
            self.externals[id(x)] = (f"p{len(self.externals)}", x)
        return self.externals[id(x)][0]

    def real_of(self, x: Variable) -> Variable:
        """The tensor that was computed, off the tape if the function took it off."""
        real = x.array.real
        self.check_unchanged(real)
        if x.node is real.node:
            return real
        if x.node is not None:
            self.refuse("a tensor within it was given another place on the tape (autograd.Function, requires_grad_)")
        detached = box(real.array)
        detached.counter = x.counter
        return detached

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
                self.check_unchanged(x)
                names.append(self.external(x))
                real.append(x)
            else:
                return NotImplemented
        given_attributes = attributes
        if any(a.__class__ is Traced for a in attributes):
            given_attributes = tuple(a.real.array if a.__class__ is Traced else a for a in attributes)
        elif not all(map(_plain, attributes)):
            self.refuse(f"{declaration.name}() takes an array that is no tensor input")
        if declaration.name == "all_reduce_sum":
            self.refuse("it waits for other processes")
        token = recording_now.set(None)
        try:
            given = (real,) if declaration.variadic else tuple(real)
            result = declaration.call(given, given_attributes)
        finally:
            recording_now.reset(token)
        results = (result,) if declaration.multiple is None else tuple(result)
        raw = tuple(x.array if isinstance(x, Variable) else x for x in real)
        body = declaration.body_of(raw, given_attributes)
        self.note(declaration, body, tuple(names), raw, attributes, results)
        twins = [self.twin(r, name) for r, name in zip(results, self.steps[-1].outputs, strict=True)]
        return twins[0] if declaration.multiple is None else declaration.multiple(*twins)

    def note(self, declaration: Declaration, body: Callable, names: tuple, raw: tuple, attributes: tuple,
             results: tuple) -> None:  # fmt: skip
        known = [(name, x) for name, x in zip(names, raw, strict=True) if isinstance(x, numpy.ndarray)]
        if any(x.dtype.kind == "c" for x in (*(x for _, x in known), *(r.array for r in results))):
            self.refuse("complex tensors")
        k = len(self.steps)
        node = results[0].node
        if declaration.multiple is not None:
            node = next((r.node.edges[0] for r in results if r.node is not None), None)
        outputs = tuple(f"v{k}_{i}" for i in range(len(results)))
        residuals = tuple(f"r{k}_{i}" for i in range(len(declaration.residuals)))
        self.steps.append(Step(declaration, body, names, attributes, outputs, residuals, results, node))
        for output, result in zip(outputs, results, strict=True):
            owner = next((n for n, array in known if numpy.may_share_memory(array, result.array)), output)
            self.owners[output] = self.owners.get(owner, owner)
            known.append((output, result.array))
            if result.array.flags.writeable:
                self.writable.add(output)
        if residuals:  # these may be views of what it takes or makes
            self.writable.difference_update(self.owners.get(name, name) for name, _ in known)

    def drawn(self, draw: Callable, *args: Any) -> Any:
        """What stands for a tensor of random numbers, which replays draw."""
        self.draws = True
        with rng.rehearsal():
            real = box(draw(*args))
        if real.array.__class__ is not numpy.ndarray:
            self.refuse("it draws random numbers on a GPU")
        name = f"v{len(self.steps)}_0"
        self.steps.append(Step(_DRAW, draw, (), args, (name,), (), (real,), None))
        self.owners[name] = name
        return self.twin(real, name)

    def twin(self, real: Variable, name: str) -> Any:
        traced = Traced(real, name, self)
        weakref.finalize(traced, _free, real)
        twin = box(traced)  # type: ignore[arg-type]
        twin.node, twin.counter = real.node, counter_of(real)
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

    def kept_unknown(self, outputs: list) -> list[Unknown]:
        """What the function keeps elsewhere of what only a replay knows."""
        returned = {id(x) for x in outputs}
        return [x for x in (reference() for reference in self.unknown) if x is not None and id(x) not in returned]

    def settle(self, outputs: list) -> bool:
        """Give results that the function keeps elsewhere their arrays; whether there are any, which replays lack."""
        self.roots.clear()
        self.later_calls.clear()
        returned = {id(x) for x in outputs}
        kept = [twin for twin in (reference() for reference in self.made) if twin is not None]
        for twin in kept:
            twin.array = twin.array.real.array
        return any(id(twin) not in returned for twin in kept) or bool(self.kept_unknown(outputs))


def _free(result: Variable) -> None:
    """The function has dropped a result: free the memory, as it is eagerly, and keep the form."""
    array = result.array
    result.array = as_strided(numpy.empty(1, array.dtype), array.shape, array.strides)


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
