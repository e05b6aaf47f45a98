"""Schedules given by functions, or by a factor of the epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler, checked, current_rates, per_group, saved_function


class _ByFunction(LRScheduler):
    """A schedule given by a function of the epoch for each group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.lr_lambdas = per_group(checked(optimizer), "lr_lambdas", lr_lambda)
        super().__init__(optimizer, last_epoch)

    def _factors(self) -> list[float]:
        return [function(self.last_epoch) for function in self.lr_lambdas]

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer; of the functions only those of callable objects."""
        return {**super().state_dict(), "lr_lambdas": [saved_function(f) for f in self.lr_lambdas]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        functions = self.lr_lambdas
        super().load_state_dict(state_dict)
        self.lr_lambdas = functions
        for function, attributes in zip(functions, state_dict["lr_lambdas"], strict=True):
            if attributes is not None:
                vars(function).update(attributes)


class LambdaLR(_ByFunction):
    """lr = initial lr * lr_lambda(epoch).

    Args:
        optimizer: whose groups' "lr" to set.
        lr_lambda: function of the epoch, or one for each group.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    def get_lr(self) -> list[float]:
        return [lr * factor for lr, factor in zip(self.base_lrs, self._factors(), strict=True)]


class MultiplicativeLR(_ByFunction):
    """lr = lr * lr_lambda(epoch) at every epoch but the first.

    Args:
        optimizer: whose groups' "lr" to set.
        lr_lambda: function of the epoch, or one for each group.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = MultiplicativeLR(optimizer, lambda epoch: 0.5)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    def get_lr(self) -> list[float]:
        if self._is_initial:
            return current_rates(self.optimizer)
        return [lr * factor for lr, factor in zip(current_rates(self.optimizer), self._factors(), strict=True)]


class _ByFactor(LRScheduler):
    """lr = eta_min + (initial lr - eta_min) * _factor(epoch).

    A step reckons from the group's current rate, as PyTorch does, so that a rate changed by the user or by a second
    schedule stays changed.
    """

    eta_min = 0.0
    _waits_on_resuming = True  # whether the constructor with last_epoch >= 0 leaves the rates as it finds them

    def _factor(self, epoch: int) -> float:
        """What the initial rate is multiplied by in an epoch."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        rates, low = current_rates(self.optimizer), self.eta_min
        before = self._factor(self.last_epoch - 1) if self.last_epoch > 0 else 1.0
        now = self._factor(self.last_epoch)
        if now == before or (self._is_initial and self.last_epoch > 0 and self._waits_on_resuming):
            return rates
        if before == 0:
            return [lr + (base - low) * now for lr, base in zip(rates, self.base_lrs, strict=True)]
        return [low + (lr - low) * (now / before) for lr in rates]

    def _rates_from_start(self) -> list[float]:
        return [self.eta_min + (base - self.eta_min) * self._factor(self.last_epoch) for base in self.base_lrs]


class StepLR(_ByFactor):
    """lr = lr * gamma every `step_size` epochs.

    Args:
        optimizer: whose groups' "lr" to set.
        step_size: epochs between the drops.
        gamma: the rate after a drop over that before.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = StepLR(optimizer, step_size=1, gamma=0.5)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    _waits_on_resuming = False

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return self.gamma ** (epoch // self.step_size)


class MultiStepLR(_ByFactor):
    """lr = lr * gamma at each of the epochs in `milestones`.

    Args:
        optimizer: whose groups' "lr" to set.
        milestones: the epochs of the drops; a drop for each time one is named.
        gamma: the rate after a drop over that before.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = MultiStepLR(optimizer, milestones=[1, 30], gamma=0.5)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    _waits_on_resuming = False

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return self.gamma ** sum(count for milestone, count in self.milestones.items() if milestone <= epoch)


class ConstantLR(_ByFactor):
    """lr = initial lr * factor for `total_iters` epochs, then the initial lr.

    Args:
        optimizer: whose groups' "lr" to set.
        factor: 0 to 1.
        total_iters: epochs with the reduced rate.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = ConstantLR(optimizer, factor=0.5, total_iters=4)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    _waits_on_resuming = False

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0 <= factor <= 1.0:
            raise ValueError(f"Constant multiplicative factor expected to be between 0 and 1, got {factor}")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return self.factor if epoch < self.total_iters else 1.0


class LinearLR(_ByFactor):
    """lr = initial lr * a factor that goes from start_factor to end_factor in `total_iters` epochs: a warm-up.

    Args:
        optimizer: whose groups' "lr" to set.
        start_factor: factor of the first epoch, above 0 and at most 1.
        end_factor: factor after total_iters epochs, 0 to 1.
        total_iters: epochs of the change.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = LinearLR(optimizer, start_factor=0.25, total_iters=3)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1.0:
            raise ValueError(
                f"Starting multiplicative factor expected to be greater than 0 and at most 1, got {start_factor}"
            )
        if not 0 <= end_factor <= 1.0:
            raise ValueError(f"Ending multiplicative factor expected to be between 0 and 1, got {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        done = min(epoch, self.total_iters) / max(1, self.total_iters)
        return self.start_factor + (self.end_factor - self.start_factor) * done


class ExponentialLR(_ByFactor):
    """lr = lr * gamma every epoch.

    Args:
        optimizer: whose groups' "lr" to set.
        gamma: the rate of an epoch over that of the one before.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = ExponentialLR(optimizer, gamma=0.5)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return self.gamma**epoch


class PolynomialLR(_ByFactor):
    """lr = initial lr * (1 - epoch / total_iters)**power, and 0 afterwards.

    Args:
        optimizer: whose groups' "lr" to set.
        total_iters: epochs until the rate is 0.
        power: 1 for a straight line.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = PolynomialLR(optimizer, total_iters=4, power=2.0)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5625]
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return (1 - min(epoch, self.total_iters) / max(1, self.total_iters)) ** self.power


class CosineAnnealingLR(_ByFactor):
    """lr = eta_min + (initial lr - eta_min) * (1 + cos(pi * epoch / T_max)) / 2.

    Args:
        optimizer: whose groups' "lr" to set.
        T_max: epochs until the lowest rate; the rate rises again afterwards.
        eta_min: the lowest rate.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2017 (without the restarts).

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = CosineAnnealingLR(optimizer, T_max=2)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return (1 + math.cos(math.pi * epoch / self.T_max)) / 2
