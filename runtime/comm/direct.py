"""Collectives of large arrays on one machine: the ranks copy from and to where these are in each other's memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .peers import LentArrays, Peers
from .reduction import ReduceOp, combine
from .region import address_of
from .window import Window


def broadcast(window: Window, flat: np.ndarray, root: int) -> bool:
    """Overwrite `flat` by that of `root`; False, and nothing done, if the ranks cannot reach each other's."""

    # The root writes the end of every rank's array while that rank reads the rest: all have as much to copy.
    read = flat.nbytes // window.size * (window.size - 1)

    def act(peers: Peers, addresses: Sequence[int]) -> None:
        if peers.rank != root:
            peers.processes[root].read(addresses[peers.rank], addresses[root], read)
            return
        for rank, address in enumerate(addresses):
            if rank != root:
                peers.processes[rank].write(addresses[root] + read, address + read, flat.nbytes - read)

    return window.reach(flat, act)


def all_gather(window: Window, rows: np.ndarray, flat: np.ndarray) -> bool:
    """Fill row r by `flat` of rank r; False, and nothing done, if the ranks cannot reach each other's."""
    own = rows[window.rank]
    if np.may_share_memory(flat, rows) and address_of(flat) != address_of(own):
        flat = flat.copy()  # others read it while this rank fills the rows

    def act(peers: Peers, addresses: Sequence[int]) -> None:
        for rank, row in enumerate(rows):
            if rank != peers.rank:
                peers.processes[rank].read(address_of(row), addresses[rank], row.nbytes)
        if address_of(flat) != address_of(own):
            own[...] = flat

    return window.reach(flat, act)


def reduce_scatter(window: Window, flat: np.ndarray, rows: np.ndarray, op: ReduceOp) -> bool:
    """Combine row r of all ranks into `flat` of rank r; False, and nothing done, if they cannot reach each other's."""
    whole, own = rows.reshape(-1), rows[window.rank]
    overlap = np.may_share_memory(flat, rows)
    total = np.empty_like(flat) if overlap and address_of(flat) != address_of(own) else flat

    def act(peers: Peers, addresses: Sequence[int]) -> None:
        arrays = LentArrays(peers, whole, addresses)
        first, length = peers.rank * flat.size, peers.piece_bytes // flat.itemsize
        for start in range(0, flat.size, length):
            stop = min(start + length, flat.size)
            parts = arrays.parts(slice(first + start, first + stop))
            copied = parts[0 if peers.rank else 1]  # from another rank
            combine(op, parts, copied)  # `total` may be one of the parts, which must not change before it is added
            total[start:stop] = copied

    done = window.reach(whole, act)
    if done and total is not flat:
        flat[...] = total
    return done
