"""Probability distributions: samples, log-probabilities, entropies and divergences that gradients flow through.

A batch of distributions has the shape of its parameters, `batch_shape`; one sample has `event_shape` behind it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.mode import enable_grad, no_grad
from ..runtime import dtypes
from . import creation, random
from .base import Size
from .inspection import finfo
from .ops.activation import logsigmoid
from .ops.arithmetic import where
from .ops.shaping import broadcast_tensors
from .tensor import Tensor

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Distribution:
    """What all distributions have; a subclass gives `sample` or `rsample`, `log_prob` and what else it can.

    Args:
        batch_shape: the shape of the parameters, one element for each distribution.
        event_shape: the shape of one sample of one of them.
        validate_args: whether wrong parameters, and values that cannot be, raise a ValueError; they do unless False.
    """

    has_rsample = False
    parameters: tuple[str, ...] = ()  # names of the attributes that `repr` shows

    def __init__(self, batch_shape: Sequence[int], event_shape: Sequence[int] = (), validate_args: bool | None = None):
        self.batch_shape, self.event_shape = Size(batch_shape), Size(event_shape)
        self.validates = validate_args is not False

    @property
    def mean(self) -> Tensor:
        """The expected value."""
        raise NotImplementedError

    @property
    def variance(self) -> Tensor:
        """The expected squared distance from the mean."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Random values of shape sample_shape + batch_shape + event_shape, differentiable in the parameters."""
        raise NotImplementedError(f"{type(self).__name__}: its samples cannot be differentiated; use sample()")

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Random values of shape sample_shape + batch_shape + event_shape, off the tape."""
        with no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability, or of its density, at `value`."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The expected value of -log_prob, in nats."""
        raise NotImplementedError

    def perplexity(self) -> Tensor:
        """exp(entropy)."""
        return self.entropy().exp()

    def _shape_of(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        return (*sample_shape, *self.batch_shape, *self.event_shape)

    def _expect(self, holds: Tensor, name: str, what: str) -> None:
        """Refuse a parameter or value of which not all elements are as they have to be."""
        if self.validates and not bool(holds.all()):
            raise ValueError(f"{type(self).__name__}(): expected {name} to be {what} everywhere")

    def __repr__(self) -> str:
        shown = ((name, getattr(self, name)) for name in self.parameters)
        texts = [f"{name}: {value.item() if value.numel() == 1 else value.size()}" for name, value in shown]
        return f"{type(self).__name__}({', '.join(texts)})"


class Normal(Distribution):
    """The normal distribution: exp(-((x - loc) / scale)^2 / 2) / (scale * sqrt(2 pi)).

    Example:
        >>> import paceline as torch
        >>> standard = torch.distributions.Normal(0.0, 1.0)
        >>> standard.log_prob(torch.tensor(0.0))
        tensor(-0.9189)
        >>> standard.rsample((2, 3)).shape
        paceline.Size([2, 3])
    """

    has_rsample = True
    parameters = ("loc", "scale")

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self.loc, self.scale = _broadcast(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)
        self._expect(self.scale > 0, "scale", "positive")

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale * self.scale

    @property
    def stddev(self) -> Tensor:
        return self.scale

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._shape_of(sample_shape)
        return self.loc + self.scale * random.randn(shape, dtype=self.loc.dtype, device=self.loc.device)

    def log_prob(self, value: Tensor) -> Tensor:
        distance = (value - self.loc) / self.scale
        return -0.5 * distance * distance - self.scale.log() - _HALF_LOG_2_PI

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than `value`."""
        return 0.5 * (1 + ((value - self.loc) / (self.scale * math.sqrt(2))).erf())

    def entropy(self) -> Tensor:
        return 0.5 + _HALF_LOG_2_PI + self.scale.log()


class Uniform(Distribution):
    """Values from low to below high, all as probable as each other."""

    has_rsample = True
    parameters = ("low", "high")

    def __init__(self, low: Tensor | float, high: Tensor | float, validate_args: bool | None = None) -> None:
        self.low, self.high = _broadcast(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        self._expect(self.low < self.high, "low", "less than high")

    @property
    def mean(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low) ** 2 / 12

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._shape_of(sample_shape)
        part = random.rand(shape, dtype=self.low.dtype, device=self.low.device)
        return self.low + part * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        self._expect((self.low <= value) & (value <= self.high), "value", "between low and high")
        inside = (self.low <= value) & (value < self.high)
        return inside.to(self.low.dtype).log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than `value`."""
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()


class Bernoulli(Distribution):
    """1 with probability probs = sigmoid(logits), otherwise 0.

    Example:
        >>> import paceline as torch
        >>> torch.distributions.Bernoulli(0.25).variance
        tensor(0.1875)
    """

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        given = _one_of(self, probs, logits)
        super().__init__(given.shape, validate_args=validate_args)
        if logits is None:
            self._expect((given >= 0) & (given <= 1), "probs", "between 0 and 1")

    @functools.cached_property
    def probs(self) -> Tensor:
        """The probability of 1."""
        with enable_grad():  # it is kept, and may be asked for first where nothing is recorded
            return self.logits.sigmoid()

    @functools.cached_property
    def logits(self) -> Tensor:
        """log(probs / (1 - probs)), finite for all probs."""
        with enable_grad():
            probs = _inside(self.probs)
            return probs.log() - (-probs).log1p()

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return random.bernoulli(self.probs.expand(self._shape_of(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._expect((value == 0) | (value == 1), "value", "0 or 1")
        return self.logits * value + logsigmoid(-self.logits)

    def entropy(self) -> Tensor:
        return -(self.logits * self.probs + logsigmoid(-self.logits))


class Categorical(Distribution):
    """A number below K, with probabilities in proportion to probs, or to exp(logits), both of shape [..., K].

    Example:
        >>> import paceline as torch
        >>> policy = torch.distributions.Categorical(logits=torch.zeros(4, requires_grad=True))
        >>> action = policy.sample()
        >>> policy.log_prob(action)
        tensor(-1.3863, grad_fn=<SqueezeBackward0>)
    """

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        given = _one_of(self, probs, logits)
        if not given.ndim:
            raise ValueError(f"`{self.parameters[0]}` parameter must be at least one-dimensional.")
        super().__init__(given.shape[:-1], validate_args=validate_args)
        if logits is None:
            self._expect((given >= 0) & (given.sum(-1, keepdim=True) > 0), "probs", "not negative, with a positive sum")
            self.probs = given / given.sum(-1, keepdim=True)
        else:
            self._expect(given == given, "logits", "numbers")
            self.logits = given.log_softmax(-1)

    @functools.cached_property
    def probs(self) -> Tensor:
        """The probabilities, of sum 1."""
        with enable_grad():  # it is kept, and may be asked for first where nothing is recorded
            return self.logits.exp()

    @functools.cached_property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities, finite for all probs."""
        with enable_grad():
            return _inside(self.probs).log()

    @property
    def mode(self) -> Tensor:
        """The most probable number."""
        return self.probs.argmax(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            rows = self.probs.reshape(-1, self.probs.shape[-1])
            drawn = random.multinomial(rows, math.prod(sample_shape), True)
            return drawn.t().reshape(self._shape_of(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        count = self.logits.shape[-1]
        self._expect((value >= 0) & (value < count), "value", f"one of 0 ... {count - 1}")
        index, table = broadcast_tensors(value.long().unsqueeze(-1), self.logits)
        return table.gather(-1, index[..., :1]).squeeze(-1)

    def entropy(self) -> Tensor:
        lowest = finfo(self.logits.dtype).min  # of what cannot be, -inf * 0 would be nan
        return -(self.logits.clamp(min=lowest) * self.probs).sum(-1)


class Independent(Distribution):
    """Distributions of which the last dimensions of the batch are one event: their log-probabilities are added up.

    Example:
        >>> import paceline as torch
        >>> base = torch.distributions.Normal(torch.zeros(5, 3), 1.0)
        >>> torch.distributions.Independent(base, 1).log_prob(torch.zeros(5, 3)).shape
        paceline.Size([5])
    """

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ) -> None:
        batch = base_distribution.batch_shape
        kept = len(batch) - reinterpreted_batch_ndims
        if not 0 <= kept <= len(batch):
            raise ValueError(
                f"Independent(): reinterpreted_batch_ndims={reinterpreted_batch_ndims} is not between 0 and the "
                f"{len(batch)} dimensions of the batch"
            )
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, reinterpreted_batch_ndims
        super().__init__(batch[:kept], (*batch[kept:], *base_distribution.event_shape), validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base_dist.has_rsample

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._added(self.base_dist.log_prob(value))

    def entropy(self) -> Tensor:
        return self._added(self.base_dist.entropy())

    def _added(self, values: Tensor) -> Tensor:
        """The sum over the dimensions of the batch that are the event's."""
        count = self.reinterpreted_batch_ndims
        return values.sum(tuple(range(-count, 0))) if count else values

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The expected value, for samples of p, of p.log_prob(x) - q.log_prob(x); both are distributions of one class.

    Example:
        >>> import paceline as torch
        >>> Normal = torch.distributions.Normal
        >>> torch.distributions.kl_divergence(Normal(1.0, 1.0), Normal(0.0, 1.0))
        tensor(0.5000)
    """
    formula = _DIVERGENCES.get(type(p))
    if formula is None or type(p) is not type(q):
        raise NotImplementedError(f"No KL(p || q) is implemented for p type {type(p).__name__} and q type "
                                  f"{type(q).__name__}")  # fmt: skip
    return formula(p, q)


def _of_normals(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - ratio.log())


def _of_uniforms(p: Uniform, q: Uniform) -> Tensor:
    divergence = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), math.inf, divergence)


def _of_bernoullis(p: Bernoulli, q: Bernoulli) -> Tensor:
    ones = _part(p.probs, q.probs, logsigmoid(p.logits) - logsigmoid(q.logits))
    return ones + _part(1 - p.probs, 1 - q.probs, logsigmoid(-p.logits) - logsigmoid(-q.logits))


def _of_categoricals(p: Categorical, q: Categorical) -> Tensor:
    return _part(p.probs, q.probs, p.logits - q.logits).sum(-1)


def _of_independents(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("No KL(p || q) is implemented for events of different numbers of dimensions")
    return p._added(kl_divergence(p.base_dist, q.base_dist))


_DIVERGENCES: dict[type, Callable] = {
    Normal: _of_normals,
    Uniform: _of_uniforms,
    Bernoulli: _of_bernoullis,
    Categorical: _of_categoricals,
    Independent: _of_independents,
}


def _part(p: Tensor, q: Tensor, difference: Tensor) -> Tensor:
    """What one outcome of probability p, or q, adds to a divergence."""
    return where(p == 0, 0.0, where(q == 0, math.inf, p * difference))


def _broadcast(*values: Any) -> tuple[Tensor, ...]:
    """Parameters as tensors of one shape; numbers get the dtype and device of the tensors among them."""
    like = next((value for value in values if isinstance(value, Tensor)), None)
    dtype, device = (dtypes.get_default_dtype(), None) if like is None else (like.dtype, like.device)
    made = (v if isinstance(v, Tensor) else creation.tensor(v, dtype=dtype, device=device) for v in values)
    return broadcast_tensors(*made)


def _one_of(owner: Any, probs: Any, logits: Any) -> Tensor:
    """The one of the two parameters that is given, which becomes an attribute."""
    if (probs is None) == (logits is None):
        raise ValueError("Either `probs` or `logits` must be specified, but not both.")
    owner.parameters = ("logits",) if probs is None else ("probs",)
    (given,) = _broadcast(logits if probs is None else probs)
    setattr(owner, owner.parameters[0], given)
    return given


def _inside(probs: Tensor) -> Tensor:
    """Probabilities of which none is 0 or 1, so that their logarithms are finite."""
    smallest = finfo(probs.dtype).eps
    return probs.clamp(smallest, 1 - smallest)
