"""A pipe that a rank holds open, and whose end shows when exactly its process dies."""

from __future__ import annotations

import os


def lifeline_path(folder: str, rank: int) -> str:
    """The rank's pipe."""
    return os.path.join(folder, f"lifeline-{rank}")


def open_lifeline(folder: str, rank: int) -> int:
    """A file that becomes readable when the rank's files are closed, which is before its process has ended."""
    return os.open(lifeline_path(folder, rank), os.O_RDONLY | os.O_NONBLOCK)


def hold_lifeline(folder: str, rank: int) -> None:
    """Hold this rank's pipe open, and let no child do so."""
    lifeline = os.open(lifeline_path(folder, rank), os.O_RDWR | os.O_NONBLOCK)
    os.register_at_fork(after_in_child=lambda: os.close(lifeline))
