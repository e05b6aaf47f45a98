"""A helpful error for the names that PyTorch has and Paceline does not."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any


@functools.cache
def torch_names() -> frozenset[str]:
    """The public names of PyTorch's training API, as `python -m docs.api` last wrote them down."""
    with open(os.path.join(os.path.dirname(__file__), "torch_names.txt")) as names:
        return frozenset(names.read().split())


def getattr_of(module: str) -> Callable[[str], Any]:
    """A `__getattr__` for a module whose name has `paceline` where PyTorch's has `torch`."""

    def missing(name: str) -> Any:
        theirs = f"{module}.{name}".replace("paceline", "torch", 1)
        if name.startswith("__") or theirs not in torch_names():
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        raise AttributeError(f"{module} has no {name!r} yet (PyTorch has {theirs}); see docs/api.md", name=name)

    return missing
