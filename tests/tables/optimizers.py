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
    tolerance: float = 1e-10

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


def adadelta(p, g, memory, t, lr, rho=0.9, eps=1e-6, weight_decay=0.0, maximize=False):
    g = (-g if maximize else g) + weight_decay * p
    s = memory["s"] = rho * memory.get("s", 0) + (1 - rho) * g**2
    d = np.sqrt(memory.get("u", 0) + eps) / np.sqrt(s + eps) * g
    memory["u"] = rho * memory.get("u", 0) + (1 - rho) * d**2
    return p - lr * d


def adamax(p, g, memory, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, maximize=False):
    g = (-g if maximize else g) + weight_decay * p
    m = memory["m"] = betas[0] * memory.get("m", 0) + (1 - betas[0]) * g
    u = memory["u"] = np.maximum(betas[1] * memory.get("u", 0), np.abs(g) + eps)
    return p - lr / (1 - betas[0] ** t) * m / u


def nadam(p, g, memory, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, momentum_decay=4e-3,
          decoupled_weight_decay=False, maximize=False):  # fmt: skip
    g = -g if maximize else g
    if decoupled_weight_decay:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    mus = [betas[0] * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in range(1, t + 2)]
    m = memory["m"] = betas[0] * memory.get("m", 0) + (1 - betas[0]) * g
    v = memory["v"] = betas[1] * memory.get("v", 0) + (1 - betas[1]) * g**2
    d = mus[t] / (1 - np.prod(mus)) * m + (1 - mus[t - 1]) / (1 - np.prod(mus[:t])) * g
    return p - lr * d / (np.sqrt(v / (1 - betas[1] ** t)) + eps)


def radam(p, g, memory, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False,
          maximize=False):  # fmt: skip
    g = -g if maximize else g
    if decoupled_weight_decay:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    m = memory["m"] = betas[0] * memory.get("m", 0) + (1 - betas[0]) * g
    v = memory["v"] = betas[1] * memory.get("v", 0) + (1 - betas[1]) * g**2
    n = 2 / (1 - betas[1]) - 1
    n_t = n - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
    if n_t <= 5:
        return p - lr * m / (1 - betas[0] ** t)
    r = np.sqrt((n_t - 4) * (n_t - 2) * n / ((n - 4) * (n - 2) * n_t))
    return p - lr * r * m / (1 - betas[0] ** t) * np.sqrt(1 - betas[1] ** t) / (np.sqrt(v) + eps)


def rprop(p, g, memory, t, lr, etas=(0.5, 1.2), step_sizes=(1e-6, 50), maximize=False):
    g = -g if maximize else g
    size = memory.get("size", np.full_like(g, lr))
    turn = np.sign(g * memory.get("g", 0))
    memory["size"] = np.clip(size * np.choose((turn + 1).astype(int), [etas[0], 1, etas[1]]), *step_sizes)
    memory["g"] = np.where(turn < 0, 0, g)
    return p - memory["size"] * np.sign(memory["g"])


def asgd(p, g, memory, t, lr, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0, maximize=False):
    g = (-g if maximize else g) + weight_decay * p
    eta = lr / (1 + lambd * lr * (t - 1)) ** alpha
    return p - eta * g - lambd * eta * p


def adafactor(p, g, memory, t, lr, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0, maximize=False):
    if not p.size:
        return p
    g = -g if maximize else g
    eps1 = np.finfo(p.dtype).eps if eps[0] is None else eps[0]
    size = max(eps[1], np.sqrt(np.mean(p**2))) * min(lr, 1 / np.sqrt(t))
    b = t**beta2_decay
    if p.ndim < 2:
        v = memory["v"] = (1 - b) * memory.get("v", 0) + b * g**2
    else:
        r = memory["r"] = (1 - b) * memory.get("r", 0) + b * np.mean(g**2, -1)
        c = memory["c"] = (1 - b) * memory.get("c", 0) + b * np.mean(g**2, -2)
        v = np.einsum("...i,...j,...->...ij", r, c, 1 / np.maximum(np.mean(r, -1), eps1))
    u = g / np.maximum(np.sqrt(v), eps1)
    return p * (1 - lr * weight_decay) - size * u / max(1, np.sqrt(np.mean(u**2)) / d)


def _rows(name: str, reference: Callable, lr: float, *variants: dict[str, Any], tolerance: float = 1e-10) -> list[Row]:
    return [Row(name, {"lr": lr, **options}, reference, tolerance) for options in ({}, *variants)]


KEPT_IN_FLOAT32 = 1e-6  # relative error of optimizers with a number in their state, as PyTorch's


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
    *_rows("Adadelta", adadelta, 1.0,
           {"rho": 0.5, "eps": 1e-3, "weight_decay": 0.1},
           {"maximize": True}),
    *_rows("Adamax", adamax, 0.01,
           {"betas": (0.8, 0.5), "eps": 1e-3, "weight_decay": 0.1},
           {"maximize": True}),
    *_rows("NAdam", nadam, 0.01,
           {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, "momentum_decay": 0.3},
           {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
           tolerance=KEPT_IN_FLOAT32),
    *_rows("RAdam", radam, 0.01,
           {"betas": (0.8, 0.7), "eps": 1e-3, "weight_decay": 0.1},
           {"betas": (0.9, 0.8), "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    *_rows("Rprop", rprop, 0.1,
           {"etas": (0.3, 3.0), "step_sizes": (0.05, 0.2), "maximize": True}),
    *_rows("Adafactor", adafactor, 0.3,
           {"beta2_decay": -0.5, "eps": (0.1, 0.5), "d": 1.5, "weight_decay": 0.1},
           {"lr": 0.01, "maximize": True}),
    *_rows("ASGD", asgd, 0.125,
           {"lr": 0.5, "lambd": 0.25, "alpha": 1.0, "weight_decay": 0.1},
           {"t0": 2, "maximize": True},
           tolerance=KEPT_IN_FLOAT32),
]  # fmt: skip
