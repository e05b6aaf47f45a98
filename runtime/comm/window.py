"""Reductions among the ranks of one machine through memory that all of them map.

Every rank has a word that says how far it has come, and a few slots that the others read. A `meet` is a barrier: each
rank raises its word and waits for those of the others. It costs half a microsecond between two cores, a quarter of
what MPI's barrier does, and carries the signature check on its way.

Words and slots are ordered by the processor alone, which x86 does for all stores and loads; there is no portable way
to ask for it in Python, so other processors use MPI.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
import platform
import time
import weakref
from collections.abc import Callable

import numpy as np

from ..shareable import Pages
from .deadlock import FIRST_LOOK_SECONDS
from .peers import LentArrays, Peer, Peers, let_siblings_in
from .reduction import ReduceOp, combine
from .region import MappedArrays, Region, address_of, open_pages

SUPPORTED = hasattr(os, "memfd_create") and platform.machine() in ("x86_64", "AMD64")

TILE_BYTES = 1 << 20  # a slot; tile by tile, what was just written is read from cache
IN_PLACE_BYTES = 512 << 10  # of all ranks together, summed at a time where no slots are needed: they fit in a cache
_SLOTS = 3  # one that others still read, one that is being summed, one that is being filled
_CELLS = 2 * _SLOTS  # combinations of a slot and a set of words
_STEPS = 128 * _CELLS  # ranks are one apart, or more when one has been interrupted within a call
_TAG_BITS = 44
_LINE_BYTES = 64  # words that two ranks write lie on different cache lines; after its word a rank may say more
_OFFSET_BITS = 44
_SPINS = 300  # looks at a word before the core is offered to others
_PATIENCE_SECONDS = 0.05  # afterwards a waiting rank sleeps, since it waits for more than a message
_SLEEP_SECONDS = 1e-4
_LOOK_SECONDS = 0.25


def window_bytes(size: int) -> int:
    """Bytes that `size` ranks share."""
    return _header_bytes(size) + size * _SLOTS * TILE_BYTES


class Step:
    """One meet. They follow each other in a ring of a few, made once: to look one up is quicker than to compute it.

    Attributes:
        stamp: its number, as the upper bits of a word.
        words: where all ranks' words of this step are.
        cell: number of the combination of words and slot.
        slot: which one of their slots the ranks fill before it.
        next: the step after it.
    """

    __slots__ = ("cell", "next", "slot", "stamp", "words")

    def __init__(self, number: int, words: memoryview) -> None:
        self.stamp = number << _TAG_BITS
        self.words = words
        self.cell = number % _CELLS
        self.slot = number % _SLOTS
        self.next = self


class Window:
    """One rank's view of the shared memory.

    Args:
        memory: `window_bytes(size)` bytes, zero at first, mapped by all ranks.
        rank: this rank among those that share it.
        size: their number.
        owners: how many of them, the first ones, sum slices of large arrays.
        crowded: whether they have fewer cores than ranks, so that waiting must not hold on to one.
        progress: called while waiting; it must let other threads run, and messages under way go on.
        look: called with the seconds of a long wait, time and again; it may raise what ends the wait.

    Attributes:
        step: the last one that this rank has made.
        own_word, other_words: which words are this rank's and the others'.
        spins: looks at a word before the core is offered to others.
    """

    def __init__(
        self,
        memory: mmap.mmap,
        rank: int,
        size: int,
        owners: int,
        crowded: bool,
        progress: Callable[[], object],
        look: Callable[[float], None],
    ) -> None:
        self.rank = rank
        self.size = size
        self._owners = owners
        self._memory = memory
        self._progress = progress
        self._look = look
        self.spins = 1 if crowded else _SPINS
        words = memoryview(memory).cast("Q")
        stride = _LINE_BYTES // 8
        # Two sets in turn: a rank may be one step ahead while another still reads its last word.
        self._words = (words[: size * stride], words[size * stride : 2 * size * stride])
        self.own_word = rank * stride
        self._everybody = [each * stride for each in range(size)]
        self.other_words = [each * stride for each in range(size) if each != rank]
        self.step = self._make_steps()
        self._slots = functools.lru_cache(maxsize=1024)(self._make_slots)
        self._shares = 0
        self._regions: list[weakref.ref[Region]] = []
        self._piece_bytes = _whole_pages(IN_PLACE_BYTES // owners)  # the same on all machines
        self._lent: np.ndarray | None = None
        self._peers = self._find_peers()

    def meet(self, tag: int = 0) -> bool:
        """Wait until all ranks have come here; whether all of them bring the same tag."""
        self.step = step = self.step.next
        words = step.words
        words[self.own_word] = word = step.stamp | tag
        same = True
        for other in self.other_words:
            if words[other] != word:
                same = self.wait(words, other, word) and same
        return same

    def all_reduce(
        self,
        tag: int,
        flat: np.ndarray,
        op: ReduceOp,
        across: Callable[[np.ndarray], None] | None = None,
        in_place: bool = True,
    ) -> bool:
        """Combine `flat` over the ranks, in rank order, if all of them bring the same tag; whether they do.

        Each rank sums one slice of everybody's array where these are: in a region, or in the ranks' own memory.

        Args:
            tag: number of less than 44 bits to compare.
            flat: contiguous, one dimension, not empty, same size and dtype on every rank; changed in place.
            op: the reduction.
            across: combines this rank's slice with other machines' before it is handed to the ranks here.
            in_place: False to leave alone where arrays are. All machines must cut their slices in the same way, and so
                it takes that every rank of all of them `lends(flat)`.
        """
        region, offset = self._find(flat) if in_place else (None, 0)
        words = self.step.next.words
        words[self.own_word + 1] = 0 if region is None else region.number << _OFFSET_BITS | offset
        words[self.own_word + 2] = self._peers.lent_address(flat) if in_place and self._peers else 0
        self._lent = flat  # the others write there even after an exception that ends the wait here
        if same := self.meet(tag):
            places, addresses = ([words[rank + place] for rank in self._everybody] for place in (1, 2))
            if region is not None and len(set(places)) == 1:
                self._reduce_in_place(flat, region.arrays(offset, flat.dtype, flat.size), op, across)
            elif self._peers is not None and all(addresses):
                self._reduce_in_place(flat, LentArrays(self._peers, flat, addresses), op, across)
            else:
                self._reduce_by_tiles(flat, op, across)
        self._lent = None
        return same

    def lends(self, flat: np.ndarray) -> bool:
        """Whether the machine's other ranks reach this rank's array where it is."""
        return self._peers is not None and self._peers.lent_address(flat) != 0

    def cells(self, dtype: np.dtype, shape: tuple) -> list[tuple[memoryview, np.ndarray]]:
        """By `Step.cell`, where the words of all ranks are, and a row for what each of them shows in that step."""
        slots = [slot.reshape(self.size, *shape) for slot in self._slots(dtype, math.prod(shape))]
        return [(self._words[cell % 2], slots[cell % _SLOTS]) for cell in range(_CELLS)]

    def reach(self, flat: np.ndarray, act: Callable[[Peers, list[int]], None]) -> bool:
        """`act(peers, addresses)` while the addresses of all ranks' arrays are in reach; False if some are not.

        Args:
            flat: contiguous and not empty; same on every rank is only that this is called.
            act: this rank's part of the work.
        """
        if self._peers is None:
            return False
        words = self.step.next.words
        words[self.own_word + 2] = self._peers.lent_address(flat)
        self._lent = flat  # the others reach for it even after an exception that ends the wait here
        self.meet()
        addresses = [words[rank + 2] for rank in self._everybody]
        if all(addresses):
            self._work(functools.partial(act, self._peers, addresses))
        self._lent = None
        return all(addresses)

    def _work(self, act: Callable[[], None]) -> None:
        """`act()` on the others' memory, and wait until they have done so, too."""
        try:
            act()
        except ProcessLookupError:
            self.meet()  # a rank that has died never comes: whatever ends the job finds this one waiting for it
            raise
        self.meet()

    def _reduce_in_place(
        self,
        flat: np.ndarray,
        arrays: MappedArrays | LentArrays,
        op: ReduceOp,
        across: Callable[[np.ndarray], None] | None,
    ) -> None:
        """Sum one slice of everybody's array, and write it into all of them."""
        own = self._bounds(flat, self.rank)
        length = self._piece_bytes // flat.itemsize
        home = min(self.rank, 1)  # this rank's own, except that combine() writes to one of the first two only

        def act() -> None:
            for start in range(own.start, own.stop, length):
                part = slice(start, min(start + length, own.stop))
                parts = arrays.parts(part)
                combine(op, parts, parts[home])
                if across is not None:
                    across(parts[home])
                arrays.hand_out(part, parts, home)

        self._work(act)

    def _reduce_by_tiles(self, flat: np.ndarray, op: ReduceOp, across: Callable[[np.ndarray], None] | None) -> None:
        """Tile by tile each rank shows its elements, sums one slice of everybody's, and takes over the other slices.

        A tile is shown while the others may still sum the one before, so there is one meet for each tile.
        """
        length = TILE_BYTES // flat.itemsize
        tiles = [flat[start : start + length] for start in range(0, flat.size, length)]
        slots = self._show(tiles[0])
        self.meet()
        for index, tile in enumerate(tiles):
            self._sum_own_slice(tile, slots, op)
            if across is not None and self.rank < self._owners:
                across(slots[self.rank][self._bounds(tile, self.rank)])
            done = slots
            if index + 1 < len(tiles):
                slots = self._show(tiles[index + 1])
            self.meet()
            for each, slot in enumerate(done):
                part = self._bounds(tile, each)
                tile[part] = slot[part]

    def _show(self, tile: np.ndarray) -> np.ndarray:
        """Copy what others sum into this rank's slot; the slots of all ranks for this tile."""
        slots = self._slots(tile.dtype, tile.size)[self.step.next.slot]
        own = self._bounds(tile, self.rank)
        slots[self.rank][: own.start] = tile[: own.start]
        slots[self.rank][own.stop :] = tile[own.stop :]
        return slots

    def _sum_own_slice(self, tile: np.ndarray, slots: np.ndarray, op: ReduceOp) -> None:
        """Leave the sum of this rank's slice in its slot, where nothing was shown."""
        own = self._bounds(tile, self.rank)
        sources = [slot[own] for slot in slots]
        out = sources[self.rank]
        sources[self.rank] = tile[own]
        combine(op, sources, out)

    def _bounds(self, tile: np.ndarray, rank: int) -> slice:
        """A rank's slice of a tile."""
        first, last = min(rank, self._owners), min(rank + 1, self._owners)
        return slice(tile.size * first // self._owners, tile.size * last // self._owners)

    # -- regions: memory of the ranks' own that all of them map --------------------------------------------------------

    def share(self, pages: Pages | None) -> Region | None:
        """Let the ranks map each other's pages; None if some rank has none, or they differ in size, or cannot."""
        self._shares += 1
        words = self.step.next.words
        mine = (0, 0, 0) if pages is None else (os.getpid(), pages.file, len(pages))
        for i, number in enumerate(mine, self.own_word + 1):
            words[i] = number
        self.meet()
        everybody = [tuple(words[i + 1 : i + 4]) for i in self._everybody]
        mapped: list[mmap.mmap] = []
        if len({nbytes for _, _, nbytes in everybody}) == 1 and pages is not None:
            found = [pages if place == mine else open_pages(*place) for place in everybody]
            mapped = [each for each in found if each is not None]
        if not self._all_agree(len(mapped) == self.size):
            return None
        region = Region(self._shares, mapped, self.rank)
        self._regions = [reference for reference in self._regions if reference() is not None]
        self._regions.append(weakref.ref(region))
        return region

    def common(self, nbytes: int) -> mmap.mmap | None:
        """One memory for all ranks, zero at first; None if some rank cannot have it."""
        words = self.step.next.words
        pages: Pages | None = None
        if self.rank == 0:
            with contextlib.suppress(OSError):
                pages = Pages(nbytes)
            words[1], words[2] = (0, 0) if pages is None else (os.getpid(), pages.file)
        self.meet()
        memory = pages if self.rank == 0 else open_pages(words[1], words[2], nbytes)
        return memory if self._all_agree(memory is not None) else None

    def _find_peers(self) -> Peers | None:
        """The ranks' processes, if all of them can read and write each other's memory."""
        let_siblings_in()
        token = np.frombuffer(os.urandom(8), np.uint64).copy()
        words = self.step.next.words
        for i, number in enumerate((os.getpid(), address_of(token), int(token[0])), self.own_word + 1):
            words[i] = number
        self.meet()
        everybody = [tuple(words[i + 1 : i + 4]) for i in self._everybody]
        processes = [Peer(process) for process, _, _ in everybody]
        answers = [
            process.answers(address, np.array([number], np.uint64))
            for process, (_, address, number) in zip(processes, everybody, strict=True)
        ]
        return Peers(processes, self.rank, self._piece_bytes) if self._all_agree(all(answers)) else None

    def _all_agree(self, mine: bool) -> bool:
        """Whether something holds on every rank."""
        words = self.step.next.words
        words[self.own_word + 1] = mine
        self.meet()
        return all(words[i + 1] for i in self._everybody)

    def _find(self, array: np.ndarray) -> tuple[Region | None, int]:
        """The region that an array lies in, and where there."""
        for reference in self._regions:
            region = reference()
            offset = None if region is None else region.offset_of(array)
            if offset is not None:
                return region, offset
        return None, 0

    def _make_steps(self) -> Step:
        """The first of a ring of steps, which counts as made: its word is zero, as all words are now."""
        steps = [Step(number, self._words[number % 2]) for number in range(_STEPS)]
        for each, following in zip(steps, steps[1:] + steps[:1], strict=True):
            each.next = following
        return steps[0]

    def _make_slots(self, dtype: np.dtype, length: int) -> list[np.ndarray]:
        """For each slot, the arrays of all ranks there as rows."""
        start, strides = _header_bytes(self.size), (_SLOTS * TILE_BYTES, dtype.itemsize)
        return [
            np.ndarray((self.size, length), dtype, self._memory, start + slot * TILE_BYTES, strides)
            for slot in range(_SLOTS)
        ]

    def wait(self, words: memoryview, other: int, word: int) -> bool:
        """Wait for a rank to come to this step; whether it brings the same word."""
        step = word >> _TAG_BITS
        for _ in range(self.spins):
            if words[other] >> _TAG_BITS == step:
                return words[other] == word
        start, next_look = time.monotonic(), FIRST_LOOK_SECONDS
        while words[other] >> _TAG_BITS != step:
            self._progress()
            waited = time.monotonic() - start
            if waited < _PATIENCE_SECONDS:
                os.sched_yield()
                continue
            time.sleep(_SLEEP_SECONDS)
            if waited > next_look:
                next_look = waited + _LOOK_SECONDS
                self._look(waited)
        return words[other] == word


def _header_bytes(size: int) -> int:
    """Bytes of the words."""
    return _whole_pages(2 * size * _LINE_BYTES)


def _whole_pages(nbytes: int) -> int:
    """At least so many bytes, in whole pages."""
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
