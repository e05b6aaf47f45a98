"""torch.cuda's names."""

from ..runtime.cuda import (
    current_device,
    device_count,
    empty_cache,
    get_device_name,
    is_available,
    manual_seed,
    manual_seed_all,
    memory_allocated,
    memory_reserved,
    set_device,
    synchronize,
)
from . import amp

__all__ = [
    "amp",
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "is_available",
    "manual_seed",
    "manual_seed_all",
    "memory_allocated",
    "memory_reserved",
    "set_device",
    "synchronize",
]
