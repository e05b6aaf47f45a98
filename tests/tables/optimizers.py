"""Optimizers and what each must do: one row per class and set of options, with the textbook's formulas to compare with.

A reference works on one parameter in float64, straight from the paper: `reference(p, g, memory, t, **options)` returns
the new parameter; `memory` is a dict of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    name: str
    options: dict[str, Any]
    reference: Callable

    def __repr__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items() if k != "lr")])


def sgd(p, g, memory, t, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):
    g = (-g if maximize else g) + weight_decay * p
    if not momentum:
        return p - lr * g
    v = memory["v"] = g if t == 1 else momentum * memory["v"] + (1 - dampening) * g
    return p - lr * (g + momentum * v if nesterov else v)


def adam(p, g, memory, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False,
         decoupled_weight_decay=False):  # fmt: skip
    g = -g if maximize else g
    if decoupled_weight_decay:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    m = memory["m"] = betas[0] * memory.get("m", 0) + (1 - betas[0]) * g
    v = memory["v"] = betas[1] * memory.get("v", 0) + (1 - betas[1]) * g**2
    if amsgrad:
        v = memory["largest"] = np.maximum(memory.get("largest", 0), v)
    return p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)


def adamw(p, g, memory, t, weight_decay=0.01, **options):
    return adam(p, g, memory, t, weight_decay=weight_decay, decoupled_weight_decay=True, **options)


def rmsprop(p, g, memory, t, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False, maximize=False):
    g = (-g if maximize else g) + weight_decay * p
    s = memory["s"] = alpha * memory.get("s", 0) + (1 - alpha) * g**2
    mean = memory["mean"] = alpha * memory.get("mean", 0) + (1 - alpha) * g
    d = g / (np.sqrt(s - mean**2 if centered else s) + eps)
    v = memory["b"] = momentum * memory.get("b", 0) + d
    return p - lr * v


def adagrad(p, g, memory, t, lr, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10,
            maximize=False):  # fmt: skip
    g = (-g if maximize else g) + weight_decay * p
    s = memory["s"] = memory.get("s", initial_accumulator_value) + g**2
    return p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s) + eps)


def _rows(name: str, reference: Callable, lr: float, *variants: dict[str, Any]) -> list[Row]:
    return [Row(name, {"lr": lr, **options}, reference) for options in ({}, *variants)]


OPTIMIZERS = [
    *_rows("SGD", sgd, 0.1,
           {"momentum": 0.9},
           {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
           {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
           {"weight_decay": 0.1, "maximize": True}),
    *_rows("Adam", adam, 0.01,
           {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
           {"amsgrad": True, "maximize": True},
           {"weight_decay": 0.1, "decoupled_weight_decay": True},
           {"eps": 0.0}),
    *_rows("AdamW", adamw, 0.01,
           {"weight_decay": 0.3, "amsgrad": True},
           {"maximize": True}),
    *_rows("RMSprop", rmsprop, 0.01,
           {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9},
           {"eps": 1e-3, "centered": True, "maximize": True}),
    *_rows("Adagrad", adagrad, 0.1,
           {"lr_decay": 0.1, "weight_decay": 0.1},
           {"initial_accumulator_value": 0.5, "eps": 1e-3, "maximize": True}),
]  # fmt: skip
