"""What collectives check of their arguments, and how arrays become the flat ones that a backend moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from ..arrays import Array, module_of, shares_memory, to_host
from .signature import CollectiveMismatchError, refusal_of_objects

if TYPE_CHECKING:
    from .base import Comm

INTERNAL_TAG = 32767  # the largest that every MPI has; users have those below


def check_arrays(kind: str, *arrays: Array) -> None:
    """Refuse what is no array, or one of objects."""
    for array in arrays:
        if not isinstance(array, np.ndarray) and not hasattr(array, "__cuda_array_interface__"):
            raise TypeError(f"{kind}(): expected a NumPy or CuPy array, got {type(array).__name__}")
        if array.dtype.hasobject:
            raise refusal_of_objects(kind)


def check_rank(kind: str, name: str, rank: int | None, size: int) -> None:
    """Refuse a rank that a communicator of this size does not have."""
    if not isinstance(rank, int) or not 0 <= rank < size:
        raise ValueError(f"{kind}(): {name} should be a rank from 0 to {size - 1}, got {rank!r}")


def check_peer(kind: str, name: str, rank: int | None, tag: int, comm: Comm) -> None:
    """Refuse what would wait for itself, and tags that are not the user's."""
    check_rank(kind, name, rank, comm.size)
    if rank == comm.rank:
        raise ValueError(f"{kind}(): {name} is this rank itself ({rank}); it should be another one")
    check_tag(kind, tag)


def check_tag(kind: str, tag: int) -> None:
    """Refuse tags that MPI need not have."""
    if not 0 <= tag < INTERNAL_TAG:
        raise ValueError(f"{kind}(): tag should be from 0 to {INTERNAL_TAG - 1}, got {tag}")


def check_whole(kind: str, whole_name: str, whole: Array, part_name: str, part: Array, size: int) -> None:
    """Check that `whole` has room for one `part` of each of `size` ranks."""
    if whole.dtype != part.dtype:
        raise TypeError(f"{kind}(): {whole_name} is {whole.dtype} but {part_name} is {part.dtype}")
    if whole.size != size * part.size:
        raise ValueError(
            f"{kind}(): {whole_name} {list(whole.shape)} has {whole.size} elements, expected {size} (one part "
            f"per rank) times the {part.size} of {part_name} {list(part.shape)}"
        )


def check_parts(kind: str, name: str, parts: Sequence[Array], size: int, dtype: np.dtype) -> None:
    """Check a list of one array per rank, of one dtype and of any shapes."""
    if len(parts) != size:
        raise ValueError(f"{kind}(): {name} has {len(parts)} entries, expected one for each of the {size} ranks")
    check_arrays(kind, *parts)
    for index, part in enumerate(parts):
        if part.dtype != dtype:
            raise TypeError(f"{kind}(): {name}[{index}] is {part.dtype}, expected {dtype}")


def check_root_array(
    kind: str, name: str, whole: Array | Sequence[Array] | None, root: int, part: Array, comm: Comm
) -> None:
    """Check that the root of a gather or scatter brings all parts, and that the others bring none."""
    check_arrays(kind, part)
    if comm.rank != root:
        if whole is not None:
            raise ValueError(f"{kind}(): {name} should be None on rank {comm.rank}: only rank {root} has it")
    elif isinstance(whole, Sequence):
        check_parts(kind, name, whole, comm.size, part.dtype)
        for index, each in enumerate(whole):
            if each.size != part.size:
                raise ValueError(f"{kind}(): {name}[{index}] has {each.size} elements, expected {part.size}")
    else:
        check_arrays(kind, whole)
        check_whole(kind, name, whole, "the part", part, comm.size)


def place_of(array: Array) -> str:
    """Where an array is, for its signature."""
    return "" if isinstance(array, np.ndarray) else "cuda"


def flat_on_host(array: Array) -> np.ndarray:
    """`array` as one contiguous row on the host in native byte order: a view where it is that already, else a copy."""
    if type(array) is np.ndarray and array.flags.c_contiguous and array.dtype.isnative:
        return array.reshape(-1)
    host = to_host(array)
    return np.array(host, host.dtype.newbyteorder("="), order="C").reshape(-1)


def restore(array: Array, flat: Array) -> None:
    """Copy the result into `array`, unless `flat` is a view of it."""
    if type(flat) is not type(array) or not shares_memory(flat, array):
        array[...] = module_of(array).asarray(flat.reshape(array.shape))


def fill(array: Array, content: np.ndarray, src: int) -> None:
    """Copy a received message into `array`; CollectiveMismatchError if it does not fit."""
    native = array.dtype.newbyteorder("=")
    if content.size != array.size or content.dtype != native:
        refuse_message(src, content.dtype, content.size, array)
    array[...] = module_of(array).asarray(content.reshape(array.shape))


def refuse_message(src: int | None, dtype: object, size: int, array: Array) -> NoReturn:
    """Say what was sent and what was expected."""
    raise CollectiveMismatchError(
        f"recv(): rank {src} sent {size} elements of {dtype}, but array has {array.size} of {array.dtype}"
    )


def pack(parts: Sequence[Array]) -> Array:
    """Arrays of one size as the rows of a new matrix."""
    return module_of(parts[0]).stack([part.reshape(-1) for part in parts])


def unpack(rows: Array, parts: Sequence[Array]) -> None:
    """Copy rows into arrays."""
    for row, part in zip(rows, parts, strict=True):
        part[...] = row.reshape(part.shape)
