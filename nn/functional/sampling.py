"""Images read at any places: spatial transformers.

Source: Jaderberg et al., Spatial Transformer Networks, 2015.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from ...runtime import dtypes
from ...tensor import creation
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import indexing, linalg, rounding, shaping
from ...tensor.ops import pointwise as pw


def affine_grid(theta: Any, size: Any, align_corners: bool | None = None) -> Any:
    """Where in an input, from -1 to 1, each element of an output lies under affine maps; for `grid_sample`.

    Args:
        theta: [n, 2, 3] for images, [n, 3, 4] for volumes.
        size: of the output, (n, channels, height, width) or (n, channels, depth, height, width).
        align_corners: whether -1 and 1 are the centres of the corner elements instead of their outer corners.

    Returns:
        [n, height, width, 2] or [n, depth, height, width, 3], the last dimension in the order x, y(, z).

    Example:
        >>> import paceline as torch
        >>> turn = torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
        >>> torch.nn.functional.affine_grid(turn, (1, 1, 1, 2), align_corners=True)
        tensor([[[[ 0., -1.],
                  [ 0.,  1.]]]])
    """
    n, _, *image = size
    spatial = len(image)
    if not dtypes.of(theta.array.dtype).is_floating_point:
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    if spatial not in (2, 3) or theta.array.shape != (n, spatial, spatial + 1):
        raise ValueError(
            f"Expected a batch of affine matrices [{n}, {spatial}, {spatial + 1}] for size {list(size)} with 2 or 3 "
            f"spatial dimensions. Got theta {list(theta.array.shape)}"
        )
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {list(size)}")
    axes = []
    for i, m in enumerate(image):
        last = 1 if align_corners else (m - 1) / m
        line = creation.linspace(-last if m > 1 else 0, last if m > 1 else 0, m, dtype=theta.dtype, device=theta.device)
        axes.append(shaping.expand(shaping.reshape(line, (m,) + (1,) * (spatial - 1 - i)), tuple(image)))
    places = shaping.stack([*reversed(axes), ar.ones_like(axes[0])], -1)
    flat = shaping.reshape(places, (1, math.prod(image), spatial + 1))
    moved = linalg.matmul(shaping.expand(flat, (n, *flat.array.shape[1:])), shaping.transpose(theta, 1, 2))
    return shaping.reshape(moved, (n, *image, spatial))


def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Any:
    """The input interpolated at the places that a grid names.

    Args:
        input: [n, channels, height, width] or [n, channels, depth, height, width].
        grid: [n, out height, out width, 2] or [n, out depth, out height, out width, 3], places x, y(, z) from -1 to 1.
        mode: "bilinear", "nearest" or, for images, "bicubic".
        padding_mode: what lies outside: "zeros", "border" (the nearest element) or "reflection".
        align_corners: whether -1 and 1 are the centres of the corner elements instead of their outer corners.

    Returns:
        [n, channels, *out].

    Example:
        >>> import paceline as torch
        >>> image = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> torch.nn.functional.grid_sample(image, torch.tensor([[[[0.5, 0.0]]]]), align_corners=True)
        tensor([[[[2.5000]]]])
    """
    _check(input, grid, mode, padding_mode)
    n, channels, *image = input.array.shape
    spatial = len(image)
    out = grid.array.shape[1:-1]
    count = math.prod(out)
    flat = shaping.reshape(input, (n, channels, math.prod(image)))
    taps = []  # for each dimension the (place, factor) pairs of its elements
    for i, size in enumerate(image):
        place = shaping.reshape(shaping.select(grid, -1, spatial - 1 - i), (n, 1, count))
        place = _unnormalized(place, size, align_corners)
        if mode != "bicubic":
            place = _inside(place, size, padding_mode, align_corners)
        taps.append(_TAPS[mode](place))
    total = None
    for corner in itertools.product(*taps):
        factor = index = outside = None
        for (place, weight), size in zip(corner, image, strict=True):
            if mode == "bicubic":
                place = _inside(place, size, padding_mode, align_corners)
            missing = ar.logical_not(ar.logical_and(ar.ge(place, 0), ar.le(place, size - 1)))
            outside = missing if outside is None else ar.logical_or(outside, missing)
            row = indexing.fill_where(place, missing, 0).to(dtypes.int64)
            index = row if index is None else ar.add(ar.mul(index, size), row)
            if weight is not None:
                factor = weight if factor is None else ar.mul(factor, weight)
        values = indexing.gather_along(flat, shaping.expand(index, (n, channels, count)), 2)
        term = values if factor is None else ar.mul(values, factor)
        term = indexing.fill_where(term, shaping.expand(outside, (n, channels, count)), 0)
        total = term if total is None else ar.add(total, term)
    return shaping.reshape(total, (n, channels, *out))


def _check(input: Any, grid: Any, mode: str, padding_mode: str) -> None:
    image, places = input.array.shape, grid.array.shape
    if mode not in _TAPS:
        raise ValueError(f"nn.functional.grid_sample(): expected mode to be one of {tuple(_TAPS)}, but got: '{mode}'")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'"
        )
    if len(image) not in (4, 5) or len(image) != len(places) or places[-1] != len(image) - 2 or image[0] != places[0]:
        raise RuntimeError(
            "grid_sample(): expected input [n, channels, *image] of 2 or 3 spatial dimensions and grid [n, *out, 2 "
            f"or 3], got input {list(image)} and grid {list(places)}"
        )
    if input.array.dtype != grid.array.dtype:
        raise RuntimeError(
            f"grid_sample(): expected input and grid to have the same dtype, but input has {input.dtype} and grid has "
            f"{grid.dtype}"
        )
    if mode == "bicubic" and len(image) != 4:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    if min(image[2:]) <= 0:
        raise RuntimeError(f"grid_sampler(): expected input to have non-empty spatial dimensions, got {list(image)}")


def _unnormalized(place: Any, size: int, align_corners: bool | None) -> Any:
    """Places from -1 to 1 as places from 0 to size - 1."""
    if align_corners:
        return ar.mul(ar.add(place, 1), (size - 1) / 2)
    return ar.true_divide(ar.sub(ar.mul(ar.add(place, 1), size), 1), 2)


def _inside(place: Any, size: int, padding_mode: str, align_corners: bool | None) -> Any:
    """Places outside as the places inside that stand for them; without gradient at the border, as in PyTorch."""
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        place = _reflected(place, *((0, size - 1) if align_corners else (-0.5, size - 0.5)))
    strictly = ar.logical_and(ar.gt(place, 0), ar.lt(place, size - 1))
    return ar.where(strictly, place, pw.clamp(place.detach(), 0, size - 1))


def _reflected(place: Any, low: float, high: float) -> Any:
    """Places reflected at both ends until they are inside."""
    span = high - low
    if span == 0:
        return ar.mul(place, 0)
    shifted = ar.sub(place, low)
    distance = ar.where(ar.lt(shifted, 0), pw.neg(shifted), shifted)
    flips = rounding.floor(ar.true_divide(distance.detach(), span))
    rest = ar.sub(distance, ar.mul(flips, span))
    odd = ar.eq(ar.remainder(flips, 2), 1)
    return ar.add(ar.where(odd, ar.sub(span, rest), rest), low)


def _nearest(place: Any) -> list[tuple[Any, Any]]:
    return [(rounding.round(place.detach()), None)]


def _linear(place: Any) -> list[tuple[Any, Any]]:
    first = rounding.floor(place.detach())
    away = ar.sub(place, first)
    return [(first, ar.sub(1, away)), (ar.add(first, 1), away)]


def _cubic(place: Any) -> list[tuple[Any, Any]]:
    """The cubic convolution kernel with a = -0.75."""
    first = rounding.floor(place.detach())
    t = ar.sub(place, first)
    near = [_polynomial(x, (1.25, -2.25, 0.0, 1.0)) for x in (t, ar.sub(1, t))]
    far = [_polynomial(x, (-0.75, 3.75, -6.0, 3.0)) for x in (ar.add(t, 1), ar.sub(2, t))]
    weights = (far[0], near[0], near[1], far[1])
    return [(ar.add(first, k - 1), weight) for k, weight in enumerate(weights)]


def _polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    value: Any = coefficients[0]
    for c in coefficients[1:]:
        value = ar.add(ar.mul(x, value), c)
    return value


_TAPS = {"bilinear": _linear, "nearest": _nearest, "bicubic": _cubic}
