"""Optimizers against PyTorch's with all options of its own test data (optim_db), and learning rate schedules."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy
import torch

import paceline

from .operations import Outcome

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import optim_db

OUT_OF_SCOPE = {"SparseAdam": "sparse gradients"}
STEPS = 12
_SHAPES = ((3, 4), (4,), (5, 2))
# how PyTorch chooses among its own implementations, or what only CUDA graphs need
_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")


def run(info: Any, limit: int | None = None) -> Outcome:
    """One optimizer with each set of options: the same parameters after a number of steps."""
    name, count = "optim." + info.optim_cls.__name__, 0
    ours = getattr(paceline.optim, info.optim_cls.__name__, None)
    if ours is None:
        return Outcome(name, "missing")
    for options in info.optim_inputs_func(device="cpu")[:limit]:
        kwargs = {k: v for k, v in options.kwargs.items() if k not in _IMPLEMENTATION}
        if any(isinstance(v, torch.Tensor) for v in kwargs.values()):
            kwargs = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
        count += 1
        try:
            expected = train(torch, info.optim_cls, kwargs)
            found = train(paceline, ours, kwargs)
        except Exception as error:
            return Outcome(name, "error", count, f"{type(error).__name__}: {error} with {kwargs}")
        for a, b in zip(found, expected, strict=True):
            if not numpy.allclose(a, b, 1e-9, 1e-11):
                return Outcome(name, "wrong", count, f"parameters differ by {numpy.abs(a - b).max():.3g} with {kwargs}")
    return Outcome(name, "pass", count)


def train(M: Any, optimizer_class: type, kwargs: dict, scheduler: Any = None) -> list[numpy.ndarray]:
    """The parameters after a few steps on a fixed quadratic problem with a kink."""
    random = numpy.random.default_rng(0)
    shapes = [s for s in _SHAPES if len(s) == 2] if optimizer_class.__name__ == "Muon" else _SHAPES
    parameters = [M.nn.Parameter(M.from_numpy(random.standard_normal(s))) for s in shapes]
    targets = [M.from_numpy(random.standard_normal(s)) for s in shapes]
    optimizer = optimizer_class(parameters, **kwargs)
    schedule = scheduler(optimizer) if scheduler else None

    def closure() -> Any:
        optimizer.zero_grad()
        loss = sum(((p - t) ** 2).sum() + (p * t).abs().sum() for p, t in zip(parameters, targets, strict=True))
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)
        if schedule is not None:
            schedule.step(1.0) if "metrics" in schedule.step.__code__.co_varnames else schedule.step()
    return [p.detach().numpy() for p in parameters]


def in_scope() -> list:
    return [info for info in optim_db if info.optim_cls.__name__ not in OUT_OF_SCOPE]


SCHEDULERS: dict[str, Any] = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda s, o: s.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 5], 0.3),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.2, 0.9, 6),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 5, 0.001),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, 0.001),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, mode="triangular2"),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=20),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)], [3]),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)]),
}


def averages(M: Any, options: Any, use_buffers: bool = False) -> list[numpy.ndarray]:
    """State of an averaged model after some updates of the model and one of its batch normalization."""
    utils = importlib.import_module(f"{M.__name__}.optim.swa_utils")
    random = numpy.random.default_rng(0)

    def array(*shape: int) -> Any:
        return M.from_numpy(random.standard_normal(shape))

    model = M.nn.Sequential(M.nn.Linear(3, 4), M.nn.BatchNorm1d(4), M.nn.Linear(4, 2)).double()
    averaged = utils.AveragedModel(model, **options(utils), use_buffers=use_buffers)
    found = []
    for _ in range(6):
        for p in model.parameters():
            p.data.copy_(array(*p.shape))
        model(array(8, 3))
        averaged.update_parameters(model)
        found += [t.detach().numpy().copy() for t in averaged.state_dict().values()]
    utils.update_bn([(array(8, 3), None) for _ in range(4)], averaged)
    found += [t.detach().numpy() for t in averaged.state_dict().values()]
    return [*found, averaged(array(8, 3)).detach().numpy()]


AVERAGES: dict[str, Any] = {
    "AveragedModel": [
        lambda M: averages(M, lambda u: {}),
        lambda M: averages(M, lambda u: {}, use_buffers=True),
        lambda M: averages(M, lambda u: {"avg_fn": lambda average, current, n: (average + n * current) / (n + 1)}),
    ],
    "get_ema_avg_fn": [lambda M: averages(M, lambda u: {"avg_fn": u.get_ema_avg_fn(0.9)}, use_buffers=True)],
    "get_ema_multi_avg_fn": [lambda M: averages(M, lambda u: {"multi_avg_fn": u.get_ema_multi_avg_fn()}, True)],
    "get_swa_avg_fn": [lambda M: averages(M, lambda u: {"avg_fn": u.get_swa_avg_fn()}, use_buffers=True)],
    "get_swa_multi_avg_fn": [lambda M: averages(M, lambda u: {"multi_avg_fn": u.get_swa_multi_avg_fn()})],
    "update_bn": [lambda M: averages(M, lambda u: {})],
    "SWALR": [
        lambda M, kw=kw: history(M, lambda s, o: M.optim.swa_utils.SWALR(o, 0.02, **kw), M.optim.lr_scheduler)
        for kw in ({}, {"anneal_epochs": 5, "anneal_strategy": "linear"}, {"anneal_epochs": 0})
    ],
}  # fmt: skip


def run_averages(name: str) -> Outcome:
    """Averages of models and what belongs to them: the same numbers after some updates."""
    full_name = f"optim.swa_utils.{name}"
    for count, compute in enumerate(AVERAGES[name], 1):
        try:
            found, expected = compute(paceline), compute(torch)
        except Exception as error:
            return Outcome(full_name, "error", count, f"{type(error).__name__}: {error}")
        if not all(numpy.allclose(a, b, 1e-10, 1e-12) for a, b in zip(found, expected, strict=True)):
            return Outcome(full_name, "wrong", count, "the averages differ")
    return Outcome(full_name, "pass", len(AVERAGES[name]))


def run_scheduler(name: str) -> Outcome:
    """The learning rate and the first group's momentum over 25 steps."""
    histories = []
    for M in (paceline, torch):
        schedulers = getattr(M.optim, "lr_scheduler", None)
        if not hasattr(schedulers, name):
            return Outcome(f"lr_scheduler.{name}", "missing")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                histories.append(history(M, SCHEDULERS[name], schedulers))
            except Exception as error:
                return Outcome(f"lr_scheduler.{name}", "error", 0, f"{type(error).__name__}: {error}")
    if not numpy.allclose(*histories, 1e-12, 1e-14):
        return Outcome(f"lr_scheduler.{name}", "wrong", 25, f"{histories[0]} instead of {histories[1]}"[:300])
    return Outcome(f"lr_scheduler.{name}", "pass", 25)


def history(M: Any, make: Any, schedulers: Any) -> list[float]:
    parameter = M.nn.Parameter(M.zeros(1))
    optimizer = M.optim.SGD([parameter], lr=0.1, momentum=0.9)
    schedule = make(schedulers, optimizer)
    found = []
    for _ in range(20):
        group = optimizer.param_groups[0]
        found += [group["lr"], group["momentum"]]
        optimizer.step()
        schedule.step(1.0) if isinstance(schedule, schedulers.ReduceLROnPlateau) else schedule.step()
    return found
