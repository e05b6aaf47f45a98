"""Optimizers and learning rate schedules."""

if __name__ != "paceline.optim":
    raise ImportError(
        "import paceline.optim instead of optim: the bare folder would be a second copy with a second registry"
    )

from . import lr_scheduler
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
