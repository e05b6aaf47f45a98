"""Collectives on lists of one array per rank, whose sizes may differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Array, module_of
from .arguments import INTERNAL_TAG, check_arrays, check_parts, pack, place_of, restore, unpack
from .reduction import ReduceOp
from .signature import CollectiveMismatchError, call_of, reduction_of

if TYPE_CHECKING:
    from .base import Comm
    from .work import Work


def all_gather(comm: Comm, outputs: Sequence[Array], array: Array, async_op: bool) -> Work | None:
    """Comm.all_gather into a list."""
    check_arrays("all_gather", array)
    check_parts("all_gather", "output", outputs, comm.size, array.dtype)
    _check_own_part("all_gather", "output", outputs, comm.rank, "array", array)

    def act() -> None:
        if _are_equal(outputs):
            packed = pack(outputs)
            rows = comm._rows(packed)
            comm._all_gather(rows, comm._flat(array))
            restore(packed, rows)
            unpack(packed, outputs)
            return
        outputs[comm.rank][...] = array
        for src, output in enumerate(outputs):
            flat = comm._flat(output)
            comm._broadcast(flat, src)
            restore(output, flat)

    call = call_of("all_gather", array.dtype, _shapes(outputs), -1, place_of(array))
    return comm._start(call, act, outputs, async_op)


def reduce_scatter(
    comm: Comm, output: Array, arrays: Sequence[Array], op: ReduceOp | str, async_op: bool
) -> Work | None:
    """Comm.reduce_scatter of a list."""
    check_arrays("reduce_scatter", output)
    check_parts("reduce_scatter", "array", arrays, comm.size, output.dtype)
    _check_own_part("reduce_scatter", "array", arrays, comm.rank, "output", output)
    call = reduction_of("reduce_scatter", output.dtype, _shapes(arrays), op, place=place_of(output))

    def act() -> None:
        if _are_equal(arrays):
            flat = comm._flat(output)
            comm._reduce_scatter(flat, comm._rows(pack(arrays)), call.op)
            restore(output, flat)
            return
        for dst, array in enumerate(arrays):
            flat = comm._flat(array.copy())
            comm._reduce(flat, call.op, dst)
            if comm.rank == dst:
                output[...] = module_of(output).asarray(flat.reshape(output.shape))

    return comm._start(call, act, output, async_op)


def all_to_all(comm: Comm, outputs: Sequence[Array], arrays: Sequence[Array], async_op: bool) -> Work | None:
    """Comm.all_to_all between lists."""
    check_arrays("all_to_all", *arrays[:1])
    dtype = arrays[0].dtype if arrays else np.dtype(np.float32)
    check_parts("all_to_all", "array", arrays, comm.size, dtype)
    check_parts("all_to_all", "output", outputs, comm.size, dtype)

    def act() -> None:
        _compare_parts(comm, outputs, arrays)
        own = outputs[comm.rank]
        own[...] = arrays[comm.rank].reshape(own.shape)
        peers = [peer for peer in range(comm.size) if peer != comm.rank]
        works: list[Work] = [comm._irecv(outputs[peer], peer, INTERNAL_TAG) for peer in peers]
        works += [comm._isend(arrays[peer], peer, INTERNAL_TAG) for peer in peers]
        for work in works:
            work.wait()

    return comm._start(call_of("all_to_all", dtype, ("...",), -1, place_of(arrays[0])), act, outputs, async_op)


def _compare_parts(comm: Comm, outputs: Sequence[Array], arrays: Sequence[Array]) -> None:
    """Raise the same error on all ranks unless every part fits where it goes."""
    mine = np.array([part.size for part in (*arrays, *outputs)], np.int64)
    everybody = np.empty((comm.size, mine.size), np.int64)
    comm._host._all_gather(everybody, mine)
    sent, expected = everybody[:, : comm.size], everybody[:, comm.size :].T
    lines = "".join(
        f"\n  rank {src} sends {sent[src, dst]} elements to rank {dst}, which expects {expected[src, dst]}"
        for src, dst in np.argwhere(sent != expected).tolist()
    )
    if lines:
        raise CollectiveMismatchError(f"all_to_all(): the parts do not fit; no data was moved:{lines}")


def _check_own_part(kind: str, name: str, parts: Sequence[Array], rank: int, other: str, array: Array) -> None:
    if parts[rank].shape != array.shape:
        raise ValueError(
            f"{kind}(): {name}[{rank}] {list(parts[rank].shape)} should have the shape of this rank's {other} "
            f"{list(array.shape)}"
        )


def _shapes(parts: Sequence[Array]) -> tuple[tuple[int, ...], ...]:
    return tuple(part.shape for part in parts)


def _are_equal(parts: Sequence[Array]) -> bool:
    return all(part.size == parts[0].size for part in parts)
