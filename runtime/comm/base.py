"""What every communicator does: arguments checked, signatures compared across ranks, arrays made flat for the backend.

A backend implements the methods with a leading underscore: those of Mover, for host arrays, and the last ones here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import numpy as np

from .. import timeline
from ..arrays import Array
from ..callers import user_line
from ..recorder import Recorder
from ..world import World
from . import batches, lists, objects
from .arguments import (
    INTERNAL_TAG,
    check_arrays,
    check_peer,
    check_rank,
    check_root_array,
    check_tag,
    check_whole,
    flat_on_host,
    pack,
    place_of,
    restore,
    unpack,
)
from .deadlock import failures
from .device_calls import DeviceCalls
from .mover import Mover
from .reduction import ReduceOp
from .signature import Call, CollectiveMismatchError, call_of, reduction_of
from .work import Courier, Receipt, Work

Arrays = Array | Sequence[Array]  # one array with a part for each rank, or a list of one array for each rank


class Comm(Mover):
    """A group of ranks that exchange arrays.

    Every rank of the group has to make the same calls in the same order. That is checked at every call before data
    moves, and a difference raises the same CollectiveMismatchError on all ranks, with each rank's call and line.
    Arrays are NumPy's or CuPy's, of any shape and memory layout. float16 and bfloat16 are summed in float32.

    With `async_op=True` a collective returns a Work at once and runs on a thread of the communicator. Calls run in the
    order in which they were made, whichever is waited for first; leave their arrays alone before `wait()`.

    Attributes:
        rank: number of this process in the group, 0 .. size - 1.
        size: number of processes in the group.
        ranks: the members' numbers in the job, by their numbers in the group.
        backend: name of the implementation.
    """

    backend: str

    def __init__(self, rank: int, ranks: tuple[int, ...]) -> None:
        self.rank = rank
        self.size = len(ranks)
        self.ranks = ranks
        self._calls = 0
        self._call = call_of("")  # the collective under way, for messages
        self._courier: Courier | None = None
        self._devices: DeviceCalls | None = None
        self._recorder: Recorder | None = None
        self._group_name = ""
        self._prepared = _Prepared(self._prepare)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size})"

    # Collectives

    def all_reduce(self, array: Array, op: ReduceOp | str = ReduceOp.SUM, async_op: bool = False) -> Work | None:
        """Combine `array` elementwise over all ranks, in place: array = op(array of rank 0, array of rank 1, ...).

        Args:
            array: same shape and dtype on every rank; bool (sum is "or", product is "and"), integer, float or complex.
            op: ReduceOp.SUM, AVG (the sum divided by `size`), PRODUCT, MIN, MAX, BAND, BOR or BXOR.
            async_op: return a Work to wait for, instead of waiting.

        Raises:
            CollectiveMismatchError: the ranks' calls differ.
            TypeError: the dtype has no such reduction.
        """
        if type(array) is np.ndarray and self._courier is None and not async_op:
            prepared = self._prepared["all_reduce", array.dtype, array.shape, op]
            if prepared is not None:
                return prepared(array, array)
        check_arrays("all_reduce", array)
        call = reduction_of("all_reduce", array.dtype, array.shape, op, -1, place_of(array))

        def act(tag: int = 0) -> bool:
            by = self._mover(call) if call.place else self  # it would find the same, and take its time
            flat = by._flat(array)
            same = by._agree_and_all_reduce(tag, flat, call.op)
            if same and flat.base is not array:
                restore(array, flat)
            return same

        return self._start(call, act, array, async_op, takes_tag=not call.place, shown=array)

    def reduce(
        self, array: Array, dst: int = 0, op: ReduceOp | str = ReduceOp.SUM, async_op: bool = False
    ) -> Work | None:
        """Combine `array` elementwise over all ranks, in place on rank `dst`; the other ranks keep theirs."""
        check_arrays("reduce", array)
        check_rank("reduce", "dst", dst, self.size)
        call = reduction_of("reduce", array.dtype, array.shape, op, dst, place_of(array))

        def act() -> None:
            by = self._mover(call)
            flat = by._flat(array if self.rank == dst else array.copy())
            by._reduce(flat, call.op, dst)
            if self.rank == dst:
                restore(array, flat)

        return self._start(call, act, array, async_op)

    def broadcast(self, array: Array, src: int = 0, async_op: bool = False) -> Work | None:
        """Overwrite `array` on every rank by that of rank `src`; same shape and dtype everywhere."""
        if type(array) is np.ndarray and self._courier is None and not async_op:
            prepared = self._prepared["broadcast", array.dtype, array.shape, src]
            if prepared is not None:
                return prepared(array, array)
        check_arrays("broadcast", array)
        check_rank("broadcast", "src", src, self.size)
        call = call_of("broadcast", array.dtype, array.shape, src, place_of(array))

        def act() -> None:
            by = self._mover(call)
            flat = by._flat(array)
            by._broadcast(flat, src)
            restore(array, flat)

        return self._start(call, act, array, async_op, shown=array)

    def all_gather(self, output: Arrays, array: Array, async_op: bool = False) -> Work | None:
        """Fill `output` on every rank by all ranks' arrays in rank order.

        Args:
            output: `size` times as many elements as `array`, for instance [size, *array.shape]; or a list of one array
                for each rank, each of the shape that `array` has on that rank, which may differ from rank to rank.
            array: same dtype on every rank, and same shape unless `output` is a list.
            async_op: return a Work to wait for, instead of waiting.
        """
        if isinstance(output, Sequence):
            return lists.all_gather(self, output, array, async_op)
        if type(array) is type(output) is np.ndarray and self._courier is None and not async_op:
            prepared = self._prepared["all_gather", array.dtype, array.shape, output.dtype, output.shape]
            if prepared is not None:
                return prepared(array, output)
        check_arrays("all_gather", array, output)
        check_whole("all_gather", "output", output, "array", array, self.size)
        call = call_of("all_gather", array.dtype, array.shape, -1, place_of(array))

        def act() -> None:
            by = self._mover(call)
            rows = by._rows(output)
            by._all_gather(rows, by._flat(array))
            restore(output, rows)

        return self._start(call, act, output, async_op, shown=array)

    def reduce_scatter(
        self, output: Array, array: Arrays, op: ReduceOp | str = ReduceOp.SUM, async_op: bool = False
    ) -> Work | None:
        """Combine `array` over all ranks and leave on rank r its r-th part in `output`.

        Args:
            output: one part.
            array: `size` parts in rank order, for instance [size, *output.shape], of the same dtype; or a list of one
                array for each rank, of any shapes that are the same on every rank.
            op: as in all_reduce.
            async_op: return a Work to wait for, instead of waiting.
        """
        if isinstance(array, Sequence):
            return lists.reduce_scatter(self, output, array, op, async_op)
        if type(array) is type(output) is np.ndarray and self._courier is None and not async_op:
            prepared = self._prepared["reduce_scatter", array.dtype, array.shape, output.dtype, output.shape, op]
            if prepared is not None:
                return prepared(array, output)
        check_arrays("reduce_scatter", array, output)
        check_whole("reduce_scatter", "array", array, "output", output, self.size)
        call = reduction_of("reduce_scatter", output.dtype, output.shape, op, -1, place_of(output))

        def act() -> None:
            by = self._mover(call)
            flat = by._flat(output)
            by._reduce_scatter(flat, by._rows(array), call.op)
            restore(output, flat)

        return self._start(call, act, output, async_op, shown=array)

    def all_to_all(self, output: Arrays, array: Arrays, async_op: bool = False) -> Work | None:
        """Send the r-th part of `array` to rank r; `output` gets the ranks' parts in rank order.

        Args:
            output: one array with `size` equal parts; or a list of one array for each rank, of any shapes, each with as
                many elements as that rank has for this one in its list.
            array: likewise, of the same dtype.
            async_op: return a Work to wait for, instead of waiting.
        """
        if isinstance(output, Sequence) and isinstance(array, Sequence):
            return lists.all_to_all(self, output, array, async_op)
        check_arrays("all_to_all", array, output)
        source: Any = array
        target: Any = output
        if source.shape != target.shape or source.size % self.size:
            raise ValueError(
                f"all_to_all(): array {list(source.shape)} and output {list(target.shape)} should have the same shape, "
                f"with a number of elements that {self.size} ranks can share"
            )
        call = call_of("all_to_all", source.dtype, source.shape, -1, place_of(source))

        def act() -> None:
            by = self._mover(call)
            rows = by._rows(target)
            by._all_to_all(rows, by._rows(source))
            restore(target, rows)

        return self._start(call, act, target, async_op)

    def gather(self, output: Arrays | None, array: Array, dst: int = 0, async_op: bool = False) -> Work | None:
        """Fill `output`, an array or a list, on rank `dst` by all ranks' arrays in rank order; the others pass None."""
        check_rank("gather", "dst", dst, self.size)
        check_root_array("gather", "output", output, dst, array, self)
        call = call_of("gather", array.dtype, array.shape, dst, place_of(array))

        def act() -> None:
            by = self._mover(call)
            whole = pack(output) if isinstance(output, Sequence) else output
            rows = None if whole is None else by._rows(whole)
            by._gather(rows, by._flat(array), dst)
            if whole is not None:
                restore(whole, rows)
            if isinstance(output, Sequence):
                unpack(whole, output)

        return self._start(call, act, output, async_op)

    def scatter(self, output: Array, array: Arrays | None, src: int = 0, async_op: bool = False) -> Work | None:
        """Fill `output` on rank r by the r-th equal part of `array`, or of a list, of rank `src`; others pass None."""
        check_rank("scatter", "src", src, self.size)
        check_root_array("scatter", "array", array, src, output, self)
        call = call_of("scatter", output.dtype, output.shape, src, place_of(output))

        def act() -> None:
            by = self._mover(call)
            whole = pack(array) if isinstance(array, Sequence) else array
            flat = by._flat(output)
            by._scatter(flat, None if whole is None else by._rows(whole), src)
            restore(output, flat)

        return self._start(call, act, output, async_op)

    def barrier(self, async_op: bool = False) -> Work | None:
        """Return when every rank has called it."""
        return self._start(call_of("barrier"), _nothing, None, async_op)

    def share(self, array: Array) -> Any:
        """Let the ranks work on each other's `array` where it is: all_reduce of it, or of a slice, then copies nothing.

        A matter of speed alone: it does nothing where `array` is no part of `shareable_zeros()`, or the ranks share no
        memory. All ranks call it.

        Args:
            array: the same size on every rank.

        Returns:
            An object to keep as long as that should hold, or None.
        """

    def common(self, nbytes: int) -> Any:
        """Memory of so many bytes, zero at first, that is the same for all ranks; None where they share no memory.

        All ranks call it. Nothing but their other calls keeps one from reading what another still writes.
        """

    # Point to point: the receiver compares dtype and size with what the message says of itself.

    def send(self, array: Array, dst: int, tag: int = 0) -> None:
        """Send `array` to rank `dst`, which calls recv with an array of the same size and dtype."""
        self.isend(array, dst, tag).wait()

    def recv(self, array: Array, src: int | None = None, tag: int = 0) -> int:
        """Overwrite `array` by the next one with this tag that rank `src`, or any, sends; return the sender's rank.

        Raises:
            CollectiveMismatchError: what was sent has another dtype or number of elements.
        """
        receipt = self.irecv(array, src, tag)
        receipt.wait()
        return receipt.source

    def isend(self, array: Array, dst: int, tag: int = 0) -> Work:
        """`send` that returns at once; leave `array` alone before `wait()`."""
        check_arrays("send", array)
        check_peer("send", "dst", dst, tag, self)
        return self._isend(array, dst, tag)

    def irecv(self, array: Array, src: int | None = None, tag: int = 0) -> Receipt:
        """`recv` that returns at once; `array` is filled by `wait()`."""
        check_arrays("recv", array)
        check_tag("recv", tag)
        if src is not None:
            check_peer("recv", "src", src, tag, self)
        return self._irecv(array, src, tag)

    batch = batches.batch

    # Objects

    all_gather_object = objects.all_gather_object
    gather_object = objects.gather_object
    broadcast_object = objects.broadcast_object
    scatter_object = objects.scatter_object
    send_object = objects.send_object
    recv_object = objects.recv_object

    # Parts of the group

    def split(self, color: int | None, key: int = 0) -> Comm | None:
        """Communicator of the ranks that pass the same color, ordered by (key, rank); None for a color of None."""
        mine = np.array([color is not None, color or 0, key], np.int64)
        wishes = np.empty((self.size, 3), np.int64)
        self._start(call_of("split"), lambda: self._all_gather(wishes, mine), None, False)
        same = [rank for rank in range(self.size) if (wishes[rank, :2] == mine[:2]).all()]
        return self._split(None if color is None else sorted(same, key=lambda rank: (wishes[rank, 2], rank)))

    def group(self, ranks: Sequence[int]) -> Comm | None:
        """Communicator of some ranks, in this order; all of them call it, with the same list, and others get None.

        Example:
            >>> from paceline.runtime.comm import world_comm
            >>> world_comm().group([0]).size
            1
        """
        members = list(ranks)
        for rank in members:
            check_rank("group", "ranks", rank, self.size)
        if len(set(members)) != len(members) or not members:
            raise ValueError(f"group(): ranks should name each member once, got {members}")
        self._start(call_of(f"group({members})"), _nothing, None, False)
        return self._split(members if self.rank in members else None)

    @property
    def mpi4py(self) -> Any:
        """The mpi4py communicator of these ranks, for calls of your own: none of ours travel on it."""
        raise AttributeError(f"a {self.backend!r} communicator has no MPI behind it")

    def close(self) -> None:
        """Finish the pending collectives and give back what the communicator holds; every rank calls it."""
        if self._devices is not None:
            self._devices.close()
        courier, self._courier = self._courier, None
        if courier is not None:
            courier.close()

    def leave(self) -> None:
        """Tell the other ranks that this one's program is at its end: those that still call something get an error."""
        if self._courier is not None:
            self._courier.drain()
        self._perform(call_of("exit"), _nothing, False, "the end of the program")

    # The gate

    def _start(
        self,
        call: Call,
        act: Callable[..., Any],
        filled: Arrays | None,
        async_op: bool,
        takes_tag: bool = False,
        shown: Array | None = None,
    ) -> Work | None:
        """Perform a collective now, or post it behind those that are pending.

        Args:
            call: what the ranks compare.
            act: what follows.
            filled: the output.
            async_op: whether the caller wants a Work.
            takes_tag: whether `act(tag)` compares, and returns whether the ranks bring the same.
            shown: the input, if it may travel with the signature where it is small.
        """
        if not async_op and not call.place:
            if self._courier is not None:
                self._courier.drain()
            return self._perform(call, act, takes_tag, None, shown, filled)
        line = user_line()  # another thread's stack does not show it
        outputs = listed(filled)
        if call.place:
            if self._courier is not None:
                self._courier.drain()
            if self._devices is None:
                self._devices = DeviceCalls(self, outputs)
            return self._devices.run(lambda: self._perform(call, act, takes_tag, line), call, line, outputs, async_op)
        if self._courier is None:
            self._courier = Courier(f"paceline {self.backend} collectives of rank {self.rank}")
        return self._courier.post(outputs, lambda: self._perform(call, act, takes_tag, line, shown, filled))

    @timeline.traced("collective", lambda self, call, *others: str(call))
    def _perform(
        self,
        call: Call,
        act: Callable[..., Any],
        takes_tag: bool,
        line: str | None,
        shown: Array | None = None,
        filled: Arrays | None = None,
    ) -> None:
        """Check and run one collective. All of them pass here, in the communicator's order, but for prepared ones."""
        if failures:
            raise failures[0]
        self._calls += 1
        self._call = call
        recorder = self._recorder
        entry = 0 if recorder is None else recorder.begin(self._calls, self._group_name, call, line)
        try:
            tag = call.digest ^ self._calls
            finish = None if shown is None else self._show(call, shown)
            if finish is not None:
                if same := self._same_everywhere(tag):
                    finish(filled)
            elif takes_tag:
                same = act(tag)
            elif same := self._same_everywhere(tag):
                act()
            if not same:
                self._raise_mismatch(call, line or user_line())
        finally:
            if recorder is not None:
                recorder.end(entry)

    def _mover(self, call: Call) -> Mover:
        """What moves the arrays of a call that all ranks have come to: this, through host memory, or NCCL."""
        return self if self._devices is None or not call.place else self._devices.mover(call)

    def _raise_mismatch(self, call: Call, line: str) -> NoReturn:
        """Explain, from every rank's side; this is the slow path."""
        mine = f"call {self._calls}: {call} at {line}"
        calls = [text.decode() for text in objects.all_gather_bytes(self, mine.encode())]
        lines = "".join(f"\n  rank {rank}: {text}" for rank, text in enumerate(calls))
        raise CollectiveMismatchError(f"the ranks do not make the same collective call; no data was moved:{lines}")

    # What a backend implements

    @classmethod
    def from_world(cls, world: World) -> Self:
        """The communicator of all ranks of this process's job."""
        raise NotImplementedError(f"{cls.__name__} does not connect processes")

    def _flat(self, array: Array) -> Array:
        return flat_on_host(array)

    def _same_everywhere(self, tag: int) -> bool:
        """Whether all ranks pass the same number of 44 bits; no rank returns before all have come."""
        raise NotImplementedError

    def _prepare(self, kind: str, *signature: Any) -> Callable[[np.ndarray, np.ndarray], None] | None:
        """A method for such host arrays with all decided that can be, or None where that would not be any quicker."""
        return None

    def _show(self, call: Call, array: Array) -> Callable[[Any], object] | None:
        """Put a small array where the other ranks see it; what makes the output of theirs once all have come."""
        return None

    def _exchange(self, outputs: Sequence[Array], arrays: Sequence[Array]) -> None:
        own = outputs[self.rank]
        own[...] = arrays[self.rank].reshape(own.shape)
        peers = [peer for peer in range(self.size) if peer != self.rank]
        works: list[Work] = [self._irecv(outputs[peer], peer, INTERNAL_TAG) for peer in peers]
        works += [self._isend(arrays[peer], peer, INTERNAL_TAG) for peer in peers]
        for work in works:
            work.wait()

    def _isend(self, array: Array, dst: int, tag: int) -> Work:
        raise NotImplementedError

    def _irecv(self, array: Array, src: int | None, tag: int) -> Receipt:
        raise NotImplementedError

    def _split(self, members: list[int] | None) -> Comm | None:
        """The communicator of these members, in their order; all ranks of this one call it, the others with None."""
        raise NotImplementedError


class _Prepared(dict):
    """What a function has returned, by its arguments: lru_cache in half the time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __missing__(self, arguments: tuple) -> Any:
        if len(self) == 1024:
            self.clear()
        found = self[arguments] = self._function(*arguments)
        return found


def listed(filled: Arrays | None) -> list[Array]:
    """What a call fills, as a list."""
    return list(filled) if isinstance(filled, list | tuple) else [] if filled is None else [filled]


def _nothing() -> None:
    """The signature check alone is a barrier."""
