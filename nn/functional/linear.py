"""Linear maps and tables."""

from __future__ import annotations

from typing import Any

from ...runtime import dtypes
from ...runtime.arrays import Array
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import embedding as table
from ...tensor.ops import linalg
from ...tensor.ops.indexing import check_range


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """input @ weight.T + bias.

    Args:
        input: [..., in_features].
        weight: [out_features, in_features].
        bias: [out_features].

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.linear(torch.ones(2), torch.ones(3, 2))
        tensor([2., 2., 2.])
    """
    x, w = input.array, weight.array
    if w.ndim == 2 and x.ndim and x.shape[-1] == w.shape[1] and x.dtype == w.dtype:
        return linalg.linear(input, weight, bias)
    raise RuntimeError(_linear_mistake(x, w))


def _linear_mistake(x: Array, w: Array) -> str:
    if w.ndim != 2:
        return f"linear(): weight must be [out_features, in_features], its shape is {list(w.shape)}"
    if not x.ndim or x.shape[-1] != w.shape[1]:
        features = x.shape[-1] if x.ndim else 0
        return (
            f"linear(): input has {features} features in its last dim, weight expects {w.shape[1]} "
            f"(input shape {list(x.shape)}, weight shape {list(w.shape)})"
        )
    return (
        f"linear(): expected input and weight to have the same dtype, but got {dtypes.of(x.dtype).name} and "
        f"{dtypes.of(w.dtype).name}; convert one with .to(dtype)"
    )


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """input1 @ weight[k] @ input2 + bias[k] for each output feature k.

    Args:
        input1: [..., in1_features].
        input2: [..., in2_features].
        weight: [out_features, in1_features, in2_features].
        bias: [out_features].
    """
    a, b, w = input1.array.shape, input2.array.shape, weight.array.shape
    if len(w) != 3 or a[:-1] != b[:-1] or (a[-1], b[-1]) != w[1:]:
        raise RuntimeError(
            "bilinear(): expected input1 [..., in1_features], input2 [..., in2_features] and weight [out_features, "
            f"in1_features, in2_features], got {list(a)}, {list(b)} and {list(w)}"
        )
    out = linalg.einsum("...i,oij,...j->...o", input1, weight, input2)
    return out if bias is None else ar.add(out, bias)


def embedding(input: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """The rows of weight that the input's indices name.

    Args:
        input: integers [...], each at least 0 and below num_embeddings.
        weight: [num_embeddings, embedding_dim].
        padding_idx: a row that gets no gradient; negative numbers count from the end.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.embedding(torch.tensor([1]), torch.eye(2))
        tensor([[0., 1.]])
    """
    indices, rows = input.array, weight.array
    if indices.dtype.kind not in "iu":
        raise RuntimeError(
            "Expected tensor for argument 'indices' to have scalar type Long or Int, got "
            f"{dtypes.of(indices.dtype).name} (embedding)"
        )
    if rows.ndim != 2:
        raise RuntimeError(f"'weight' must be 2-D, its shape is {list(rows.shape)} (embedding)")
    count = rows.shape[0]
    if padding_idx is not None:
        if not -count <= padding_idx < count:
            raise AssertionError(f"Padding_idx must be within num_embeddings: got {padding_idx}, there are {count}")
        padding_idx %= count
    if not all_below(indices, count):
        check_range(indices, count, "the embedding table", IndexError)
        raise IndexError(f"index {int(indices.min())} is out of bounds for the embedding table with size {count}")
    return table.embedding(weight, input, padding_idx)


def all_below(indices: Array, count: int) -> bool:
    """Whether all indices are in [0, count), in one pass: read as unsigned numbers, negative ones are huge."""
    return not indices.size or int(indices.view(f"u{indices.dtype.itemsize}").max()) < count
