"""torch.distributions' names: the distributions that training scripts use most."""

from .runtime.absent import getattr_of
from .tensor.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    Normal,
    Uniform,
    kl_divergence,
)

__getattr__ = getattr_of(__name__)

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Independent",
    "Normal",
    "Uniform",
    "kl_divergence",
]
