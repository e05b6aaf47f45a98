"""Samplers that fill a tensor: `x.normal_()`, `x.exponential_()` and the like."""

from __future__ import annotations

from typing import Any

import numpy

from ..autograd.variable import Variable, box
from ..runtime import device as devices
from ..runtime import dtypes
from ..runtime.rng import Generator
from .inplace import assign, check_writable
from .random import normal_array, stream_of, uniform_array


def _fill(self: Any, drawn: Any, operation: str) -> Any:
    """Write numbers drawn on the host into the tensor."""
    array = numpy.asarray(drawn, dtype=self.array.dtype)
    return assign(self, box(devices.move(array, self.device)), operation)


def _wide(self: Any) -> numpy.dtype:
    """The dtype to compute in: the tensor's own, or float32 for shorter ones and integers."""
    dtype = self.array.dtype
    return dtype if dtype in (numpy.float64, numpy.complex64, numpy.complex128) else numpy.dtype(numpy.float32)


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise RuntimeError(message)


def _expect_floating(self: Any, operation: str) -> None:
    check_writable(self)
    if not dtypes.of(self.array.dtype).is_floating_point:
        raise NotImplementedError(f'"{operation}" not implemented for {self.dtype.name}; it fills floating tensors')


def uniform_(self: Any, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Draw all elements uniformly from [from_, to)."""
    check_writable(self)
    _expect(from_ <= to, f"uniform_ expects to return a [from, to) range, but found from={from_} > to={to}")
    return _fill(self, uniform_array(self.array.shape, self.array.dtype, generator) * (to - from_) + from_, "uniform_")


def normal_(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Draw all elements from the normal distribution with this mean and standard deviation."""
    check_writable(self)
    _expect(std >= 0, f"normal expects std >= 0.0, but found std {std}")
    return _fill(self, normal_array(self.array.shape, self.array.dtype, generator) * std + mean, "normal_")


def bernoulli_(self: Any, p: Any = 0.5, *, generator: Generator | None = None) -> Any:
    """Set each element to 1 with probability p (a number, or a tensor that broadcasts to the shape), else to 0."""
    check_writable(self)
    p = numpy.asarray(p.detach().cpu().array if isinstance(p, Variable) else p)  # type: ignore[attr-defined]
    _expect(bool(((0 <= p) & (p <= 1)).all()), "bernoulli_ expects p to be in [0, 1]")
    return _fill(self, uniform_array(self.array.shape, numpy.dtype(numpy.float64), generator) < p, "bernoulli_")


def exponential_(self: Any, lambd: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Draw all elements from the exponential distribution with density lambd * exp(-lambd * x)."""
    _expect_floating(self, "exponential_")
    _expect(lambd > 0, f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    drawn = stream_of(generator).standard_exponential(self.array.shape, _wide(self))
    return _fill(self, drawn / lambd, "exponential_")


def cauchy_(self: Any, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Draw all elements from the Cauchy distribution with this median and half width at half maximum."""
    _expect_floating(self, "cauchy_")
    _expect(sigma > 0, f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    return _fill(self, stream_of(generator).standard_cauchy(self.array.shape) * sigma + median, "cauchy_")


def log_normal_(self: Any, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Any:
    """Draw all elements as exp of normal numbers with this mean and standard deviation."""
    _expect_floating(self, "log_normal_")
    _expect(std > 0, f"log_normal_ expects std > 0.0, but found std={std}")
    return _fill(self, numpy.exp(normal_array(self.array.shape, _wide(self), generator) * std + mean), "log_normal_")


def geometric_(self: Any, p: float, *, generator: Generator | None = None) -> Any:
    """Draw all elements as the number of trials up to the first success, which has probability p."""
    check_writable(self)
    _expect(0 < p < 1, f"geometric_ expects p to be in (0, 1), but got p={p}")
    return _fill(self, stream_of(generator).geometric(p, self.array.shape), "geometric_")


def random_(self: Any, from_: int = 0, to: int | None = None, *, generator: Generator | None = None) -> Any:
    """Draw all elements as integers uniformly from [from_, to).

    `random_(to)` starts at 0; without bounds integers cover 0 up to the largest of their dtype, floating numbers all
    the integers that their mantissa holds.
    """
    check_writable(self)
    if to is None:
        from_, to = 0, from_ or _integers_of(dtypes.of(self.array.dtype))
    _expect(from_ < to, f"random_ expects 'from' to be less than 'to', but got from={from_} >= to={to}")
    return _fill(self, stream_of(generator).integers(from_, to, self.array.shape, numpy.int64), "random_")


_MANTISSA = {dtypes.bfloat16: 8, dtypes.float16: 11, dtypes.float32: 24, dtypes.float64: 53}


def _integers_of(dtype: dtypes.dtype) -> int:
    """One above the largest integer that `random_()` draws."""
    if dtype is dtypes.bool_:
        return 2
    if dtype.is_floating_point:
        return 2 ** _MANTISSA[dtype] + 1
    return min(int(numpy.iinfo(dtype.numpy).max), 2**63 - 2) + 1


