"""Collectives of arrays on a device: put on a stream of their own, where they run while the host goes on."""

from __future__ import annotations

import datetime
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import arrays, faults
from ..world import get_world
from .mover import Mover
from .nccl import NcclMover, connect
from .signature import Call
from .work import Work, seconds_of

if TYPE_CHECKING:
    from .base import Comm

_HIGH_PRIORITY = -5  # CUDA takes the nearest one that the device has
_POLL_SECONDS = 1e-3
_LOOK_SECONDS = 0.25
# A call that takes longer on the device is shown by the flight recorder as one that this rank is still in.
LATE_SECONDS = 1.0


class DeviceCalls:
    """The calls of one communicator on arrays of one device, in their order.

    The host waits for the other ranks only until all have made the call; then it goes on, also where the call is no
    asynchronous one: what it puts on its own stream afterwards waits there for the result. A thread looks after what is
    under way, and aborts NCCL's communicator when NCCL reports an error.

    Attributes:
        comm: the communicator.
        failure: what NCCL has reported.
    """

    def __init__(self, comm: Comm, outputs: list[Any]) -> None:
        cuda = arrays.cupy().cuda  # type: ignore[union-attr]
        device = outputs[0].device if outputs else cuda.Device()
        self.comm = comm
        self.failure: Exception | None = None
        self._cuda = cuda
        self._device = device
        with device:
            self._stream = cuda.Stream(non_blocking=True, priority=_HIGH_PRIORITY)
        self._mover: Mover | None = None
        self._under_way: deque[Launched] = deque()
        self._lock = threading.Lock()  # of what is under way
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name=f"{comm!r} on {device}", daemon=True).start()
        faults.at_end(self.close)

    def mover(self, call: Call) -> Mover:
        """What moves the arrays of a call that all ranks have come to."""
        if self._mover is None:
            self._mover = connect(self.comm)
        return self._mover if self._mover.takes(call) else self.comm

    @property
    def nccl(self) -> NcclMover | None:
        """What moves arrays by NCCL, if the ranks have been joined by it."""
        return self._mover if isinstance(self._mover, NcclMover) else None

    def run(self, job: Callable[[], None], call: Call, line: str, outputs: list[Any], async_op: bool) -> Work | None:
        """Let `job()` put a call on the stream, behind what this thread has put on its own."""
        self._raise_failure()
        for output in outputs:
            if output.device != self._device:
                raise ValueError(
                    f"{call}: the array is on cuda:{output.device.id}, but this communicator's calls so far were on "
                    f"cuda:{self._device.id}; a rank uses one GPU"
                )
        with self._device:
            caller = self._cuda.get_current_stream()
            self._stream.wait_event(self._mark(caller))
            with self._stream:
                job()
            launched = Launched(self, outputs, job, self._mark(self._stream), call, line)
            self._drop_done()
            with self._lock:
                self._under_way.append(launched)
            if async_op:
                return launched
            caller.wait_event(launched.done)
            return None

    def let_stream_wait(self, launched: Launched) -> None:
        """Let the current stream wait for a call."""
        self._raise_failure()
        with self._device:
            self._cuda.get_current_stream().wait_event(launched.done)

    def close(self) -> None:
        """Wait for what is under way, and end NCCL's communicator; every rank calls it."""
        if not self._closed.is_set():
            self._closed.set()
            self._stream.synchronize()
            if self.nccl is not None and self.failure is None:
                self.nccl.close()

    def _mark(self, stream: Any) -> Any:
        event = self._cuda.Event(disable_timing=True)
        event.record(stream)
        return event

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise RuntimeError(f"NCCL has failed on rank {self.comm.rank}: {self.failure}") from self.failure

    def _drop_done(self) -> None:
        """Let go of the arrays of calls that have ended."""
        with self._lock:
            while self._under_way and self._under_way[0].is_completed():
                self._under_way.popleft().note_end()

    def _watch(self) -> None:
        with self._device:
            while not self._closed.wait(_LOOK_SECONDS):
                self.look()

    def look(self) -> None:
        """Note what is late, and what NCCL has to report."""
        self._drop_done()
        with self._lock:
            if self._under_way and time.monotonic() - self._under_way[0].begin > LATE_SECONDS:
                self._under_way[0].note_late()
        if self.nccl is not None and self.failure is None:
            try:
                self.nccl.check()
            except Exception as error:
                self.failure = error
                self.nccl.abort()
                if get_world().size > 1:
                    faults.end_job(error)


class Launched(Work):
    """A call that is on the stream; `wait()` makes the current stream wait for it, and not the host.

    Attributes:
        done: the event behind it.
        begin: when it was put there, in seconds.
    """

    def __init__(
        self, calls: DeviceCalls, outputs: list[Any], job: Callable[[], None], done: Any, call: Call, line: str
    ) -> None:
        super().__init__(outputs)
        self.done = done
        self.begin = time.monotonic()
        self._calls = calls
        self._job = job  # for the arrays that it uses, which nobody else may need any more
        self._recorder = calls.comm._recorder
        self._call = call
        self._line = line
        self._number = calls.comm._calls
        self._late: int | None = None

    def wait(self, timeout: float | datetime.timedelta | None = None) -> bool:
        if timeout is not None:
            deadline = time.monotonic() + seconds_of(timeout)
            while not self.is_completed():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"wait(): {self._call} has not ended on the device after {timeout} s")
                time.sleep(_POLL_SECONDS)
        self._calls.let_stream_wait(self)
        return True

    def is_completed(self) -> bool:
        return self.done.done

    def exception(self) -> BaseException | None:
        return self._calls.failure

    def note_late(self) -> None:
        """Show in the flight recorder, where the call stands as one that has returned, that it still runs."""
        if self._recorder is not None and self._late is None:
            text = f"{self._call}, on the device"
            self._late = self._recorder.begin(self._number, self._calls.comm._group_name, text, self._line)

    def note_end(self) -> None:
        """Show that it has ended, if it was late."""
        if self._recorder is not None and self._late is not None:
            self._recorder.end(self._late)
