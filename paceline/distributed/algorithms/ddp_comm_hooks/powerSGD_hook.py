"""torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook's names."""

from ....nn.parallel.comm_hooks import PowerSGDState, batched_powerSGD_hook, powerSGD_hook

__all__ = ["PowerSGDState", "batched_powerSGD_hook", "powerSGD_hook"]
