"""What one row of the table of operations says, and how its samples become tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import paceline
from paceline.autograd.declaration import registry


class Sample:
    """The arguments of one call. float64 arrays are the differentiable inputs; other arrays are indices and masks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs

    def tensors(self, make: Callable[[np.ndarray], Any]) -> tuple[tuple, dict]:
        """The arguments with `make` applied to every array, also within lists and tuples."""
        return tuple(_mapped(a, make) for a in self.args), {k: _mapped(v, make) for k, v in self.kwargs.items()}

    def __repr__(self) -> str:
        parts = [_text(a) for a in self.args] + [f"{k}={_text(v)}" for k, v in self.kwargs.items()]
        return f"({', '.join(parts)})"


@dataclass
class Op:
    """One operation.

    Attributes:
        name: the public function `paceline.<name>`, or the method; for an internal row the primitive.
        samples: calls to try.
        reference: the same function of NumPy arrays, from an independent source.
        call: `(module, *args)`, where a call is more than `module.name(*args)`; module is paceline or torch.
        internal: a primitive that no public name shows directly.
        differentiable: whether gradients flow from the float64 arrays to every floating output.
        second: whether to check second derivatives by finite differences as well.
        fused: ordinary backward runs a kernel that equals the written rule only up to rounding.
        cpu_only: an operation that PyTorch, too, has on the CPU alone.
        emulated: False for what the emulated device lacks: sorting, and matrix products with a broadcast batch.
    """

    name: str
    samples: Sequence[Sample]
    reference: Callable | None = None
    call: Callable | None = None
    internal: bool = False
    differentiable: bool = True
    second: bool = True
    fused: bool = False
    emulated: bool = True
    cpu_only: bool = False
    aliases: tuple[str, ...] = field(default=())

    def __call__(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        if self.internal:
            return registry[self.name](*args, **kwargs)
        if self.call is not None:
            return self.call(module, *args, **kwargs)
        function = getattr(module, self.name, None)
        if inspect.isroutine(function):
            return function(*args, **kwargs)
        return getattr(args[0], self.name)(*args[1:], **kwargs)

    @property
    def is_method(self) -> bool:
        """Whether the public function is also a method of its first argument."""
        plain = self.call is None and not self.internal
        return plain and hasattr(paceline, self.name) and inspect.isroutine(getattr(paceline.Tensor, self.name, None))

    @property
    def in_place(self) -> str | None:
        """The name of the in-place twin, if there is one."""
        twin = f"{self.name}_"
        return twin if not self.internal and self.call is None and hasattr(paceline.Tensor, twin) else None


def outputs(result: Any) -> tuple:
    """An operation's outputs as a tuple."""
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def to_numpy(result: Any) -> Any:
    """Tensors, on whatever device, as host arrays; anything else as it is."""
    return result.detach().cpu().numpy() if isinstance(result, paceline.Tensor) else result


def _mapped(value: Any, make: Callable) -> Any:
    if isinstance(value, np.ndarray):
        return make(value)
    if type(value) in (list, tuple):
        return type(value)(_mapped(v, make) for v in value)
    return value


def _text(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)
