"""Switches that PyTorch's scripts set and that have nothing to switch here."""

from __future__ import annotations

_PRECISIONS = ("highest", "high", "medium")


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted: the same program computes the same bits on a CPU every time, whatever the mode."""


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted: products of float32 are computed in float32, which is the highest of PyTorch's precisions.

    Raises:
        RuntimeError: the precision is none of "highest", "high" and "medium".
    """
    if precision not in _PRECISIONS:
        raise RuntimeError(f"set_float32_matmul_precision(): expected one of {', '.join(_PRECISIONS)}, got {precision}")


def get_float32_matmul_precision() -> str:
    """The precision of products of float32: "highest"."""
    return "highest"


def not_there() -> bool:
    """Whether a library or device that Paceline does not use is available: no."""
    return False
