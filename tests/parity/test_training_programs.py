"""Programs as people publish them: after the change of import they compute what they computed before."""

import warnings

import pytest

import paceline

from .programs import PROGRAMS, Player, Recorder

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", PROGRAMS)
def test_losses_are_pytorch_s(name):
    recorder = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about deprecations
        torch.manual_seed(0)
        theirs = list(PROGRAMS[name](torch, recorder))
    player = Player(paceline, recorder.kept)
    ours = list(PROGRAMS[name](paceline, player))
    assert next(player.kept, None) is None
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-7)
