"""Rprop."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime.arrays import Array
from ..tensor.kernels import sources
from .flat import ElementwiseOptimizer, State, descent
from .optimizer import check_options


class Rprop(ElementwiseOptimizer):
    """Rprop: each element steps by a size of its own along the sign of its gradient.

        size = size * etaplus    where the gradient has kept its sign
        size = size * etaminus   where it has changed, and then the gradient counts as 0 in this step and the next
        p = p - size * sign(grad)

    For gradients of all the data: on small batches signs change by chance.

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: the size of the first step.
        etas: (etaminus, etaplus), below and above 1.
        step_sizes: the smallest and the largest size.
        maximize: ascend instead.
        foreach: no effect, here for PyTorch's scripts.
        capturable, differentiable: must be False.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Riedmiller and Braun, A direct adaptive method for faster backpropagation learning: the RPROP algorithm, 1993.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> optimizer = torch.optim.Rprop([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.9000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_options(lr=lr, capturable=capturable, differentiable=differentiable)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}; expected 0 < etaminus < 1 < etaplus")
        defaults = {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"prev": xp.zeros_like(p), "step_size": xp.zeros_like(p)}  # filled at each parameter's own first step

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        a, b = scratch
        before, size = state["prev"], state["step_size"]
        if step == 1:
            size.fill(float(hp["lr"]))
        g = descent(xp, p, g, 0, hp["maximize"], out=a)
        xp.multiply(g, before, out=b)
        kept, turned = b > 0, b < 0
        b.fill(1)
        xp.copyto(b, hp["etas"][1], where=kept)
        xp.copyto(b, hp["etas"][0], where=turned)
        size *= b
        xp.clip(size, *hp["step_sizes"], out=size)
        before[...] = g
        xp.copyto(before, 0, where=turned)
        xp.sign(before, out=b)
        b *= size
        p -= b

    @staticmethod
    def fused_update(p: Array, g: Array, state: State, hp: dict[str, Any], step: int) -> None:
        shrink, grow = hp["etas"]
        if step == 1:
            state["step_size"].fill(float(hp["lr"]))
        numbers = map(p.dtype.type, (grow, shrink, *hp["step_sizes"], 0))
        sources.optimizer.rprop(p, g, state["prev"], state["step_size"], *numbers, bool(hp["maximize"]))
