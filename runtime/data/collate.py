"""From a list of samples to one batch."""

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from ..arrays import Array


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack samples into a batch, leaf by leaf.

    Arrays are stacked along a new first dimension; Python ints, bools and floats become an int64, bool or float64
    array; strings and bytes stay a list. Dicts and named tuples of leaves become a dict or named tuple of batches,
    other sequences a list of batches.

    Args:
        batch: the samples, all of one structure.

    Raises:
        TypeError: a leaf of another type.
        RuntimeError: arrays of different shapes, or sequences of different lengths.

    Example:
        >>> import paceline.runtime.data as data
        >>> data.default_collate([{"x": 1, "name": "a"}, {"x": 2, "name": "b"}])
        {'x': array([1, 2]), 'name': ['a', 'b']}
    """
    return collate(batch, stack)


def default_convert(data: Any) -> Any:
    """What a loader that does not batch does to each sample: nothing, for arrays."""
    return data


def collate(batch: Sequence[Any], stack_leaves: Callable[[Sequence[Any]], Any]) -> Any:
    """Collate nested samples, with `stack_leaves` for what is no container."""
    first = batch[0]
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping):
        return _like(first, {key: collate([sample[key] for sample in batch], stack_leaves) for key in first})
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [collate(column, stack_leaves) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    return stack_leaves(batch)


def _like(mapping: Mapping[Any, Any], items: dict[Any, Any]) -> Mapping[Any, Any]:
    """`items` in the type of `mapping`, where that type lets its items be replaced (as a defaultdict does)."""
    if not isinstance(mapping, MutableMapping):
        return items
    clone = copy.copy(mapping)
    clone.update(items)
    return clone


def stack(leaves: Sequence[Any]) -> Array:
    """One array of equally shaped arrays or of numbers, on the arrays' device."""
    first = leaves[0]
    if isinstance(first, float):
        return np.array(leaves, dtype=np.float64)
    if isinstance(first, int):
        return _stack_ints(leaves)
    if not hasattr(first, "dtype") or not is_numeric(first.dtype):
        found = getattr(first, "dtype", type(first).__name__)
        raise TypeError(f"default_collate: batch must contain tensors, arrays, numbers, dicts or lists; found {found}")
    for entry, leaf in enumerate(leaves):
        if leaf.shape != first.shape:
            raise RuntimeError(
                f"stack expects each array to be equal size, "
                f"but got {list(first.shape)} at entry 0 and {list(leaf.shape)} at entry {entry}"
            )
    return np.stack(leaves)  # CuPy arrays take this call over and are stacked on their device


def is_numeric(dtype: np.dtype) -> bool:
    """Whether a Tensor can have this dtype: no strings, objects, dates or records, but bfloat16 (of kind V)."""
    return dtype.kind in "biufc" or dtype.isbuiltin == 2  # 2: registered by a user of NumPy, as ml_dtypes does


def _stack_ints(numbers: Sequence[Any]) -> np.ndarray:
    """Numbers that begin with an int: int64 or bool, and float32 (the default dtype) where a float follows."""
    array = np.array(numbers)
    if array.dtype.kind not in "bif":
        raise TypeError(f"default_collate: numbers must fit int64 or float32, got {list(numbers)}")
    return array.astype(np.float32) if array.dtype.kind == "f" else array
