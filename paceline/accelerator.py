"""torch.accelerator's names: CUDA is the accelerator, where there is one."""

from .runtime.cuda import (
    current_accelerator,
    device_count,
    empty_cache,
    is_available,
    memory_allocated,
    memory_reserved,
    synchronize,
)
from .runtime.cuda import current_device as current_device_index
from .runtime.cuda import set_device as set_device_index

__all__ = [
    "current_accelerator",
    "current_device_index",
    "device_count",
    "empty_cache",
    "is_available",
    "memory_allocated",
    "memory_reserved",
    "set_device_index",
    "synchronize",
]
