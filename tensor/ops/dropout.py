"""Dropout of elements by a mask that is not kept: backward draws it again from the same key."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled, sources


@primitive
def dropout(xp, input: Array, key: int, p: float):
    """Each element is 0 with probability p, otherwise divided by 1 - p; the key of 64 bits decides which."""
    kept = bits(xp, key, input.size) >= _limit(p)
    return input * kept.reshape(input.shape) * input.dtype.type(_scale(p))


dropout.vjp(input=lambda F, g, key, p: F.dropout(g, key, p))


def bits(xp: Any, key: int, count: int) -> Array:
    """The first numbers of 32 random bits of the stream that a key starts.

    Source: Steele et al., Fast Splittable Pseudorandom Number Generators, 2014, with the mixing function of SplitMix64.
    """
    z = xp.arange(count, dtype=xp.uint64) * xp.uint64(0x9E3779B97F4A7C15) + xp.uint64(key)
    z = (z ^ (z >> xp.uint64(30))) * xp.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> xp.uint64(27))) * xp.uint64(0x94D049BB133111EB)
    return (z ^ (z >> xp.uint64(31))) >> xp.uint64(32)


def _limit(p: float) -> numpy.uint64:
    return numpy.uint64(math.ceil(p * 2**32))


def _scale(p: float) -> float:
    return 1 / (1 - p) if p < 1 else 0.0


@compiled(dropout, work=4)
def _dropout(input: Any, key: int, p: float) -> Any:
    x, out = numpy.ascontiguousarray(input), numpy.empty(input.shape, input.dtype)
    scale = input.dtype.type(_scale(p))
    sources.dropout.dropout(x.reshape(-1), numpy.uint64(key), _limit(p), scale, out.reshape(-1))
    return out
