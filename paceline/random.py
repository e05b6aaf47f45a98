"""torch.random's names: the default stream of random numbers."""

from .runtime.rng import initial_seed, manual_seed, seed
from .tensor.random import fork_rng, get_rng_state, set_rng_state

__all__ = ["fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]
