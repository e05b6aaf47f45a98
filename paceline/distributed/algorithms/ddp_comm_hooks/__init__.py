"""torch.distributed.algorithms.ddp_comm_hooks' names."""

from . import default_hooks, powerSGD_hook

__all__ = ["default_hooks", "powerSGD_hook"]
