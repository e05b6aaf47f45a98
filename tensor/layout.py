"""How PyTorch names memory layouts. Paceline's memory is always strided and new memory row-major, so these are
accepted where PyTorch takes them and change nothing but what `is_contiguous` is asked."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ..autograd.out import write_into


class layout:
    """How a tensor's elements are kept; only `strided` exists here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"paceline.{self.name}"


class memory_format(layout):
    """The order of dimensions in memory."""


strided = layout("strided")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")


def check_layout(function: str, kind: Any = None, order: Any = None) -> None:
    """Refuse what is no layout or memory format of ours."""
    if kind not in (None, strided):
        raise TypeError(f"{function}(): layout must be paceline.strided, got {kind!r}")
    if order is not None and not isinstance(order, memory_format):
        raise TypeError(f"{function}(): memory_format must be a paceline.memory_format, got {type(order).__name__}")


def accepts_layout(function: Callable) -> Callable:
    """Give a function that makes tensors PyTorch's keywords about memory, and `out`.

    `pin_memory` is a hint; `size` may be a keyword where the sizes are given one by one.
    """
    signature = inspect.signature(function)
    sizes = [p for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL]

    @functools.wraps(function)
    def make(
        *args: Any,
        layout: Any = None,
        pin_memory: bool = False,
        memory_format: Any = None,
        out: Any = None,
        **kwargs: Any,
    ) -> Any:
        check_layout(function.__name__, layout, memory_format)
        if sizes and "size" in kwargs:
            args = (*args, kwargs.pop("size"))
        return write_into(out, function(*args, **kwargs), function.__name__)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in (("layout", None), ("pin_memory", False), ("memory_format", None), ("out", None))
    ]
    make.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    return make
