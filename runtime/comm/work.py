"""Handles of operations under way, and the thread on which pending collectives run."""

from __future__ import annotations

import datetime
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, NoReturn, Self, TypeVar

from .. import timeline

_SWITCH_SECONDS = 2e-4


T = TypeVar("T")


def _refuse_to_wait() -> NoReturn:
    raise RuntimeError("Future.wait(): nobody has called set_result(), and this thread cannot wait for itself")


class Work:
    """Handle of an operation called with `async_op=True`, or of isend and irecv; this one has finished already.

    Attributes:
        outputs: what the operation fills: arrays, or Tensors where it was called with Tensors.
    """

    def __init__(self, outputs: list[Any]) -> None:
        self.outputs = outputs

    def wait(self, timeout: float | datetime.timedelta | None = None) -> bool:
        """Block until the result is there, and raise here what went wrong; `timeout` in seconds."""
        return True

    def is_completed(self) -> bool:
        """Whether `wait()` would return, or raise, at once."""
        return True

    def is_success(self) -> bool:
        """Whether the operation has ended well."""
        return self.is_completed() and self.exception() is None

    def exception(self) -> BaseException | None:
        """What went wrong, if it has ended and something did."""
        return None

    def result(self) -> list[Any]:
        """The outputs, once they are there."""
        self.wait()
        return self.outputs

    def get_future(self) -> Future:
        """A Future whose value is the list of outputs."""
        return Future(self.result, self.is_completed)


class Future(Generic[T]):
    """A value that will be there; what `then` adds runs in the thread that waits.

    Args:
        compute: gives the value, and may wait for it; default: there is none before `set_result`.
        done: whether `compute` would return at once.

    Example:
        >>> work = Work(outputs=[1.0])
        >>> work.get_future().then(lambda future: future.value()[0] + 1).wait()
        2.0
    """

    def __init__(self, compute: Callable[[], Any] = _refuse_to_wait, done: Callable[[], bool] = bool) -> None:
        self._compute = compute
        self._done = done
        self._value: list[Any] = []

    def wait(self) -> Any:
        """The value, once it is there."""
        if not self._value:
            self._value.append(self._compute())
        return self._value[0]

    def value(self) -> Any:
        """The value, which has to be there."""
        if not self.done():
            raise RuntimeError("Future.value(): the value is not there yet; call wait() first")
        return self.wait()

    def done(self) -> bool:
        """Whether `wait()` would return at once."""
        return bool(self._value) or self._done()

    def set_result(self, result: Any) -> None:
        """Give it its value."""
        if self._value:
            raise RuntimeError("Future.set_result(): it has its value already")
        self._value.append(result)

    def then(self, callback: Callable[[Self], Any]) -> Future:
        """A Future of what `callback(self)` returns."""

        def chained() -> Any:
            self.wait()
            return callback(self)

        return Future(chained, self.done)


class Receipt(Work):
    """Handle of irecv.

    Attributes:
        source: rank of the sender, once the array is there.
    """

    source: int


class Pending(Work):
    """A collective that runs on the courier's thread."""

    def __init__(self, outputs: list[Any], job: Callable[[], None]) -> None:
        super().__init__(outputs)
        self._job = job
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self.seen = False  # whether somebody has been told of the error

    def run(self) -> None:
        """Do it, in the courier's thread."""
        try:
            self._job()
        except BaseException as error:  # it is raised again in the thread that waits
            self._error = error
        self._ended.set()

    @timeline.traced("wait")
    def wait(self, timeout: float | datetime.timedelta | None = None) -> bool:
        if not self._ended.wait(None if timeout is None else seconds_of(timeout)):
            raise TimeoutError(f"wait(): the collective has not ended after {timeout} s")
        self.seen = True
        if self._error is not None:
            raise self._error
        return True

    def is_completed(self) -> bool:
        return self._ended.is_set()

    def exception(self) -> BaseException | None:
        return self._error if self._ended.is_set() else None

    def is_untold_failure(self) -> bool:
        """Whether it has gone wrong, and nobody knows."""
        return self.exception() is not None and not self.seen


def seconds_of(timeout: float | datetime.timedelta) -> float:
    """A time limit in seconds."""
    return timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else timeout


class Courier:
    """Runs the pending collectives of one communicator on a thread of its own, one after the other.

    No MPI library moves data between calls, so something has to stay inside the call while the caller computes.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._unsettled: list[Pending] = []
        # At Python's own 5 ms the courier would wait that long for each turn beside a thread that runs pure Python.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def post(self, outputs: list[Any], job: Callable[[], None]) -> Pending:
        """Run `job()` after all that was posted before."""
        work = Pending(outputs, job)
        self._unsettled = [each for each in self._unsettled if not each.is_completed() or each.is_untold_failure()]
        self._unsettled.append(work)
        self._jobs.put(work)
        return work

    @timeline.traced("wait")
    def drain(self) -> None:
        """Wait for everything posted; raise the first error that nobody has been told of."""
        works, self._unsettled = self._unsettled, []
        for work in works:
            work._ended.wait()
        for work in works:
            if not work.seen:
                work.wait()

    def close(self) -> None:
        """Drain, then end the thread."""
        self._jobs.put(None)
        self.drain()

    def _run(self) -> None:
        while (work := self._jobs.get()) is not None:
            work.run()
