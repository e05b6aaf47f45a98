"""Vectors by index: tables, and sums, means or maxima over bags of their rows."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.mode import no_grad
from ...autograd.variable import box
from ...runtime import device as devices
from ...runtime import dtypes
from ...runtime.arrays import Array, module_of, to_host
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import embedding as table
from ...tensor.ops import indexing, reduction, shaping
from ...tensor.ops.distances import renorm
from ...tensor.ops.indexing import all_within, check_range
from ...tensor.ops.ordering import max as largest


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """The rows of weight that the input's indices name.

    Args:
        input: integers [...], each at least 0 and below num_embeddings.
        weight: [num_embeddings, embedding_dim].
        padding_idx: a row that gets no gradient; negative numbers count from the end.
        max_norm: if given, longer rows among those named are first scaled to this norm, in place.
        norm_type: the p of that norm.
        scale_grad_by_freq: whether a row's gradient is divided by how often the row is named.
        sparse: not supported, there are no sparse tensors.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.embedding(torch.tensor([1]), torch.eye(2))
        tensor([[0., 1.]])
    """
    padding_idx = _checked(input, weight, padding_idx, sparse, "embedding")
    if max_norm is not None:
        _shorten(weight, input, max_norm, norm_type)
    return table.embedding(weight, input, padding_idx, scale_grad_by_freq)


def _checked(input: Any, weight: Any, padding_idx: int | None, sparse: bool, function: str) -> int | None:
    """The padding index as a non-negative number."""
    indices, rows = input.array, weight.array
    if sparse:
        raise NotImplementedError(f"{function}(): sparse=True is not supported, there are no sparse tensors")
    if indices.dtype.kind not in "iu":
        raise RuntimeError(
            "Expected tensor for argument 'indices' to have scalar type Long or Int, got "
            f"{dtypes.of(indices.dtype).name} ({function})"
        )
    if rows.ndim != 2:
        raise RuntimeError(f"'weight' must be 2-D, its shape is {list(rows.shape)} ({function})")
    count = rows.shape[0]
    if padding_idx is not None:
        if not -count <= padding_idx < count:
            raise AssertionError(f"Padding_idx must be within num_embeddings: got {padding_idx}, there are {count}")
        padding_idx %= count
    if not all_within(indices, count):
        check_range(indices, count, "the embedding table", IndexError)
        raise IndexError(f"index {int(indices.min())} is out of bounds for the embedding table with size {count}")
    return padding_idx


def _shorten(weight: Any, input: Any, max_norm: float, norm_type: float) -> None:
    """Scale the rows of weight that the input names to max_norm, where they are longer."""
    rows = box(module_of(input.array).unique(input.array))
    with no_grad():
        data = weight.detach()
        data[rows] = renorm(table.embedding(data, rows, None), norm_type, 0, max_norm)


# -- bags --------------------------------------------------------------------------------------------------------------


def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """The sums, means or maxima of the rows of weight over bags of indices.

    Args:
        input: integers [bags, length], or [total] together with offsets.
        weight: [num_embeddings, embedding_dim].
        offsets: [bags], where in a one-dimensional input each bag begins; the first is 0.
        max_norm, norm_type, scale_grad_by_freq, sparse: as for `embedding`.
        mode: "sum", "mean" or "max"; an empty bag gives zeros.
        per_sample_weights: of the input's shape, factors of the rows in mode "sum".
        include_last_offset: whether offsets [bags + 1] end with the end of the last bag.
        padding_idx: an index that is left out of its bag and gets no gradient.

    Returns:
        [bags, embedding_dim].

    Example:
        >>> import paceline as torch
        >>> bags = torch.tensor([0, 1, 1]), torch.eye(2), torch.tensor([0, 2])
        >>> torch.nn.functional.embedding_bag(*bags, mode="sum")
        tensor([[1., 1.],
                [0., 1.]])
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if per_sample_weights is not None:
        if mode != "sum":
            raise NotImplementedError(
                "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
                f"(got mode='{mode}')"
            )
        if per_sample_weights.array.shape != input.array.shape:
            raise ValueError(
                f"embedding_bag: If per_sample_weights ({list(per_sample_weights.shape)}) is not None, then it must "
                f"have the same shape as the input ({list(input.shape)})"
            )
    starts = _starts(input, offsets, include_last_offset)
    padding_idx = _checked(input, weight, padding_idx, sparse, "embedding_bag")
    if max_norm is not None:
        _shorten(weight, input, max_norm, norm_type)
    indices = shaping.reshape(input, (input.array.size,))
    rows = table.embedding(weight, indices, padding_idx, scale_grad_by_freq)
    lengths = numpy.diff(starts, append=input.array.size)
    if mode == "max":
        return _largest_of_bags(rows, indices.array, starts, lengths, padding_idx)
    factors = None if per_sample_weights is None else shaping.reshape(per_sample_weights, (input.array.size,))
    bags = box(devices.move(numpy.repeat(numpy.arange(len(starts)), lengths), input.device))
    if padding_idx is not None:
        counted = ar.ne(indices, padding_idx).to(weight.dtype)
        factors = counted if factors is None else ar.mul(factors, counted)
    if factors is not None:
        rows = ar.mul(rows, shaping.unsqueeze(factors, 1))
    size = (len(starts), weight.array.shape[1])
    sums = table.embedding_scatter(rows, bags, size, None)
    if mode == "sum":
        return sums
    if padding_idx is None:
        counts = box(devices.move(numpy.maximum(lengths, 1)[:, None], input.device))
    else:
        counts = table.embedding_scatter(shaping.unsqueeze(counted, 1), bags, (size[0], 1), None).clamp(min=1)
    return ar.true_divide(sums, counts.to(weight.dtype))


def _starts(input: Any, offsets: Any, include_last_offset: bool) -> numpy.ndarray:
    """Where each bag begins in the flattened input."""
    shape = input.array.shape
    if len(shape) == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
                f"sequences. However, found offsets of type {type(offsets)}"
            )
        return numpy.arange(shape[0]) * shape[1]
    if len(shape) != 1:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {len(shape)}")
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets.array.ndim != 1:
        raise ValueError(f"offsets has to be a 1D Tensor, but got Tensor of dimension {offsets.array.ndim}")
    starts = to_host(offsets.array).astype(numpy.int64)
    if starts.size and (starts[0] != 0 or (numpy.diff(starts) < 0).any() or starts[-1] > shape[0]):
        raise RuntimeError(
            f"embedding_bag(): offsets must begin with 0, not decrease and not exceed the input's {shape[0]} elements, "
            f"got {starts.tolist()}"
        )
    return starts[:-1] if include_last_offset else starts


def _largest_of_bags(
    rows: Any, indices: Array, starts: numpy.ndarray, lengths: numpy.ndarray, padding_idx: int | None
) -> Any:
    """The maxima of rows [total, d] over bags, zeros for a bag without any: [bags, d]."""
    longest = int(lengths.max(initial=0))
    if not longest:
        nothing = box(devices.move(numpy.zeros(0, numpy.int64), rows.device))
        return table.embedding_scatter(rows[:0], nothing, (len(starts), rows.array.shape[1]), None)
    places = starts[:, None] + numpy.arange(longest)
    missing = places >= (starts + lengths)[:, None]
    places[missing] = 0
    if padding_idx is not None:
        missing |= to_host(indices)[places] == padding_idx
    candidates = table.embedding(rows, box(devices.move(places, rows.device)), None)
    left_out = box(devices.move(missing[..., None], rows.device))
    values = largest(indexing.fill_where(candidates, left_out, -math.inf), 1).values
    return indexing.fill_where(values, reduction.all(left_out, 1), 0)
