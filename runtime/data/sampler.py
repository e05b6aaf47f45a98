"""Samplers: the order in which a loader reads its dataset, resumable in the middle of an epoch.

The order of an epoch is a function of (seed, epoch) alone, and every new iteration is a new epoch: nobody has to
remember ``set_epoch``, and a run that stops after some samples goes on with exactly the rest of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from ..world import get_world
from .generators import numpy_generator

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """An iterable over the indices (or lists of indices) that a loader reads: subclasses write ``__iter__``."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} must implement __iter__()")


@dataclass
class _Progress:
    """How far an iteration has come. Each iteration has its own, so that two at once do not mix their counts."""

    epoch: int | None  # None: to be drawn when the iteration begins
    start: int = 0  # where in the epoch the iteration begins, counted over all ranks
    position: int = 0  # where it is now
    begun: bool = False


class _EpochSampler(Sampler[int]):
    """What the samplers share: one order per epoch, dealt to `num_replicas` ranks in turn, and the progress in it."""

    num_replicas = 1
    rank = 0

    def __init__(self) -> None:
        self._progress = _Progress(self._epoch_after(None))

    def _epoch_after(self, epoch: int | None) -> int | None:
        """The epoch that follows; None lets `_begin` draw one."""
        raise NotImplementedError

    def _begin(self, epoch: int | None) -> int:
        """The epoch that an iteration begins."""
        assert epoch is not None
        return epoch

    def _order(self, epoch: int) -> np.ndarray:
        """The epoch's indices over all ranks, before the tail is padded or dropped."""
        raise NotImplementedError

    def _total(self, start: int = 0) -> int:
        """The number of indices in an epoch over all ranks, of which these ranks deal those from `start` on."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(range(self.rank, self._total(), self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        # Not a generator itself: the epoch must begin here, in the caller's thread, because random numbers drawn
        # later by a prefetching thread would interleave with the caller's own in no fixed order.
        progress = self._progress
        if progress.begun:
            progress = self._progress = _Progress(self._epoch_after(progress.epoch))
        progress.epoch = self._begin(progress.epoch)
        progress.begun = True
        # np.resize drops the tail, or pads it by repeating the order from its head.
        order = np.resize(self._order(progress.epoch), self._total(progress.start))
        return self._deal(order[progress.start + self.rank :: self.num_replicas].tolist(), progress)

    def _deal(self, indices: list[int], progress: _Progress) -> Iterator[int]:
        """Yield the indices, counting them before they leave so that a saved position includes the last one."""
        for index in indices:
            progress.position += self.num_replicas
            yield index

    def state_dict(self) -> dict[str, int | None]:
        """The epoch and the position in it; the next epoch where all of this one has been dealt."""
        progress = self._progress
        if progress.begun and progress.position >= self._total(progress.start):
            return {"epoch": self._epoch_after(progress.epoch), "position": 0}
        return {"epoch": progress.epoch, "position": progress.position}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Let the next iteration go on where `state` was saved."""
        position = state["position"] or 0
        self._progress = _Progress(state["epoch"], start=position, position=position)


class SequentialSampler(_EpochSampler):
    """0, 1, 2, ... over `data_source`.

    Example:
        >>> import paceline.utils.data as data
        >>> list(data.SequentialSampler("abc"))
        [0, 1, 2]
    """

    def __init__(self, data_source: Sized):
        self.data_source = data_source
        super().__init__()

    def _epoch_after(self, epoch: int | None) -> int:
        return 0

    def _order(self, epoch: int) -> np.ndarray:
        return np.arange(self._total())

    def _total(self, start: int = 0) -> int:
        return len(self.data_source)


class _DrawingSampler(_EpochSampler):
    """A sampler whose epoch is a seed, drawn from `generator` when the epoch begins."""

    def __init__(self, generator: Any):
        self.generator = generator
        super().__init__()

    def _epoch_after(self, epoch: int | None) -> None:
        return None

    def _begin(self, epoch: int | None) -> int:
        return int(numpy_generator(self.generator).integers(2**63)) if epoch is None else epoch


class RandomSampler(_DrawingSampler):
    """The indices of `data_source` in random order.

    Args:
        data_source: anything with a length.
        replacement: draw every index independently, so that indices may repeat.
        num_samples: how many indices to draw; None is the length. More than the length without replacement runs
            through several permutations.
        generator: where the seed of each epoch comes from; None is the library's default generator.

    Raises:
        ValueError: `num_samples`, or the length it defaults to, is not a positive int.
        TypeError: `replacement` is not a bool.

    Example:
        >>> import paceline.utils.data as data
        >>> sorted(data.RandomSampler("abc"))
        [0, 1, 2]
    """

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ):
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement!r}")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        check_positive("num_samples", self.num_samples)
        super().__init__(generator)

    @property
    def num_samples(self) -> int:
        """How many indices an epoch has: follows the length of the dataset unless it was given."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def _order(self, epoch: int) -> np.ndarray:
        rng, length, count = np.random.default_rng(epoch), len(self.data_source), self.num_samples
        if self.replacement:
            return rng.integers(length, size=count)
        return np.concatenate([rng.permutation(length) for _ in range(-(-count // length))])[:count]

    def _total(self, start: int = 0) -> int:
        return self.num_samples


class SubsetRandomSampler(_DrawingSampler):
    """The given `indices` in random order, without replacement.

    Example:
        >>> import paceline.utils.data as data
        >>> sorted(data.SubsetRandomSampler([7, 5]))
        [5, 7]
    """

    def __init__(self, indices: Sequence[int], generator: Any = None):
        self.indices = indices
        super().__init__(generator)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).permutation(np.asarray(self.indices, dtype=np.intp))

    def _total(self, start: int = 0) -> int:
        return len(self.indices)


class WeightedRandomSampler(_DrawingSampler):
    """`num_samples` indices, index i drawn with probability ``weights[i] / sum(weights)``.

    Args:
        weights: one number >= 0 per sample; they need not sum to 1.
        num_samples: how many indices an epoch has.
        replacement: whether an index may be drawn again.
        generator: where the seed of each epoch comes from; None is the library's default generator.

    Raises:
        ValueError: `num_samples` is not a positive int; weights are negative, not finite, all zero or not
            one-dimensional; without replacement, fewer weights are positive than samples are asked for.

    Example:
        >>> import paceline.utils.data as data
        >>> list(data.WeightedRandomSampler([0.0, 1.0], 3))
        [1, 1, 1]
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None):
        check_positive("num_samples", num_samples)
        self.weights = np.asarray(weights, dtype=np.float64)
        positive = np.count_nonzero(self.weights > 0)
        if self.weights.ndim != 1 or not np.isfinite(self.weights).all() or self.weights.min() < 0 or not positive:
            raise ValueError(f"weights should be a sequence of finite numbers >= 0, not all zero, but got {weights}")
        if not replacement and positive < num_samples:
            raise ValueError(f"{num_samples} samples without replacement need as many positive weights, got {positive}")
        self.num_samples = num_samples
        self.replacement = replacement
        super().__init__(generator)

    def _order(self, epoch: int) -> np.ndarray:
        probabilities = self.weights / self.weights.sum()
        return np.random.default_rng(epoch).choice(
            len(probabilities), self.num_samples, self.replacement, probabilities
        )

    def _total(self, start: int = 0) -> int:
        return self.num_samples


class DistributedSampler(_EpochSampler):
    """This rank's share of every epoch: of the order common to all ranks, position p goes to rank ``p % num_replicas``.

    The sampler owns the epoch. Every iteration begins the next one; `set_epoch` is accepted and not needed. The state
    counts samples over all ranks, so a run resumed with another number of ranks deals exactly the samples left.

    The tail, where the ranks do not divide the dataset, is an explicit choice:

    - ``pad=True`` fills it up with samples from the head of the order, so that all ranks take equally many steps.
      This is the default when shuffling, that is for training.
    - ``pad=False`` deals every sample exactly once, so some ranks get one sample more. This is the default for
      ``shuffle=False``, that is for evaluation, where a repeated sample would falsify the metric (PyTorch pads here).
      Sum counts, not means, over the ranks.
    - ``drop_last=True`` leaves out the last ``len(dataset) % num_replicas`` samples of the order.

    Args:
        dataset: anything with a length.
        num_replicas: number of ranks; None is the size of this job.
        rank: this rank, in [0, num_replicas); None is this process's rank.
        shuffle: deal a new permutation every epoch instead of 0, 1, 2, ...
        seed: seed of the permutations; must be the same on all ranks.
        drop_last: drop the tail instead of padding it.
        pad: whether to pad the tail; None is ``shuffle and not drop_last``.

    Raises:
        ValueError: `rank` is not one of the ranks; `pad` and `drop_last` are both set.

    Example:
        >>> import paceline.utils.data as data
        >>> list(data.DistributedSampler(range(5), num_replicas=2, rank=0, shuffle=False))
        [0, 2, 4]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        pad: bool | None = None,
    ):
        num_replicas = get_world().size if num_replicas is None else num_replicas
        rank = get_world().rank if rank is None else rank
        check_positive("num_replicas", num_replicas)
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        if pad and drop_last:
            raise ValueError("pad=True fills up the tail and drop_last=True drops it: set only one of them")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.pad = shuffle and not drop_last if pad is None else pad
        super().__init__()

    @property
    def epoch(self) -> int:
        """The epoch that is being dealt, or will be dealt next if none has begun."""
        return self._progress.epoch or 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deal `epoch`. An epoch that was resumed in its middle keeps its position."""
        if self._progress.begun or epoch != self._progress.epoch:
            self._progress = _Progress(epoch)

    def state_dict(self) -> dict[str, int | None]:
        """The seed, the epoch and the number of its samples that all ranks together have dealt."""
        return {"seed": self.seed, **super().state_dict()}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Let the next iteration go on where `state` was saved, by this or any other number of ranks."""
        super().load_state_dict(state)
        self.seed = state["seed"] or 0

    def _epoch_after(self, epoch: int | None) -> int:
        return 0 if epoch is None else epoch + 1

    def _order(self, epoch: int) -> np.ndarray:
        length = len(self.dataset)
        if not self.shuffle:
            return np.arange(length)
        return np.random.default_rng([self.seed % 2**64, epoch]).permutation(length)

    def _total(self, start: int = 0) -> int:
        length = len(self.dataset)
        tail = (length - start) % self.num_replicas
        if self.drop_last:
            return length - tail
        return length + (self.num_replicas - tail if self.pad and tail else 0)


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` consecutive indices of `sampler`; the last list is shorter, or dropped.

    Args:
        sampler: an iterable over indices.
        batch_size: indices per list.
        drop_last: drop a last list that would be shorter.

    Raises:
        ValueError: `batch_size` is not a positive int, or `drop_last` not a bool.

    Example:
        >>> import paceline.utils.data as data
        >>> list(data.BatchSampler(range(5), batch_size=2, drop_last=False))
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool):
        check_positive("batch_size", batch_size)
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last!r}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        return in_batches(iter(self.sampler), self.batch_size, self.drop_last)

    def __len__(self) -> int:
        return count_batches(len(self.sampler), self.batch_size, self.drop_last)  # type: ignore[arg-type]


def in_batches(items: Iterator[Any], batch_size: int, drop_last: bool) -> Iterator[list[Any]]:
    """Lists of `batch_size` consecutive items."""
    while batch := list(islice(items, batch_size)):
        if len(batch) == batch_size or not drop_last:
            yield batch


def count_batches(count: int, batch_size: int, drop_last: bool) -> int:
    """How many lists `in_batches` makes of `count` items."""
    return count // batch_size if drop_last else -(-count // batch_size)


def check_positive(name: str, value: Any) -> None:
    """Refuse what is not a positive int, naming the argument."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name} should be a positive integer value, but got {name}={value!r}")
