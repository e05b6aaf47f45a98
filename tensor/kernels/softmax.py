"""Sources of softmax along the last dimension, or one before it, of logsumexp, and of the cross-entropy built on it."""

from __future__ import annotations

import numpy as np

from .approximations import exp, exp_falling, log, rank, ranked
from .compiler import jit, prange, serial

_SIDE = 64  # columns of a job
_JOB = 1 << 12  # elements of a job


@serial
def _peak(row):
    """The largest element, nan if there is one."""
    best = rank(row[0])
    for i in range(row.size):
        best = max(best, rank(row[i]))
    return ranked(best)


@serial
def _total(row, peak):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += exp(row[i] - peak)
    return total


@jit
def rows(x, logarithm, out):
    """softmax, or its logarithm, of each row of [rows, classes]."""
    count, classes = x.shape
    height = max(1, _JOB // classes)
    for job in prange((count + height - 1) // height):
        for r in range(job * height, min(count, (job + 1) * height)):
            row, result = x[r], out[r]
            peak = _peak(row)
            if logarithm:
                shift = log(_total(row, peak))
                for i in range(classes):
                    result[i] = row[i] - peak - shift
                continue
            total = x.dtype.type(0)
            for i in range(classes):
                e = exp(row[i] - peak)
                result[i] = e
                total += e
            share = x.dtype.type(1) / total
            for i in range(classes):
                result[i] *= share


@jit
def rows_backward(g, out, logarithm, gradient):
    count, classes = g.shape
    height = max(1, _JOB // classes)
    for job in prange((count + height - 1) // height):
        for r in range(job * height, min(count, (job + 1) * height)):
            slope, row, result = g[r], out[r], gradient[r]
            total = g.dtype.type(0)
            if logarithm:
                for i in range(classes):
                    total += slope[i]
                for i in range(classes):
                    result[i] = slope[i] - exp(row[i]) * total
            else:
                for i in range(classes):
                    total += slope[i] * row[i]
                for i in range(classes):
                    result[i] = row[i] * (slope[i] - total)


@jit
def columns(x, logarithm, out):
    """The same along the middle of [before, classes, after]."""
    before, classes, after = x.shape
    blocks = (after + _SIDE - 1) // _SIDE
    for job in prange(before * blocks):
        b, first = job // blocks, job % blocks * _SIDE
        width = min(_SIDE, after - first)
        peak, total = np.empty(width, x.dtype), np.empty(width, x.dtype)
        for j in range(width):
            peak[j] = -np.inf
            total[j] = 0
        for c in range(classes):
            row = x[b, c, first : first + width]
            for j in range(width):
                peak[j] = row[j] if row[j] > peak[j] else peak[j]
        for c in range(classes):
            row, result = x[b, c, first : first + width], out[b, c, first : first + width]
            for j in range(width):
                result[j] = exp(row[j] - peak[j])
                total[j] += result[j]
        for j in range(width):
            total[j] = log(total[j]) if logarithm else x.dtype.type(1) / total[j]
        for c in range(classes):
            row, result = x[b, c, first : first + width], out[b, c, first : first + width]
            for j in range(width):
                result[j] = row[j] - peak[j] - total[j] if logarithm else result[j] * total[j]


@jit
def columns_backward(g, out, logarithm, gradient):
    before, classes, after = g.shape
    blocks = (after + _SIDE - 1) // _SIDE
    for job in prange(before * blocks):
        b, first = job // blocks, job % blocks * _SIDE
        width = min(_SIDE, after - first)
        total = np.zeros(width, g.dtype)
        for c in range(classes):
            slope, row = g[b, c, first : first + width], out[b, c, first : first + width]
            for j in range(width):
                total[j] += slope[j] if logarithm else slope[j] * row[j]
        for c in range(classes):
            slope, row = g[b, c, first : first + width], out[b, c, first : first + width]
            result = gradient[b, c, first : first + width]
            if logarithm:
                for j in range(width):
                    result[j] = slope[j] - exp(row[j]) * total[j]
            else:
                for j in range(width):
                    result[j] = row[j] * (slope[j] - total[j])


@serial
def _log_total(row):
    """log(sum(exp(row))); if the largest element is nan or infinite, that."""
    peak = _peak(row)
    if not np.isfinite(peak):
        return peak
    total = row.dtype.type(0)
    for i in range(row.size):
        total += exp_falling(row[i] - peak)
    return log(total) + peak


@jit
def log_totals(x, piece, out):
    """logsumexp of the pieces of rows: out [rows, pieces] of x [rows, n]."""
    pieces = out.shape[1]
    for task in prange(out.size):
        i, first = task // pieces, task % pieces * piece
        out[i, task % pieces] = _log_total(x[i, first : first + piece])


@jit
def log_totals_of_columns(x, out):
    """logsumexp along the middle: out [before, after] of x [before, n, after]."""
    before, n, after = x.shape
    blocks = (after + _SIDE - 1) // _SIDE
    for job in prange(before * blocks):
        b, columns = job // blocks, slice(job % blocks * _SIDE, (job % blocks + 1) * _SIDE)
        result = out[b, columns]
        peak, total = np.full_like(result, -np.inf), np.zeros_like(result)
        for i in range(n):
            row = x[b, i, columns]
            for j in range(row.size):
                peak[j] = row[j] if row[j] > peak[j] else peak[j]
        for j in range(peak.size):
            peak[j] = peak[j] if abs(peak[j]) < np.inf else 0
        for i in range(n):
            row = x[b, i, columns]
            for j in range(row.size):
                total[j] += exp(row[j] - peak[j])
        for j in range(peak.size):
            result[j] = log(total[j]) + peak[j]


@jit
def log_totals_backward(g, x, out, piece, gradient):
    """g * exp(x - out) of x [before, n, after]."""
    before, n, after = x.shape
    if after == 1:
        pieces = -(-n // piece)
        for task in prange(before * pieces):
            i, part = task // pieces, slice(task % pieces * piece, (task % pieces + 1) * piece)
            row, result = x[i].reshape(n)[part], gradient[i].reshape(n)[part]
            for j in range(row.size):
                result[j] = g[i, 0] * exp(row[j] - out[i, 0])
    else:
        for task in prange(before * n):
            i = task // n
            slope, row, total, result = g[i], x[i, task % n], out[i], gradient[i, task % n]
            for j in range(after):
                result[j] = slope[j] * exp(row[j] - total[j])


@jit
def cross_entropy(x, target, losses, peaks, totals):
    """For logits [rows, classes]: each row's loss, its largest element and the sum of exp(row - that)."""
    count, classes = x.shape
    height = max(1, _JOB // classes)
    for job in prange((count + height - 1) // height):
        for r in range(job * height, min(count, (job + 1) * height)):
            peaks[r] = _peak(x[r])
            totals[r] = _total(x[r], peaks[r])
            losses[r] = log(totals[r]) - (x[r, target[r]] - peaks[r])


@serial
def _row_gradient(factor, row, target, peak, total, gradient):
    share = factor / total
    for i in range(row.size):
        gradient[i] = exp(row[i] - peak) * share
    gradient[target] = gradient[target] - factor


@jit
def cross_entropy_backward(factors, x, target, peaks, totals, gradient):
    """(softmax(x) - one_hot(target)) * factors, row by row."""
    count, classes = x.shape
    height = max(1, _JOB // classes)
    for job in prange((count + height - 1) // height):
        for r in range(job * height, min(count, (job + 1) * height)):
            _row_gradient(factors[r], x[r], target[r], peaks[r], totals[r], gradient[r])
