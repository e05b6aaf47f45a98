"""Initial values of parameters. All functions write into the tensor, unrecorded, and return it."""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy

from ..autograd.mode import no_grad
from ..autograd.variable import box
from ..tensor import Tensor
from ..tensor.random import Generator, normal_array, uniform_array

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_GAINS = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "sigmoid"), 1.0),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1.0),
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}


_skipping: ContextVar[bool] = ContextVar("skipping initialization", default=False)


@contextlib.contextmanager
def skipped() -> Iterator[None]:
    """Within the block the functions of this module leave tensors as they are."""
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def _initializer(function: Callable) -> Callable:
    """Check the tensor, and do not record what is done to it."""

    @functools.wraps(function)
    def checked(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{function.__name__}(): tensor should be a Tensor, got {type(tensor).__name__}")
        if _skipping.get():
            return tensor
        with no_grad():
            return function(tensor, *args, **kwargs)

    return checked


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance of activations through a nonlinearity.

    Args:
        nonlinearity: "linear", "conv1d" ... "conv3d", "conv_transpose1d" ..., "sigmoid" (all 1), "tanh" (5/3),
            "relu" (sqrt(2)), "leaky_relu" (sqrt(2 / (1 + slope**2))) or "selu" (3/4).
        param: the negative slope of leaky_relu, default 0.01.

    Raises:
        ValueError: another nonlinearity, or a slope that is no number.

    Example:
        >>> calculate_gain("leaky_relu", 0.2)
        1.3867504905630728
    """
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, int | float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}; there are {', '.join([*_GAINS, 'leaky_relu'])}")
    return _GAINS[nonlinearity]


@_initializer
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from the uniform distribution U(a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@_initializer
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from the normal distribution N(mean, std**2)."""
    return tensor.normal_(mean, std, generator=generator)


@_initializer
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Draw from the normal distribution N(mean, std**2) restricted to [a, b].

    Args:
        tensor: what to fill.
        mean, std: of the normal distribution before it is cut.
        a, b: bounds of the values, in their own units (not in standard deviations).
        generator: the random stream; default: the global one.

    Raises:
        RuntimeError: a > b.
    """
    if a > b:
        raise RuntimeError(f"trunc_normal_(): expected a <= b, got a={a} and b={b}")
    # The inverse of the distribution function of uniform numbers: every draw is used, however narrow [a, b] is.
    cdf = statistics.NormalDist(mean, std).cdf
    low, high = 2 * cdf(a) - 1, 2 * cdf(b) - 1
    drawn = uniform_array(tensor.array.shape, numpy.dtype(numpy.float64), generator) * (high - low) + low
    values = mean + std * math.sqrt(2) * _erfinv(drawn)
    return tensor.copy_(box(numpy.clip(values, a, b)))


def _erfinv(x: numpy.ndarray) -> numpy.ndarray:
    """The inverse of erf, to 6 digits (M. Giles, Approximating the erfinv function, GPU Computing Gems 2, 2012)."""
    w = -numpy.log(numpy.maximum((1 - x) * (1 + x), numpy.finfo(numpy.float64).tiny))
    return x * numpy.where(
        w < 5,
        numpy.polyval(_ERFINV_CENTER, w - 2.5),
        numpy.polyval(_ERFINV_TAIL, numpy.sqrt(w) - 3),
    )


_ERFINV_CENTER = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


@_initializer
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Set all elements to one value."""
    return tensor.fill_(val)


@_initializer
def ones_(tensor: Tensor) -> Tensor:
    """Set all elements to 1."""
    return tensor.fill_(1)


@_initializer
def zeros_(tensor: Tensor) -> Tensor:
    """Set all elements to 0."""
    return tensor.zero_()


@_initializer
def eye_(tensor: Tensor) -> Tensor:
    """Set a matrix [n, m] to the identity."""
    if tensor.ndim != 2:
        raise ValueError(f"Only tensors with 2 dimensions are supported, got shape {list(tensor.shape)}")
    return tensor.copy_(box(numpy.eye(*tensor.array.shape)))


@_initializer
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Set the weight of a convolution so that it copies its input channels.

    Args:
        tensor: [out_channels, in_channels / groups, *kernel], with 1, 2 or 3 kernel dimensions.
        groups: of the convolution; each group copies its own channels.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError(f"Only tensors with 3, 4, or 5 dimensions are supported, got shape {list(tensor.shape)}")
    if tensor.shape[0] % groups:
        raise ValueError(f"dim 0 must be divisible by groups, got {tensor.shape[0]} channels and {groups} groups")
    weight = numpy.zeros(tensor.array.shape)
    out_channels = tensor.shape[0] // groups
    center = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(out_channels, tensor.shape[1])):
            weight[(group * out_channels + channel, channel, *center)] = 1
    return tensor.copy_(box(weight))


@_initializer
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from U(-a, a) with a = gain sqrt(6 / (fan_in + fan_out)).

    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.

    Example:
        >>> import paceline as torch
        >>> weight = torch.nn.init.xavier_uniform_(torch.empty(3, 3))
        >>> bool((weight.abs() <= 1).all())
        True
    """
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return tensor.uniform_(-bound, bound, generator=generator)


@_initializer
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from N(0, std**2) with std = gain sqrt(2 / (fan_in + fan_out)).

    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
    """
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return tensor.normal_(0, gain * math.sqrt(2.0 / (fan_in + fan_out)), generator=generator)


@_initializer
def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Draw from U(-bound, bound) with bound = gain sqrt(3 / fan).

    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015.

    Args:
        tensor: a weight [out, in, *kernel].
        a: the negative slope of the leaky_relu that follows.
        mode: "fan_in" keeps the variance in forward, "fan_out" in backward.
        nonlinearity: see `calculate_gain`.
        generator: the random stream; default: the global one.

    Raises:
        ValueError: fewer than 2 dimensions, another mode or nonlinearity.
    """
    if _has_no_elements(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return tensor.uniform_(-bound, bound, generator=generator)


@_initializer
def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Draw from N(0, std**2) with std = gain / sqrt(fan); the arguments are those of `kaiming_uniform_`.

    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015.
    """
    if _has_no_elements(tensor):
        return tensor
    return tensor.normal_(0, _kaiming_std(tensor, a, mode, nonlinearity), generator=generator)


@_initializer
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """Make the rows (or, where there are more rows than columns, the columns) orthogonal with norm `gain`.

    Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks, 2013.

    Args:
        tensor: [rows, ...]; all dimensions but the first count as columns.
        gain: the norm.
        generator: the random stream; default: the global one.
    """
    if tensor.ndim < 2:
        raise ValueError(f"Only tensors with 2 or more dimensions are supported, got shape {list(tensor.shape)}")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    drawn = normal_array((max(rows, columns), min(rows, columns)), numpy.dtype(numpy.float64), generator)
    q, r = numpy.linalg.qr(drawn)
    q *= numpy.sign(numpy.diag(r))  # uniform over all orthogonal matrices only with a positive diagonal of r
    return tensor.copy_(box(gain * (q if rows >= columns else q.T).reshape(tensor.array.shape)))


@_initializer
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Draw a matrix from N(0, std**2) and set a fraction of each column to 0.

    Martens, Deep learning via Hessian-free optimization, 2010.

    Args:
        tensor: [rows, columns].
        sparsity: the fraction, from 0 to 1.
        std: of the other elements.
        generator: the random stream; default: the global one.
    """
    if tensor.ndim != 2:
        raise ValueError(f"Only tensors with 2 dimensions are supported, got shape {list(tensor.shape)}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparse_(): sparsity should be a fraction from 0 to 1, got {sparsity}")
    double = numpy.dtype(numpy.float64)
    values = std * normal_array(tensor.array.shape, double, generator)
    order = uniform_array(tensor.array.shape, double, generator).argsort(0)
    numpy.put_along_axis(values, order[: math.ceil(sparsity * tensor.shape[0])], 0, 0)
    return tensor.copy_(box(values))


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs an output of a weight [out, in, *kernel] has, and how many outputs an input."""
    if tensor.ndim < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, got shape "
            f"{list(tensor.shape)}"
        )
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    modes = ("fan_in", "fan_out")
    if mode not in modes:
        raise ValueError(f"Mode {mode} not supported, please use one of {list(modes)}")
    fan = _calculate_fan_in_and_fan_out(tensor)[modes.index(mode)]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _has_no_elements(tensor: Tensor) -> bool:
    if tensor.numel() == 0:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=4)
        return True
    return False
