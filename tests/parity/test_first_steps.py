"""examples/first_steps on both libraries, from the same weights and the same data: the same numbers.

The files run as they are. What differs by chance is put right from outside: a program gets PyTorch's weights when it
makes its optimizer, PyTorch's random images, and from its loaders the first batches in order.
"""

import itertools
from pathlib import Path

import pytest

import paceline

from .programs import Player, Recorder

torch = pytest.importorskip("torch")

FIRST_STEPS = Path(__file__).parents[2] / "examples" / "first_steps"
BATCHES = 20


def observed(criterion, losses):
    class Observed(criterion):
        def forward(self, input, target):
            loss = super().forward(input, target)
            losses.append(loss.item())
            return loss

    return Observed


def with_same_weights(optimizer, same):
    def make(params, **options):
        params = list(params)
        for p in params:
            p.data = same(p.data)
        return optimizer(params, **options)

    return make


def in_order(loader):
    return lambda dataset, batch_size, shuffle: list(itertools.islice(loader(dataset, batch_size), BATCHES))


def run(path, library, same, monkeypatch):
    """The losses of the program's steps."""
    losses = []
    with monkeypatch.context() as patch:
        for name in ("MSELoss", "CrossEntropyLoss"):
            patch.setattr(library.nn, name, observed(getattr(library.nn, name), losses))
        for name in ("SGD", "Adam"):
            patch.setattr(library.optim, name, with_same_weights(getattr(library.optim, name), same))
        for name in ("randn", "randint"):
            patch.setattr(library, name, lambda *args, draw=getattr(library, name): same(draw(*args)))
        data = library.utils.data
        patch.setattr(data, "DataLoader", in_order(data.DataLoader))
        for name in ("read_idx", "CIFAR10"):  # PyTorch has its own in torchvision
            patch.setattr(data, name, getattr(paceline.utils.data, name), raising=False)
        patch.setattr("sys.argv", [str(path)])
        source = path.read_text().replace("paceline", library.__name__)
        exec(compile(source, path, "exec"), {"__file__": str(path), "__name__": "__main__"})
    return losses


@pytest.mark.parametrize("path", sorted(FIRST_STEPS.glob("*.py")), ids=lambda path: path.stem)
def test_numbers_are_those_of_pytorch(path, monkeypatch, capsys):
    recorder = Recorder()
    theirs = run(path, torch, recorder, monkeypatch)
    printed = capsys.readouterr().out
    ours = run(path, paceline, Player(paceline, recorder.kept), monkeypatch)
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-9)
    assert capsys.readouterr().out == printed
