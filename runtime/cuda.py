"""CUDA devices: how many there are, which one is current, memory and synchronization."""

from __future__ import annotations

from typing import Any

from . import arrays, device, rng


def is_available() -> bool:
    """Whether there is a CUDA device that CuPy can use.

    Example:
        >>> import paceline as torch
        >>> torch.cuda.is_available() == (torch.cuda.device_count() > 0)
        True
    """
    return arrays.device_count() > 0


def device_count() -> int:
    """The number of CUDA devices."""
    return arrays.device_count()


def current_accelerator(check_available: bool = False) -> device.device | None:
    """The kind of device that computes faster than the CPU; None where there is none.

    Example:
        >>> import paceline as torch
        >>> device = torch.accelerator.current_accelerator() or torch.device("cpu")
        >>> torch.ones(2, device=device).device.type == device.type
        True
    """
    return device.device("cuda") if is_available() else None


def _module() -> Any:
    device.resolve("cuda")  # raises with the reason where there is none
    return arrays.cupy()


def current_device() -> int:
    """The number of the current CUDA device."""
    return _module().cuda.runtime.getDevice()


def set_device(which: int | str | device.device) -> None:
    """Make a CUDA device the current one of this thread."""
    where = device.resolve(device.device(which))
    if where.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {where}")
    if where.index is not None:
        _module().cuda.Device(where.index).use()


def get_device_name(which: Any = None) -> str:
    """The name of a CUDA device."""
    where = device.resolve("cuda" if which is None else which)
    index = current_device() if where.index is None else where.index
    return _module().cuda.runtime.getDeviceProperties(index)["name"].decode()


def manual_seed(seed: int) -> None:
    """Restart the default stream of random numbers from a seed; without a CUDA device nothing is done.

    Devices draw from the host's stream, which `paceline.manual_seed` seeds as well.
    """
    if is_available():
        rng.manual_seed(seed)


manual_seed_all = manual_seed


def synchronize(which: Any = None) -> None:
    """Wait until all work queued on a CUDA device has ended."""
    device.synchronize("cuda" if which is None else which)


def empty_cache() -> None:
    """Give memory that is held for reuse back to the driver; without a CUDA device nothing is done."""
    if is_available():
        _module().get_default_memory_pool().free_all_blocks()


def memory_allocated() -> int:
    """Bytes of device memory that arrays occupy now; 0 without a CUDA device."""
    return _module().get_default_memory_pool().used_bytes() if is_available() else 0


def memory_reserved() -> int:
    """Bytes of device memory taken from the driver, in use or held for reuse; 0 without a CUDA device."""
    return _module().get_default_memory_pool().total_bytes() if is_available() else 0
