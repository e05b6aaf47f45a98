"""torch.cuda's names."""

from .runtime.cuda import (
    current_device,
    device_count,
    empty_cache,
    get_device_name,
    is_available,
    memory_allocated,
    memory_reserved,
    set_device,
    synchronize,
)

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "is_available",
    "memory_allocated",
    "memory_reserved",
    "set_device",
    "synchronize",
]
