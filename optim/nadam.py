"""NAdam."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .adam import mean_options
from .flat import ElementwiseOptimizer, State, descent
from .optimizer import check_options


class NAdam(ElementwiseOptimizer):
    """NAdam: Adam with Nesterov's momentum, the mean of gradients looked at one step ahead.

        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        mu_t = beta1 * (1 - 0.96**(t * momentum_decay) / 2),   u = product of mu_1 ... mu_step
        d = (1 - mu_step) / (1 - u) * grad + mu_{step+1} / (1 - u * mu_{step+1}) * m
        p = p - lr * d / (sqrt(v / (1 - beta2**step)) + eps)

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: learning rate.
        betas: (beta1, beta2), how much of each mean is kept at a step.
        eps: added to the root.
        weight_decay: L2 penalty; it enters the means unless decoupled.
        momentum_decay: how fast mu_t grows from beta1 / 2 to beta1.
        decoupled_weight_decay: shrink p by lr * weight_decay instead of adding to the gradient, as AdamW.
        maximize: ascend instead.
        foreach: no effect, here for PyTorch's scripts.
        capturable, differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Dozat, Incorporating Nesterov momentum into Adam, 2016.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.NAdam([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.8944], requires_grad=True)
    """

    numbers = ("mu_product",)

    def __init__(
        self,
        params: Iterable,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay,
            capturable=capturable, differentiable=differentiable,
        )  # fmt: skip
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"exp_avg": xp.zeros_like(p), "exp_avg_sq": xp.zeros_like(p)}

    @staticmethod
    def advance(numbers: dict[str, float], hp: dict[str, Any], step: int) -> dict[str, Any]:
        product = numbers["mu_product"] if step > 1 else 1.0
        numbers["mu_product"] = float(numpy.float32(product) * numpy.float32(_mu(hp, step)))  # as PyTorch rounds it
        return {**hp, **numbers}

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        lr, (beta1, beta2) = float(hp["lr"]), hp["betas"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        decay = hp["weight_decay"]
        if hp["decoupled_weight_decay"]:
            p *= 1 - lr * decay
            decay = 0
        g = descent(xp, p, g, decay, hp["maximize"], out=a)
        m *= beta1
        m += xp.multiply(g, 1 - beta1, out=b)
        xp.multiply(g, g, out=b)
        b *= 1 - beta2
        v *= beta2
        v += b
        product, ahead = hp["mu_product"], _mu(hp, step + 1)
        d = xp.multiply(g, (1 - _mu(hp, step)) / (1 - product), out=a)
        d += xp.multiply(m, ahead / (1 - product * ahead), out=b)
        # the correction of v as a factor of lr and eps: a pass over memory less
        root = math.sqrt(1 - beta2**step)
        xp.sqrt(v, out=b)
        b += hp["eps"] * root
        d /= b
        d *= lr * root
        p -= d

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        number, beta2 = p.dtype.type, hp["betas"][1]
        root = math.sqrt(1 - beta2**step)
        product, ahead = hp["mu_product"], _mu(hp, step + 1)
        parts = (1 - _mu(hp, step)) / (1 - product), ahead / (1 - product * ahead)
        numbers = map(number, (float(hp["lr"]) * root, *parts, hp["eps"] * root))
        sources.optimizer.nadam(p, g, state["exp_avg"], state["exp_avg_sq"], *numbers, *mean_options(hp, number))


def _mu(hp: dict[str, Any], step: int) -> float:
    """The momentum of a step, which warms up."""
    return hp["betas"][0] * (1 - 0.5 * 0.96 ** (step * hp["momentum_decay"]))
