"""Rows for functions of sequences, images and volumes. The references say in loops what these say in strides."""

from __future__ import annotations

import itertools
import math

import numpy as np

from paceline.runtime.comm import world_comm
from paceline.tensor.ops.resampling import Taps
from paceline.tensor.ops.sliding_windows import Windows

from .internal_ops import internal
from .nn_ops import functional, pad, per_channel, standardized
from .ops import ints, rnd, spread
from .table import Sample as S


def each(value, spatial):
    return (value,) * spatial if isinstance(value, int) else tuple(value)


# -- convolution and windows -------------------------------------------------------------------------------------------


def convolution(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """One multiplication at a time."""
    spatial = x.ndim - 2
    stride, padding, dilation = (each(v, spatial) for v in (stride, padding, dilation))
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    o, c, *kernel = w.shape
    size = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], dilation, kernel, stride, strict=True)]
    out = np.zeros((len(x), o, *size))
    for n, k, *place in np.ndindex(out.shape):
        first = k // (o // groups) * c
        for channel, *i in np.ndindex(c, *kernel):
            spot = tuple(p * s + j * d for p, s, j, d in zip(place, stride, i, dilation, strict=True))
            out[(n, k, *place)] += w[(k, channel, *i)] * x[(n, first + channel, *spot)]
    return out if b is None else out + per_channel(b, out, 0)


def transposed(x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Every input element adds a kernel, one multiplication at a time."""
    spatial = x.ndim - 2
    stride, padding, more, dilation = (each(v, spatial) for v in (stride, padding, output_padding, dilation))
    c, o, *kernel = w.shape
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], stride, dilation, kernel, strict=True)]
    out = np.zeros((len(x), o * groups, *(r + m for r, m in zip(reach, more, strict=True))))
    for n, channel, *place in np.ndindex(x.shape):
        first = channel // (c // groups) * o
        for k, *i in np.ndindex(o, *kernel):
            spot = tuple(p * s + j * d for p, s, j, d in zip(place, stride, i, dilation, strict=True))
            out[(n, first + k, *spot)] += w[(channel, k, *i)] * x[(n, channel, *place)]
    out = out[(..., *(slice(p, n - p) for p, n in zip(padding, out.shape[2:], strict=True)))]
    return out if b is None else out + per_channel(b, out, 0)


def windows(x, kernel, stride, padding, dilation, ceil_mode):
    """For each place of the output the spots of its window inside the image, and the number inside the padded image."""
    image = x.shape[2:]
    starts = []
    for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True):
        whole = [i for i in range(-p, n + p, s) if i + d * (k - 1) < n + p]
        if ceil_mode and whole[-1] + d * (k - 1) < n + p - 1 and whole[-1] + s < n:
            whole.append(whole[-1] + s)
        starts.append(whole)
    for place in itertools.product(*(enumerate(s) for s in starts)):
        spots = [tuple(a + i * d for (_, a), i, d in zip(place, j, dilation, strict=True)) for j in np.ndindex(*kernel)]
        inside = [s for s in spots if all(0 <= i < n for i, n in zip(s, image, strict=True))]
        counted = sum(all(i < n + p for i, n, p in zip(s, image, padding, strict=True)) for s in spots)
        yield tuple(i for i, _ in place), inside, counted


def pooling(x, kernel, stride, padding, dilation, ceil_mode, reduce):
    spatial = x.ndim - 2
    kernel, padding, dilation = (each(v, spatial) for v in (kernel, padding, dilation))
    found = list(windows(x, kernel, each(stride or kernel, spatial), padding, dilation, ceil_mode))
    out = np.zeros((*x.shape[:2], *(1 + np.max([place for place, *_ in found], 0))))
    for n, c in np.ndindex(x.shape[:2]):
        for place, inside, counted in found:
            out[(n, c, *place)] = reduce([x[(n, c, *spot)] for spot in inside], counted)
    return out


def max_pool(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    return pooling(x, kernel_size, stride, padding, dilation, ceil_mode, lambda inside, counted: max(inside))


def avg_pool(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    mean = lambda inside, counted: sum(inside) / (counted if count_include_pad else len(inside))  # noqa: E731
    return pooling(x, kernel_size, stride, padding, 1, ceil_mode, mean)


def lp_pool(x, p, kernel_size, stride=None, ceil_mode=False):
    size = math.prod(each(kernel_size, x.ndim - 2))
    power = lambda inside, counted: (sum(v**p for v in inside) / counted * size) ** (1 / p)  # noqa: E731
    return pooling(x, kernel_size, stride, 0, 1, ceil_mode, power)


def adaptive(x, output_size, reduce):
    spatial = x.ndim - 2
    size = tuple(n if m is None else m for n, m in zip(x.shape[2:], each(output_size, spatial), strict=True))
    out = np.zeros((*x.shape[:2], *size))
    for place in np.ndindex(size):
        part = tuple(
            slice(i * n // m, math.ceil((i + 1) * n / m)) for i, n, m in zip(place, x.shape[2:], size, strict=True)
        )
        out[(..., *place)] = reduce(x[(..., *part)], tuple(range(2, x.ndim)))
    return out


def unpool(x, indices, kernel, output_size):
    out = np.zeros((*x.shape[:2], *output_size))
    for n, c, *place in np.ndindex(x.shape):
        out[n, c].flat[indices[(n, c, *place)]] = x[(n, c, *place)]
    return out


def fractional(x, kernel, output_size, _random_samples):
    """Graham's pseudo-random sequence; PyTorch's samples name the width first."""
    out = np.zeros((*x.shape[:2], *output_size))
    for n, c, *place in np.ndindex(out.shape):
        part = []
        for i, size, m, u in zip(place, x.shape[2:], output_size, _random_samples[n, c][::-1], strict=True):
            alpha = (size - kernel) / (m - 1)
            start = size - kernel if i == m - 1 else int((i + u) * alpha) - int(u * alpha)
            part.append(slice(start, start + kernel))
        out[(n, c, *place)] = x[(n, c, *part)].max()
    return out


def unfold(x, kernel, dilation=1, padding=0, stride=1):
    kernel, dilation, padding, stride = (each(v, 2) for v in (kernel, dilation, padding, stride))
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    found = list(windows(x, kernel, stride, (0, 0), dilation, False))
    out = np.zeros((len(x), x.shape[1], math.prod(kernel), len(found)))
    for i, (_, inside, _) in enumerate(found):
        for k, spot in enumerate(inside):
            out[:, :, k, i] = x[(..., *spot)]
    return out.reshape(len(x), -1, len(found))


def fold(columns, output_size, kernel, dilation=1, padding=0, stride=1):
    """The transpose of unfold, from what unfold makes of every single pixel."""
    channels = columns.shape[1] // math.prod(each(kernel, 2))
    out = np.zeros((len(columns), channels, *output_size))
    for c, *spot in np.ndindex(out.shape[1:]):
        pixel = np.zeros((1, *out.shape[1:]))
        pixel[(0, c, *spot)] = 1
        out[(slice(None), c, *spot)] = (columns * unfold(pixel, kernel, dilation, padding, stride)).sum((1, 2))
    return out


PLACES = np.array([[[[0, 3], [9, 14]]]])  # in a 4 x 4 image
SAMPLES = np.random.default_rng(0).random((1, 2, 2)).astype("f")
WINDOWS_2D = Windows.over((3, 4), (2, 2), (1, 2), (1, 0), (1, 2))

WINDOWS = [
    functional("conv3d", [
        S(rnd(1, 1, 2, 2, 2), rnd(1, 1, 2, 1, 2), rnd(1)),
        S(rnd(1, 2, 3, 4, 3), rnd(4, 1, 2, 2, 1), rnd(4), (1, 2, 1), (1, 0, 1), (2, 1, 1), 2),
        S(rnd(2, 2, 2, 3, 2), rnd(3, 2, 1, 1, 1), rnd(3)),
    ], convolution, emulated=False),
    functional("conv_transpose1d", [
        S(rnd(1, 2, 3), rnd(2, 1, 2), rnd(1), 2, 1, 1), S(rnd(2, 4, 5), rnd(4, 2, 3), None, 3, 0, 2, 2, 2),
        S(rnd(1, 1, 3), rnd(1, 1, 2), None, 1, 1, 1, 1, 2),
    ], transposed),
    functional("conv_transpose2d", [
        S(rnd(1, 2, 2, 2), rnd(2, 1, 2, 2), rnd(1)),
        S(rnd(2, 4, 3, 4), rnd(4, 3, 2, 3), rnd(6), (2, 1), (1, 0), (1, 0), 2, (1, 2)),
    ], transposed),
    functional("conv_transpose3d", [S(rnd(1, 2, 2, 1, 2), rnd(2, 1, 2, 2, 1), rnd(1), 2)], transposed),
    functional("max_pool1d", [S(spread(1, 2, 4), 2), S(spread(2, 2, 7), 3, 2, 1, 2, True)], max_pool),
    functional("max_pool3d", [S(spread(1, 1, 2, 2, 2), (1, 2, 2), 1), S(spread(1, 2, 4, 5, 3), 2, 2, 1)], max_pool),
    functional("avg_pool1d", [S(rnd(1, 2, 4), 2, 1, 1), S(rnd(2, 2, 7), 3, 2, 1, True, False)], avg_pool),
    functional("avg_pool3d", [S(rnd(1, 1, 2, 2, 2), (1, 2, 2)), S(rnd(1, 2, 4, 5, 3), 2, 2, 1)], avg_pool),
    functional("lp_pool1d", [S(rnd(1, 2, 4, low=0.5), 2.0, 2), S(rnd(1, 1, 5, low=0.5), 3.0, 3, 2)], lp_pool),
    functional("lp_pool2d", [S(rnd(1, 1, 4, 5, low=0.5), 2.0, (2, 3), 2)], lp_pool),
    functional("lp_pool3d", [S(rnd(1, 1, 2, 2, 3, low=0.5), 2.0, 2)], lp_pool),
    functional("adaptive_avg_pool1d", [S(rnd(1, 2, 4), 3), S(rnd(2, 1, 5), 8)], lambda x, n: adaptive(x, n, np.mean)),
    functional("adaptive_avg_pool3d", [S(rnd(1, 1, 2, 2, 2), 1), S(rnd(1, 2, 3, 5, 4), (2, None, 3))],
               lambda x, n: adaptive(x, n, np.mean)),
    functional("adaptive_max_pool1d", [S(spread(1, 2, 4), 3)], lambda x, n: adaptive(x, n, np.max)),
    functional("adaptive_max_pool2d", [S(spread(1, 1, 2, 4), (2, 3)), S(spread(2, 2, 5, 7), (3, None))],
               lambda x, n: adaptive(x, n, np.max)),
    functional("adaptive_max_pool3d", [S(spread(1, 2, 3, 5, 4), 2)], lambda x, n: adaptive(x, n, np.max)),
    functional("max_unpool2d", [S(rnd(1, 1, 2, 2), PLACES, 2, output_size=(4, 4))], unpool),
    functional("fractional_max_pool2d", [S(spread(1, 2, 6, 7), 2, (3, 4), _random_samples=SAMPLES)], fractional),
    functional("unfold", [S(rnd(1, 2, 2, 2), (1, 2)), S(rnd(2, 2, 5, 4), (2, 3), (2, 1), (1, 0), (1, 2))], unfold),
    functional("fold", [
        S(rnd(1, 4, 2), (2, 2), (1, 2)), S(rnd(2, 12, 12), (5, 4), (2, 3), (2, 1), (1, 1), (2, 1)),
    ], fold),
    internal("im2col", [S(rnd(1, 1, 3, 4), WINDOWS_2D)],
             lambda x, w: unfold(x, w.kernel, w.dilation, w.padding, w.stride)),
    internal("col2im", [S(rnd(1, 4, 4), (1, 1, 3, 4), WINDOWS_2D)],
             lambda c, size, w: fold(c, size[2:], w.kernel, w.dilation, w.padding, w.stride)),
]  # fmt: skip


# -- normalization -----------------------------------------------------------------------------------------------------


def instance_norm(x, mean=None, var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5):
    out = standardized(x, tuple(range(2, x.ndim)), eps)
    return out * per_channel(weight, x, 1) + per_channel(bias, x, 0)


def rms_norm(x, shape, weight=None, eps=np.finfo(float).eps):
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    return x / np.sqrt((x * x).mean(dims, keepdims=True) + eps) * (1 if weight is None else weight)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    out = np.zeros_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        out[:, c] = x[:, c] / (k + alpha * (near**2).sum(1) / size) ** beta
    return out


NORMALIZATIONS = [
    functional("instance_norm", [
        S(rnd(2, 2, 2)), S(rnd(1, 2, 2, 2), None, None, rnd(2), rnd(2), eps=0.1),
    ], instance_norm, fused=True),
    functional("rms_norm", [S(rnd(2, 4), (4,), rnd(4)), S(rnd(2, 2, 2), (2, 2), None, 0.1)], rms_norm,
               fused=True),
    functional("local_response_norm", [
        S(rnd(1, 4, 2), 2, 0.5), S(rnd(2, 5, 2, 2), 3, 0.7, 0.5, 2.0),
    ], local_response_norm),
]  # fmt: skip


# -- other sizes and places --------------------------------------------------------------------------------------------


def cubic(x, a):
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return a * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0


def matrix(n, m, mode, align_corners, antialias):
    """The map of one dimension, one output element at a time."""
    out = np.zeros((m, n))
    for i in range(m):
        at = i * (n - 1) / max(1, m - 1) if align_corners else (i + 0.5) * n / m - 0.5
        if mode == "nearest":
            out[i, i * n // m] = 1
        elif mode == "nearest-exact":
            out[i, min(int((i + 0.5) * n / m), n - 1)] = 1
        elif antialias:
            stretch = max(1.0, n / m)
            weight = [cubic((j - at) / stretch, -0.5) if mode == "bicubic" else max(0, 1 - abs(j - at) / stretch)
                      for j in range(n)]  # fmt: skip
            out[i] = np.array(weight) / sum(weight)
        elif mode == "bicubic":
            for j in range(math.floor(at) - 1, math.floor(at) + 3):
                out[i, min(max(j, 0), n - 1)] += cubic(at - j, -0.75)
        else:
            out[i] = [max(0, 1 - abs(min(max(at, 0), n - 1) - j)) for j in range(n)]
    return out


def interpolate(x, size, mode="nearest", align_corners=False, antialias=False):
    if mode == "area":
        return adaptive(x, size, np.mean)
    for dim, m in enumerate(each(size, x.ndim - 2), 2):
        x = np.moveaxis(np.moveaxis(x, dim, -1) @ matrix(x.shape[dim], m, mode, align_corners, antialias).T, -1, dim)
    return x


def grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False):
    """One place at a time."""
    image = x.shape[2:]

    def element(n, c, place):
        spot = []
        for i, size in zip(place, image, strict=True):
            if padding_mode == "border":
                i = min(max(i, 0), size - 1)
            if not 0 <= i < size:
                return 0.0
            spot.append(i)
        return x[(n, c, *spot)]

    kernel = {"bilinear": lambda t: max(0.0, 1 - abs(t)), "nearest": lambda t: float(-0.5 < t <= 0.5),
              "bicubic": lambda t: cubic(t, -0.75)}[mode]  # fmt: skip
    out = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    for n, c, *place in np.ndindex(out.shape):
        at = [(g + 1) / 2 * (m - 1) if align_corners else ((g + 1) * m - 1) / 2
              for g, m in zip(grid[(n, *place)][::-1], image, strict=True)]  # fmt: skip
        if padding_mode == "border" and mode != "bicubic":
            at = [min(max(a, 0), m - 1) for a, m in zip(at, image, strict=True)]
        for spot in itertools.product(*(range(math.floor(a) - 1, math.floor(a) + 3) for a in at)):
            weight = math.prod(kernel(a - i) for a, i in zip(at, spot, strict=True))
            out[(n, c, *place)] += weight * element(n, c, spot)
    return out


def affine_grid(theta, size, align_corners=False):
    n, _, *image = size
    out = np.zeros((n, *image, len(image)))
    for k, *place in np.ndindex(*out.shape[:-1]):
        at = [(2 * i / (m - 1) if align_corners else (2 * i + 1) / m) - 1 for i, m in zip(place, image, strict=True)]
        out[(k, *place)] = theta[k] @ [*at[::-1], 1]
    return out


def pixel_shuffle(x, r):
    *lead, c, h, w = x.shape
    out = np.zeros((*lead, c // r**2, h * r, w * r))
    for k, i, j in np.ndindex(*out.shape[-3:]):
        out[..., k, i, j] = x[..., k * r * r + i % r * r + j % r, i // r, j // r]
    return out


def pixel_unshuffle(x, r):
    *lead, c, h, w = x.shape
    out = np.zeros((*lead, c * r * r, h // r, w // r))
    for k, i, j in np.ndindex(c, h, w):
        out[..., k * r * r + i % r * r + j % r, i // r, j // r] = x[..., k, i, j]
    return out


def places(*shape):
    """Places away from where an interpolation has kinks."""
    return np.round(np.random.default_rng(5).uniform(-1.2, 1.2, shape), 1) + 0.03


def weighted_sums(x, dim, taps):
    x = np.moveaxis(x, dim, -1)
    weight = np.ones(taps.index.shape) if taps.weight is None else taps.weight
    return np.moveaxis((x[..., taps.index] * weight).sum(-1), -1, dim)


TAPS = Taps(3, np.array([[0, 1], [2, 1], [2, 2], [0, 0]]), np.array([[0.5, 0.25], [1.0, -1.0], [2.0, 0.5], [0.0, 1.0]]))
WIDE_TAPS = Taps(19, np.random.default_rng(6).integers(0, 19, (35, 3)), np.random.default_rng(7).normal(size=(35, 3)))

RESIZING = [
    functional("interpolate", [
        S(rnd(1, 2, 3), 5), S(rnd(1, 1, 2, 3), (3, 2)), S(rnd(1, 1, 3, 2), (5, 4), mode="nearest-exact"),
        S(rnd(1, 2, 4), 3, mode="linear"), S(rnd(1, 1, 2, 4), (3, 5), mode="bilinear", align_corners=True),
        S(rnd(1, 2, 5, 4), (3, 7), mode="bilinear"), S(rnd(1, 2, 3, 4), (5, 2), mode="bicubic"),
        S(rnd(1, 2, 7, 5), (3, 6), mode="bilinear", antialias=True),
        S(rnd(1, 2, 7, 5), (3, 6), mode="bicubic", antialias=True),
        S(rnd(1, 1, 2, 3, 4), (3, 3, 3), mode="trilinear"), S(rnd(1, 2, 5, 4), (3, 2), mode="area"),
    ], interpolate),
    functional("grid_sample", [
        S(rnd(1, 1, 2, 3), places(1, 1, 2, 2)), S(rnd(2, 2, 4, 5), places(2, 3, 2, 2), padding_mode="border"),
        S(rnd(1, 2, 4, 5), places(1, 2, 3, 2), "nearest"), S(rnd(1, 2, 3, 4, 3), places(1, 2, 1, 2, 3)),
        S(rnd(1, 2, 4, 5), places(1, 2, 3, 2), "bicubic"),
        S(rnd(1, 2, 4, 5), places(1, 2, 3, 2), align_corners=True),
    ], grid_sample),
    functional("affine_grid", [S(rnd(1, 2, 3), (1, 1, 2, 3)), S(rnd(2, 3, 4), (2, 3, 2, 3, 2), True)], affine_grid),
    functional("pixel_shuffle", [S(rnd(1, 4, 1, 2), 2), S(rnd(2, 18, 2, 3), 3)], pixel_shuffle),
    functional("pixel_unshuffle", [S(rnd(1, 2, 4), 2), S(rnd(2, 2, 6, 3), 3)], pixel_unshuffle),
    functional("channel_shuffle", [S(rnd(1, 6, 2), 3)], lambda x, g: x[:, [0, 2, 4, 1, 3, 5]]),
    internal("resample", [
        S(rnd(2, 3, 2), 1, TAPS), S(rnd(3), 0, Taps(3, np.array([[2], [0]]))), S(rnd(37, 19), 1, WIDE_TAPS),
        S(rnd(2, 19, 300), 1, WIDE_TAPS),
    ], weighted_sums),
    functional("pad", [S(rnd(1, 1, 2, 2, 3), (2, 1, 1, 0, 1, 1), "reflect"), S(rnd(1, 1, 2, 3), (-1, 2), "replicate")],
               lambda x, p, mode: pad(x[..., 1:], (0, *p[1:]), mode) if p[0] < 0 else pad(x, p, mode)),
]  # fmt: skip


# -- distances and bags ------------------------------------------------------------------------------------------------


def bags(indices, table, offsets=None, mode="mean", per_sample_weights=None, padding_idx=None):
    rows = indices if offsets is None else np.split(indices, offsets[1:])
    weights = np.ones(indices.shape) if per_sample_weights is None else per_sample_weights
    weights = weights if offsets is None else np.split(weights, offsets[1:])
    out = np.zeros((len(rows), table.shape[1]))
    for b, (bag, w) in enumerate(zip(rows, weights, strict=True)):
        kept = [table[i] * f for i, f in zip(bag, w, strict=True) if i != padding_idx]
        if kept:
            out[b] = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode](kept, 0)
    return out


def p_norm(d, p):
    return (abs(d) ** p).sum(-1) ** (1 / p)


BAG, STARTS = np.array([1, 3, 3, 0, 2]), np.array([0, 2, 2])

VECTORS = [
    functional("embedding_bag", [
        *(S(BAG, spread(4, 2), STARTS, mode=mode) for mode in ("sum", "mean", "max")),
        *(S(BAG, spread(4, 2), STARTS, mode=mode, padding_idx=3) for mode in ("sum", "mean", "max")),
        S(ints(2, 3, low=0, high=4), rnd(4, 2)), S(BAG, rnd(4, 2), STARTS, mode="sum", per_sample_weights=rnd(5)),
    ], bags),
    internal("occurrences", [S(BAG)], lambda x: np.array([[1], [2], [2], [1], [1]]), differentiable=False),
    functional("pairwise_distance", [S(rnd(2, 3), rnd(2, 3)), S(rnd(2, 2), rnd(2), 3.0, 0.1)],
               lambda a, b, p=2.0, eps=1e-6: p_norm(a - b + eps, p)),
    functional("pdist", [S(rnd(4, 2)), S(rnd(3, 2), 3.0)],
               lambda x, p=2.0: np.array([p_norm(a - b, p) for a, b in itertools.combinations(x, 2)])),
    internal("all_reduce_sum", [S(rnd(2, 3), world_comm())], lambda x, comm: x),
    internal("broadcast_from", [S(rnd(2, 3), world_comm(), 0)], lambda x, comm, root: x),
    internal("reduce_to", [S(rnd(2, 3), world_comm(), 0)], lambda x, comm, root: x),
    internal("all_gather_rows", [S(rnd(2, 3), world_comm())], lambda x, comm: x[None]),
    internal("reduce_scatter_rows", [S(rnd(1, 3), world_comm())], lambda x, comm: x[0]),
    internal("gather_rows", [S(rnd(2, 3), world_comm(), 0)], lambda x, comm, root: x[None]),
    internal("scatter_rows", [S(rnd(1, 3), world_comm(), 0)], lambda x, comm, root: x[0]),
    internal("exchange", [S(rnd(3), world_comm(), (3,), (3,))], lambda x, comm, sent, received: x),
]  # fmt: skip

ROWS = [*WINDOWS, *NORMALIZATIONS, *RESIZING, *VECTORS]
