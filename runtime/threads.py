"""The number of threads of BLAS and of compiled kernels, set together."""

from __future__ import annotations

from . import world

_count: int | None = None


def get_num_threads() -> int:
    """How many threads a computation on the CPU may use."""
    return world.get_world().threads if _count is None else _count


def set_num_threads(count: int) -> None:
    """Use so many threads for computations on the CPU.

    Example:
        >>> import paceline as torch
        >>> torch.set_num_threads(1)
        >>> torch.get_num_threads()
        1
    """
    global _count
    if not isinstance(count, int) or count < 1:
        raise RuntimeError(f"set_num_threads expects a positive integer, got {count!r}")
    set_blas_threads(count)
    _count = count


def set_blas_threads(count: int) -> None:
    """Use so many threads for BLAS, and leave compiled kernels theirs: the bits of these do not depend on it."""
    import threadpoolctl  # here: it looks through all loaded libraries, which nobody needs at start-up

    threadpoolctl.threadpool_limits(count, user_api="blas")

