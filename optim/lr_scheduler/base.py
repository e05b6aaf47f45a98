"""The interface of learning rate schedules."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

from ...autograd.mode import later, no_grad
from ...autograd.variable import Variable
from ..optimizer import Optimizer


class LRScheduler:
    """Base class of schedules: a subclass defines `get_lr()`.

    Args:
        optimizer: whose groups' "lr" to set.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Attributes:
        base_lrs: the groups' rates at the start.
        last_epoch: how often step() was called.

    Example:
        >>> import paceline as torch
        >>> class Halving(LRScheduler):
        ...     def get_lr(self):
        ...         return [lr * 0.5**self.last_epoch for lr in self.base_lrs]
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = Halving(optimizer)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    _is_initial = False  # while the constructor sets the first rates
    _get_lr_called_within_step = True  # schedules written after PyTorch's warn where it is False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = checked(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _rate(group))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming with "
                    f"last_epoch={last_epoch}: load the optimizer's state_dict first, or start with last_epoch=-1"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """The groups' rates in epoch `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rates that this schedule has set last, one for each group."""
        return self._last_lr

    @later
    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch and set the groups' rates.

        Args:
            epoch: deprecated; go to this epoch instead.
        """
        if self._step_count == 1 and not self.optimizer.stepped:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite order, or "
                "the first value of the learning rate schedule is skipped.",
                stacklevel=2,
            )
        if epoch is not None:
            warnings.warn("The epoch parameter in `scheduler.step()` is deprecated; use step() alone.", stacklevel=2)
        self._step_count += 1
        self._go_to(epoch)

    def _go_to(self, epoch: int | None) -> None:
        """Set the rates of an epoch; of the next one, reckoned from the rates as they are, if None."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set(self.get_lr() if epoch is None else self._rates_from_start())

    def _rates_from_start(self) -> list[float]:
        """The groups' rates in epoch `last_epoch`, whatever they are now."""
        return self.get_lr()

    def _set(self, rates: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, lr)
        self._last_lr = current_rates(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict()` returned; load the optimizer's state as well."""
        vars(self).update(state_dict)


def checked(optimizer: Any) -> Optimizer:
    """The argument, if it is an optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    return optimizer


def per_group(optimizer: Optimizer, name: str, value: Any) -> list:
    """One value for each group of an optimizer: a list as it is, anything else for all."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"expected {count} {name}, one for each group of the optimizer, but got {len(value)}")
    return list(value)


def _rate(group: dict[str, Any]) -> float:
    """A group's rate; of a tensor the number in it."""
    return float(group["lr"]) if isinstance(group["lr"], Variable) else group["lr"]


def current_rates(optimizer: Optimizer) -> list[float]:
    """The rates of an optimizer's groups."""
    return [_rate(group) for group in optimizer.param_groups]


def set_rate(group: dict[str, Any], lr: float) -> None:
    """Set a group's rate; a tensor stays, with the new number in it."""
    if isinstance(group["lr"], Variable):
        with no_grad():
            group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def saved_function(function: Callable | None) -> dict[str, Any] | None:
    """What of a function goes into a state_dict: the attributes of a callable object, None of a plain function."""
    return None if function is None or isinstance(function, types.FunctionType) else dict(vars(function))
