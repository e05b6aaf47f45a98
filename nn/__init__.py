"""Neural networks: modules, layers, functions on tensors, initialisation, data parallelism."""

if __name__ != "paceline.nn":
    raise ImportError("import paceline.nn instead of nn: the bare folder would be a second copy with a second registry")

from . import init, parallel, utils
from .container import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from .module import Module
from .parameter import Buffer, Parameter

__all__ = [
    "Buffer",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "Sequential",
    "init",
    "parallel",
    "utils",
]
