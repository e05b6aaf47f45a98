"""Optimizers and learning rate schedules."""

from typing import Any

if __name__ != "paceline.optim":
    raise ImportError(
        "import paceline.optim instead of optim: the bare folder would be a second copy with a second registry"
    )

from . import lr_scheduler
from .adadelta import Adadelta
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .asgd import ASGD
from .nadam import NAdam
from .optimizer import Optimizer
from .radam import RAdam
from .rmsprop import RMSprop
from .rprop import Rprop
from .sgd import SGD

__all__ = [
    "ASGD", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Optimizer", "RAdam", "RMSprop", "Rprop",
    "lr_scheduler",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "SparseAdam":
        raise AttributeError(
            "paceline.optim has no SparseAdam: gradients are never sparse here; use Adam with dense embeddings"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
