"""Datasets: what can be read by index, or iterated, one sample at a time.

A sample is whatever the dataset returns: arrays, numbers, strings, and tuples, lists or dicts of them.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from .generators import numpy_generator


class Dataset:
    """A collection of samples read by index: subclasses write ``__getitem__`` and, nearly always, ``__len__``.

    Two optional methods make reading a batch faster than reading its samples:

    - ``__getitems__(indices)`` returns the list of samples at ``indices``, which is then collated.
    - ``fetch_batch(indices)`` returns the batch itself, equal to ``default_collate([self[i] for i in indices])``.
      It serves loaders without a ``collate_fn`` of their own. It may be a property that is None where there is no
      such short cut.

    Example:
        >>> import paceline.utils.data as data
        >>> class Squares(data.Dataset):
        ...     def __len__(self):
        ...         return 4
        ...     def __getitem__(self, index):
        ...         return index * index
        >>> Squares()[3]
        9
    """

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement __getitem__(index)")

    def __add__(self, other: "Dataset") -> "ConcatDataset":
        return ConcatDataset([self, other])


class IterableDataset(Dataset):
    """A stream of samples: subclasses write ``__iter__`` instead of ``__getitem__``. It has no order to shuffle."""

    def __add__(self, other: Any) -> "ChainDataset":  # type: ignore[override]
        return ChainDataset([self, other])

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must implement __iter__()")


def fetch_samples(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """The samples at `indices`, in one call where the dataset offers ``__getitems__``."""
    getitems = getattr(dataset, "__getitems__", None)
    return getitems(indices) if getitems else [dataset[index] for index in indices]


class TensorDataset(Dataset):
    """Sample i is the tuple of the i-th rows of all `tensors`.

    Args:
        *tensors: Tensors or arrays of any dtype on any device, with equal sizes in their first dimension.

    Raises:
        AssertionError: no tensors, a tensor without dimensions, or sizes that differ.

    Example:
        >>> import numpy as np, paceline.utils.data as data
        >>> data.TensorDataset(np.array([1.0, 2.0]), np.array([3, 4]))[1]
        (np.float64(2.0), np.int64(4))
    """

    def __init__(self, *tensors: Any):
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise AssertionError(
                f"TensorDataset(): needs tensors of equal size in their first dimension, got shapes {shapes}"
            )
        self.tensors = tensors

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def fetch_batch(self, indices: Sequence[int]) -> list[Any]:
        """The rows at `indices` of every tensor: one gather each instead of a read and a stack per sample."""
        rows = np.asarray(indices, dtype=np.intp)
        return [tensor[rows] for tensor in self.tensors]


class Subset(Dataset):
    """The samples of `dataset` at `indices`, in that order.

    Example:
        >>> import paceline.utils.data as data
        >>> data.Subset(["a", "b", "c"], [2, 0])[0]
        'c'
    """

    def __init__(self, dataset: Any, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return fetch_samples(self.dataset, [self.indices[index] for index in indices])

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def fetch_batch(self) -> Callable[[Sequence[int]], Any] | None:
        """The dataset's own whole-batch read, where it has one."""
        fetch = getattr(self.dataset, "fetch_batch", None)
        return fetch and (lambda indices: fetch([self.indices[index] for index in indices]))


class ConcatDataset(Dataset):
    """The samples of all `datasets`, one dataset after the other.

    Raises:
        AssertionError: no datasets, or one of them is an `IterableDataset`.

    Example:
        >>> import paceline.utils.data as data
        >>> data.ConcatDataset(["ab", "cde"])[3]
        'd'
    """

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("ConcatDataset(): datasets is empty, expected at least one")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise AssertionError(
                "ConcatDataset(): an IterableDataset cannot be read by index; use ChainDataset instead"
            )
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))

    def __getitem__(self, index: int) -> Any:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"ConcatDataset index {index} is out of range for {len(self)} samples")
        which = bisect_right(self.cumulative_sizes, position)
        start = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][position - start]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class ChainDataset(IterableDataset):
    """The samples of all streams in `datasets`, one stream after the other."""

    def __init__(self, datasets: Iterable[Iterable[Any]]):
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        for dataset in self.datasets:
            yield from dataset


class StackDataset(Dataset):
    """Sample i is the tuple of the i-th samples of all `datasets`, or the dict of those given by name.

    Raises:
        ValueError: no datasets, datasets both with and without names, or lengths that differ.

    Example:
        >>> import paceline.utils.data as data
        >>> data.StackDataset(image=["a", "b"], label=[0, 1])[1]
        {'image': 'b', 'label': 1}
    """

    def __init__(self, *datasets: Any, **named: Any):
        if bool(datasets) == bool(named):
            raise ValueError("StackDataset(): expected datasets either as arguments or by name")
        self.datasets: Any = named or datasets
        lengths = [len(dataset) for dataset in (named.values() if named else datasets)]
        if len(set(lengths)) > 1:
            raise ValueError(f"StackDataset(): expected datasets of one length, got lengths {lengths}")
        self._length = lengths[0]

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


def random_split(dataset: Any, lengths: Sequence[int | float], generator: Any = None) -> list[Subset]:
    """Deal the samples of `dataset` at random into disjoint subsets.

    Args:
        dataset: anything with a length.
        lengths: one size per subset, summing to ``len(dataset)``; or fractions summing to 1, whose rounded-down
            sizes are topped up one sample at a time from the first subset on.
        generator: where the randomness comes from; None is the library's default generator.

    Raises:
        ValueError: the lengths or fractions do not sum to the whole.

    Example:
        >>> import paceline.utils.data as data
        >>> [len(part) for part in data.random_split(range(10), [0.75, 0.25])]
        [8, 2]
    """
    sizes = _split_sizes(len(dataset), lengths)
    order = numpy_generator(generator).permutation(len(dataset)).tolist()
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _split_sizes(total: int, lengths: Sequence[int | float]) -> list[int]:
    """The size of every part: `lengths` itself, or the sizes its fractions stand for."""
    if all(0 <= length <= 1 for length in lengths) and math.isclose(sum(lengths), 1):
        sizes = [math.floor(total * fraction) for fraction in lengths]
        for spare in range(total - sum(sizes)):
            sizes[spare % len(sizes)] += 1
        return sizes
    if any(length < 0 or length != int(length) for length in lengths) or sum(lengths) != total:
        raise ValueError(
            f"random_split(): lengths must be sizes that sum to the {total} samples of the dataset, "
            f"or fractions that sum to 1; got {list(lengths)} with sum {sum(lengths)}"
        )
    return [int(length) for length in lengths]
