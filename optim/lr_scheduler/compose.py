"""Schedules made of schedules: one after another, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ...autograd.mode import later
from ..optimizer import Optimizer
from .base import LRScheduler, current_rates, set_rate
from .plateau import ReduceLROnPlateau


class _Composed(LRScheduler):
    """What a schedule made of schedules does with them."""

    def _take(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        name = type(self).__name__
        if not schedulers:
            raise ValueError(f"{name} expects at least one scheduler, but got no scheduler.")
        for i, schedule in enumerate(schedulers):
            if not hasattr(schedule, "optimizer"):
                raise TypeError(f"{name}: {type(schedule).__name__} at index {i} should have `optimizer` as attribute.")
            if isinstance(schedule, ReduceLROnPlateau):
                raise ValueError(
                    f"{name} does not support `ReduceLROnPlateau`, whose step() needs a metric, but got one at index "
                    f"{i}; step it beside the {name}"
                )
            optimizer = optimizer or schedule.optimizer
            if schedule.optimizer is not optimizer:
                raise ValueError(
                    f"{name} expects all schedulers to belong to the same optimizer, but {type(schedule).__name__} at "
                    f"index {i} has another one"
                )
        self._schedulers = list(schedulers)
        self.optimizer = schedulers[0].optimizer

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer, with the state of the schedules."""
        return {**super().state_dict(), "_schedulers": [schedule.state_dict() for schedule in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        schedulers = self._schedulers
        super().load_state_dict(state_dict)
        self._schedulers = schedulers
        for schedule, state in zip(schedulers, state_dict["_schedulers"], strict=True):
            schedule.load_state_dict(state)


class SequentialLR(_Composed):
    """One schedule after another, each counting from 0 when its turn comes.

    Args:
        optimizer: whose groups' "lr" to set.
        schedulers: schedules of this optimizer; only the first may be made of schedules.
        milestones: the epochs in which the second, third ... take over.
        last_epoch: number of the last epoch when resuming, -1 at the start.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> warmup = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5)
        >>> decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.25)
        >>> schedule = SequentialLR(optimizer, [warmup, decay], milestones=[2])
        >>> for _ in range(4):
        ...     print(schedule.get_last_lr())
        ...     optimizer.step(); schedule.step()
        [0.5]
        [0.5]
        [1.0]
        [0.25]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        self._take(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than the number of "
                f"milestone points, but got {len(schedulers)} schedulers and {len(milestones)} milestones"
            )
        for i, schedule in enumerate(schedulers[1:], 1):
            if isinstance(schedule, _Composed):
                raise NotImplementedError(
                    f"SequentialLR: {type(schedule).__name__} at index {i} cannot start in the middle; only the first "
                    "schedule may be made of schedules"
                )
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # every schedule has set the rates of its first epoch: begin again with the first one's alone
        for group in optimizer.param_groups:
            set_rate(group, group["initial_lr"])
        _step_back(self)
        self._initial_step()

    def _initial_step(self) -> None:
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    @later
    def step(self) -> None:  # type: ignore[override]
        """Go on to the next epoch and set the groups' rates."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        schedule = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            schedule._go_to(0)
        else:
            schedule.step()
        self._last_lr = schedule.get_last_lr()


def _step_back(schedule: LRScheduler) -> None:
    if isinstance(schedule, _Composed):
        for part in schedule._schedulers:
            _step_back(part)
    else:
        schedule.last_epoch -= 1


class ChainedScheduler(_Composed):
    """Several schedules at once, each changing the rates that the one before has set.

    Args:
        schedulers: schedules of one optimizer; of those that reckon from the current rate.
        optimizer: theirs.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> warmup = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=4)
        >>> decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
        >>> schedule = ChainedScheduler([warmup, decay])
        >>> optimizer.step(); schedule.step(); schedule.get_last_lr()
        [0.25]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self._take(schedulers, optimizer)
        self._last_lr = current_rates(self.optimizer)

    def _initial_step(self) -> None:
        for schedule in self._schedulers:
            schedule._initial_step()
        self._last_lr = current_rates(self.optimizer)

    @later
    def step(self) -> None:  # type: ignore[override]
        """Go on to the next epoch and set the groups' rates."""
        for schedule in self._schedulers:
            schedule.step()
        self._last_lr = current_rates(self.optimizer)
