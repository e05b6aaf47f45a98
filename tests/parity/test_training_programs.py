"""Programs as people publish them: after the change of import they compute what they computed before."""

import contextlib
import warnings

import pytest

import paceline

from .programs import PROGRAMS, Player, Recorder

torch = pytest.importorskip("torch")

# In float32, rounding grows from step to step; in float64 nothing but a different formula could differ so much.
TOLERANCE = {"float32": 1e-4, "float64": 1e-6}


@contextlib.contextmanager
def default_dtype(library, name):
    before = library.get_default_dtype()
    library.set_default_dtype(getattr(library, name))
    try:
        yield
    finally:
        library.set_default_dtype(before)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", PROGRAMS)
def test_losses_are_those_of_pytorch(name, dtype):
    recorder = Recorder()
    with warnings.catch_warnings(), default_dtype(torch, dtype):
        warnings.simplefilter("ignore")  # PyTorch's own, about deprecations
        torch.manual_seed(0)
        theirs = list(PROGRAMS[name](torch, recorder))
    player = Player(paceline, recorder.kept)
    with default_dtype(paceline, dtype):
        ours = list(PROGRAMS[name](paceline, player))
    assert next(player.kept, None) is None, "the second run drew less than the first"
    assert ours == pytest.approx(theirs, rel=TOLERANCE[dtype], abs=1e-7)
