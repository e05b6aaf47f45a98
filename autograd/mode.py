"""Whether operations are recorded: `no_grad`, `enable_grad`, `inference_mode`, anomaly detection.

The switch is a context variable: each thread (and each asyncio task) has its own, and reading one is cheaper than
reading a thread-local attribute.
"""

from __future__ import annotations

import functools
import inspect
import traceback
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ..runtime.callers import user_frame

grad_recorded: ContextVar[bool] = ContextVar("gradients are recorded", default=True)
_inference: ContextVar[bool] = ContextVar("inference mode", default=False)

# Called with every new node, by whoever has a reason to look: anomaly detection, hooks on what is saved. Usually empty.
node_observers: list[Callable[[Any], None]] = []

is_grad_enabled = grad_recorded.get
is_inference_mode_enabled = _inference.get


class _Switch:
    """Sets a context variable for the time of a `with` block, or of each call of a decorated function."""

    def __init__(self, variable: ContextVar[bool], value: bool) -> None:
        self._variable = variable
        self._value = value
        self._outer: list[bool] = []

    def __enter__(self) -> None:
        self._outer.append(self._variable.get())
        self._variable.set(self._value)

    def __exit__(self, *exc: object) -> None:
        self._variable.set(self._outer.pop())

    def _again(self) -> _Switch:
        """A fresh switch for one call: a decorated function may run in several threads at once."""
        return _Switch(self._variable, self._value)

    def __call__(self, function: Callable) -> Callable:
        if inspect.isgeneratorfunction(function):
            return self._wrap_generator(function)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return wrapped

    def _wrap_generator(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            resume = functools.partial(next, generator)
            while True:
                with self._again():  # only while the generator itself runs, not while its caller does
                    try:
                        item = resume()
                    except StopIteration as stop:
                        return stop.value
                try:
                    resume = functools.partial(generator.send, (yield item))
                except BaseException as error:  # thrown into the generator, or its end: it may want to clean up
                    resume = functools.partial(generator.throw, error)

        return wrapped


recording_now: ContextVar[Any] = ContextVar("the recording of this thread's operations, for compile()", default=None)
recorders: list[Callable] = []  # empty while no thread records, which is quicker to see; see declaration.py


def refuse_if_recording(reason: str) -> None:
    """Called before what the replay of a recorded call would not do again."""
    recording = recording_now.get()
    if recording is not None:
        recording.refuse(reason)


def later(function: Callable) -> Callable:
    """Decorator of functions that change something outside and are no part of the tape: a recording notes their calls,
    and replays make them after the operations. Of tensors they change only what their first argument may be."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        recording = recording_now.get()
        if recording is None:
            return function(*args, **kwargs)
        changes = args[:1] if hasattr(args[0], "array") else ()
        return recording.later(functools.partial(function, **kwargs), *args, changes=changes)

    return call


class no_grad(_Switch):
    """Do not record operations: results do not require gradients.

    Example:
        >>> import paceline as torch
        >>> x = torch.ones(2, requires_grad=True)
        >>> with torch.no_grad():
        ...     y = x * 2
        >>> y.requires_grad
        False
    """

    def __new__(cls, function: Callable | None = None) -> Any:
        if function is None:
            return super().__new__(cls)
        return cls()(function)  # @no_grad without parentheses

    def __init__(self) -> None:
        super().__init__(grad_recorded, False)


class enable_grad(_Switch):
    """Record operations again inside `no_grad`."""

    def __new__(cls, function: Callable | None = None) -> Any:
        if function is None:
            return super().__new__(cls)
        return cls()(function)

    def __init__(self) -> None:
        super().__init__(grad_recorded, True)


class set_grad_enabled(_Switch):
    """Switch recording on or off at once, and back at the end when used in a `with` statement.

    Args:
        mode: True to record operations.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__(grad_recorded, bool(mode))
        self._outer.append(grad_recorded.get())
        grad_recorded.set(bool(mode))

    def __enter__(self) -> None:
        pass  # switched on creation, as PyTorch does

    def __call__(self, function: Callable) -> Callable:
        grad_recorded.set(self._outer[-1])  # a decorator switches only while the function runs
        return super().__call__(function)


class inference_mode(_Switch):
    """`no_grad` for code that will never be differentiated; `is_inference_mode_enabled()` is true inside."""

    def __new__(cls, mode: bool | Callable = True) -> Any:
        if callable(mode):
            return cls()(mode)
        return super().__new__(cls)

    def __init__(self, mode: bool = True) -> None:
        super().__init__(_inference, bool(mode))

    def __enter__(self) -> None:
        super().__enter__()
        self._outer.append(grad_recorded.get())
        if self._value:
            grad_recorded.set(False)

    def __exit__(self, *exc: object) -> None:
        grad_recorded.set(self._outer.pop())
        super().__exit__(*exc)

    def _again(self) -> inference_mode:
        return inference_mode(self._value)


class _Anomaly:
    """Process-wide: backward checks every gradient for NaN, forward keeps where each node was made."""

    enabled = False

    def __init__(self) -> None:
        self.origins: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()

    def switch(self, enabled: bool) -> None:
        if enabled != self.enabled:
            (node_observers.append if enabled else node_observers.remove)(_note_origin)
        self.enabled = enabled


anomaly = _Anomaly()


def _note_origin(node: Any) -> None:
    anomaly.origins[node] = traceback.format_stack(user_frame())


class set_detect_anomaly:
    """Make backward raise at the first NaN gradient, showing where its forward operation was called.

    Args:
        mode: True to switch it on.
    """

    def __init__(self, mode: bool = True) -> None:
        self._outer = anomaly.enabled
        anomaly.switch(bool(mode))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        anomaly.switch(self._outer)


class detect_anomaly(set_detect_anomaly):
    """`set_detect_anomaly(True)` for a `with` block."""

    def __init__(self) -> None:
        super().__init__(True)


def is_anomaly_enabled() -> bool:
    """Whether `set_detect_anomaly(True)` is in force."""
    return anomaly.enabled
