"""Muon."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..runtime import dtypes
from ..runtime.arrays import Array
from .optimizer import check_options
from .parameterwise import ParameterwiseOptimizer, State


class Muon(ParameterwiseOptimizer):
    """Muon: momentum whose singular values are all moved close to 1, for the matrices of hidden layers.

        b = momentum * b + (1 - momentum) * grad
        u = orthogonalized b                            (nesterov: of momentum * b + (1 - momentum) * grad)
        p = p * (1 - lr * weight_decay) - lr * ratio * u

    Other parameters (biases, norms, embeddings, the output layer) are left to an optimizer like AdamW.

    Args:
        params: leaf tensors with two dimensions, or dicts of parameter groups.
        lr: learning rate.
        weight_decay: decoupled, as AdamW's.
        momentum: how much of the mean of gradients is kept at a step.
        nesterov: look at the mean one step ahead.
        ns_coefficients: (a, b, c) of the iteration x = a * x + (b * s + c * s @ s) @ x with s = x @ x.T.
        eps: least norm that is divided by.
        ns_steps: number of iterations, below 100.
        adjust_lr_fn: ratio for a matrix [n, m]: "original" (or None) sqrt(max(1, n / m)), "match_rms_adamw"
            0.2 * sqrt(max(n, m)).

    Raises:
        ValueError: an option out of its range, no parameters, a parameter that is no leaf or no matrix.

    Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; Liu et al., Muon is scalable for LLM
    training, 2025.

    Example:
        >>> import paceline as torch
        >>> w = torch.eye(2).requires_grad_()
        >>> optimizer = torch.optim.Muon([w], lr=0.5, weight_decay=0.0)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([[0.4375, 0.0000],
                [0.0000, 0.4375]], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        check_options(lr=lr, weight_decay=weight_decay, momentum=momentum)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                f"Adjust learning rate function {adjust_lr_fn} is not supported; it is 'original' or 'match_rms_adamw'"
            )
        if ns_steps >= 100:
            raise ValueError(f"Number of steps must be less than 100 for computational efficiency, but is {ns_steps}")
        if len(ns_coefficients) != 3:
            raise ValueError(f"Coefficients must be a tuple of exactly 3 values, but are {ns_coefficients}")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _check_parameter(self, p: Any) -> None:
        super()._check_parameter(p)
        if p.array.ndim != 2:
            raise ValueError(
                f"Muon only supports 2D parameters whereas we found a parameter with size: {list(p.array.shape)}; give "
                "it to another optimizer, like AdamW"
            )

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        return {"momentum_buffer": xp.zeros_like(p)}

    @staticmethod
    def update(xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any]) -> None:
        lr, momentum, mean = float(hp["lr"]), hp["momentum"], state["momentum_buffer"]
        mean += (1 - momentum) * (g - mean)
        u = g + momentum * (mean - g) if hp["nesterov"] else mean
        u = _orthogonalized(xp, u, hp["ns_coefficients"], hp["ns_steps"], hp["eps"])
        n, m = p.shape
        ratio = 0.2 * math.sqrt(max(n, m)) if hp["adjust_lr_fn"] == "match_rms_adamw" else math.sqrt(max(1, n / m))
        p *= 1 - lr * hp["weight_decay"]
        p -= (lr * ratio) * u.astype(p.dtype)


def _orthogonalized(
    xp: ModuleType, g: Array, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Array:
    """A matrix with the singular vectors of g and singular values near 1, by Newton and Schulz's iteration.

    Every result is rounded to bfloat16, as in PyTorch; sums are in float32.
    """
    a, b, c = coefficients

    def rounded(x: Array) -> Array:
        return x.astype(dtypes.bfloat16.numpy).astype("float32")

    x = rounded(g.T if g.shape[0] > g.shape[1] else g)
    x = rounded(x / xp.maximum(rounded(xp.sqrt(xp.sum(x * x))), eps))
    for _ in range(steps):
        s = rounded(x @ x.T)
        x = rounded(a * x + rounded(b * s + c * (s @ s)) @ x)
    return x.T if g.shape[0] > g.shape[1] else x
