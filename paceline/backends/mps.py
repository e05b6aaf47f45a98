"""torch.backends.mps: Apple's GPUs are not used."""

from ..runtime.switches import not_there as is_available
from ..runtime.switches import not_there as is_built

__all__ = ["is_available", "is_built"]
