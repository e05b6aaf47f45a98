"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .flat import ElementwiseOptimizer, State, descent, descent_options
from .optimizer import check_options


class Adagrad(ElementwiseOptimizer):
    """Adagrad: the gradient divided by the root of the sum of all past squares.

        s = s + grad**2
        p = p - lr / (1 + (step - 1) * lr_decay) * grad / (sqrt(s) + eps)

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: learning rate.
        lr_decay: how much the learning rate falls with the steps.
        weight_decay: L2 penalty.
        initial_accumulator_value: the sum before the first step.
        eps: added to the root.
        maximize: ascend instead.
        foreach, fused: no effect, here for PyTorch's scripts.
        differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Duchi et al., Adaptive subgradient methods for online learning and stochastic optimization, 2011.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.Adagrad([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_options(
            lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value,
            eps=eps, differentiable=differentiable,
        )  # fmt: skip
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"sum": xp.full_like(p, hp["initial_accumulator_value"])}

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        lr = float(hp["lr"]) / (1 + (step - 1) * hp["lr_decay"])
        g = descent(xp, p, g, hp["weight_decay"], hp["maximize"], out=a)
        state["sum"] += xp.multiply(g, g, out=b)
        xp.sqrt(state["sum"], out=b)
        b += hp["eps"]
        xp.divide(g, b, out=b)
        b *= lr
        p -= b

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        number = p.dtype.type
        lr = float(hp["lr"]) / (1 + (step - 1) * hp["lr_decay"])
        options = descent_options(hp, number, hp["weight_decay"])
        sources.optimizer.adagrad(p, g, state["sum"], number(lr), number(hp["eps"]), *options)
