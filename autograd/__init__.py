"""The tape: declaring primitives, recording them, and differentiating what was recorded."""

if __name__ != "paceline.autograd":
    raise ImportError("import paceline.autograd: the bare folder would be a second copy with a second registry")

from ..runtime.absent import getattr_of
from . import function, functional, graph
from .api import FormerVariable, backward, grad
from .check import GradcheckError, gradcheck, gradgradcheck
from .engine import queue_callback
from .function import Function
from .mode import (
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_anomaly_enabled,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
)
from .variable import Node

Variable = FormerVariable()

__getattr__ = getattr_of(__name__)

__all__ = [
    "Function",
    "GradcheckError",
    "Node",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "queue_callback",
    "set_detect_anomaly",
    "set_grad_enabled",
]
