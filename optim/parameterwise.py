"""Steps of one parameter after another: optimizers whose update looks at a parameter's shape."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy

from ..autograd.variable import box, changed
from ..runtime.arrays import Array, module_of
from .optimizer import Optimizer, loss_of

State = dict[str, Array]


class ParameterwiseOptimizer(Optimizer):
    """An optimizer given by two functions on a parameter's raw array, `init` and `update`."""

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        """The state before the first step, by PyTorch's names; "step", if there, is counted for `update`."""
        raise NotImplementedError

    @staticmethod
    def update(xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any]) -> None:
        """One step in place.

        Args:
            xp: numpy or cupy.
            p: the parameter, to be changed.
            g: its gradient, not to be changed.
            state: what `init` made, to be changed; "step" is the number of this step, from 1.
            hp: the options of the group.
        """
        raise NotImplementedError

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = loss_of(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.gradient is not None and p.array.size:
                    self._step_of(p, group)
        return loss

    def _step_of(self, p: Any, group: dict[str, Any]) -> None:
        xp, entry = module_of(p.array), self.state[p]
        if not entry:
            entry.update((name, box(array)) for name, array in self.init(xp, p.array, group).items())
        state = {name: tensor.array for name, tensor in entry.items()}
        if "step" in state:
            state["step"] += 1
        self.update(xp, p.array, p.gradient.array, state, group)
        changed(p, "optimizer step")


def step_count() -> Array:
    """The state "step" before the first: in host memory, as reading it must not wait for a device."""
    return numpy.zeros((), numpy.float32)
