"""torch.multiprocessing's names: the standard library's, and spawn."""

from multiprocessing import *  # noqa: F403

from .tensor.process_group import spawn as spawn
