"""Programs as people publish them, made small: what is left to change is the import.

Each is a generator function of the library, called as scripts call it, `torch`, and of a function `same`, through which
it passes what is drawn at random: the weights of a new model, data, noise. What it yields must be equal.
"""

from . import generative, language, reinforcement, scientific, techniques, vision  # noqa: F401  (they register)
from .registry import PROGRAMS, Player, Recorder

__all__ = ["PROGRAMS", "Player", "Recorder"]
