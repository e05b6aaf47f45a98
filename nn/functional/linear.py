"""Linear maps."""

from __future__ import annotations

from typing import Any

from ...runtime import dtypes
from ...runtime.arrays import Array
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import linalg


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
