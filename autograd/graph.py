"""What becomes of the values that operations save for backward; the public names of `torch.autograd.graph`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ..runtime import device as devices
from .mode import node_observers
from .variable import Node, Variable, box

_hooks: ContextVar[tuple] = ContextVar("pairs of pack and unpack hooks, the innermost last", default=())


class saved_tensors_hooks:
    """Hand every tensor that is saved for backward within a `with` block to `pack_hook`, and get it back on use.

    Args:
        pack_hook: takes the tensor, returns anything: it is kept instead.
        unpack_hook: takes what pack_hook returned, returns a tensor of the same values; called in backward.

    Example:
        >>> import paceline as torch
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> with torch.autograd.graph.saved_tensors_hooks(lambda t: t.tolist(), torch.tensor):
        ...     y = x * x
        >>> y.backward(); x.grad
        tensor([6.])
    """

    def __init__(self, pack_hook: Callable[[Any], Any], unpack_hook: Callable[[Any], Any]) -> None:
        self._pair = (pack_hook, unpack_hook)

    def __enter__(self) -> None:
        _hooks.set((*_hooks.get(), self._pair))
        node_observers.append(_pack)

    def __exit__(self, *exc: object) -> None:
        node_observers.remove(_pack)
        _hooks.set(_hooks.get()[:-1])


class save_on_cpu(saved_tensors_hooks):
    """Keep what is saved for backward in host memory, and bring it back to its device in backward.

    Args:
        pin_memory: accepted for PyTorch's sake; copies go through ordinary memory.
    """

    def __init__(self, pin_memory: bool = False) -> None:
        def pack(tensor: Any) -> tuple:
            return tensor.device, box(devices.move(tensor.array, devices.CPU))

        def unpack(packed: tuple) -> Any:
            return box(devices.move(packed[1].array, packed[0]))

        super().__init__(pack, unpack)


class _Packed:
    """Stands in `Node.saved` for values that a hook has packed."""

    def __init__(self, saved: tuple, pack: Callable, unpack: Callable) -> None:
        self._unpack = unpack
        self._values = tuple(_PackedArray(pack(box(v))) if hasattr(v, "dtype") and hasattr(v, "shape") else v
                             for v in saved)  # fmt: skip

    def unpack(self, node: Node) -> tuple:
        return tuple(self._unpacked(v.content) if isinstance(v, _PackedArray) else v for v in self._values)

    def _unpacked(self, content: Any) -> Any:
        tensor = self._unpack(content)
        if not isinstance(tensor, Variable):
            raise TypeError(f"Output of saved tensor unpack_hook expected to be a Tensor, got {type(tensor).__name__}")
        return tensor.array


class _PackedArray:
    __slots__ = ("content",)

    def __init__(self, content: Any) -> None:
        self.content = content


def _pack(node: Node) -> None:
    """Observer of new nodes while hooks are set, in whatever thread."""
    hooks = _hooks.get()
    if hooks and node.saved.__class__ is tuple and node.saved:
        pair, others = hooks[-1], hooks[:-1]
        _hooks.set(())  # what the hook itself computes is its own affair
        try:
            node.saved = _Packed(node.saved, *pair)
        finally:
            _hooks.set((*others, pair))


__all__ = ["Node", "save_on_cpu", "saved_tensors_hooks"]
