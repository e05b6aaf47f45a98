"""Optimizers and learning rate schedules."""

from typing import Any

if __name__ != "paceline.optim":
    raise ImportError(
        "import paceline.optim instead of optim: the bare folder would be a second copy with a second registry"
    )

from ..runtime.absent import getattr_of
from . import lr_scheduler
from .adadelta import Adadelta
from .adafactor import Adafactor
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .asgd import ASGD
from .lbfgs import LBFGS
from .muon import Muon
from .nadam import NAdam
from .optimizer import Optimizer
from .radam import RAdam
from .rmsprop import RMSprop
from .rprop import Rprop
from .sgd import SGD

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "Optimizer",
    "RAdam", "RMSprop", "Rprop", "lr_scheduler",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "SparseAdam":
        raise AttributeError(
            "paceline.optim has no SparseAdam: gradients are never sparse here; use Adam with dense embeddings"
        )
    return _missing(name)


_missing = getattr_of(__name__)
