"""Random tensors. Numbers are drawn on the host, so that a seed gives the same ones on every device."""

from __future__ import annotations

from typing import Any

import numpy

from ..autograd.variable import Variable, box
from ..runtime import device as devices
from ..runtime import dtypes, rng
from .creation import finish
from .ops.shaping import as_size

Generator = rng.Generator


def _stream(generator: Generator | None) -> numpy.random.Generator:
    if generator is None:
        return rng.default_generator().numpy()
    if not isinstance(generator, Generator):
        raise TypeError(f"expected a paceline.Generator, got {type(generator).__name__}")
    return generator.numpy()


def uniform_array(shape: tuple, dtype: numpy.dtype, generator: Generator | None = None) -> numpy.ndarray:
    """Host array of numbers in [0, 1)."""
    kind = numpy.float64 if dtype == numpy.float64 else numpy.float32
    return _stream(generator).random(shape, kind).astype(dtype, copy=False)


def normal_array(shape: tuple, dtype: numpy.dtype, generator: Generator | None = None) -> numpy.ndarray:
    """Host array of standard normal numbers."""
    kind = numpy.float64 if dtype == numpy.float64 else numpy.float32
    return numpy.asarray(_stream(generator).standard_normal(shape, kind)).astype(dtype, copy=False)


def _placed(array: numpy.ndarray, device: Any, requires_grad: bool) -> Any:
    return finish(devices.move(numpy.asarray(array), devices.resolve(device)), requires_grad)


def _float(dtype: dtypes.dtype | None) -> numpy.dtype:
    dtype = dtypes.get_default_dtype() if dtype is None else dtypes.of(dtype)
    if not dtype.is_floating_point:
        raise RuntimeError(f"random floating numbers cannot have dtype {dtype!r}; use randint() for integers")
    return dtype.numpy


def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Numbers drawn uniformly from [0, 1)."""
    return _placed(uniform_array(as_size(*size), _float(dtype), generator), device, requires_grad)


def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Numbers drawn from the normal distribution with mean 0 and variance 1."""
    return _placed(normal_array(as_size(*size), _float(dtype), generator), device, requires_grad)


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Integers drawn uniformly from [low, high).

    Example:
        >>> import paceline as torch
        >>> torch.randint(0, 10, (3,)).shape
        paceline.Size([3])
    """
    if size is None:  # randint(high, size)
        low, high, size = 0, low, high
    if not low < high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    drawn = _stream(generator).integers(low, high, as_size(size), numpy.int64)
    return _placed(drawn.astype((dtypes.of(dtype) if dtype else dtypes.int64).numpy), device, requires_grad)


def randperm(
    n: int, *, generator: Generator | None = None, dtype: dtypes.dtype | None = None, device: Any = None
) -> Any:
    """The integers 0 ... n-1 in random order."""
    order = _stream(generator).permutation(n).astype((dtypes.of(dtype) if dtype else dtypes.int64).numpy)
    return _placed(order, device, False)


def rand_like(input: Any, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False) -> Any:
    """`rand` with the input's shape, dtype and device."""
    return rand(input.array.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def randn_like(
    input: Any, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """`randn` with the input's shape, dtype and device."""
    return randn(
        input.array.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad
    )


def randint_like(
    input: Any, low: int, high: int | None = None, *, dtype: dtypes.dtype | None = None, device: Any = None
) -> Any:
    """`randint` with the input's shape, dtype and device."""
    bounds = (0, low) if high is None else (low, high)
    return randint(*bounds, input.array.shape, dtype=dtype or input.dtype, device=device or input.device)


def normal(mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, device: Any = None) -> Any:
    """Normal numbers with the given means and standard deviations, numbers or tensors."""
    like = mean if isinstance(mean, Variable) else std if isinstance(std, Variable) else None
    if like is None:
        if size is None:
            raise TypeError("normal(): size is needed when mean and std are numbers")
        return randn(size, generator=generator, device=device) * std + mean
    shape = numpy.broadcast_shapes(*(x.array.shape for x in (mean, std) if isinstance(x, Variable)))
    return randn(shape, generator=generator, dtype=like.dtype, device=like.device) * std + mean  # type: ignore[attr-defined]


def bernoulli(input: Any, *, generator: Generator | None = None) -> Any:
    """1 with the probability that the element gives, else 0."""
    p = input.detach().cpu().array
    if p.size and not (0 <= float(p.min()) and float(p.max()) <= 1):
        raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true for every element")
    drawn = (uniform_array(p.shape, numpy.dtype(numpy.float64), generator) < p).astype(p.dtype)
    return _placed(drawn, input.device, False)


def multinomial(
    input: Any, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Any:
    """Indices drawn with probabilities proportional to the weights in the last dimension.

    Args:
        input: weights [n] or [rows, n], non-negative.
        num_samples: how many to draw from each row.
        replacement: whether an index may be drawn again.
    """
    weights = input.detach().cpu().array.astype(numpy.float64)
    rows = weights.reshape(-1, weights.shape[-1])
    if not numpy.isfinite(rows).all() or (rows < 0).any() or (rows.sum(1) <= 0).any():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0, or a row that sums to 0")
    if not replacement and (numpy.count_nonzero(rows, 1) < num_samples).any():
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    stream = _stream(generator)
    drawn = [stream.choice(rows.shape[1], num_samples, replacement, row / row.sum()) for row in rows]
    indices = numpy.stack(drawn).astype(numpy.int64).reshape(*weights.shape[:-1], num_samples)
    return _placed(indices, input.device, False)


def get_rng_state() -> Any:
    """The state of the default random stream, a uint8 tensor."""
    return box(rng.default_generator().get_state())


def set_rng_state(new_state: Any) -> None:
    """Put the default random stream back into a state that `get_rng_state` returned."""
    rng.default_generator().set_state(new_state.array)
