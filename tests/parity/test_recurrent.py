"""Packed sequences and recurrent layers over them, against PyTorch's from the same weights."""

from __future__ import annotations

import numpy
import pytest

torch = pytest.importorskip("torch")

import paceline  # noqa: E402

from .convert import to_paceline  # noqa: E402

LENGTHS = [2, 5, 3, 5, 1]


def padded(M):
    values = numpy.random.default_rng(0).standard_normal((5, len(LENGTHS), 4)).astype(numpy.float32)
    return M.from_numpy(values).requires_grad_()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}], ids=["plain", "deep"])
def test_layers_over_packed_sequences(kind, options):
    theirs = getattr(torch.nn, kind)(4, 3, **options)
    ours = getattr(paceline.nn, kind)(4, 3, **options)
    ours.load_state_dict(to_paceline(dict(theirs.state_dict())))
    results = []
    for M, layer in ((paceline, ours), (torch, theirs)):
        x = padded(M)
        packed = M.nn.utils.rnn.pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
        output, state = layer(packed)
        y, lengths = M.nn.utils.rnn.pad_packed_sequence(output, batch_first=True, padding_value=-1.0, total_length=6)
        state = state[0] + state[1] if kind == "LSTM" else state
        ((y * y).sum() + (state * state * state).sum()).backward()
        gradients = [p.grad.numpy() for p in layer.parameters()]
        results.append([y.detach().numpy(), state.detach().numpy(), x.grad.numpy(), *gradients, lengths.numpy()])
    for a, b in zip(*results, strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_sequences_survive_packing_and_padding():
    sequences = [paceline.arange(n).float() for n in (3, 5, 2)]
    rnn = paceline.nn.utils.rnn
    for back in (
        rnn.unpack_sequence(rnn.pack_sequence(sequences, enforce_sorted=False)),
        rnn.unpad_sequence(rnn.pad_sequence(sequences), [3, 5, 2]),
    ):
        assert [s.tolist() for s in back] == [s.tolist() for s in sequences]


def test_unsorted_lengths_are_refused():
    with pytest.raises(RuntimeError, match="enforce_sorted=False"):
        paceline.nn.utils.rnn.pack_padded_sequence(paceline.zeros(3, 2, 1), [1, 3])
