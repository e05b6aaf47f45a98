"""Discrete Fourier transforms.

Three primitives carry them all: complex to complex over any dims, real to the non-negative half of the spectrum, and
back. `norm` says which direction carries the factor 1/n: "backward", "forward", or "ortho" for 1/sqrt(n) in both.
"""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.plan import FLOATING
from ...autograd.primitive import primitive
from ...runtime import dtypes
from ...runtime.arrays import Array
from .. import creation
from . import cast, pointwise, reduction, shaping

_FLIPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho", None: "forward"}
_HALF = tuple(numpy.dtype(d.numpy) for d in (dtypes.float16, dtypes.bfloat16))


@primitive
def fft_c2c(xp, input: Array, dims: tuple, norm: str | None, inverse: bool):
    """The complex transform over dims."""
    return (xp.fft.ifftn if inverse else xp.fft.fftn)(input, axes=dims, norm=norm)


# the matrix of the transform is symmetric
fft_c2c.vjp(input=lambda F, g, dims, norm, inverse: F.fft_c2c(g, dims, norm, inverse))


@primitive(holomorphic=False)
def fft_r2c(xp, input: Array, dim: int, norm: str | None):
    """The transform of real numbers along dim, without its second half: that is the mirrored conjugate of the first."""
    return xp.fft.rfft(input, axis=dim, norm=norm)


@primitive(holomorphic=False)
def fft_c2r(xp, input: Array, dim: int, n: int, norm: str | None):
    """n real numbers from the first half of their spectrum."""
    return xp.fft.irfft(input, n, axis=dim, norm=norm)


@primitive
def scale_mirrored(xp, input: Array, dim: int, n: int, factor: float):
    """Half of a spectrum with the elements that stand for two of n (all but the first and the middle) scaled."""
    out = input.copy()
    out[(slice(None),) * dim + (slice(1, (n + 1) // 2),)] *= factor
    return out


scale_mirrored.vjp(input=lambda F, g, dim, n, factor: F.scale_mirrored(g, dim, n, factor))


def _r2c_input(F: Any, g: Any, input_shape: tuple, dim: int, norm: str | None) -> Any:
    n = input_shape[dim]
    return F.fft_c2r(F.scale_mirrored(g, dim, n, 0.5), dim, n, _FLIPPED[norm])


fft_r2c.vjp(input=_r2c_input)
fft_c2r.vjp(input=lambda F, g, dim, n, norm: F.scale_mirrored(F.fft_r2c(g, dim, _FLIPPED[norm]), dim, n, 2.0))


# -- arguments ---------------------------------------------------------------------------------------------------------


def _checked_norm(norm: str | None, name: str) -> str | None:
    if norm not in _FLIPPED:
        raise RuntimeError(f"{name}(): norm must be None, 'forward', 'backward' or 'ortho', got {norm!r}")
    return norm


def _floating(input: Any, name: str) -> Any:
    """Integers as the default floating dtype."""
    if input.array.dtype in _HALF:
        raise RuntimeError(f"{name}(): unsupported dtype {dtypes.of(input.array.dtype).name}; convert with .float()")
    return input if input.array.dtype in FLOATING else cast.to_dtype(input, dtypes.get_default_dtype())


def _complex(input: Any, name: str) -> Any:
    input = _floating(input, name)
    if input.array.dtype.kind == "c":
        return input
    return cast.to_dtype(input, dtypes.complex128 if input.array.dtype.itemsize == 8 else dtypes.complex64)


def _real(input: Any, name: str) -> Any:
    if input.array.dtype.kind == "c":
        raise RuntimeError(f"{name} expects a real input tensor, but got {dtypes.of(input.array.dtype).name}")
    return _floating(input, name)


def _sizes(input: Any, s: Any, dim: Any, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dims to transform and the signal length in each; -1 in `s` keeps the input's."""
    ndim, shape = input.array.ndim, input.array.shape
    if s is not None:
        s = (s,) if isinstance(s, int) else tuple(s)
    if dim is not None:
        dims: Any = (dim,) if isinstance(dim, int) else tuple(dim)
        dims = reduction.as_dims(dims, ndim) if dims else ()
    else:
        dims = tuple(range(ndim - (ndim if s is None else len(s)), ndim))
        if dims and dims[0] < 0:
            raise RuntimeError(f"{name}(): got shape with {len(s)} values but input tensor only has {ndim} dimensions")
    if s is None:
        s = (-1,) * len(dims)
    if len(s) != len(dims):
        raise RuntimeError(f"{name}(): dim and shape arguments must have the same length, got {len(dims)} and {len(s)}")
    lengths = tuple(shape[d] if n == -1 else n for d, n in zip(dims, s, strict=True))
    _check_lengths(lengths, name)
    return dims, lengths


def _check_lengths(lengths: tuple[int, ...], name: str) -> None:
    for n in lengths:
        if n < 1:
            raise RuntimeError(f"{name}(): Invalid number of data points ({n}) specified")


def _resized(input: Any, dims: tuple[int, ...], lengths: tuple[int, ...]) -> Any:
    """The input cut, or padded with zeros at the end, to the given lengths."""
    pad = [(0, 0)] * input.array.ndim
    for d, n in zip(dims, lengths, strict=True):
        have = input.array.shape[d]
        if n < have:
            input = shaping.narrow(input, d, 0, n)
        pad[d] = (0, max(0, n - have))
    return shaping.pad_constant(input, tuple(pad)) if any(b for _, b in pad) else input


# -- transforms over several dims --------------------------------------------------------------------------------------


def _c2c(name: str, input: Any, s: Any, dim: Any, norm: str | None, inverse: bool) -> Any:
    dims, lengths = _sizes(input, s, dim, name)
    x = _resized(_complex(input, name), dims, lengths)
    return fft_c2c(x, dims, _checked_norm(norm, name), inverse) if dims else x


def _r2c(name: str, input: Any, s: Any, dim: Any, norm: str | None) -> Any:
    dims, lengths = _sizes(input, s, dim, name)
    if not dims:
        raise RuntimeError(f"{name} must transform at least one axis")
    x = _resized(_real(input, name), dims, lengths)
    out = fft_r2c(x, dims[-1], _checked_norm(norm, name))
    return fft_c2c(out, dims[:-1], norm, False) if len(dims) > 1 else out


def _c2r(name: str, input: Any, s: Any, dim: Any, norm: str | None) -> Any:
    dims, lengths = _sizes(input, s, dim, name)
    if not dims:
        raise RuntimeError(f"{name} must transform at least one axis")
    n = lengths[-1]
    if s is None or (s if isinstance(s, int) else tuple(s)[-1]) == -1:
        n = 2 * (input.array.shape[dims[-1]] - 1)
        _check_lengths((n,), name)
    x = _resized(_complex(input, name), dims, (*lengths[:-1], n // 2 + 1))
    if len(dims) > 1:
        x = fft_c2c(x, dims[:-1], norm, True)
    return fft_c2r(x, dims[-1], n, _checked_norm(norm, name))


@takes_out
def fftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The discrete Fourier transform over several dims: X[k] = sum_j x[j] exp(-2 pi i j k / n) along each.

    Args:
        input: any shape; integers are computed in the default dtype.
        s: signal lengths, the input is cut or padded with zeros to them; -1 keeps a length.
        dim: dims to transform, default all (or the last len(s)).
        norm: "backward" (no factor), "forward" (1/n) or "ortho" (1/sqrt(n)).

    Example:
        >>> import paceline as torch
        >>> torch.fft.fftn(torch.ones(2, 2)).abs()
        tensor([[4., 0.],
                [0., 0.]])
    """
    return _c2c("fftn", input, s, dim, norm, False)


@takes_out
def ifftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `fftn`; norm "backward" carries the factor 1/n here."""
    return _c2c("ifftn", input, s, dim, norm, True)


@takes_out
def rfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """`fftn` of real input, with only the non-negative frequencies of the last dim: n // 2 + 1 of them."""
    return _r2c("rfftn", input, s, dim, norm)


@takes_out
def irfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `rfftn`; the last signal length is 2 (m - 1) unless `s` says otherwise."""
    return _c2r("irfftn", input, s, dim, norm)


@takes_out
def hfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The transform of a signal that is Hermitian in the last dim, given by its first half; real."""
    return _c2r("hfftn", pointwise.conj(input), s, dim, _FLIPPED[_checked_norm(norm, "hfftn")])


@takes_out
def ihfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `hfftn`: half of the inverse transform of a real signal."""
    return pointwise.conj(_r2c("ihfftn", input, s, dim, _FLIPPED[_checked_norm(norm, "ihfftn")]))


# -- over one dim, and over two ----------------------------------------------------------------------------------------


def _over_one(over_many: Any, name: str, doc: str) -> Any:
    def transform(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
        if n is not None:
            _check_lengths((n,), name)
        return over_many(input, n, dim, norm)

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = doc
    return takes_out(transform)


def _over_two(over_many: Any, name: str) -> Any:
    def transform(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
        return over_many(input, s, dim, norm)

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = f"`{over_many.__name__}` over two dims, by default the last two."
    return takes_out(transform)


fft = _over_one(fftn, "fft", "The discrete Fourier transform along dim, of n points; see `fftn`.")
ifft = _over_one(ifftn, "ifft", "The inverse of `fft`.")
rfft = _over_one(rfftn, "rfft", "The n // 2 + 1 non-negative frequencies of `fft` of a real signal.")
irfft = _over_one(irfftn, "irfft", "The inverse of `rfft`; n is 2 (m - 1) unless given.")
hfft = _over_one(hfftn, "hfft", "The real `fft` of a Hermitian signal given by its first half.")
ihfft = _over_one(ihfftn, "ihfft", "The inverse of `hfft`.")
fft2, ifft2 = _over_two(fftn, "fft2"), _over_two(ifftn, "ifft2")
rfft2, irfft2 = _over_two(rfftn, "rfft2"), _over_two(irfftn, "irfft2")
hfft2, ihfft2 = _over_two(hfftn, "hfft2"), _over_two(ihfftn, "ihfft2")


# -- frequencies and their order ---------------------------------------------------------------------------------------


def fftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **layout: Any
) -> Any:
    """The frequency of each of the n elements of `fft`, for samples d apart: k / (n d), the negative ones last.

    Example:
        >>> import paceline as torch
        >>> torch.fft.fftfreq(4)
        tensor([ 0.0000,  0.2500, -0.5000, -0.2500])
    """
    return creation.tensor(numpy.fft.fftfreq(n, d), dtype=dtype or dtypes.get_default_dtype(), device=device,
                           requires_grad=requires_grad)  # fmt: skip


def rfftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **layout: Any
) -> Any:
    """The frequency of each of the n // 2 + 1 elements of `rfft`, for samples d apart."""
    return creation.tensor(numpy.fft.rfftfreq(n, d), dtype=dtype or dtypes.get_default_dtype(), device=device,
                           requires_grad=requires_grad)  # fmt: skip


def _shifted(input: Any, dim: Any, step: Any) -> Any:
    dims = reduction.as_dims(dim, input.array.ndim)
    return shaping.roll(input, tuple(step(input.array.shape[d]) for d in dims), dims) if dims else input


def fftshift(input: Any, dim: Any = None) -> Any:
    """The spectrum with the zero frequency in the middle of each dim."""
    return _shifted(input, dim, lambda n: n // 2)


def ifftshift(input: Any, dim: Any = None) -> Any:
    """The inverse of `fftshift`."""
    return _shifted(input, dim, lambda n: (n + 1) // 2)
