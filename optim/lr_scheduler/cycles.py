"""Schedules whose rate rises and falls: warm restarts, cycles, one cycle."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...autograd.mode import later
from ..optimizer import Optimizer
from .base import LRScheduler, checked, current_rates, per_group, saved_function, set_rate


class CosineAnnealingWarmRestarts(LRScheduler):
    """lr = eta_min + (initial lr - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2, over and over.

    Args:
        optimizer: whose groups' "lr" to set.
        T_0: epochs of the first fall.
        T_mult: how many times longer each fall is than the one before.
        eta_min: the lowest rate.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Attributes:
        T_cur: epochs since the last restart.
        T_i: epochs of the present fall.

    Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2017.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = CosineAnnealingWarmRestarts(optimizer, T_0=2)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.5]
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if T_0 <= 0 or not isinstance(T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        if not isinstance(eta_min, float | int):
            raise ValueError(f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}")
        self.T_0 = self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    @later
    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to any one, which may be a fraction: `step(epoch + i / batches)`."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is not None and epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
        else:
            self.T_cur, self.T_i = epoch, self.T_0
        while self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= self.T_mult
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())


class CyclicLR(LRScheduler):
    """The rate goes from base_lr up to max_lr and down again, in straight lines; momentum does the opposite.

    Call step() after every batch.

    Args:
        optimizer: whose groups' "lr", and "momentum" or the first of "betas", to set.
        base_lr: the lowest rate, or one for each group.
        max_lr: the highest rate of the first cycle, or one for each group.
        step_size_up: steps of the rise.
        step_size_down: steps of the fall; as many as of the rise unless given.
        mode: height of the cycles: "triangular" the same for all, "triangular2" halved after each, "exp_range" falling
            by gamma at each step.
        gamma: for "exp_range".
        scale_fn: gives the height relative to max_lr - base_lr, instead of a mode.
        scale_mode: whether scale_fn is given the number of the "cycle", from 1, or of the step ("iterations").
        cycle_momentum: whether to set the momentum, between max_momentum and base_momentum.
        base_momentum: the lowest momentum, or one for each group.
        max_momentum: the highest momentum, or one for each group.
        last_epoch: number of the last step when resuming, -1 at the start.

    Smith, Cyclical learning rates for training neural networks, 2017.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = CyclicLR(optimizer, base_lr=0.0, max_lr=1.0, step_size_up=4, cycle_momentum=False)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError(f"mode {mode!r} is invalid and scale_fn is None; 'triangular', 'triangular2', 'exp_range'")
        lowest = per_group(checked(optimizer), "base_lr", base_lr)
        self.max_lrs = per_group(optimizer, "max_lr", max_lr)
        self.step_size_up = step_size_up
        self.total_size = step_size_up + (step_size_up if step_size_down is None else step_size_down)
        self.mode = mode
        self.gamma = gamma
        self.scale_mode = scale_mode
        self._scale_fn_custom = scale_fn
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            _check_momentum(optimizer)
            self.base_momentums = per_group(optimizer, "base_momentum", base_momentum)
            self.max_momentums = per_group(optimizer, "max_momentum", max_momentum)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, lowest, strict=True):
                set_rate(group, lr)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lowest

    def scale_fn(self, x: float) -> float:
        """The height of cycle or step x relative to the first."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        return {"triangular": 1.0, "triangular2": 0.5 ** (x - 1), "exp_range": self.gamma**x}[self.mode]

    def get_lr(self) -> list[float]:
        cycle, place = divmod(self.last_epoch, self.total_size)
        down = self.total_size - self.step_size_up
        height = place / self.step_size_up if place <= self.step_size_up else (self.total_size - place) / down
        by_cycle = self.scale_mode == "cycle" if self._scale_fn_custom is not None else self.mode != "exp_range"
        height *= self.scale_fn(cycle + 1 if by_cycle else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(
                self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True
            ):
                _set_momentum(group, high - (high - low) * height)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer; of scale_fn only those of a callable object."""
        return {**super().state_dict(), "_scale_fn_custom": saved_function(self._scale_fn_custom)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        function = self._scale_fn_custom
        super().load_state_dict(state_dict)
        self._scale_fn_custom = function
        if state_dict["_scale_fn_custom"] is not None:
            vars(function).update(state_dict["_scale_fn_custom"])


class OneCycleLR(LRScheduler):
    """The rate rises from max_lr / div_factor to max_lr and then falls far below; momentum does the opposite.

    Call step() after every batch.

    Args:
        optimizer: whose groups' "lr", and "momentum" or the first of "betas", to set.
        max_lr: the highest rate, or one for each group.
        total_steps: number of steps; or give epochs and steps_per_epoch.
        pct_start: part of the steps in which the rate rises.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether to set the momentum, between base_momentum and max_momentum.
        div_factor: max_lr over the first rate.
        final_div_factor: the first rate over the last one.
        three_phase: fall in as many steps as the rise took, then to the last rate.
        last_epoch: number of the last step when resuming, -1 at the start.

    Smith and Topin, Super-convergence: very fast training of neural networks using large learning rates, 2018.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = OneCycleLR(optimizer, max_lr=1.0, total_steps=10, pct_start=0.2, cycle_momentum=False)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
            total_steps = epochs * steps_per_epoch
        if not isinstance(total_steps, int) or total_steps <= 0:
            raise ValueError(f"Expected positive integer total_steps, but got {total_steps}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        _check_strategy(anneal_strategy)
        if cycle_momentum:
            _check_momentum(checked(optimizer))
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        highest = per_group(checked(optimizer), "max_lr", max_lr)
        if last_epoch == -1:
            heavy, light = (per_group(optimizer, "momentum", m) for m in (max_momentum, base_momentum))
            for i, group in enumerate(optimizer.param_groups):
                first = highest[i] / div_factor
                group.update(initial_lr=first, max_lr=highest[i], min_lr=first / final_div_factor)
                if cycle_momentum:
                    group.update(max_momentum=heavy[i], base_momentum=light[i])
        # each phase: its last step, the rates at its ends, the momenta at its ends
        rise = (pct_start * total_steps - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum")
        fall = (total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")
        back = (2 * pct_start * total_steps - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum")
        end = (total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")
        self._phases = [rise, back, end] if three_phase else [rise, fall]
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"Tried to step {self.last_epoch} times. The specified number of total steps is {self.total_steps}"
            )
        last_steps = [phase[0] for phase in self._phases]
        k = next((k for k, last in enumerate(last_steps) if self.last_epoch <= last), len(last_steps) - 1)
        start = last_steps[k - 1] if k else 0
        done = (self.last_epoch - start) / (last_steps[k] - start)
        done = _eased(done, self.anneal_strategy)
        _, lr0, lr1, momentum0, momentum1 = self._phases[k]
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(group[lr0] + (group[lr1] - group[lr0]) * done)
            if self.cycle_momentum:
                _set_momentum(group, group[momentum0] + (group[momentum1] - group[momentum0]) * done)
        return rates


class SWALR(LRScheduler):
    """The rate goes from what it is to swa_lr in `anneal_epochs` epochs, and stays there.

    Made before training and stepped from the epoch on in which the averaging of the model starts.

    Args:
        optimizer: whose groups' "lr" to set.
        swa_lr: the last rate, or one for each group.
        anneal_epochs: epochs of the change.
        anneal_strategy: "cos" or "linear".
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Izmailov et al., Averaging weights leads to wider optima and better generalization, 2018.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = SWALR(optimizer, swa_lr=0.5, anneal_epochs=2)
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.75]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        _check_strategy(anneal_strategy)
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        for group, lr in zip(checked(optimizer).param_groups, per_group(optimizer, "swa_lr", swa_lr), strict=True):
            group["swa_lr"] = lr
        self.anneal_epochs = anneal_epochs
        self._anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step = max(self._step_count - 1, 1 if self.anneal_epochs == 0 else 0)
        before, now = self._left(step - 1), self._left(step)
        ratio = now / before if before else 0.0
        rates = zip(self.optimizer.param_groups, current_rates(self.optimizer), strict=True)
        return [group["swa_lr"] + (lr - group["swa_lr"]) * ratio for group, lr in rates]

    def _left(self, step: int) -> float:
        """Which part of the way is left after a number of steps."""
        return 1 - _eased(min(1.0, max(0.0, step / max(1, self.anneal_epochs))), self._anneal_strategy)


def _check_strategy(strategy: str) -> None:
    if strategy not in ("cos", "linear"):
        raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {strategy}")


def _eased(done: float, strategy: str) -> float:
    """How much of a change is made when a part of its time is over."""
    return (1 - math.cos(math.pi * done)) / 2 if strategy == "cos" else done


def _check_momentum(optimizer: Optimizer) -> None:
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")


def _set_momentum(group: dict[str, Any], momentum: float) -> None:
    """Set the momentum of a group, or the first of its betas."""
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum
