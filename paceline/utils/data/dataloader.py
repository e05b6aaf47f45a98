"""The loader, under the name that it has in PyTorch."""

from ...tensor.data import DataLoader, default_collate

__all__ = ["DataLoader", "default_collate"]
