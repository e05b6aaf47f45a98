"""Adam and its variant with decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .flat import ElementwiseOptimizer, State, descent, descent_options
from .optimizer import check_options


class Adam(ElementwiseOptimizer):
    """Adam: steps along a mean of past gradients, divided by the root of a mean of their squares.

        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        p = p - lr * m' / (sqrt(v') + eps),   m' = m / (1 - beta1**step),  v' = v / (1 - beta2**step)

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: learning rate.
        betas: (beta1, beta2), how much of each mean is kept at a step.
        eps: added to the root.
        weight_decay: L2 penalty; it enters the means unless decoupled.
        amsgrad: divide by the largest v so far.
        maximize: ascend instead.
        decoupled_weight_decay: shrink p by lr * weight_decay instead of adding to the gradient, as AdamW.
        foreach, fused: no effect, here for PyTorch's scripts.
        capturable, differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Kingma and Ba, Adam: a method for stochastic optimization, 2015; Reddi et al., On the convergence of Adam and
    beyond, 2018 (amsgrad).

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.Adam([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check_options(
            lr=lr, eps=eps, betas=betas, weight_decay=weight_decay, capturable=capturable, differentiable=differentiable
        )
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if hp["amsgrad"] else [])]
        return {name: xp.zeros_like(p) for name in names}

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        lr, beta1, beta2 = map(float, (hp["lr"], *hp["betas"]))
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
        if hp["amsgrad"]:
            v = xp.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        # both corrections as factors of lr and eps: two passes over memory less
        root = math.sqrt(1 - beta2**step)
        xp.sqrt(v, out=b)
        b += hp["eps"] * root
        xp.divide(m, b, out=b)
        b *= lr * root / (1 - beta1**step)
        p -= b

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        number, (beta1, beta2) = p.dtype.type, map(float, hp["betas"])
        root = math.sqrt(1 - beta2**step)
        rate, eps = number(float(hp["lr"]) * root / (1 - beta1**step)), number(hp["eps"] * root)
        m, v = state["exp_avg"], state["exp_avg_sq"]
        if hp["amsgrad"]:
            sources.optimizer.adam_means(p, g, m, v, *mean_options(hp, number))
            sources.optimizer.amsgrad(p, m, v, state["max_exp_avg_sq"], rate, eps)
            return
        sources.optimizer.adam(p, g, m, v, rate, eps, *mean_options(hp, number))


def mean_options(hp: dict[str, Any], number: Callable[[float], Any]) -> tuple:
    """What kernels take to decay p and update both means: see `adam` in the sources."""
    (beta1, beta2), decay = map(float, hp["betas"]), hp["weight_decay"]
    keep = 1.0
    if hp["decoupled_weight_decay"]:
        keep, decay = 1 - float(hp["lr"]) * decay, 0
    numbers = map(number, (keep, beta1, 1 - beta1, beta2, 1 - beta2))
    return *numbers, *descent_options(hp, number, decay)


class AdamW(Adam):
    """Adam with decoupled weight decay: p = p * (1 - lr * weight_decay) before the step.

    Args: as Adam; weight_decay is 0.01 unless given.

    Loshchilov and Hutter, Decoupled weight decay regularization, 2019.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.AdamW([w], lr=0.1, weight_decay=0.5)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.8500], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip
