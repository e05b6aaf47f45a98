"""torch.distributed.algorithms' names."""

from . import ddp_comm_hooks, join
from .join import Join

__all__ = ["Join", "ddp_comm_hooks", "join"]
