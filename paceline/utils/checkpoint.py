"""torch.utils.checkpoint's names."""

from ..autograd.recompute import CheckpointError, checkpoint, checkpoint_sequential

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential"]
