"""What a function refers to by name, and the modules among that."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator
from typing import Any

from .module import Module

_DEPTH = 5  # of attributes and functions that lead to a module
_UNBOUND = object()


class Names:
    """The variables around a function, and the globals that it names."""

    def __init__(self, function: Any) -> None:
        inner = getattr(function, "__func__", function)
        code = getattr(inner, "__code__", None)
        self._cells = (inner.__closure__ or ()) if code else ()
        self._globals = inner.__globals__ if code else {}
        named = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"} if code else ()
        known = [name for name in named if name in self._globals]  # others are built in, or not yet defined
        self._names = [name for name in known if not isinstance(self._globals[name], types.ModuleType)]
        self._values = self._now()

    def _now(self) -> list:
        return [*map(_content, self._cells), *(self._globals.get(name, _UNBOUND) for name in self._names)]

    def unchanged(self) -> bool:
        """Whether all names stand for what they did."""
        for i, cell in enumerate(self._cells):  # a list of all would take three times as long
            if _content(cell) is not self._values[i]:
                return False
        first = len(self._cells)
        for i, name in enumerate(self._names):
            if self._globals.get(name, _UNBOUND) is not self._values[first + i]:
                return False
        return True

    def refresh(self) -> list:
        """What all names stand for now."""
        self._values = self._now()
        return self._values


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _UNBOUND


def modules_of(function: Any) -> list[Module]:
    """The modules that a function refers to: by its names, by attributes of what they stand for, and through other
    functions; each once, and none that is a part of another."""
    found: dict[Module, None] = {}
    seen: dict[tuple, Any] = {}  # keeps them, so that no other gets the same id
    level: list[tuple[Any, frozenset]] = [(function, frozenset())]
    for _ in range(_DEPTH):
        beyond: list[tuple[Any, frozenset]] = []
        for value, names in level:
            if (id(value), names) in seen:
                continue
            seen[id(value), names] = value
            if isinstance(value, Module):
                found[value] = None
            else:
                beyond += _beyond(value, names)
        level = beyond
    parts = {part for module in found for part in module.modules() if part is not module}
    return [module for module in found if module not in parts]


def _beyond(value: Any, names: frozenset) -> Iterator[tuple[Any, frozenset]]:
    """What a value leads to, each with the names of attributes that are of interest there."""
    inner = getattr(value, "__func__", value)
    if isinstance(inner, types.FunctionType):
        if not (inner.__module__ or "").startswith("paceline."):
            yield from _around(inner)
    elif isinstance(value, list | tuple):
        yield from ((item, names) for item in value)
    elif isinstance(value, dict):
        yield from ((item, names) for item in value.values())
    elif not isinstance(value, type | types.ModuleType):
        attributes = getattr(value, "__dict__", {})
        for name in names:
            method = getattr(type(value), name, None)
            if name in attributes:
                yield attributes[name], names
            elif isinstance(method, types.FunctionType):
                yield types.MethodType(method, value), names
    if isinstance(value, types.MethodType):
        yield value.__self__, _names_in(inner.__code__) if isinstance(inner, types.FunctionType) else names


def _around(function: types.FunctionType) -> Iterator[tuple[Any, frozenset]]:
    names = _names_in(function.__code__)
    values = [*map(_content, function.__closure__ or ()), *(function.__defaults__ or ())]
    values += [function.__globals__[name] for name in names if name in function.__globals__]
    yield from ((value, names) for value in values)


def _names_in(code: types.CodeType) -> frozenset:
    """The names of globals and attributes in a function and in those within it."""
    inner = (_names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*inner)
