"""`paceline.utils.data`, as in PyTorch."""

from . import checkpoint, data

__all__ = ["checkpoint", "data"]
