"""The named tuples that operations with several results return."""

from __future__ import annotations

import functools
from collections import namedtuple
from typing import Any


@functools.cache
def return_type(name: str, *fields: str) -> Any:
    """The class of an operation's results: a named tuple that is shown as PyTorch shows it, and can be pickled."""
    kind = namedtuple(name, fields)  # type: ignore[misc]  # the names are not written here
    kind.__repr__ = _shown  # type: ignore[method-assign,assignment]
    kind.__reduce__ = _reduced  # type: ignore[method-assign,assignment]
    return kind


def _shown(self: Any) -> str:
    results = ",\n".join(f"{name}={value!r}" for name, value in self._asdict().items())
    return f"paceline.return_types.{type(self).__name__}(\n{results})"


def _reduced(self: Any) -> tuple:
    return _restored, (type(self).__name__, self._fields, tuple(self))


def _restored(name: str, fields: tuple[str, ...], results: tuple) -> Any:
    return return_type(name, *fields)(*results)
