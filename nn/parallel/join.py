"""Training on while some ranks have run out of batches: they join the others' collectives with nothing to add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from ...runtime.comm import Comm, ReduceOp

__all__ = ["Join", "JoinHook", "Joinable"]


class JoinHook:
    """What a rank without batches does for one of the objects that train."""

    def main_hook(self) -> None:
        """Take part in the collectives of one training step of the others."""

    def post_hook(self, is_last_joiner: bool) -> None:
        """Called once when all ranks have run out of batches.

        Args:
            is_last_joiner: whether this rank was among the last ones to train.
        """


class Joinable:
    """Base class of what can take part in a Join: it calls `Join.notify_join_context(self)` once in every step."""

    _join: Join | None = None  # the block that this rank is in, if the object counts its steps

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """The hook of this rank."""
        raise NotImplementedError(f"{type(self).__name__} does not define join_hook()")

    @property
    def join_process_group(self) -> Comm:
        """The ranks."""
        raise NotImplementedError(f"{type(self).__name__} does not define join_process_group")


class Join:
    """Lets ranks with different numbers of batches train together.

    A rank that leaves the block early takes part in the others' collectives, with gradients of zero, until all have
    left it. Then all ranks take over the model of one that trained last. As in PyTorch, the state of optimizers on
    other ranks is not brought up to date.

    Args:
        joinables: data-parallel modules, and others with a `join_hook`; the first one's `forward` counts the steps.
        enable: False to do nothing, where the batches are known to be even.
        throw_on_early_termination: raise RuntimeError on all ranks as soon as one has no batches left.
        kwargs: for every `join_hook`.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
        >>> with Join([net]):
        ...     net(torch.ones(1, 1)).sum().backward()
    """

    def __init__(
        self,
        joinables: Sequence[Joinable],
        enable: bool = True,
        throw_on_early_termination: bool = False,
        **kwargs: Any,
    ) -> None:
        if not joinables:
            raise ValueError("The join context manager requires at least one joinable")
        for joinable in joinables:
            if not isinstance(joinable, Joinable):
                raise TypeError(
                    f"Join(): expected Joinables, such as DistributedDataParallel, got {type(joinable).__name__}: it "
                    "cannot go on on a rank that has run out of batches"
                )
        self._joinables = list(joinables)
        self._enabled = enable and joinables[0].join_process_group.size > 1
        self._throw = throw_on_early_termination
        self._hooks = [joinable.join_hook(**kwargs) for joinable in joinables]
        self._comm = joinables[0].join_process_group
        self.active = list(range(self._comm.size))  # the ranks that train the step under way

    def __enter__(self) -> None:
        if self._enabled:
            self._joinables[0]._join = self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if self._enabled:
            try:
                if error is None:
                    self._follow_the_others()
            finally:
                self._joinables[0]._join = None

    def _follow_the_others(self) -> None:
        """Take part in their steps until all ranks have run out of batches."""
        is_last = True
        while self._meet(False):
            if self._throw:
                self._raise()
            is_last = False
            for hook in self._hooks:
                hook.main_hook()
        for hook in self._hooks:
            hook.post_hook(is_last)

    def _meet(self, trains: bool) -> list[int]:
        """The ranks that are about to train one more step."""
        flags = numpy.zeros(self._comm.size, numpy.uint8)
        flags[self._comm.rank] = trains
        self._comm.all_reduce(flags, ReduceOp.MAX)
        self.active = numpy.flatnonzero(flags).tolist()
        return self.active

    def _raise(self) -> None:
        raise RuntimeError("Detected at least one rank that exhausted inputs. Throwing across all ranks.")

    @staticmethod
    def notify_join_context(joinable: Joinable) -> None:
        """Tell the ranks that have no batches left that this one begins a step."""
        join = joinable._join
        if join is not None and len(join._meet(True)) < join._comm.size and join._throw:
            join._raise()
