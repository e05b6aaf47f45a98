"""Data-parallel training: every rank computes the gradients of its part of the batch, and all take the average.

`average_gradients` is the whole idea. `DistributedDataParallel` does the same while backward still runs: gradients
travel in buckets, each as soon as its last gradient is complete, and all ranks send the buckets in one agreed order.
With `lanes` its results have the same bits on any number of ranks.
"""

from .average import average_gradients
from .data_parallel import DistributedDataParallel

DataParallel = DistributedDataParallel

__all__ = ["DataParallel", "DistributedDataParallel", "average_gradients"]
