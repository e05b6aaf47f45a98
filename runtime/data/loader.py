"""The loader: batches of a dataset, in the order of a sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from .. import timeline
from .collate import default_collate, default_convert
from .dataset import IterableDataset, fetch_samples
from .prefetch import prefetch
from .sampler import BatchSampler, RandomSampler, SequentialSampler, check_positive, count_batches, in_batches


class DataLoader:
    """Iterate over a dataset in batches.

    Each iteration is one epoch. Which rank reads what is up to the sampler: without a `DistributedSampler` every rank
    reads everything, as in PyTorch.

    Args:
        dataset: a `Dataset` or anything with ``__getitem__`` and ``__len__``, or an `IterableDataset`.
        batch_size: samples per batch; None yields single samples.
        shuffle: read in a new random order every epoch.
        sampler: the order of indices to read, instead of `shuffle`.
        batch_sampler: the lists of indices to read, instead of `batch_size`, `shuffle`, `sampler` and `drop_last`.
        num_workers: 0 reads each batch when it is asked for. With 1 or more, one background thread reads
            ``num_workers * prefetch_factor`` batches ahead; batches and their order are the same.
        collate_fn: makes a batch of a list of samples; None is `default_collate`.
        pin_memory: accepted; it changes where a batch lies in host memory, not what is in it.
        drop_last: drop a last batch that would be shorter.
        timeout: seconds to wait for a batch from the background thread; 0 waits for ever.
        worker_init_fn: called with the worker's number, 0, in the background thread before it reads.
        generator: seeds the shuffles; None is the library's default generator.
        prefetch_factor: batches read ahead per worker; None is 2.
        persistent_workers: accepted; the background thread costs nothing to start again.

    Raises:
        ValueError: options that contradict each other or are out of range.
        RuntimeError: while iterating, no batch within `timeout`.

    Example:
        >>> import paceline.runtime.data as data
        >>> for batch in data.DataLoader([1, 2, 3], batch_size=2):
        ...     print(batch)
        [1 2]
        [3]
    """

    # The Tensor face of the loader replaces these two.
    default_collate: Any = staticmethod(default_collate)
    default_convert: Any = staticmethod(default_convert)

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        *,
        generator: Any = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ):
        _check_order(dataset, batch_size, shuffle, sampler, batch_sampler, drop_last)
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers

        streams = isinstance(dataset, IterableDataset)
        if sampler is None and not streams:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_sampler is not None:
            batch_size = None
        elif batch_size is not None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self._batched = batch_size is not None or batch_sampler is not None
        self._order: Any = sampler if batch_sampler is None else batch_sampler  # None for a stream
        self._resumable = _resumable(self._order)
        self.collate_fn = collate_fn or (self.default_collate if self._batched else self.default_convert)
        self._position: dict[str, Any] | None = None  # the sampler's at the batch delivered last; None: its own holds

    def __len__(self) -> int:
        if self._order is not None:
            return len(self._order)
        length = len(self.dataset)
        return length if self.batch_size is None else count_batches(length, self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        # Samplers and streams begin here, in the caller's thread; only reading moves to the background thread.
        batches: Iterator[tuple[Any, dict[str, Any] | None]]
        if self._order is None:
            batches = self._read_stream(iter(self.dataset))
        else:
            indices = iter(self._order)
            self._position = self._sampler_state()
            batches = self._read_indexed(indices)
        if self.num_workers:
            depth = self.num_workers * (self.prefetch_factor or 1)
            on_start = self.worker_init_fn and partial(self.worker_init_fn, 0)
            batches = prefetch(batches, depth, self.timeout, on_start)
        return self._deliver(batches)

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch delivered last, whatever has been read ahead."""
        sampler = self._require_resumable()
        return {"sampler": sampler.state_dict() if self._position is None else self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration begin with the batch after the one delivered when `state` was saved."""
        self._require_resumable().load_state_dict(state["sampler"])
        self._position = None

    def _require_resumable(self) -> Any:
        if self._resumable is None:
            raise TypeError(f"the order of this DataLoader cannot be resumed: {self._order!r} has no state_dict()")
        return self._resumable

    def _sampler_state(self) -> dict[str, Any] | None:
        return None if self._resumable is None else self._resumable.state_dict()

    def _read_stream(self, samples: Iterator[Any]) -> Iterator[tuple[Any, None]]:
        if self.batch_size is not None:
            samples = in_batches(samples, self.batch_size, self.drop_last)
        for sample in samples:
            yield self.collate_fn(sample), None

    def _read_indexed(self, order: Iterator[Any]) -> Iterator[tuple[Any, dict[str, Any] | None]]:
        """Each batch with the sampler's state after it: a prefetched sampler is ahead of what was delivered."""
        fetch = self._fetcher()
        for indices in order:
            state = self._sampler_state()
            yield fetch(indices), state

    def _fetcher(self) -> Callable[[Any], Any]:
        """What turns the sampler's indices into a batch, the fastest way the dataset offers."""
        if not self._batched:
            return lambda index: self.collate_fn(self.dataset[index])
        fetch_batch = getattr(self.dataset, "fetch_batch", None)
        if fetch_batch is not None and self.collate_fn is self.default_collate:
            return lambda indices: self.default_convert(fetch_batch(indices))
        return lambda indices: self.collate_fn(fetch_samples(self.dataset, indices))

    @timeline.traced_items("loader", "next batch")
    def _deliver(self, batches: Iterator[tuple[Any, dict[str, Any] | None]]) -> Iterator[Any]:
        for batch, position in batches:
            self._position = position
            yield batch
        self._position = None  # nothing is read ahead any more, and a tail that drop_last dropped is passed


def get_worker_info() -> None:
    """None, so that an `IterableDataset` does not divide its stream: one thread reads it, whatever `num_workers` is."""


def _resumable(order: Any) -> Any:
    """The sampler that can save its position: `order`, or the sampler a batch sampler draws from, or None."""
    return next((s for s in (order, getattr(order, "sampler", None)) if hasattr(s, "state_dict")), None)


def _check_order(
    dataset: Any, batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    """Refuse contradictory answers to the question in which order samples are read and batched."""
    if isinstance(dataset, IterableDataset):
        given = {"shuffle": shuffle or None, "sampler": sampler, "batch_sampler": batch_sampler}
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value!r}"
                )
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ValueError("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last")
    if batch_size is None and drop_last:
        raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
    if batch_size is not None:
        check_positive("batch_size", batch_size)


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool) -> None:
    """Refuse options of reading ahead that are out of range or need workers that are not there."""
    if not isinstance(num_workers, int) or num_workers < 0:
        raise ValueError(f"num_workers option should be a non-negative int, but got num_workers={num_workers!r}")
    if timeout < 0:
        raise ValueError(f"timeout option should be non-negative, but got timeout={timeout!r}")
    if prefetch_factor is not None:
        check_positive("prefetch_factor", prefetch_factor)
    for name, value in {"prefetch_factor": prefetch_factor, "persistent_workers": persistent_workers or None}.items():
        if num_workers == 0 and value is not None:
            raise ValueError(f"{name} option needs num_workers > 0, but got {name}={value!r} with num_workers=0")
