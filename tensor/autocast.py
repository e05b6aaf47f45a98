"""Mixed precision, as far as it goes: scripts that ask for it run, in the dtypes of their tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any


def is_autocast_available(device_type: str) -> bool:
    """Whether operations can choose a shorter dtype themselves on a kind of device: on none."""
    return False


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether operations choose a shorter dtype themselves: never."""
    return False


class autocast(ContextDecorator):
    """Leaves all dtypes as they are, and warns of that where it is enabled, as PyTorch does where it has none.

    Operations compute in the dtypes of their operands; for shorter ones convert the model and its inputs.

    Args:
        device_type: "cpu" or "cuda".
        dtype: what PyTorch would compute products in; ignored.
        enabled: False for a block without autocast, which is every block, and not warned of.
        cache_enabled: ignored.

    Raises:
        ValueError: device_type is no text.
        RuntimeError: a device_type that is neither "cpu" nor "cuda".

    Example:
        >>> import paceline as torch
        >>> with torch.autocast("cpu", enabled=False):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        paceline.float32
    """

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        if device_type.partition(":")[0] not in ("cpu", "cuda"):
            raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")
        if enabled:
            warnings.warn(
                "autocast: there is no mixed precision yet, so operations compute in the dtypes of their tensors "
                "(float32 stays float32); enabled=False hides this line",
                stacklevel=2,
            )

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def cuda_autocast(enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> autocast:
    """`torch.autocast("cuda", ...)` by its old name."""
    return autocast("cuda", dtype, enabled, cache_enabled)


def custom_fwd(fwd: Callable | None = None, *, device_type: str = "cuda", cast_inputs: Any = None) -> Callable:
    """The forward of an autograd.Function as it is: there is no autocast to switch off within it."""
    return (lambda function: function) if fwd is None else fwd


def custom_bwd(bwd: Callable | None = None, *, device_type: str = "cuda") -> Callable:
    """The backward of an autograd.Function as it is."""
    return (lambda function: function) if bwd is None else bwd
