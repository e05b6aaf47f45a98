"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .flat import ElementwiseOptimizer, State, constant, descent, descent_options
from .optimizer import check_options


class SGD(ElementwiseOptimizer):
    """Stochastic gradient descent, with momentum if asked for.

        g = grad + weight_decay * p
        v = momentum * v + (1 - dampening) * g      (v = g at the first step)
        p = p - lr * v                              (nesterov: p - lr * (g + momentum * v))

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: learning rate.
        momentum: part of the last step's direction that is kept.
        dampening: part of the gradient that does not enter the momentum.
        weight_decay: L2 penalty.
        nesterov: step along the gradient expected after the momentum's step.
        maximize: ascend instead.
        foreach, fused: no effect, here for PyTorch's scripts.
        differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.SGD([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.8000], requires_grad=True)
    """

    counts_steps = False

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_options(lr=lr, momentum=momentum, weight_decay=weight_decay, differentiable=differentiable)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach, "differentiable": differentiable,
            "fused": fused,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def needs_state(hp: dict[str, Any]) -> bool:
        return hp["momentum"] != 0

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"momentum_buffer": xp.zeros_like(p)} if hp["momentum"] else {}

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        momentum = hp["momentum"]
        if hp["weight_decay"] or hp["maximize"]:
            g = descent(xp, p, g, hp["weight_decay"], hp["maximize"], out=a)
        if momentum:
            v = state["momentum_buffer"]
            v *= momentum
            if step > 1 and hp["dampening"]:
                v += xp.multiply(g, 1 - hp["dampening"], out=b)
            else:
                v += g
            if hp["nesterov"]:
                g = xp.add(g, xp.multiply(v, momentum, out=b), out=a)
            else:
                g = v
        p -= xp.multiply(g, constant(float(hp["lr"]), xp, p.dtype.char), b)

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        number, momentum = p.dtype.type, hp["momentum"]
        lr, options = number(float(hp["lr"])), descent_options(hp, number, hp["weight_decay"])
        if not momentum:
            sources.optimizer.sgd(p, g, lr, *options)
            return
        fresh = 1 - hp["dampening"] if step > 1 else 1
        sources.optimizer.sgd_momentum(
            p, g, state["momentum_buffer"], lr, number(momentum), number(fresh), hp["nesterov"], *options
        )
