"""Averaged stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .flat import ElementwiseOptimizer, State, descent, descent_options
from .optimizer import check_options


class ASGD(ElementwiseOptimizer):
    """Averaged stochastic gradient descent: SGD with a falling rate, which also keeps the mean of the late parameters.

        p = p * (1 - lambd * eta) - eta * grad
        ax = ax + mu * (p - ax)
        eta = lr / (1 + lambd * lr * step)**alpha,   mu = 1 / max(1, step - t0)     (for the next step)

    The mean is `state[p]["ax"]`.

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: learning rate.
        lambd: decay of the parameters.
        alpha: power of the rate's fall.
        t0: the step from which on the mean is taken.
        weight_decay: L2 penalty.
        foreach: no effect, here for PyTorch's scripts.
        maximize: ascend instead.
        capturable, differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; Bottou, Large-scale machine
    learning with stochastic gradient descent, 2010 (the schedule).

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.ASGD([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.8000], requires_grad=True)
    """

    numbers = ("eta", "mu")

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_options(lr=lr, weight_decay=weight_decay, capturable=capturable, differentiable=differentiable)
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"ax": xp.zeros_like(p)}

    @staticmethod
    def advance(numbers: dict[str, float], hp: dict[str, Any], step: int) -> dict[str, Any]:
        lr = float(hp["lr"])
        now = numbers.copy() if step > 1 else {"eta": float(numpy.float32(lr)), "mu": 1.0}  # float32 as all numbers
        numbers["eta"] = lr / (1 + hp["lambd"] * lr * step) ** hp["alpha"]
        numbers["mu"] = 1 / max(1, step - hp["t0"])
        return {**hp, **now}

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        eta, mu, mean = hp["eta"], hp["mu"], state["ax"]
        g = descent(xp, p, g, hp["weight_decay"], hp["maximize"], out=a)
        xp.multiply(g, eta, out=b)
        p *= 1 - hp["lambd"] * eta
        p -= b
        if mu == 1:
            mean[...] = p
        else:
            xp.subtract(p, mean, out=b)
            b *= mu
            mean += b

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        number, eta, mu = p.dtype.type, hp["eta"], hp["mu"]
        numbers = map(number, (eta, 1 - hp["lambd"] * eta, mu))
        options = descent_options(hp, number, hp["weight_decay"])
        sources.optimizer.asgd(p, g, state["ax"], *numbers, mu == 1, *options)
