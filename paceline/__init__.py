"""Paceline: PyTorch's way of working on NumPy, CuPy/NCCL and MPI.

    import paceline as torch

Only re-exports live here; the code is in the packages runtime, autograd, tensor, nn, optim and launch. The names are
loaded when the first of them is asked for, so that the `paceline` command, and everything else that needs none, starts
without NumPy.
"""

# ruff: noqa: I001  (runtime comes first: it sets the number of BLAS threads before NumPy is loaded)
from . import runtime as runtime

import importlib as _importlib
import sys as _sys
import typing as _typing
import warnings as _warnings
from types import ModuleType as _ModuleType

from .runtime.absent import getattr_of as _getattr_of

if _typing.TYPE_CHECKING:
    from ._names import *

__version__ = "0.1.0"


class _Unloaded(_ModuleType):
    """What this package is until _names.py has put the names into it."""

    def __getattr__(self, name: str) -> _typing.Any:
        # `from paceline import *` asks for __all__ first; other names of Python's are asked for by debuggers and tests
        if name == "__all__" or not name.startswith("__"):
            _importlib.import_module("._names", __name__)  # a second thread waits here
            if self.__class__ is _ModuleType:
                return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name)

    def __setattr__(self, name: str, value: object) -> None:
        # `import paceline.nn` puts every package that it loads here. These two are not all there is to their names:
        # `tensor` is the function, and optim gets the averages below.
        if name not in ("tensor", "optim"):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        _importlib.import_module("._names", __name__)
        return sorted(vars(self))


_package = _sys.modules[__name__]
_package.__class__ = _Unloaded
if not _typing.TYPE_CHECKING:
    __getattr__ = _getattr_of(__name__)

# PyTorch has the averages of models in optim, which may not import nn.
_averages = _ModuleType("paceline.optim.swa_utils")
_averages.__getattr__ = lambda name: getattr(_importlib.import_module("paceline.swa_utils"), name)  # type: ignore[method-assign]
_sys.modules[_averages.__name__] = _averages

# PyTorch computes nan and inf silently. NumPy warns, but only what our own modules call is silenced here.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"paceline\.")
