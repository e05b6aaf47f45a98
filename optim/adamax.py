"""Adamax."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .flat import ElementwiseOptimizer, State, descent, descent_options
from .optimizer import check_options


class Adamax(ElementwiseOptimizer):
    """Adamax: Adam with the largest of the past gradients, fading, in place of their mean square.

        m = beta1 * m + (1 - beta1) * grad
        u = max(beta2 * u, abs(grad) + eps)
        p = p - lr / (1 - beta1**step) * m / u

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: learning rate.
        betas: (beta1, beta2), how much of the mean and of the maximum is kept at a step.
        eps: added to the gradient's size.
        weight_decay: L2 penalty.
        maximize: ascend instead.
        foreach: no effect, here for PyTorch's scripts.
        capturable, differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Kingma and Ba, Adam: a method for stochastic optimization, section 7.1, 2015.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.Adamax([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_options(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, capturable=capturable, differentiable=differentiable
        )
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"exp_avg": xp.zeros_like(p), "exp_inf": xp.zeros_like(p)}

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        beta1, beta2 = hp["betas"]
        m, u = state["exp_avg"], state["exp_inf"]
        g = descent(xp, p, g, hp["weight_decay"], hp["maximize"], out=a)
        m *= beta1
        m += xp.multiply(g, 1 - beta1, out=b)
        xp.abs(g, out=b)
        b += hp["eps"]
        u *= beta2
        xp.maximum(u, b, out=u)
        xp.divide(m, u, out=b)
        b *= float(hp["lr"]) / (1 - beta1**step)
        p -= b

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        number, (beta1, beta2) = p.dtype.type, hp["betas"]
        rate = float(hp["lr"]) / (1 - beta1**step)
        numbers = map(number, (rate, hp["eps"], beta1, 1 - beta1, beta2))
        options = descent_options(hp, number, hp["weight_decay"])
        sources.optimizer.adamax(p, g, state["exp_avg"], state["exp_inf"], *numbers, *options)
