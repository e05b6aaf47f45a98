"""Activations as layers."""

from __future__ import annotations

from typing import Any

from ..tensor import creation
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class _Activation(Module):
    """A function of the input and of the attributes that `options` names."""

    function: Any
    options: tuple[str, ...] = ()

    def forward(self, input: Any) -> Any:
        return self.function(input, *(getattr(self, name) for name in self.options))

    def extra_repr(self) -> str:
        shown = (name for name in self.options if name != "inplace" or self.inplace)
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


class _Inplace(_Activation):
    """A function whose only option is to write into its input."""

    options = ("inplace",)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


class ReLU(_Inplace):
    """max(input, 0), elementwise.

    Args:
        inplace: whether to write into the input.

    Example:
        >>> import paceline as torch
        >>> torch.nn.ReLU()(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def forward(self, input: Any) -> Any:
        return F.relu(input, self.inplace)


class ReLU6(_Inplace):
    """min(max(input, 0), 6), elementwise."""

    function = staticmethod(F.relu6)


class SELU(_Inplace):
    """The self-normalizing ELU; see `functional.selu`."""

    function = staticmethod(F.selu)


class SiLU(_Inplace):
    """input * sigmoid(input)."""

    function = staticmethod(F.silu)


class Mish(_Inplace):
    """input * tanh(softplus(input))."""

    function = staticmethod(F.mish)


class Hardsigmoid(_Inplace):
    """min(max(input + 3, 0), 6) / 6."""

    function = staticmethod(F.hardsigmoid)


class Hardswish(_Inplace):
    """input * hardsigmoid(input)."""

    function = staticmethod(F.hardswish)


class Sigmoid(_Activation):
    """1 / (1 + exp(-input))."""

    function = staticmethod(F.sigmoid)


class Tanh(_Activation):
    """The hyperbolic tangent."""

    function = staticmethod(F.tanh)


class Tanhshrink(_Activation):
    """input - tanh(input)."""

    function = staticmethod(F.tanhshrink)


class Softsign(_Activation):
    """input / (1 + |input|)."""

    function = staticmethod(F.softsign)


class LogSigmoid(_Activation):
    """log(sigmoid(input)), without overflow."""

    function = staticmethod(F.logsigmoid)


class LeakyReLU(_Activation):
    """The input where positive, negative_slope * input elsewhere."""

    function = staticmethod(F.leaky_relu)
    options = ("negative_slope", "inplace")

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace


class ELU(_Activation):
    """The input where positive, alpha * (exp(input) - 1) elsewhere."""

    function = staticmethod(F.elu)
    options = ("alpha", "inplace")

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace


class CELU(_Activation):
    """The input where positive, alpha * (exp(input / alpha) - 1) elsewhere."""

    function = staticmethod(F.celu)
    options = ("alpha", "inplace")

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace


class _Shrink(_Activation):
    """A function with the one option lambd."""

    options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(_Shrink):
    """The input where its absolute value is above lambd, 0 elsewhere."""

    function = staticmethod(F.hardshrink)


class Softshrink(_Shrink):
    """The input moved towards 0 by lambd, 0 where that would pass it."""

    function = staticmethod(F.softshrink)


class RReLU(Module):
    """The input where positive; elsewhere times a slope drawn from [lower, upper], in evaluation their mean."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Any) -> Any:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class Softmax2d(Module):
    """softmax over the channels [n, channels, h, w] or [channels, h, w] at each place."""

    def forward(self, input: Any) -> Any:
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return F.softmax(input, -3)


class Hardtanh(_Activation):
    """The input limited to [min_val, max_val]."""

    function = staticmethod(F.hardtanh)
    options = ("min_val", "max_val", "inplace")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if min_val >= max_val:
            raise AssertionError(f"Hardtanh: max_val must be larger than min_val, got {max_val} and {min_val}")
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace


class Threshold(_Activation):
    """The input where it is greater than threshold, value elsewhere."""

    function = staticmethod(F.threshold)
    options = ("threshold", "value", "inplace")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace


class GELU(_Activation):
    """input * Phi(input), Phi the normal distribution function; approximate="tanh" for its tanh form."""

    function = staticmethod(F.gelu)
    options = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate


class Softplus(_Activation):
    """log(1 + exp(beta * input)) / beta; the input itself where beta * input > threshold."""

    function = staticmethod(F.softplus)
    options = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold


class _Along(_Activation):
    """A function along one dimension."""

    options = ("dim",)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim


class Softmax(_Along):
    """exp(input) / sum(exp(input)) along dim; to leave it out is deprecated.

    Example:
        >>> import paceline as torch
        >>> torch.nn.Softmax(dim=0)(torch.zeros(4))
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    function = staticmethod(F.softmax)


class LogSoftmax(_Along):
    """log(softmax(input)) along dim, without overflow."""

    function = staticmethod(F.log_softmax)


class Softmin(_Along):
    """softmax(-input) along dim."""

    function = staticmethod(F.softmin)


class GLU(_Along):
    """a * sigmoid(b), where a and b are the halves of the input along dim."""

    function = staticmethod(F.glu)

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)


class PReLU(Module):
    """The input where positive, weight * input elsewhere, with a learned weight.

    Args:
        num_parameters: 1, or the number of channels (dimension 1 of the input).
        init: first value of the weight.
        device, dtype: of the weight.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(creation.empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Any) -> Any:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
