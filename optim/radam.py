"""RAdam."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .adam import mean_options
from .flat import ElementwiseOptimizer, State, descent
from .optimizer import check_options


class RAdam(ElementwiseOptimizer):
    """RAdam: Adam that divides by the mean square only once enough gradients are in it, and then with a correction.

        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        n = 2 / (1 - beta2) - 1,   n_t = n - 2 * step * beta2**step / (1 - beta2**step)
        r = sqrt((n_t - 4) * (n_t - 2) * n / ((n - 4) * (n - 2) * n_t))
        p = p - lr * m' * r * sqrt(1 - beta2**step) / (sqrt(v) + eps)   if n_t > 5,   m' = m / (1 - beta1**step)
        p = p - lr * m'                                                 otherwise

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: learning rate.
        betas: (beta1, beta2), how much of each mean is kept at a step.
        eps: added to the root.
        weight_decay: L2 penalty; it enters the means unless decoupled.
        decoupled_weight_decay: shrink p by lr * weight_decay instead of adding to the gradient, as AdamW.
        maximize: ascend instead.
        foreach: no effect, here for PyTorch's scripts.
        capturable, differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Liu et al., On the variance of the adaptive learning rate and beyond, 2020.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.RAdam([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.8000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, capturable=capturable, differentiable=differentiable
        )
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"exp_avg": xp.zeros_like(p), "exp_avg_sq": xp.zeros_like(p)}

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
        rate, divided = _rate(hp, step)
        if not divided:
            p -= xp.multiply(m, rate, out=b)
            return
        xp.sqrt(v, out=b)
        b += hp["eps"]
        xp.divide(m, b, out=b)
        b *= rate
        p -= b

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        number, (rate, divided) = p.dtype.type, _rate(hp, step)
        m, v, options = state["exp_avg"], state["exp_avg_sq"], mean_options(hp, number)
        sources.optimizer.radam(p, g, m, v, number(rate), divided, number(hp["eps"]), *options)


def _rate(hp: dict[str, Any], step: int) -> tuple[float, bool]:
    """The factor of this step's direction, and whether that is divided by the root of the mean square."""
    beta1, beta2 = hp["betas"]
    rate, correction = float(hp["lr"]) / (1 - beta1**step), 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    if length <= 5:
        return rate, False
    rate *= math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return rate * math.sqrt(correction), True
