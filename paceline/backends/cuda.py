"""torch.backends.cuda's switches."""

from types import SimpleNamespace

matmul = SimpleNamespace(allow_tf32=False)

__all__ = ["matmul"]
