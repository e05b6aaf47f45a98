"""Collectives on lists of one array per rank, whose sizes may differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Array, module_of
from .arguments import check_arrays, check_parts, pack, place_of, restore, unpack
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

    call = call_of("all_gather", array.dtype, _shapes(outputs), -1, place_of(array))

    def act() -> None:
        by = comm._mover(call)
        if _are_equal(outputs):
            packed = pack(outputs)
            rows = by._rows(packed)
            by._all_gather(rows, by._flat(array))
            restore(packed, rows)
            unpack(packed, outputs)
            return
        outputs[comm.rank][...] = array
        for src, output in enumerate(outputs):
            flat = by._flat(output)
            by._broadcast(flat, src)
            restore(output, flat)

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
        by = comm._mover(call)
        if _are_equal(arrays):
            flat = by._flat(output)
            by._reduce_scatter(flat, by._rows(pack(arrays)), call.op)
            restore(output, flat)
            return
        for dst, array in enumerate(arrays):
            flat = by._flat(array.copy())
            by._reduce(flat, call.op, dst)
            if comm.rank == dst:
                output[...] = module_of(output).asarray(flat.reshape(output.shape))

    return comm._start(call, act, output, async_op)


def all_to_all(comm: Comm, outputs: Sequence[Array], arrays: Sequence[Array], async_op: bool) -> Work | None:
    """Comm.all_to_all between lists."""
    check_arrays("all_to_all", *arrays[:1])
    dtype = arrays[0].dtype if arrays else np.dtype(np.float32)
    check_parts("all_to_all", "array", arrays, comm.size, dtype)
    check_parts("all_to_all", "output", outputs, comm.size, dtype)

    call = call_of("all_to_all", dtype, ("...",), -1, place_of(arrays[0]))

    def act() -> None:
        _compare_parts(comm, outputs, arrays)
        comm._mover(call)._exchange(outputs, arrays)

    return comm._start(call, act, outputs, async_op)


def _compare_parts(comm: Comm, outputs: Sequence[Array], arrays: Sequence[Array]) -> None:
    """Raise the same error on all ranks unless every part fits where it goes."""
    mine = np.array([part.size for part in (*arrays, *outputs)], np.int64)
    everybody = np.empty((comm.size, mine.size), np.int64)
    comm._all_gather(everybody, mine)
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
