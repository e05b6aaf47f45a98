"""Counts the changes of modules, so that what was recorded of them can tell whether it still holds."""

from ..autograd.mode import refuse_if_recording

version = [0]


def changing() -> None:
    """Called before an attribute, a registration or a hook of any module changes."""
    refuse_if_recording("it changes an attribute of a module")
    version[0] += 1
