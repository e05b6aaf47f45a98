"""Loss scaling: gradients of half-precision models that would vanish are computed of a larger loss."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy

from ..autograd.variable import Variable, box
from ..runtime import cuda
from ..runtime.arrays import module_of
from .optimizer import Optimizer


class _Stage(Enum):
    READY = 0
    UNSCALED = 1
    STEPPED = 2


@dataclass
class _Progress:
    """How far one optimizer has come since the last update()."""

    stage: _Stage = _Stage.READY
    overflowed: bool | None = None  # None: its gradients were not looked at


class GradScaler:
    """Multiplies losses by a factor, and gradients by its inverse before they are used.

    Steps whose gradients overflow are left out and lower the factor; many without overflow raise it. The ranks of a
    data-parallel job agree about both as long as they have the same gradients, as DistributedDataParallel gives them;
    where a ZeroRedundancyOptimizer divides the gradients, it lets the ranks agree.

    Args:
        device: "cpu" or "cuda"; without a CUDA device the latter disables the scaler, with a warning.
        init_scale: the factor at the beginning.
        growth_factor: what the factor is multiplied by after `growth_interval` steps without overflow; above 1.
        backoff_factor: what the factor is multiplied by after an overflow; below 1.
        growth_interval: steps.
        enabled: False passes losses and steps through unchanged.

    Source: Micikevicius et al., Mixed precision training, 2018.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer, scaler = torch.optim.SGD([w], lr=0.5), torch.amp.GradScaler("cpu")
        >>> scaler.scale((w * w).sum()).backward()
        >>> scaler.step(optimizer); scaler.update()
        >>> w.detach(), scaler.get_scale()
        (tensor([0.]), 65536.0)
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if enabled and device == "cuda" and not cuda.is_available():
            warnings.warn("GradScaler is enabled, but there is no CUDA device: disabling it", stacklevel=2)
            enabled = False
        if growth_factor <= 1.0:
            raise AssertionError(f"The growth factor must be > 1.0, got {growth_factor}")
        if backoff_factor >= 1.0:
            raise AssertionError(f"The backoff factor must be < 1.0, got {backoff_factor}")
        self._enabled = enabled
        self._scale = float(init_scale)
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._growth_tracker = 0
        self._progress: defaultdict[int, _Progress] = defaultdict(_Progress)

    def scale(self, outputs: Any) -> Any:
        """A tensor, or tensors in an iterable, multiplied by the factor."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Variable):
            factor: Any = box(module_of(outputs.array).asarray(self._scale, numpy.float32))
            return outputs * factor
        if not isinstance(outputs, Iterable):
            raise ValueError(f"outputs must be a Tensor or an iterable of Tensors, got {type(outputs).__name__}")
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, list | tuple) else scaled

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the factor, to clip them say; `step` does it otherwise.

        Raises:
            RuntimeError: it was called before since the last update().
            ValueError: a gradient is of float16, in which most of what was gained by scaling is lost again.
        """
        if not self._enabled:
            return
        progress = self._progress[id(optimizer)]
        if progress.stage is _Stage.UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if progress.stage is _Stage.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        progress.overflowed = optimizer.unscale(1.0 / self._scale)
        progress.stage = _Stage.UNSCALED

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Call the optimizer's step(*args, **kwargs) unless a gradient overflowed, and return what it returns.

        Raises:
            RuntimeError: a closure was given, which would compute gradients that nobody unscales, or this is the
                second step since the last update().
            AssertionError: no parameter of the optimizer has a gradient.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        progress = self._progress[id(optimizer)]
        if progress.stage is _Stage.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if progress.stage is _Stage.READY:
            self.unscale_(optimizer)
        if progress.overflowed is None:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        result = None if progress.overflowed else optimizer.step(*args, **kwargs)
        progress.stage = _Stage.STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Adapt the factor to the steps since the last update, or set it.

        Raises:
            AssertionError: no gradients were looked at since the last update.
        """
        if not self._enabled:
            return
        checked = [p.overflowed for p in self._progress.values() if p.overflowed is not None]
        if new_scale is not None:
            self._scale = float(new_scale)
        elif not checked:
            raise AssertionError("No inf checks were recorded prior to update.")
        elif any(checked):
            self._scale *= self._backoff_factor
            self._growth_tracker = 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                grown = self._scale * self._growth_factor
                self._scale = grown if grown <= numpy.finfo(numpy.float32).max else self._scale
                self._growth_tracker = 0
        self._progress.clear()

    def get_scale(self) -> float:
        """The factor; 1 for a disabled scaler."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """What the factor grows by."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Change what the factor grows by."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the factor is multiplied by after an overflow."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Change what the factor is multiplied by after an overflow."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many steps without overflow the factor grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Change after how many steps the factor grows."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether it scales."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The factor and how it changes; empty for a disabled scaler. Save it after update()."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what state_dict() of another scaler returned.

        Raises:
            RuntimeError: it is empty, of a disabled scaler.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._scale = float(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]
