"""The Tensor face of the loader: batches come out as Tensors, on the device of the dataset's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..runtime import data
from ..runtime.data.collate import collate, is_numeric, stack
from .ops import shaping
from .tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack samples into a batch of Tensors, by the rules of `torch.utils.data.default_collate`.

    Args:
        batch: samples of one structure: Tensors, arrays, numbers and strings in tuples, lists and dicts.

    Raises:
        TypeError: a leaf of another type.
        RuntimeError: Tensors of different shapes, or sequences of different lengths.

    Example:
        >>> import paceline.utils.data as data
        >>> data.default_collate([(1, "a"), (2, "b")])
        [tensor([1, 2]), ('a', 'b')]
    """
    return collate(batch, _stack)


def default_convert(sample: Any) -> Any:
    """Make the arrays in a sample Tensors that share their memory; leave everything else as it is."""
    if hasattr(sample, "dtype") and not isinstance(sample, Tensor) and is_numeric(sample.dtype):
        return Tensor._wrap(np.asarray(sample) if isinstance(sample, np.generic) else sample)
    if isinstance(sample, Mapping):
        return {key: default_convert(value) for key, value in sample.items()}
    if isinstance(sample, tuple) and hasattr(sample, "_fields"):
        return type(sample)(*map(default_convert, sample))
    if isinstance(sample, list | tuple):
        return [default_convert(value) for value in sample]
    return sample


def _stack(leaves: Sequence[Any]) -> Tensor:
    """One Tensor of equally shaped Tensors, arrays or numbers; Tensors that carry a graph pass it on."""
    return shaping.stack(leaves) if isinstance(leaves[0], Tensor) else Tensor._wrap(stack(leaves))


class DataLoader(data.DataLoader):
    __doc__ = data.DataLoader.__doc__

    default_collate = staticmethod(default_collate)
    default_convert = staticmethod(default_convert)
