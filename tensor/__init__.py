"""Tensors: the operations with their derivatives, the Tensor class, creation, printing."""

if __name__ != "paceline.tensor":
    raise ImportError("import paceline.tensor: the bare folder would be a second copy with a second registry")

from .ops import batching as batching  # the rules of vmap; nobody else imports them
from .ops import chains as chains  # what compile() runs chains with
from .tensor import Size, Tensor

__all__ = ["Size", "Tensor"]
