"""Adafactor."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime import dtypes
from ..runtime.arrays import Array
from ..tensor.inspection import finfo
from .optimizer import check_options
from .parameterwise import ParameterwiseOptimizer, State, step_count


class Adafactor(ParameterwiseOptimizer):
    """Adafactor: mean squares kept for rows and columns only, and steps relative to the parameter's own size.

        b = step**beta2_decay
        row = (1 - b) * row + b * mean(grad**2, -1),   col = (1 - b) * col + b * mean(grad**2, -2)
        v = row @ col / mean(row)                       (of vectors and scalars: the mean of grad**2 itself)
        u = grad / max(sqrt(v), eps1)
        p = p * (1 - lr * weight_decay) - max(eps2, rms(p)) * min(lr, 1 / sqrt(step)) * u / max(1, rms(u) / d)

    Args:
        params: leaf tensors, or dicts of parameter groups.
        lr: upper bound of the relative step.
        beta2_decay: at most 0; how fast the means become longer.
        eps: (eps1, eps2); eps1 is the dtype's precision if None.
        d: at least 1; the root mean square of u is cut to it.
        weight_decay: decoupled, as AdamW's.
        foreach: no effect, here for PyTorch's scripts.
        maximize: ascend instead.

    Raises:
        ValueError: an option out of its range, no parameters, or a parameter that is no leaf.

    Shazeer and Stern, Adafactor: adaptive learning rates with sublinear memory cost, 2018.

    Example:
        >>> import paceline as torch
        >>> w = torch.ones(2, 3, requires_grad=True)
        >>> optimizer = torch.optim.Adafactor([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([[0.9000, 0.9000, 0.9000],
                [0.9000, 0.9000, 0.9000]], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        check_options(lr=lr, weight_decay=weight_decay)
        if not beta2_decay <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        for i, value in enumerate(eps):
            if value is not None and not value >= 0.0:
                raise ValueError(f"epsilon{i + 1} should be >= 0 but is: {value}")
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        defaults = {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        if p.ndim < 2:
            return {"step": step_count(), "variance": xp.zeros_like(p)}
        row, column = (*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1])
        return {"step": step_count(), "row_var": xp.zeros(row, p.dtype), "col_var": xp.zeros(column, p.dtype)}

    @staticmethod
    def update(xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any]) -> None:
        step, lr, (eps1, eps2) = float(state["step"]), float(hp["lr"]), hp["eps"]
        eps1 = finfo(dtypes.of(p.dtype)).eps if eps1 is None else eps1
        size = xp.maximum(_rms(xp, p), eps2) * min(lr, step**-0.5)
        if hp["weight_decay"]:
            p *= 1 - lr * hp["weight_decay"]
        u = _mean_square(xp, g * g, state, step ** hp["beta2_decay"], eps1)
        xp.maximum(u, eps1 * eps1, out=u)
        xp.divide(g, xp.sqrt(u, out=u), out=u)
        u *= (size / xp.maximum(_rms(xp, u) / hp["d"], 1)).astype(p.dtype)
        if hp["maximize"]:
            p += u
        else:
            p -= u


def _rms(xp: ModuleType, x: Array) -> Array:
    """Root of the mean square, of half precision in float32; an array of no dimensions: nothing waits for a device."""
    x = x.astype("float32") if x.itemsize < 4 else x
    return xp.sqrt(xp.mean(x * x))


def _mean_square(xp: ModuleType, square: Array, state: State, weight: float, eps: float) -> Array:
    """Take a gradient's square into the means, and estimate the mean of each element; a new array."""
    if square.ndim < 2:
        state["variance"] += weight * (square - state["variance"])
        return state["variance"].copy()
    row, column = state["row_var"], state["col_var"]
    row += weight * (square.mean(-1, keepdims=True) - row)
    column += weight * (square.mean(-2, keepdims=True) - column)
    return row * column / xp.maximum(row.mean(-2, keepdims=True), eps)
