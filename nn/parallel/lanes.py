"""Training whose results have the same bits on any number of ranks.

Every global batch is cut into a fixed number of lanes, which the ranks share out. What a lane computes depends on its
number and not on the rank; what the lanes computed is added up along one fixed tree (tree.py). The idea of virtual
workers is EasyScale's (Li et al., EasyScale: Elastic Training with Consistent Accuracy, SC 2023).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from ...autograd.variable import changed
from ...runtime import rng, threads, tree
from ...runtime.arrays import Array, module_of
from ...runtime.comm import Comm, ReduceOp
from ...runtime.data.lanes import check_lanes, share_out
from ..module import Module
from ..normalization import SyncBatchNorm
from .buffers import buffer_places
from .flat import cut, dense_places, pack, unpack
from .lane_state import Buffers, Gradients
from .tree import Block, TreeSum, blocks_of


class Lanes:
    """The lanes of a module's training, and this rank's part of them.

    Attributes:
        count: lanes of a global batch.
        active: whether a lane is being computed.
    """

    def __init__(self, module: Module, count: int, comm: Comm, parameters: list[Any], cap: int) -> None:
        check_lanes("DistributedDataParallel()", count, comm.size)
        if any(isinstance(each, SyncBatchNorm) for each in module.modules()):
            raise ValueError(
                "DistributedDataParallel(): SyncBatchNorm takes its statistics over ranks, so that they depend on the "
                "number of ranks; with lanes use BatchNorm, whose statistics are those of a lane"
            )
        threads.set_blas_threads(1)  # a product's bits may depend on how many share it
        self.count = count
        self.comm = comm
        self.active = False
        self._parameters = parameters
        self._buffer_places = buffer_places(module)
        self._cap = cap
        self._bounds = share_out(count, comm.size)
        self._mine = range(self._bounds[comm.rank], self._bounds[comm.rank + 1])
        self._blocks = [blocks_of(first, last, count) for first, last in itertools.pairwise(self._bounds)]
        self._shares: list[float] = []
        self._gradients = Gradients(parameters, count)
        self._stream = rng.Generator()

    def run(self, batch: Any, weight: Callable[[Any], float] | None, key: str) -> Iterator[Any]:
        """This rank's lanes of a batch, one after the other; gradients and buffers are combined after the last.

        The random numbers of a lane depend on `key` and its number.
        """
        if self.active:
            raise RuntimeError("lanes(): the loop over the lanes of the last batch has not ended")
        parts, samples = self._cut(batch)
        lanes, equal = self._weigh(parts, samples, weight)
        gradients, buffers = self._gradients, Buffers(self._buffer_places)
        gradients.begin()
        self.active = True
        try:
            for lane, part, share in lanes:
                gradients.open()
                if share:
                    with rng.drawing_from(self._stream.manual_seed(_seed(f"{key} {lane}"))):
                        yield part
                gradients.collect(lane, None if equal else share)
                buffers.collect()
        finally:
            self.active = False
            gradients.give_back()
        self._combine(gradients, buffers, 1 / self.count if equal else None)

    def mean(self, values: Sequence[Any]) -> float:
        """The mean of one number for each lane, weighted as the gradients of the last batch were."""
        used = [lane for lane in self._mine if self._shares[lane]]
        if len(values) != len(used):
            raise ValueError(
                f"lane_mean(): this rank computed {len(used)} lanes of the last batch, got {len(values)} values"
            )
        mine = numpy.zeros(self.count)
        mine[used] = [float(value) for value in values]
        self.comm.all_reduce(mine)  # every other term is zero, so this is no rounded sum
        return math.fsum(share * value for share, value in zip(self._shares, mine.tolist(), strict=True))

    # -- cutting -------------------------------------------------------------------------------------------------------

    def _cut(self, batch: Any) -> tuple[list[Any], list[int]]:
        """This rank's part of a global batch in lanes, and their numbers of samples."""
        leaves, structure = tree.flatten(batch)
        local = _length(leaves)
        counts = numpy.zeros((self.comm.size, 1), numpy.int64)
        self.comm.all_gather(counts, numpy.array([local]))
        everywhere = counts[:, 0].tolist()
        bounds = share_out(sum(everywhere), self.count)
        expected = [bounds[last] - bounds[first] for first, last in itertools.pairwise(self._bounds)]
        if everywhere != expected:
            raise RuntimeError(
                f"lanes(): the ranks have {everywhere} samples of this batch, but the {self.count} lanes of "
                f"{sum(everywhere)} samples are shared out as {expected}; take the batches from a "
                f"paceline.utils.data.LaneSampler(..., lanes={self.count})"
            )
        origin = bounds[self._mine.start]
        places = [(bounds[lane] - origin, bounds[lane + 1] - origin) for lane in self._mine]
        parts = [tree.unflatten([leaf[start:stop] for leaf in leaves], structure) for start, stop in places]
        return parts, [stop - start for start, stop in places]

    def _weigh(
        self, parts: list[Any], samples: list[int], weight: Callable[[Any], float] | None
    ) -> tuple[list[tuple[int, Any, float]], bool]:
        """(lane, its part, its share in the mean) of this rank's lanes, and whether all lanes have the same share."""
        weights = numpy.zeros(self.count)
        for lane, part, count in zip(self._mine, parts, samples, strict=True):
            weights[lane] = float(weight(part)) if weight is not None and count else count
        self.comm.all_reduce(weights)  # every other term is zero
        total = math.fsum(weights)
        if not (weights >= 0).all() or not 0 < total < math.inf:
            raise ValueError(f"lanes(): the lanes' weights should be numbers >= 0, not all zero, got {weights}")
        self._shares = (weights / total).tolist()
        lanes = [(lane, part, self._shares[lane]) for lane, part in zip(self._mine, parts, strict=True)]
        return lanes, bool((weights == weights[0]).all())

    # -- combining -----------------------------------------------------------------------------------------------------

    def _combine(self, gradients: Gradients, buffers: Buffers, scale: float | None) -> None:
        """Give every rank the same gradients and buffers."""
        flags = numpy.concatenate([gradients.used(), buffers.changed]).astype(numpy.uint8)
        if self.comm.size > 1:
            self.comm.all_reduce(flags, ReduceOp.MAX)
        used, moved = flags[: len(self._parameters)], flags[len(self._parameters) :]
        gradients.accumulate(self._totals(gradients.blocks(), scale), used)
        if moved.any():
            self._combine_buffers(buffers, moved, scale)

    def _combine_buffers(self, buffers: Buffers, moved: Array, scale: float | None) -> None:
        """Average the floating-point buffers that some lane changed; of integers, which count, take the largest."""
        tensors = buffers.tensors()
        for group in cut(tensors, [i for i in buffers.averaged if moved[i]], self._cap, self._cap):
            arrays = [tensors[i].array for i in group]
            places = dense_places(arrays)
            lanes: TreeSum[Array] = TreeSum(self.count, operator.iadd)
            for lane, values in zip(self._mine, buffers.lanes, strict=True):
                flat = pack([values[i] for i in group], places)
                lanes.push(Block(0, lane), _scaled(flat, None if scale is not None else self._shares[lane]))
            (total,) = self._totals([[flat] for _, flat in lanes.blocks], scale)
            unpack(total, arrays, places)
            for i in group:
                changed(tensors[i], "lanes")
        for tensor, array in buffers.largest(moved):
            self.comm.all_reduce(array, ReduceOp.MAX)
            tensor.array[...] = array
            changed(tensor, "lanes")

    def _totals(self, blocks: list[list[Array]], scale: float | None) -> list[Array]:
        """The sums over all lanes of flat arrays, given some for each of this rank's blocks."""
        if self.comm.size == 1:
            return [_scaled(total, scale) for total in blocks[0]]
        totals = []
        for rows in zip(*blocks, strict=True):
            total, width = rows[0], max(1, self._cap // rows[0].itemsize)
            for start in range(0, total.size, width):
                total[start : start + width] = self._exchange([row[start : start + width] for row in rows], scale)
            totals.append(total)
        return totals

    def _exchange(self, rows: list[Array], scale: float | None) -> Array:
        """The sum over all lanes of flat arrays, given one for each of this rank's blocks.

        Every rank gets a slice of everybody's blocks, goes through the rest of the tree there, and hands it round.
        """
        size, ranks = rows[0].size, self.comm.size
        width = -(-size // ranks)
        xp = module_of(rows[0])
        most = max(map(len, self._blocks))
        sent = xp.zeros((ranks, most, width), rows[0].dtype)
        for number, row in enumerate(rows):
            for rank in range(ranks):
                part = row[rank * width : (rank + 1) * width]
                sent[rank, number, : part.size] = part
        received = xp.empty_like(sent)
        self.comm.all_to_all(received, sent)
        lanes: TreeSum[Array] = TreeSum(self.count, operator.iadd)
        for rank, blocks in enumerate(self._blocks):
            for number, block in enumerate(blocks):
                lanes.push(block, received[rank, number])
        total = xp.empty(ranks * width, rows[0].dtype)
        self.comm.all_gather(total, _scaled(lanes.total(), scale))
        return total[:size]


def _seed(key: str) -> int:
    """A seed that depends on the key, the same in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def _length(leaves: list[Any]) -> int:
    """The number of samples in a batch, which all its tensors must agree on."""
    lengths = set()
    for leaf in leaves:
        if not getattr(leaf, "shape", ()):
            raise TypeError(
                "lanes(): a batch should consist of tensors with the samples along their first dim, "
                f"got {type(leaf).__name__} {leaf!r:.50}"
            )
        lengths.add(leaf.shape[0])
    if len(lengths) != 1:
        raise ValueError(f"lanes(): the tensors of a batch should have the same length, got {sorted(lengths)}")
    return lengths.pop()


def _scaled(array: Array, scale: float | None) -> Array:
    """The array times the scale, in place."""
    if scale is not None:
        array *= array.dtype.type(scale)
    return array
