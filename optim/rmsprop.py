"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .flat import ElementwiseOptimizer, State, descent, descent_options
from .optimizer import check_options


class RMSprop(ElementwiseOptimizer):
    """RMSprop: the gradient divided by the root of a mean of past squares.

        s = alpha * s + (1 - alpha) * grad**2
        p = p - lr * grad / (sqrt(s) + eps)        (centered: sqrt(s - mean of grad squared))

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: learning rate.
        alpha: how much of the mean is kept at a step.
        eps: added to the root.
        weight_decay: L2 penalty.
        momentum: part of the last step that is added again.
        centered: divide by the estimated standard deviation.
        maximize: ascend instead.
        foreach: no effect, here for PyTorch's scripts.
        capturable, differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Tieleman and Hinton, lecture 6.5 of Neural networks for machine learning, 2012; Graves, Generating sequences with
    recurrent neural networks, 2013 (centered).

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.RMSprop([w], lr=0.01)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(
            lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, capturable=capturable,
            differentiable=differentiable,
        )  # fmt: skip
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        names = ["square_avg"]
        names += ["momentum_buffer"] if hp["momentum"] > 0 else []
        names += ["grad_avg"] if hp["centered"] else []
        return {name: xp.zeros_like(p) for name in names}

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        lr, alpha, s = float(hp["lr"]), hp["alpha"], state["square_avg"]
        g = descent(xp, p, g, hp["weight_decay"], hp["maximize"], out=a)
        xp.multiply(g, g, out=b)
        b *= 1 - alpha
        s *= alpha
        s += b
        if hp["centered"]:
            mean = state["grad_avg"]
            xp.subtract(g, mean, out=b)
            b *= 1 - alpha
            mean += b
            xp.multiply(mean, mean, out=b)
            xp.subtract(s, b, out=b)
            xp.sqrt(b, out=b)
        else:
            xp.sqrt(s, out=b)
        b += hp["eps"]
        xp.divide(g, b, out=b)
        if hp["momentum"] > 0:
            v = state["momentum_buffer"]
            v *= hp["momentum"]
            v += b
            xp.multiply(v, lr, out=b)
        else:
            b *= lr
        p -= b

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> Any:
        if hp["centered"]:
            return NotImplemented
        number, s, alpha = p.dtype.type, state["square_avg"], hp["alpha"]
        numbers = map(number, (float(hp["lr"]), alpha, 1 - alpha, hp["eps"]))
        options = descent_options(hp, number, hp["weight_decay"])
        if hp["momentum"] > 0:
            v, momentum = state["momentum_buffer"], number(hp["momentum"])
            return sources.optimizer.rmsprop_momentum(p, g, s, v, momentum, *numbers, *options)
        return sources.optimizer.rmsprop(p, g, s, *numbers, *options)
