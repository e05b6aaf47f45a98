"""Images of another size. Every mode but "area" sums the taps of each output, one dimension after the other."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from ...tensor.ops.resampling import Taps, resample
from .adaptive_pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

_AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
_SPATIAL = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}  # others take any
_ANY = ("nearest", "nearest-exact", "area")


def interpolate(
    input: Any,
    size: int | tuple[int, ...] | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """The input resized to `size`, or by scale_factor.

    Args:
        input: [n, channels, length], [n, channels, height, width] or [n, channels, depth, height, width].
        size: of the output's spatial dimensions; or
        scale_factor: by which they are multiplied, rounding down.
        mode: "nearest" (rounding down, as OpenCV), "nearest-exact" (as Pillow), "linear" for sequences, "bilinear" and
            "bicubic" for images, "trilinear" for volumes, or "area" (means).
        align_corners: whether the centres of the corner elements, not their outer corners, stay where they are; for the
            linear and cubic modes.
        recompute_scale_factor: whether the ratio of the sizes is used in place of scale_factor.
        antialias: whether to average over more elements when shrinking; for "bilinear" and "bicubic".

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.interpolate(torch.tensor([[[1.0, 2.0]]]), scale_factor=2)
        tensor([[[1., 1., 2., 2.]]])
    """
    image = input.array.shape[2:]
    _check_mode(mode, len(image), align_corners, antialias)
    new, scales = _sizes(image, size, scale_factor, mode, recompute_scale_factor)
    if mode == "area":
        return _AREA[len(image)](input, new)
    if min(*new, *image, *input.array.shape[1:2]) <= 0:
        raise RuntimeError(
            f"Input and output sizes should be greater than 0, but got input {list(input.array.shape)} and output {new}"
        )
    if input.array.dtype.kind in "bui" and not mode.startswith("nearest"):
        return _rounded(input, new, scales, mode, bool(align_corners), antialias)
    precision = "float64" if input.array.dtype.itemsize >= 8 else "float32"
    for i, (n, m, scale) in enumerate(zip(image, new, scales, strict=True)):
        if n == m and (antialias or (mode == "nearest" and len(image) == 2)):
            continue  # whatever the scale is, as in PyTorch
        input = resample(input, i + 2, _taps(n, m, scale, mode, bool(align_corners), antialias, precision))
    return input


def _rounded(input: Any, new: tuple, scales: tuple, mode: str, align_corners: bool, antialias: bool) -> Any:
    """Images of bytes: along the width, then the height, by factors in whole steps, each time rounded and limited to a
    byte, as in PyTorch (and Pillow)."""
    if input.array.dtype.name != "uint8" or mode not in ("bilinear", "bicubic"):
        raise NotImplementedError(
            f"interpolate(): mode {mode!r} is not implemented for {input.dtype!r}; convert the input with .float()"
        )
    x = input.double()
    for dim in (3, 2):
        n, m = x.array.shape[dim], new[dim - 2]
        if n != m:
            taps = _taps(n, m, scales[dim - 2], mode, align_corners, antialias, "float64")
            x = resample(x, dim, _in_steps(taps)).add(0.5).floor().clamp(0, 255)
    return x.to(input.dtype)


def _check_mode(mode: str, spatial: int, align_corners: bool | None, antialias: bool) -> None:
    if mode not in _SPATIAL and mode not in _ANY:
        raise NotImplementedError(f"interpolate(): mode {mode!r} is none of {(*_ANY, *_SPATIAL)}")
    if mode in _ANY and align_corners is not None:
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | trilinear"
        )
    if spatial not in (1, 2, 3) or _SPATIAL.get(mode, spatial) != spatial:
        raise NotImplementedError(
            f"Input Error: mode {mode!r} takes inputs of {_SPATIAL.get(mode, '1, 2 or 3')} spatial dimensions after n "
            f"and channels, got {spatial}"
        )
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes and requires 4-D input")


def _sizes(image: tuple, size: Any, scale_factor: Any, mode: str, recompute: bool | None) -> tuple[tuple, tuple]:
    """The output's size, and for each dimension the scale that was asked for, if it counts."""
    spatial = len(image)
    if (size is None) == (scale_factor is None):
        given = "either size or scale_factor should be defined" if size is None else ""
        raise ValueError(given or "only one of size or scale_factor should be defined")
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        return _per_dimension(size, spatial, "size"), (None,) * spatial
    scales = _per_dimension(scale_factor, spatial, "scale_factor")
    new = tuple(math.floor(n * s) for n, s in zip(image, scales, strict=True))
    return new, (None,) * spatial if recompute or mode == "area" else scales


def _per_dimension(value: Any, spatial: int, name: str) -> tuple:
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * spatial
    if len(values) != spatial:
        raise ValueError(
            f"Input and output must have the same number of spatial dimensions, got {spatial} and {name} {value}"
        )
    return values


# -- what each output is made of ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _taps(n: int, m: int, scale: float | None, mode: str, align_corners: bool, antialias: bool, precision: str) -> Taps:
    """The map from n to m elements. PyTorch computes positions in the images' precision, or those of the nearest in
    float32 always, which decides near ties."""
    number = numpy.float32 if mode.startswith("nearest") else numpy.dtype(precision).type
    if align_corners:
        step = number((n - 1) / (m - 1) if m > 1 else 0)
    else:
        step = number(1 / scale if scale else n / m)
    i = numpy.arange(m).astype(number)
    if mode.startswith("nearest"):
        shift = number(0.5 if mode == "nearest-exact" else 0)
        return Taps(n, numpy.minimum(((i + shift) * step).astype(int), n - 1)[:, None])
    is_cubic = mode == "bicubic"
    if antialias:
        return _antialiased(n, i, step, is_cubic)
    place = i * step if align_corners else (i + number(0.5)) * step - number(0.5)
    if is_cubic:
        first = numpy.floor(place)
        away = (place - first).astype(float)
        weight = numpy.stack([_cubic(away + 1), _cubic(away), _cubic(1 - away), _cubic(2 - away)], 1)
        return Taps(n, (first.astype(int)[:, None] + numpy.arange(-1, 3)).clip(0, n - 1), weight)
    place = i if n == m else place.clip(0)
    first = numpy.minimum(place.astype(int), n - 1)
    away = (place - first).astype(float).clip(0, 1)
    return Taps(n, numpy.stack([first, numpy.minimum(first + 1, n - 1)], 1), numpy.stack([1 - away, away], 1))


def _in_steps(taps: Taps) -> Taps:
    """Factors as 16-bit numbers over the largest power of two that leaves room for them, one for each element."""
    same = taps.index[:, :, None] == taps.index[:, None, :]
    is_first = same.argmax(2) == numpy.arange(same.shape[2])
    weight = numpy.where(is_first, (same * taps.weight[:, None, :]).sum(2), 0.0)  # type: ignore[index]
    digits = 22
    while digits and math.floor(weight.max() * 2.0**digits + 0.5) >= 1 << 15:
        digits -= 1
    weight *= 2.0**digits
    return Taps(taps.size, taps.index, numpy.trunc(weight + numpy.copysign(0.5, weight)) / 2.0**digits)


def _cubic(x: numpy.ndarray, a: float = -0.75) -> numpy.ndarray:
    """The cubic kernel at |x| (Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981)."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return numpy.where(x <= 1, near, numpy.where(x < 2, far, 0.0))


def _antialiased(n: int, i: numpy.ndarray, step: Any, is_cubic: bool) -> Taps:
    """Taps whose kernel is as wide as an output element, as Pillow does it."""
    stretch = max(float(step), 1.0)
    support = (2 if is_cubic else 1) * stretch
    center = step * (i + i.dtype.type(0.5))
    start = numpy.maximum((center - support + 0.5).astype(int), 0)
    stop = numpy.minimum((center + support + 0.5).astype(int), n)
    places = start[:, None] + numpy.arange((stop - start).max())
    distance = abs((places - center[:, None] + 0.5) / stretch)
    weight = _cubic(distance, -0.5) if is_cubic else (1 - distance).clip(0)
    weight = numpy.where(places < stop[:, None], weight, 0.0)
    return Taps(n, numpy.minimum(places, stop[:, None] - 1), weight / weight.sum(1, keepdims=True))


def upsample(
    input: Any,
    size: int | tuple[int, ...] | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:
    """`interpolate` under its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """`interpolate` with mode "nearest"."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """`interpolate` with mode "bilinear" and aligned corners."""
    return interpolate(input, size, scale_factor, "bilinear", True)
