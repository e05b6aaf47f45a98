"""The order of samples for training in lanes: the same for every number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import islice

from ..world import get_world
from .sampler import DistributedSampler, Sampler, check_positive


def share_out(count: int, parts: int) -> list[int]:
    """Where `count` things are cut into contiguous parts of nearly one size: parts + 1 bounds from 0 to count.

    Example:
        >>> share_out(8, 3)
        [0, 2, 5, 8]
    """
    return [count * part // parts for part in range(parts + 1)]


class LaneSampler(Sampler[list[int]]):
    """This rank's part of every global batch for `DataParallel(model, lanes=...)`: a batch sampler for a DataLoader.

    The order of an epoch depends on (seed, epoch) alone. It is cut into global batches, each of them into `lanes`
    contiguous slices; a rank gets the slices of its lanes in one list. So lane v of step t sees the same samples on
    any number of ranks. Every iteration begins the next epoch. The state counts samples over all ranks: a run goes on
    with exactly the samples left, on any number of ranks.

    The last batch of an epoch is smaller; where it would have fewer samples than lanes, it joins the one before.

    Args:
        dataset: anything with a length.
        batch_size: samples of a global batch, over all ranks; at least one for each lane.
        lanes: as for the model.
        shuffle: deal a new permutation every epoch instead of 0, 1, 2, ...
        seed: seed of the permutations; must be the same on all ranks.
        drop_last: leave out a last batch that would be smaller.
        num_replicas: number of ranks; None is the size of this job.
        rank: this rank, in [0, num_replicas); None is this process's rank.

    Raises:
        ValueError: fewer samples in a batch or in the dataset than lanes, or fewer lanes than ranks.

    Example:
        >>> import paceline.utils.data as data
        >>> list(data.LaneSampler(range(9), 4, lanes=2, shuffle=False, num_replicas=2, rank=1))
        [[2, 3], [6, 7, 8]]
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        lanes: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
    ):
        num_replicas = get_world().size if num_replicas is None else num_replicas
        rank = get_world().rank if rank is None else rank
        check_positive("batch_size", batch_size)
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        check_lanes("LaneSampler()", lanes, num_replicas)
        if min(batch_size, len(dataset)) < lanes:
            raise ValueError(
                f"LaneSampler(): every lane needs a sample in every batch, but there are {lanes} lanes for a "
                f"batch_size of {batch_size} and a dataset of {len(dataset)}"
            )
        self.batch_size = batch_size
        self.lanes = lanes
        self.drop_last = drop_last
        self._order = DistributedSampler(dataset, 1, 0, shuffle, seed, pad=False)
        bounds = share_out(lanes, num_replicas)
        self._first, self._last = bounds[rank], bounds[rank + 1]

    def __len__(self) -> int:
        return len(self._sizes(len(self._order)))

    def __iter__(self) -> Iterator[list[int]]:
        order = iter(self._order)  # here, not in the generator: the epoch begins in the caller's thread
        position = self._order.state_dict()["position"] or 0
        return self._deal(order, self._sizes(len(self._order) - position))

    def _sizes(self, count: int) -> list[int]:
        """The sizes of the global batches that `count` samples make."""
        sizes = [self.batch_size] * (count // self.batch_size)
        tail = count % self.batch_size
        if tail and not self.drop_last:
            if tail >= self.lanes or not sizes:
                sizes.append(tail)
            else:
                sizes[-1] += tail
        return sizes

    def _deal(self, order: Iterator[int], sizes: list[int]) -> Iterator[list[int]]:
        for size in sizes:
            batch = list(islice(order, size))
            bounds = share_out(size, self.lanes)
            yield batch[bounds[self._first] : bounds[self._last]]
        for _ in order:  # a tail that is left out has been passed, for those who save the position
            pass

    def state_dict(self) -> dict[str, int | None]:
        """The seed, the epoch and the number of its samples that all ranks together have dealt."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Let the next iteration go on where `state` was saved, by this or any other number of ranks."""
        self._order.load_state_dict(state)


def check_lanes(function: str, lanes: int, ranks: int) -> None:
    """Refuse lanes that leave a rank without any."""
    check_positive("lanes", lanes)
    if lanes < ranks:
        raise ValueError(
            f"{function}: {ranks} ranks cannot share {lanes} lanes; choose as many lanes as there will ever be "
            "ranks or more, since the number of lanes decides the results"
        )
