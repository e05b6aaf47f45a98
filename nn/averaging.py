"""Models whose parameters are averages of another model's over training: SWA and EMA. Public as optim.swa_utils."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from ..autograd.mode import no_grad
from ..runtime import dtypes
from ..tensor import Tensor, creation
from .module import Module
from .normalization import _BatchNorm

__all__ = [
    "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn", "update_bn",
]  # fmt: skip

Average = Callable[[Tensor, Tensor, Any], Tensor]
MultiAverage = Callable[[list[Tensor], list[Tensor], Any], None]


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average of one tensor: decay * average + (1 - decay) * current.

    Args:
        decay: how much of the average is kept, 0 to 1.

    Example:
        >>> import paceline as torch
        >>> get_ema_avg_fn(0.75)(torch.tensor(4.0), torch.tensor(8.0), 1)
        tensor(5.)
    """
    _check_decay(decay)

    @no_grad()
    def ema_update(averaged: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        return decay * averaged + (1 - decay) * current

    return ema_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """The exponential moving average of lists of tensors, in place; see `get_ema_avg_fn`."""
    _check_decay(decay)

    @no_grad()
    def ema_update(averaged: list[Tensor], current: list[Tensor], num_averaged: Any) -> None:
        for a, c in zip(averaged, current, strict=True):
            _move(a, c, 1 - decay)

    return ema_update


def get_swa_avg_fn() -> Average:
    """The mean of one tensor over all updates: average + (current - average) / (num_averaged + 1).

    Example:
        >>> import paceline as torch
        >>> get_swa_avg_fn()(torch.tensor(4.0), torch.tensor(8.0), 1)
        tensor(6.)
    """

    @no_grad()
    def swa_update(averaged: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        return averaged + (current - averaged) / (num_averaged + 1)

    return swa_update


def get_swa_multi_avg_fn() -> MultiAverage:
    """The mean of lists of tensors over all updates, in place; see `get_swa_avg_fn`."""

    @no_grad()
    def swa_update(averaged: list[Tensor], current: list[Tensor], num_averaged: Any) -> None:
        for a, c in zip(averaged, current, strict=True):
            _move(a, c, 1 / (num_averaged + 1))

    return swa_update


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


def _move(averaged: Tensor, current: Tensor, weight: Any) -> None:
    """Move an average towards the current value; one of integers is cut to integers again."""
    if averaged.is_floating_point() or averaged.is_complex():
        averaged.lerp_(current, weight)
    else:
        averaged.copy_(averaged + (current - averaged) * weight)


class AveragedModel(Module):
    """A copy of a model whose parameters are the average of the model's over calls of `update_parameters`.

    Args:
        model: copied; parameters and buffers keep their values until the first update, which copies them again.
        device: where the copy is; the model's device unless given.
        avg_fn: new average of one tensor, from (average, current, number of updates so far).
        multi_avg_fn: the same for lists of tensors of one dtype and device, in place; give at most one of the two. The
            mean over all updates if neither is given, `get_ema_multi_avg_fn(decay)` for an exponential average.
        use_buffers: average buffers as well; otherwise they are copied at each update. See `update_bn` for the
            statistics of batch normalization.

    Raises:
        AssertionError: both avg_fn and multi_avg_fn.

    Izmailov et al., Averaging weights leads to wider optima and better generalization, 2018.

    Example:
        >>> import paceline as torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> averaged = AveragedModel(model)
        >>> for value in (1.0, 2.0, 6.0):
        ...     _ = torch.nn.init.constant_(model.weight, value)
        ...     averaged.update_parameters(model)
        >>> averaged(torch.ones(1, 1)).item()
        3.0
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", creation.tensor(0, dtype=dtypes.int64, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the model's parameters, as they are now, into the average."""
        copied = [] if self.use_buffers else _pairs(self.module.buffers(), model.buffers())
        averaged = _pairs(self.module.parameters(), model.parameters())
        if self.use_buffers:
            averaged += _pairs(self.module.buffers(), model.buffers())
        if self.n_averaged == 0:
            copied, averaged = averaged + copied, []
        self._average(averaged)
        for average, current in copied:
            average.copy_(current)
        self.n_averaged += 1

    def _average(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        if self.multi_avg_fn is None:
            mean = self.avg_fn or get_swa_avg_fn()
            for average, current in pairs:
                average.copy_(mean(average, current, self.n_averaged.to(average.device)))
            return
        groups: dict[Any, list[tuple[Tensor, Tensor]]] = {}
        for pair in pairs:
            groups.setdefault((pair[0].device, pair[0].dtype), []).append(pair)
        for (device, _), group in groups.items():
            averages, currents = zip(*group, strict=True)
            self.multi_avg_fn(list(averages), list(currents), self.n_averaged.to(device))


def _pairs(averages: Iterable[Tensor], currents: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Averages with what goes into them, on one device and apart from any graph."""
    return [(a.detach(), c.detach().to(a.device)) for a, c in zip(averages, currents, strict=True)]


@no_grad()
def update_bn(loader: Iterable, model: Module, device: Any = None) -> None:
    """Compute the statistics of a model's batch normalization anew, as averages over a data set.

    Averaged parameters make other activations than those that the statistics were collected from.

    Args:
        loader: batches: tensors, or lists or tuples that begin with one.
        model: called on each batch in training mode; its mode is kept.
        device: where to move the batches, if given.

    Example:
        >>> import paceline as torch
        >>> model = torch.nn.BatchNorm1d(1)
        >>> update_bn([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])], model)
        >>> model.running_mean
        tensor([4.])
    """
    momenta = {module: module.momentum for module in model.modules() if isinstance(module, _BatchNorm)}
    if not momenta:
        return
    was_training = model.training
    model.train()
    try:
        for module in momenta:
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
        for batch in loader:
            input = batch[0] if isinstance(batch, list | tuple) else batch
            model(input if device is None else input.to(device))
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum
        model.train(was_training)
