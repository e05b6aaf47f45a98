"""Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .flat import ElementwiseOptimizer, State, descent, descent_options
from .optimizer import check_options


class Adadelta(ElementwiseOptimizer):
    """Adadelta: steps as long as the past ones, measured against the past gradients.

        s = rho * s + (1 - rho) * grad**2
        d = sqrt(u + eps) / sqrt(s + eps) * grad
        u = rho * u + (1 - rho) * d**2
        p = p - lr * d

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: factor of the step.
        rho: how much of the means is kept at a step, 0 to 1.
        eps: added under the roots.
        weight_decay: L2 penalty.
        maximize: ascend instead.
        foreach: no effect, here for PyTorch's scripts.
        capturable, differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Zeiler, ADADELTA: an adaptive learning rate method, 2012.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.Adadelta([w], lr=100.0)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.6838], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(lr=lr, eps=eps, weight_decay=weight_decay, capturable=capturable, differentiable=differentiable)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        defaults = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"square_avg": xp.zeros_like(p), "acc_delta": xp.zeros_like(p)}

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        rho, eps = hp["rho"], hp["eps"]
        s, u = state["square_avg"], state["acc_delta"]
        g = descent(xp, p, g, hp["weight_decay"], hp["maximize"], out=a)
        xp.multiply(g, g, out=b)
        b *= 1 - rho
        s *= rho
        s += b
        xp.add(s, eps, out=b)
        xp.sqrt(b, out=b)
        d = xp.divide(g, b, out=a)
        xp.add(u, eps, out=b)
        xp.sqrt(b, out=b)
        d *= b
        xp.multiply(d, d, out=b)
        b *= 1 - rho
        u *= rho
        u += b
        p -= xp.multiply(d, float(hp["lr"]), out=b)

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        number, rho = p.dtype.type, hp["rho"]
        numbers = map(number, (float(hp["lr"]), rho, 1 - rho, hp["eps"]))
        options = descent_options(hp, number, hp["weight_decay"])
        sources.optimizer.adadelta(p, g, state["square_avg"], state["acc_delta"], *numbers, *options)
