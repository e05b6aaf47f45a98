"""Datasets, samplers and loaders under the names they have in PyTorch, and the readers of published data sets."""

from ..runtime.absent import getattr_of
from ..runtime.data import (
    CIFAR10,
    MNIST,
    BatchSampler,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    LaneSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
    read_cifar10_binary,
    read_cifar10_python,
    read_idx,
)
from ..tensor.data import DataLoader, default_collate, default_convert

__getattr__ = getattr_of(__name__)

__all__ = [
    "CIFAR10",
    "MNIST",
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "IterableDataset",
    "LaneSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "default_collate",
    "default_convert",
    "random_split",
    "read_cifar10_binary",
    "read_cifar10_python",
    "read_idx",
]
