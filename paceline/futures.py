"""torch.futures' names."""

from .runtime.absent import getattr_of
from .runtime.comm.work import Future

__getattr__ = getattr_of(__name__)

__all__ = ["Future"]
