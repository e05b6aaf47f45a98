"""Linear maps."""

from __future__ import annotations

from typing import Any

from ...tensor.ops import arithmetic as ar
from ...tensor.ops import linalg

linear = linalg.linear


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
