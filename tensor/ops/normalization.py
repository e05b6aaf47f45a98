"""Normalization: (input - mean) / sqrt(variance + eps) over some dimensions, then weight and bias over others.

The backward of the written rules derives the statistics from the input again, so that derivatives of any order are
right. Ordinary backward uses the statistics of the forward pass.
"""

from __future__ import annotations

from typing import Any

from ...autograd.primitive import primitive
from ...runtime.arrays import Array


@primitive(outputs=("mean", "variance"))
def moments(xp, input: Array, dims: tuple):
    """Mean and biased variance over dims, which stay as dimensions of size 1; constants to the tape."""
    mean = input.mean(dims, keepdims=True)
    deviation = input - mean
    deviation *= deviation
    return mean, deviation.mean(dims, keepdims=True)


@primitive
def normalize(
    xp,
    input: Array,
    mean: Array,
    variance: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    dims: tuple = (-1,),
    eps: float = 1e-5,
):
    """(input - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are the input's over dims.

    weight and bias broadcast to the input. The rule knows that mean and variance depend on the input.
    """
    out = input - mean
    scale = 1 / xp.sqrt(variance + eps)
    if weight is not None and weight.shape == scale.shape:
        scale *= weight
        weight = None
    out *= scale
    if weight is not None:
        out *= weight
    if bias is not None:
        out += bias
    return out


@normalize.joint_vjp
def _normalize_gradients(
    F: Any, g: Any, needs: tuple, input: Any, weight: Any, bias: Any, dims: tuple, eps: float
) -> tuple:
    deviation = input - F.mean(input, dims, True)
    scale = F.rsqrt(F.mean(deviation * deviation, dims, True) + eps)
    normal = deviation * scale
    return (
        _through_statistics(F, g if weight is None else g * weight, normal, scale, dims) if needs[0] else None,
        None,
        None,
        F.sum_to_size(g * normal, tuple(weight.shape)) if needs[3] else None,
        F.sum_to_size(g, tuple(bias.shape)) if needs[4] else None,
    )


def _through_statistics(F: Any, g: Any, normal: Any, scale: Any, dims: tuple) -> Any:
    """The gradient of the input, whose mean and variance were taken out, from that of the normalized values."""
    return scale * (g - F.mean(g, dims, True) - normal * F.mean(g * normal, dims, True))


def _fused_gradients(
    xp: Any, g: Any, needs: tuple, input: Any, mean: Any, variance: Any, weight: Any, bias: Any, dims: tuple, eps: float
) -> tuple:
    """The same from the statistics of the forward pass, with few temporary arrays."""
    scale = 1 / xp.sqrt(variance + eps)
    normal = input - mean
    normal *= scale
    product = g * normal
    gradient = weight_gradient = bias_gradient = None
    if needs[3]:
        weight_gradient = _summed(product, weight.shape)
    if needs[4]:
        bias_gradient = _summed(g, bias.shape)
    if needs[0]:
        if weight is None:
            gradient = g - g.mean(dims, keepdims=True)
        else:
            product *= weight
            gradient = g * weight
            gradient -= gradient.mean(dims, keepdims=True)
        normal *= product.mean(dims, keepdims=True)
        gradient -= normal
        gradient *= scale
    return gradient, None, None, weight_gradient, bias_gradient


def _summed(x: Array, shape: tuple) -> Array:
    """The sum over the dimensions along which a parameter of a shape was broadcast."""
    lead = x.ndim - len(shape)
    dims = tuple(i for i in range(x.ndim) if i < lead or shape[i - lead] == 1)
    return x.sum(dims).reshape(shape)


for _device in ("cpu", "cuda"):
    normalize.fused_vjp(_device)(_fused_gradients)
