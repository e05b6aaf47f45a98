"""A schedule that follows a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...autograd.mode import later
from ..optimizer import Optimizer
from .base import LRScheduler, checked, current_rates, per_group, set_rate


class ReduceLROnPlateau(LRScheduler):
    """lr = lr * factor when a metric has not improved for more than `patience` epochs.

    Args:
        optimizer: whose groups' "lr" to set.
        mode: "min" if smaller is better, "max" if larger is.
        factor: below 1.
        patience: epochs without improvement that are let pass.
        threshold: by how much a metric must be better than the best to count as improvement.
        threshold_mode: "rel" to the best, or "abs".
        cooldown: epochs after a reduction in which nothing is counted.
        min_lr: lower bound, or one for each group.
        eps: a smaller reduction is not made.

    Example:
        >>> import paceline as torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        >>> schedule.step(0.3); schedule.step(0.4); schedule.get_last_lr()
        [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if factor >= 1.0:
            raise ValueError(f"Factor should be < 1.0, got {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown! It is 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode} is unknown! It is 'rel' or 'abs'")
        self.optimizer = checked(optimizer)
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.default_min_lr = None if isinstance(min_lr, list | tuple) else min_lr
        self.min_lrs = per_group(optimizer, "min_lrs", min_lr)
        self.eps = eps
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self._last_lr = current_rates(optimizer)

    @later
    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take note of this epoch's metric, a number or a tensor of one element."""
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = current_rates(self.optimizer)

    def _is_better(self, current: float) -> bool:
        margin = self.threshold if self.mode == "max" else -self.threshold
        bar = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return current > bar if self.mode == "max" else current < bar

    @property
    def in_cooldown(self) -> bool:
        """Whether nothing is counted, as the rate has just been reduced."""
        return self.cooldown_counter > 0

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):  # a group was added since
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"the optimizer has {len(groups)} param groups, but there were {len(self.min_lrs)} when "
                    "ReduceLROnPlateau was made with a list of min_lr; append the new groups' to `min_lrs`"
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, old, lowest in zip(groups, current_rates(self.optimizer), self.min_lrs, strict=True):
            lr = max(old * self.factor, lowest)
            if old - lr > self.eps:
                set_rate(group, lr)
