"""Random tensors. Numbers are drawn on the host, so that a seed gives the same ones on every device."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from ..autograd.mode import recording_now
from ..autograd.out import takes_out
from ..autograd.variable import Variable, box
from ..runtime import device as devices
from ..runtime import dtypes, rng
from ..runtime.rng import Generator
from .creation import finish
from .layout import accepts_layout
from .ops.shaping import as_size


def stream_of(generator: Generator | None) -> numpy.random.Generator:
    """NumPy's generator behind a paceline one, the default one if None."""
    if generator is None:
        return rng.default_generator().numpy()
    if not isinstance(generator, Generator):
        raise TypeError(f"expected a paceline.Generator, got {type(generator).__name__}")
    return generator.numpy()


_SHORT_MANTISSA = {dtypes.float16.numpy: 11, dtypes.bfloat16.numpy: 8}


def uniform_array(shape: tuple, dtype: numpy.dtype, generator: Generator | None = None) -> numpy.ndarray:
    """Host array of numbers in [0, 1); both parts of complex ones."""
    stream = stream_of(generator)
    if dtype.kind == "c":
        return _paired(uniform_array((*shape, 2), numpy.zeros((), dtype).real.dtype, generator), dtype)
    if dtype in _SHORT_MANTISSA:  # a float32 just below 1 would be rounded up to it
        steps = 2 ** _SHORT_MANTISSA[dtype]
        return (stream.integers(steps, size=shape) / steps).astype(dtype)
    kind = numpy.float64 if dtype == numpy.float64 else numpy.float32
    return stream.random(shape, kind).astype(dtype, copy=False)


def draw_key(generator: Generator | None = None) -> int:
    """64 random bits, to start a stream with."""
    return int(stream_of(generator).integers(2**64, dtype=numpy.uint64))


def normal_array(shape: tuple, dtype: numpy.dtype, generator: Generator | None = None) -> numpy.ndarray:
    """Host array of standard normal numbers; the parts of complex ones have variance 1/2 each."""
    if dtype.kind == "c":
        parts = normal_array((*shape, 2), numpy.zeros((), dtype).real.dtype, generator)
        return _paired(parts * parts.dtype.type(math.sqrt(0.5)), dtype)
    kind = numpy.float64 if dtype == numpy.float64 else numpy.float32
    return numpy.asarray(stream_of(generator).standard_normal(shape, kind)).astype(dtype, copy=False)


def _paired(parts: numpy.ndarray, dtype: numpy.dtype) -> numpy.ndarray:
    """Real and imaginary parts in the last dimension as complex numbers."""
    return parts.view(dtype)[..., 0]


def _placed(array: numpy.ndarray, device: Any, requires_grad: bool) -> Any:
    return finish(devices.move(numpy.asarray(array), devices.resolve(device)), requires_grad)


def _float(dtype: dtypes.dtype | None) -> numpy.dtype:
    dtype = dtypes.get_default_dtype() if dtype is None else dtypes.of(dtype)
    if dtype.category < 2:
        raise RuntimeError(f"random floating numbers cannot have dtype {dtype!r}; use randint() for integers")
    return dtype.numpy


def _drawn_anew(function: Callable) -> Callable:
    """Let replays of a recorded call draw from the default stream what the function draws."""

    @functools.wraps(function)
    def draw(*args: Any, **kwargs: Any) -> Any:
        recording = recording_now.get()
        if recording is None or kwargs.get("generator") is not None or kwargs.get("requires_grad"):
            return function(*args, **kwargs)
        return recording.drawn(_array_of, function, args, kwargs)

    return draw


def _array_of(function: Callable, args: tuple, kwargs: dict) -> Any:
    return function(*args, **kwargs).array


@accepts_layout
@_drawn_anew
def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Numbers drawn uniformly from [0, 1)."""
    return _placed(uniform_array(as_size(*size), _float(dtype), generator), device, requires_grad)


@accepts_layout
@_drawn_anew
def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Numbers drawn from the normal distribution with mean 0 and variance 1."""
    return _placed(normal_array(as_size(*size), _float(dtype), generator), device, requires_grad)


@accepts_layout
@_drawn_anew
def randint(
    low: Any = 0,
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
    drawn = stream_of(generator).integers(low, high, as_size(size), numpy.int64)
    return _placed(drawn.astype((dtypes.of(dtype) if dtype else dtypes.int64).numpy), device, requires_grad)


@accepts_layout
@_drawn_anew
def randperm(
    n: int, *, generator: Generator | None = None, dtype: dtypes.dtype | None = None, device: Any = None
) -> Any:
    """The integers 0 ... n-1 in random order."""
    order = stream_of(generator).permutation(n).astype((dtypes.of(dtype) if dtype else dtypes.int64).numpy)
    return _placed(order, device, False)


@accepts_layout
def rand_like(
    input: Any, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """`rand` with the input's shape, dtype and device."""
    return rand(
        input.array.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad
    )


@accepts_layout
def randn_like(
    input: Any, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """`randn` with the input's shape, dtype and device."""
    return randn(
        input.array.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad
    )


@accepts_layout
def randint_like(
    input: Any,
    low: int,
    high: int | None = None,
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """`randint` with the input's shape, dtype and device."""
    low, high = (0, low) if high is None else (low, high)
    like = {"dtype": dtype or input.dtype, "device": device or input.device, "requires_grad": requires_grad}
    return randint(low, high, input.array.shape, **like)


@accepts_layout
def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Normal numbers with the given means and standard deviations, numbers or tensors.

    Args:
        size: the shape, if both are numbers; dtype, device and requires_grad belong to that form too.
    """
    tensors = [x for x in (mean, std) if isinstance(x, Variable)]
    if not tensors:
        if size is None:
            raise TypeError("normal(): size is needed when mean and std are numbers")
        if std < 0:
            raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
        drawn = normal_array(as_size(size), _float(dtype), generator)
        return _placed((drawn * std + mean).astype(drawn.dtype, copy=False), device, requires_grad)
    means, stds = map(_host_values, (mean, std))
    if numpy.any(numpy.asarray(stds) < 0):
        raise RuntimeError("normal expects all elements of std >= 0.0")
    like = tensors[0]
    drawn = normal_array(numpy.broadcast_shapes(*(x.array.shape for x in tensors)), like.array.dtype, generator)
    return _placed((drawn * stds + means).astype(like.array.dtype, copy=False), like.device, False)  # type: ignore[attr-defined]


def _host_values(value: Any) -> Any:
    """A tensor's elements as a host array; a number as it is."""
    return value.detach().cpu().array if isinstance(value, Variable) else value  # type: ignore[attr-defined]


@takes_out
def bernoulli(input: Any, p: float | None = None, *, generator: Generator | None = None) -> Any:
    """1 with the probability that the element gives (or with probability p for all of them), else 0."""
    chances = input.detach().cpu().array
    if chances.dtype.kind in "biu":
        raise RuntimeError(f"bernoulli(): expected probabilities in a floating tensor, got {input.dtype!r}")
    if p is not None:
        chances = numpy.full(chances.shape, p, chances.dtype)
    if chances.size and not (0 <= float(chances.min()) and float(chances.max()) <= 1):
        raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true for every element")
    drawn = uniform_array(chances.shape, numpy.dtype(numpy.float64), generator) < chances
    return _placed(drawn.astype(chances.dtype), input.device, False)


def poisson(input: Any, generator: Generator | None = None) -> Any:
    """Counts from Poisson distributions whose rates are the elements.

    Example:
        >>> import paceline as torch
        >>> torch.poisson(torch.zeros(2))
        tensor([0., 0.])
    """
    rates = input.detach().cpu().array
    if rates.size and not float(rates.min()) >= 0:
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
    return _placed(stream_of(generator).poisson(rates.astype(numpy.float64)).astype(rates.dtype), input.device, False)


def binomial(count: Any, prob: Any, generator: Generator | None = None) -> Any:
    """The numbers of successes in `count` trials with success probability `prob`, elementwise."""
    trials, chances = (x.detach().cpu().array for x in (count, prob))
    if trials.size and not (float(trials.min()) >= 0 and 0 <= float(chances.min()) and float(chances.max()) <= 1):
        raise RuntimeError("binomial(): expected counts >= 0 and probabilities in [0, 1]")
    drawn = stream_of(generator).binomial(trials.astype(numpy.int64), chances.astype(numpy.float64))
    return _placed(numpy.asarray(drawn).astype(trials.dtype), count.device, False)


@takes_out
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
    rows = weights.reshape(-1, weights.shape[-1]) if weights.ndim in (1, 2) else None
    if rows is None or rows.shape[1] == 0:
        raise RuntimeError(f"prob_dist must be 1 or 2 dim with at least one category, got {list(weights.shape)}")
    if num_samples <= 0:
        raise RuntimeError(f"cannot sample n_sample <= 0 samples, got {num_samples}")
    if not numpy.isfinite(rows).all() or (rows < 0).any():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if (rows.sum(1) <= 0).any():
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement and (numpy.count_nonzero(rows, 1) < num_samples).any():
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    indices = (_with_replacement if replacement else _without_replacement)(rows, num_samples, stream_of(generator))
    return _placed(indices.astype(numpy.int64).reshape(*weights.shape[:-1], num_samples), input.device, False)


def _with_replacement(rows: numpy.ndarray, count: int, stream: numpy.random.Generator) -> numpy.ndarray:
    """By inverting each row's distribution function."""
    cumulative = rows.cumsum(1)
    drawn = stream.random((len(rows), count)) * cumulative[:, -1:]
    return numpy.stack([numpy.searchsorted(c, u, side="right") for c, u in zip(cumulative, drawn, strict=True)])


def _without_replacement(rows: numpy.ndarray, count: int, stream: numpy.random.Generator) -> numpy.ndarray:
    """By a race of exponential clocks with the weights as rates: who comes first is drawn first."""
    with numpy.errstate(divide="ignore"):
        arrivals = stream.standard_exponential(rows.shape) / rows
    return arrivals.argsort(1)[:, :count]


def get_rng_state() -> Any:
    """The state of the default random stream, a uint8 tensor."""
    return box(rng.default_generator().get_state())


def set_rng_state(new_state: Any) -> None:
    """Put the default random stream back into a state that `get_rng_state` returned."""
    rng.default_generator().set_state(new_state.array)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """A context after which the default random stream goes on as if nothing had been drawn within.

    Args:
        devices: no effect, as all devices draw from the host's stream.
        enabled: whether to do anything.

    Example:
        >>> import paceline as torch
        >>> with torch.random.fork_rng():
        ...     noise = torch.rand(3)
        >>> torch.equal(torch.rand(3), noise)
        True
    """
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)
