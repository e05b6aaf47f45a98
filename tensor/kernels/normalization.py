"""Sources of normalization: statistics over rows or channels, and what is done with them.

A mean is taken first and the squared deviations from it in a second pass, over what is still in the cache: sums of
squares alone would cancel where the mean is large. What is gathered over many rows is gathered chunk by chunk, and
chunks are cut by size, so that results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from .compiler import jit, prange, serial


@serial
def _sum(x):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
    return total


@serial
def _squares(x, center):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += (x[i] - center) * (x[i] - center)
    return total


@serial
def _statistics(x, eps, centered):
    """Mean (0 if not centered) and 1 / sqrt(variance + eps)."""
    kind = x.dtype.type
    mean = _sum(x) / kind(x.size) if centered else kind(0)
    return mean, kind(1) / np.sqrt(_squares(x, mean) / kind(x.size) + eps)


# -- rows [rows, features] with parameters [features] ------------------------------------------------------------------


@jit
def rows(x, weight, bias, eps, centered, out, means, scales):
    for r in prange(x.shape[0]):
        row, result = x[r], out[r]
        mean, scale = _statistics(row, eps, centered)
        means[r] = mean
        scales[r] = scale
        for i in range(row.size):
            result[i] = (row[i] - mean) * scale * weight[i] + bias[i]


@jit
def rows_backward(g, x, weight, means, scales, centered, gradient, parts):
    """One pass; row r adds to the parts [2, chunks, features] of chunk r * chunks // rows."""
    count, chunks = x.shape[0], parts.shape[1]
    kind = x.dtype.type
    for chunk in prange(chunks):
        weight_part, bias_part = parts[0, chunk], parts[1, chunk]
        for i in range(x.shape[1]):
            weight_part[i] = bias_part[i] = 0
        for r in range(chunk * count // chunks, (chunk + 1) * count // chunks):
            row, slope, result, mean, scale = x[r], g[r], gradient[r], means[r], scales[r]
            along, across = kind(0), kind(0)
            for i in range(row.size):
                normal = (row[i] - mean) * scale
                along += slope[i] * weight[i]
                across += slope[i] * weight[i] * normal
                weight_part[i] += slope[i] * normal
                bias_part[i] += slope[i]
            along = along / kind(row.size) if centered else kind(0)
            across = across / kind(row.size)
            for i in range(row.size):
                result[i] = scale * (slope[i] * weight[i] - along - (row[i] - mean) * scale * across)


# -- groups [n, groups, channels, places] with parameters [groups, channels] -------------------------------------------


@jit
def groups(x, weight, bias, eps, out, means, scales):
    n, count, channels, _ = x.shape
    for r in prange(n * count):
        i, group = r // count, r % count
        mean, scale = _statistics(x[i, group].reshape(-1), eps, True)
        means[r] = mean
        scales[r] = scale
        for c in range(channels):
            source, result = x[i, group, c], out[i, group, c]
            factor, shift = scale * weight[group, c], bias[group, c]
            for j in range(source.size):
                result[j] = (source[j] - mean) * factor + shift


@jit
def groups_backward(g, x, weight, means, scales, gradient, parts):
    """The parts are [2, n, groups, channels]."""
    n, count, channels, places = x.shape
    kind = x.dtype.type
    for r in prange(n * count):
        i, group = r // count, r % count
        mean, scale = means[r], scales[r]
        along, across = kind(0), kind(0)
        for c in range(channels):
            total, product = _slopes(g[i, group, c], x[i, group, c], mean)
            parts[0, i, group, c] = product * scale
            parts[1, i, group, c] = total
            along += total * weight[group, c]
            across += product * scale * weight[group, c]
        along /= kind(channels * places)
        across /= kind(channels * places)
        for c in range(channels):
            factor = weight[group, c]
            _through(g[i, group, c], x[i, group, c], mean, scale, factor, along, across, gradient[i, group, c])


@serial
def _slopes(g, x, mean):
    """The sums of g and of g * (x - mean)."""
    total, product = x.dtype.type(0), x.dtype.type(0)
    for i in range(x.size):
        total += g[i]
        product += g[i] * (x[i] - mean)
    return total, product


@serial
def _through(g, x, mean, scale, weight, along, across, gradient):
    factor, across = scale * weight, scale * across
    along = along * scale
    across = across * scale
    for i in range(x.size):
        gradient[i] = g[i] * factor - along - (x[i] - mean) * across


# -- channels of [n, channels, places], each with one mean and one scale over n and places -----------------------------


@serial
def _combine(sums, squares, counts, mean, variance):
    """Mean and variance from the chunks' sums and sums of squared deviations from their own means."""
    total = _sum(counts)
    for c in range(mean.size):
        center = spread = sums.dtype.type(0)
        for k in range(counts.size):
            center += sums[k, c]
        center /= total
        for k in range(counts.size):
            apart = sums[k, c] / counts[k] - center
            spread += squares[k, c] + counts[k] * apart * apart
        mean[c] = center
        variance[c] = spread / total


@serial
def _parameter_gradients(sums, products, scale, weight_gradient, bias_gradient):
    """The chunks' sums of g and of g * (x - mean), together."""
    for c in range(scale.size):
        total = product = sums.dtype.type(0)
        for k in range(len(sums)):
            total += sums[k, c]
            product += products[k, c]
        bias_gradient[c] = total
        weight_gradient[c] = product * scale[c]


@serial
def _scales(variance, eps, scale):
    for c in range(scale.size):
        scale[c] = scale.dtype.type(1) / np.sqrt(variance[c] + eps)


@jit
def channel_moments(x, chunks, mean, variance):
    n, channels, places = x.shape
    kind = x.dtype.type
    sums, squares = np.empty((chunks, channels)), np.empty((chunks, channels))
    counts = np.empty(chunks)
    for k in range(chunks):
        counts[k] = ((k + 1) * n // chunks - k * n // chunks) * places
    for job in prange(chunks * channels):
        k, c = job // channels, job % channels
        first, last = k * n // chunks, (k + 1) * n // chunks
        total = 0.0
        for i in range(first, last):
            total += _sum(x[i, c])
        center = kind(total / counts[k])
        spread = 0.0
        for i in range(first, last):
            spread += _squares(x[i, c], center)
        sums[k, c] = total
        squares[k, c] = spread
    _combine(sums, squares, counts, mean, variance)


@jit
def channels(x, mean, variance, eps, weight, bias, out, scale):
    """Fills `scale`, too, with 1 / sqrt(variance + eps)."""
    n, count, _ = x.shape
    _scales(variance, eps, scale)
    for job in prange(n * count):
        i, c = job // count, job % count
        source, result = x[i, c], out[i, c]
        center, factor, shift = mean[c], scale[c] * weight[c], bias[c]
        for j in range(source.size):
            result[j] = (source[j] - center) * factor + shift


@jit
def channels_backward(g, x, chunks, mean, scale, weight, gradient, weight_gradient, bias_gradient):
    n, count, places = x.shape
    kind = x.dtype.type
    sums, products = np.empty((chunks, count)), np.empty((chunks, count))
    for job in prange(chunks * count):
        k, c = job // count, job % count
        total, product = 0.0, 0.0
        for i in range(k * n // chunks, (k + 1) * n // chunks):
            a, b = _slopes(g[i, c], x[i, c], mean[c])
            total += a
            product += b
        sums[k, c] = total
        products[k, c] = product
    _parameter_gradients(sums, products, scale, weight_gradient, bias_gradient)
    for job in prange(n * count):
        i, c = job // count, job % count
        along = bias_gradient[c] * weight[c] / kind(n * places)
        across = weight_gradient[c] * weight[c] / kind(n * places)
        _through(g[i, c], x[i, c], mean[c], scale[c], weight[c], along, across, gradient[i, c])


# -- the same of columns [n, channels]: channels lie side by side, so whole rows are added -----------------------------


@jit
def column_moments(x, chunks, mean, variance):
    n, channels = x.shape
    sums, squares = np.empty((chunks, channels), x.dtype), np.empty((chunks, channels), x.dtype)
    counts = np.empty(chunks)
    for k in prange(chunks):
        first, last = k * n // chunks, (k + 1) * n // chunks
        counts[k] = last - first
        total, spread = sums[k], squares[k]
        center = np.empty(channels, x.dtype)
        for c in range(channels):
            total[c] = spread[c] = 0
        for i in range(first, last):
            for c in range(channels):
                total[c] += x[i, c]
        for c in range(channels):
            center[c] = total[c] / x.dtype.type(last - first)
        for i in range(first, last):
            for c in range(channels):
                spread[c] += (x[i, c] - center[c]) * (x[i, c] - center[c])
    _combine(sums, squares, counts, mean, variance)


@jit
def columns(x, mean, variance, eps, weight, bias, out, scale):
    _scales(variance, eps, scale)
    for i in prange(x.shape[0]):
        for c in range(x.shape[1]):
            out[i, c] = (x[i, c] - mean[c]) * (scale[c] * weight[c]) + bias[c]


@jit
def columns_backward(g, x, chunks, mean, scale, weight, gradient, weight_gradient, bias_gradient):
    n, channels = x.shape
    kind = x.dtype.type
    sums, products = np.empty((chunks, channels), x.dtype), np.empty((chunks, channels), x.dtype)
    for k in prange(chunks):
        total, product = sums[k], products[k]
        for c in range(channels):
            total[c] = product[c] = 0
        for i in range(k * n // chunks, (k + 1) * n // chunks):
            for c in range(channels):
                total[c] += g[i, c]
                product[c] += g[i, c] * (x[i, c] - mean[c])
    _parameter_gradients(sums, products, scale, weight_gradient, bias_gradient)
    share = kind(1) / kind(n)
    for i in prange(n):
        for c in range(channels):
            normal = (x[i, c] - mean[c]) * scale[c]
            centered = g[i, c] - share * (bias_gradient[c] + normal * weight_gradient[c])
            gradient[i, c] = scale[c] * weight[c] * centered
