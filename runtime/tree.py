"""Nested containers as a flat list of leaves and the structure to put them back: what PyTorch calls a pytree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """How one level was built; None as `rebuild` marks a leaf."""

    rebuild: Callable[[list], Any] | None
    children: tuple[Structure, ...]


LEAF = Structure(None, ())


def flatten(tree: Any) -> tuple[list, Structure]:
    """The leaves of nested dicts, lists and (named) tuples in order, and the structure around them."""
    leaves: list = []
    return leaves, _structure(tree, leaves)


def _structure(tree: Any, leaves: list) -> Structure:
    if isinstance(tree, dict):
        kind, keys = type(tree), tuple(tree)
        items, rebuild = tuple(tree.values()), lambda values: kind(zip(keys, values, strict=True))
    elif type(tree) in (list, tuple):
        items, rebuild = tree, type(tree)
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        items, rebuild = tree, type(tree)._make  # type: ignore[attr-defined]
    else:
        leaves.append(tree)
        return LEAF
    return Structure(rebuild, tuple(_structure(item, leaves) for item in items))


def unflatten(leaves: list, structure: Structure) -> Any:
    """The tree of a structure with these leaves."""
    return _rebuilt(iter(leaves), structure)


def _rebuilt(leaves: Iterator, structure: Structure) -> Any:
    if structure.rebuild is None:
        return next(leaves)
    return structure.rebuild([_rebuilt(leaves, child) for child in structure.children])
