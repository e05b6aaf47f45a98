"""Complex tensors: their parts and how they are put together.

Gradients follow PyTorch's convention: the gradient of a real loss L with respect to z = x + iy is dL/dx + i dL/dy.
"""

from __future__ import annotations

import math
from typing import Any

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.variable import Variable
from ...runtime import dtypes
from ...runtime.arrays import Array
from . import arithmetic as ar
from . import pointwise


def _is_complex(array: Any) -> bool:
    return dtypes.of(array.dtype).is_complex


@primitive(view=True, holomorphic=False)
def real(xp, input: Array):
    """The real part; the input itself if it is real."""
    return input.real if input.dtype.kind == "c" else input[...]


real.vjp(
    input=lambda F, g, input: F.compose(g, F.zeros_like(g)) if _is_complex(input) else g
)


@primitive(view=True, holomorphic=False)
def imag(xp, input: Array):
    """The imaginary part of a complex tensor."""
    if input.dtype.kind != "c":
        raise TypeError("imag is not implemented for tensors with non-complex dtypes")
    return input.imag


imag.vjp(input=lambda F, g: F.compose(F.zeros_like(g), g))


@primitive(promote="numeric", holomorphic=False)
def compose(xp, real: Array, imag: Array):
    """real + i * imag."""
    out = xp.empty(xp.broadcast_shapes(real.shape, imag.shape), xp.result_type(real.dtype, xp.complex64))
    out.real, out.imag = real, imag
    return out


compose.vjp(real=lambda F, g: F.real(g), imag=lambda F, g: F.imag(g))


@takes_out
def complex(real: Any, imag: Any) -> Any:
    """The complex tensor real + i * imag.

    Args:
        real, imag: tensors of the same floating dtype, float32 or float64.

    Example:
        >>> import paceline as torch
        >>> torch.complex(torch.tensor([1.0]), torch.tensor([2.0]))
        tensor([1.+2.j])
    """
    kinds = [dtypes.of(x.array.dtype) for x in (real, imag)]
    if any(kind not in (dtypes.float16, dtypes.float32, dtypes.float64) for kind in kinds):
        names = f"{kinds[0].name} and {kinds[1].name}"
        raise RuntimeError(f"Expected both inputs to be Half, Float or Double tensors but got {names}")
    if kinds[0] is not kinds[1]:
        raise RuntimeError(f"Expected object of scalar type {kinds[0]} but got {kinds[1]} for the second argument")
    return compose(real, imag)


@takes_out
def polar(abs: Any, angle: Any) -> Any:
    """The complex tensor abs * exp(i * angle)."""
    return complex(ar.mul(abs, pointwise.cos(angle)), ar.mul(abs, pointwise.sin(angle)))


@primitive(view=True, holomorphic=False)
def view_as_real(xp, input: Array):
    """A complex tensor as a real one with a last dimension of size 2 for the two parts, sharing memory."""
    if input.dtype.kind != "c":
        raise TypeError("view_as_real is only supported for complex tensors")
    part = xp.dtype(input.real.dtype)
    return input[..., None].view(part)


view_as_real.vjp(input=lambda F, g: F.view_as_complex(g))


@primitive(view=True, holomorphic=False)
def view_as_complex(xp, input: Array):
    """A real tensor whose last dimension, of size 2, holds the two parts as a complex one, sharing memory."""
    if input.dtype.kind == "c" or not input.ndim or input.shape[-1] != 2:
        raise ValueError("expected a floating tensor with a last dimension of size 2")
    if input.strides[-1] != input.itemsize:
        input = xp.ascontiguousarray(input)
    return input.view(xp.result_type(input.dtype, xp.complex64))[..., 0]


view_as_complex.vjp(input=lambda F, g: F.view_as_real(g))


@primitive(promote="float", holomorphic=False)
def angle(xp, input: Array):
    """The angle of a complex number in the plane, in radians; of a real one 0 or pi."""
    if input.dtype.kind == "c":
        return xp.arctan2(input.imag, input.real)
    return xp.where(xp.isnan(input), input, xp.where(xp.less(input, 0), math.pi, 0)).astype(input.dtype, copy=False)


def _angle_input(F: Any, g: Any, input: Any) -> Any:
    if not _is_complex(input):
        return F.zeros_like(g)
    x, y = F.real(input), F.imag(input)
    square = x * x + y * y
    scale = F.where(F.eq(square, 0), F.zeros_like(g), g) / F.where(F.eq(square, 0), F.ones_like(square), square)
    return F.compose(-y * scale, x * scale)


angle.vjp(input=_angle_input)


@primitive(holomorphic=False)
def sgn(xp, input: Array):
    """input / |input|, 0 at 0: the sign of a real number, the direction of a complex one."""
    if input.dtype.kind != "c":
        return pointwise.sign.declaration.body(xp, input)
    size = xp.abs(input)
    return input / xp.where(xp.equal(size, 0), 1, size)


def _sgn_input(F: Any, g: Any, input: Any, out: Any) -> Any:
    if not _is_complex(input):
        return F.zeros_like(g)
    size = F.abs(input)
    along = out * F.real(F.conj(out) * g)  # only turning changes the direction
    return F.where(F.eq(size, 0), F.zeros_like(g), (g - along) / F.where(F.eq(size, 0), F.ones_like(size), size))


sgn.vjp(input=_sgn_input)


def isreal(input: Any) -> Any:
    """Whether the element has no imaginary part."""
    if input.array.dtype.kind != "c":
        return ar.eq(ar.zeros_like(input), 0)
    return ar.eq(imag(input), 0)


@takes_out
def conj_physical(input: Any) -> Any:
    """The complex conjugate; of a real tensor the tensor itself."""
    return pointwise.conj(input) if input.array.dtype.kind == "c" else input


def resolve_conj(input: Any) -> Any:
    """The input: conjugation is never delayed here."""
    return input


def resolve_neg(input: Any) -> Any:
    """The input: negation is never delayed here."""
    return input


def is_conj(input: Variable) -> bool:
    """False: conjugation is never delayed here."""
    return False


def is_neg(input: Variable) -> bool:
    """False: negation is never delayed here."""
    return False
