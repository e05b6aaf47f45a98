"""Several messages at once: between devices they travel by NCCL, as one of its calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays import Array
from ..callers import user_line
from .arguments import check_arrays, check_peer, place_of, refuse_message
from .signature import call_of
from .work import Work

if TYPE_CHECKING:
    from .base import Comm

_NOTE_BYTES = 64


class Message(NamedTuple):
    """One end of a message.

    Attributes:
        array: what is sent, or filled.
        peer: the other rank; None, where it is received from any, does not go by NCCL.
        tag: as in `Comm.send`.
        sends: whether this rank sends it.
    """

    array: Array
    peer: int | None
    tag: int
    sends: bool


def batch(comm: Comm, messages: Sequence[Message]) -> list[Work]:
    """Start all these messages at the same time; wait for each of the returned Works, which may be fewer.

    Arrays on devices travel by NCCL once the ranks have called a collective on some. A batch then meets the batches of
    other ranks, not their single messages, and returns when the ranks that have its other ends have come to theirs.

    Raises:
        CollectiveMismatchError: what was sent has another dtype or number of elements.
    """
    devices = comm._devices
    if devices is None or devices.nccl is None or not all(place_of(message.array) for message in messages):
        return _on_host(comm, messages)
    for message in messages:
        check_arrays("batch", message.array)
        check_peer("batch", "peer", message.peer, message.tag, comm)
    _compare(comm, messages)
    mover = devices.nccl
    filled = [message.array for message in messages if not message.sends]
    call = call_of("batch", place="cuda")
    work = devices.run(lambda: mover.exchange_messages(messages), call, user_line(), filled, True)
    assert work is not None
    return [work]


def _on_host(comm: Comm, messages: Sequence[Message]) -> list[Work]:
    return [
        comm.isend(array, peer, tag) if sends else comm.irecv(array, peer, tag)  # type: ignore[arg-type]  # refused
        for array, peer, tag, sends in messages
    ]


def _compare(comm: Comm, messages: Sequence[Message]) -> None:
    """Tell the receivers what they will get, by way of the host, and wait for the same from the senders."""
    notes = [_note(each.array) if each.sends else np.empty(_NOTE_BYTES, np.uint8) for each in messages]
    for work in _on_host(comm, [each._replace(array=note) for each, note in zip(messages, notes, strict=True)]):
        work.wait()
    for note, (array, peer, _, _) in zip(notes, messages, strict=True):
        if (note != _note(array)).any():
            dtype, size = note.tobytes().decode().split()
            refuse_message(peer, dtype, int(size), array)


def _note(array: Array) -> np.ndarray:
    """What an array is, in a form that can be sent."""
    return np.frombuffer(f"{array.dtype} {array.size}".encode().ljust(_NOTE_BYTES), np.uint8)
