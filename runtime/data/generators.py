"""The one place where the loaders' randomness is taken from the library's random streams."""

from typing import Any

import numpy as np

from ..rng import default_generator


def numpy_generator(generator: Any = None) -> np.random.Generator:
    """The NumPy generator behind `generator`: the library's default for None, or one of the library's or NumPy's."""
    if isinstance(generator, np.random.Generator):
        return generator
    if generator is None:
        return default_generator().numpy()
    if hasattr(generator, "numpy"):
        return generator.numpy()
    raise TypeError(
        f"generator must be a paceline.Generator or a numpy.random.Generator, not {type(generator).__name__}"
    )
