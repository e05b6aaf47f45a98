"""torch.backends' switches: scripts may set them, and nothing reads them."""

from . import cuda, cudnn, mps

__all__ = ["cuda", "cudnn", "mps"]
