"""The sampler of data-parallel training, under the name that it has in PyTorch."""

from ...runtime.data import DistributedSampler

__all__ = ["DistributedSampler"]
