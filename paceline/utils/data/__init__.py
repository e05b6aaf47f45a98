"""Datasets, samplers and loaders under the names they have in PyTorch, and the readers of published data sets."""

from ...runtime.absent import getattr_of
from ...runtime.data import (
    CIFAR10,
    MNIST,
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    LaneSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
    random_split,
    read_cifar10_binary,
    read_cifar10_python,
    read_idx,
)
from ...tensor.data import DataLoader, default_collate, default_convert
from . import dataloader, dataset, distributed, sampler

__getattr__ = getattr_of(__name__)

__all__ = [
    "CIFAR10",
    "MNIST",
    "BatchSampler",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "IterableDataset",
    "LaneSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "StackDataset",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "dataloader",
    "dataset",
    "default_collate",
    "default_convert",
    "distributed",
    "get_worker_info",
    "random_split",
    "read_cifar10_binary",
    "read_cifar10_python",
    "read_idx",
    "sampler",
]
