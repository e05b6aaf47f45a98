"""Read ahead in a background thread."""

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .. import timeline

T = TypeVar("T")


def prefetch(
    items: Iterator[T], depth: int, timeout: float = 0, on_start: Callable[[], Any] | None = None
) -> Iterator[T]:
    """Yield `items`, in order, while a background thread reads up to `depth` of them ahead.

    An exception in the thread is raised here with its traceback, after the items before it. Abandoning the iteration
    (a break, an exception in the loop's body) ends the thread once it has read the item it is at.

    Args:
        items: read only by the thread, from the first item on.
        depth: how many items may wait.
        timeout: seconds to wait for an item; 0 waits for ever.
        on_start: called in the thread before the first item.

    Raises:
        RuntimeError: no item came within `timeout`.
    """
    free = threading.Semaphore(depth)
    stop = threading.Event()
    ready: queue.SimpleQueue = queue.SimpleQueue()
    # The thread must see the caller's context: default device and grad mode.
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run, args=(_read_ahead, items, on_start, free, stop, ready), name="paceline-loader", daemon=True
    )
    thread.start()
    try:
        while True:
            try:
                item, error, ended = ready.get(timeout=timeout or None)
            except queue.Empty:
                raise RuntimeError(f"DataLoader timed out after {timeout} seconds") from None
            if error is not None:
                raise error
            if ended:
                return
            free.release()
            yield item
    finally:
        stop.set()
        free.release()
        # Wait for the thread: the caller may read the dataset again at once, and datasets are rarely thread-safe.
        # The garbage collector can run this in the thread itself, which cannot wait for itself.
        if thread is not threading.current_thread():
            thread.join(timeout or None)


def _read_ahead(
    items: Iterator[T],
    on_start: Callable[[], Any] | None,
    free: threading.Semaphore,
    stop: threading.Event,
    ready: queue.SimpleQueue,
) -> None:
    """The thread's body: put (item, error, ended) triples into `ready` until the items end or `stop` is set."""
    read = timeline.traced("loader", lambda: "read ahead")(items.__next__)
    try:
        if on_start is not None:
            on_start()
        while True:
            free.acquire()
            if stop.is_set():
                return
            try:
                ready.put((read(), None, False))
            except StopIteration:
                ready.put((None, None, True))
                return
    except BaseException as error:  # also SystemExit: whatever ends the thread must reach the caller, or it would wait
        ready.put((None, error, True))
