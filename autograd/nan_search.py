"""Where NaN comes from that a backward pass has left in gradients: the first operation with it, and the user's line.

Anomaly detection looks at every gradient of every pass. Here nothing is looked at unless NaN was found; a pass keeps
what it would free until its end, so that it can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from ..runtime.callers import user_frame
from .engine import Backward, reachable
from .mode import node_observers, set_detect_anomaly
from .variable import Node, Variable

_lines: WeakKeyDictionary[Node, str] = WeakKeyDictionary()


def note_lines() -> None:
    """Note where each operation that is recorded is called, until `forget_lines()` is called as often."""
    node_observers.append(_note_line)


def forget_lines() -> None:
    """Undo one `note_lines()`."""
    node_observers.remove(_note_line)


def _note_line(node: Node) -> None:
    frame = user_frame()
    _lines[node] = f"{frame.f_code.co_filename}:{frame.f_lineno}"


class KeptPass:
    """A backward pass that begins, with all that it needs to be repeated.

    Args:
        seeds: its roots, with their gradients.
    """

    def __init__(self, seeds: Sequence[tuple]) -> None:
        self._seeds = seeds
        nodes = [node for node, _ in seeds if isinstance(node, Node)]
        self._saved = {node: node.saved for node in reachable(nodes)}

    def first_nan(self, inputs: Sequence[Variable]) -> str:
        """The operation in which NaN appears first, of those that the gradients of `inputs` come from."""
        for node, saved in self._saved.items():
            node.saved = saved
        for node in sorted(self._saved, key=lambda node: node.number):
            if isinstance(node.saved, tuple) and any(map(has_nan, node.saved)):
                before = " and ".join(_call(edge) for edge in node.edges if isinstance(edge, Node))
                return f"NaN is first in the values of {_call(node)}" + (before and f", or comes from {before}")
        repeated = _Search()
        try:
            with set_detect_anomaly(True):
                repeated.start(self._seeds, True, False, inputs)
        except _FoundError as found:
            return f"backward makes NaN first in {_call(found.node)}"
        return "no operation shows NaN when backward is repeated"


class _FoundError(Exception):
    def __init__(self, node: Node) -> None:
        super().__init__(node.name())
        self.node = node


class _Search(Backward):
    """A backward pass that ends at the first node that passes NaN on."""

    __slots__ = ()

    def check_finite(self, node: Node) -> None:
        for edge in node.edges:
            entry = self.pending.get(edge.number) if isinstance(edge, Node) else self.held.get(edge)
            if has_nan(self.found.get(edge) if entry is None else entry[-2]):
                raise _FoundError(node)


def _call(node: Node) -> str:
    return f"{node.name()} of {_lines.get(node, 'a line that was not noted')}"


def has_nan(value: Any) -> bool:
    """Whether there is NaN in a tensor or an array; not if it is neither."""
    array = value.array if isinstance(value, Variable) else value
    return hasattr(array, "dtype") and bool((array != array).any())
