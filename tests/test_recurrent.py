"""Recurrent layers against each sequence on its own, step by step, in elementary operations."""

import numpy as np
import pytest

import paceline
from paceline.tensor import kernels

nn = paceline.nn
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def random(*shape, seed, dtype=paceline.float64):
    return paceline.tensor(np.random.default_rng(seed).standard_normal(shape) * 0.5, dtype=dtype).requires_grad_()


def step(layer, suffix, x, state):
    """The new state of one sequence."""
    parts = []
    for value, name in ((x, "ih"), (state[0], "hh")):
        part = getattr(layer, f"weight_{name}{suffix}") @ value
        parts.append(part + getattr(layer, f"bias_{name}{suffix}") if layer.bias else part)
    if isinstance(layer, nn.RNN):
        return (getattr(sum(parts), layer.nonlinearity)(),)
    if isinstance(layer, nn.GRU):
        (xr, xz, xn), (hr, hz, hn) = (part.chunk(3) for part in parts)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        return ((1 - z) * (xn + r * hn).tanh() + z * state[0],)
    i, f, g, o = sum(parts).chunk(4)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (getattr(layer, f"weight_hr{suffix}") @ h if layer.proj_size else h), c


def one_sequence(layer, x, states):
    """The outputs [steps, features] and the states at the end of a sequence x [steps, features]."""
    finals = []
    for n in range(layer.num_layers):
        outputs = []
        for suffix in [f"_l{n}", f"_l{n}_reverse"][: 1 + layer.bidirectional]:
            state, found = tuple(s[len(finals)] for s in states), [None] * len(x)
            order = range(len(x))
            for t in reversed(order) if suffix.endswith("reverse") else order:
                state = step(layer, suffix, x[t], state)
                found[t] = state[0]
            outputs.append(paceline.stack(found))
            finals.append(state)
        x = paceline.cat(outputs, -1)
    return x, tuple(paceline.stack(s) for s in zip(*finals, strict=True))


def gradients(layer, results, leaves):
    """Of a fixed random projection of the results."""
    total = sum((y * random(*y.shape, seed=i, dtype=y.dtype).detach()).sum() for i, y in enumerate(results))
    return paceline.autograd.grad(total, [*leaves, *layer.parameters()])


LAYERS = {
    "lstm": ("LSTM", {}, 16, 3),
    "wide lstm": ("LSTM", {}, 40, 3),
    "deep lstm": ("LSTM", {"num_layers": 2, "bidirectional": True}, 5, 9),
    "lstm without bias": ("LSTM", {"bias": False}, 33, 12),
    "projected lstm": ("LSTM", {"proj_size": 3, "bidirectional": True}, 5, 3),
    "gru": ("GRU", {}, 32, 9),
    "deep gru": ("GRU", {"num_layers": 2, "bidirectional": True}, 18, 3),
    "gru without bias": ("GRU", {"bias": False}, 7, 11),
    "rnn": ("RNN", {}, 32, 10),
    "deep rnn of relu": ("RNN", {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True}, 21, 4),
}


@pytest.mark.parametrize("dtype", [paceline.float32, paceline.float64], ids=str)
@pytest.mark.parametrize(("kind", "options", "size", "n"), LAYERS.values(), ids=LAYERS)
def test_layers_over_sequences_of_different_lengths(kind, options, size, n, dtype, monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    layer = getattr(nn, kind)(6, size, dtype=dtype, **options)
    lengths = [1 + (7 * i) % 5 for i in range(n)]
    count = layer.num_layers * (1 + layer.bidirectional)
    states = [random(count, n, layer.proj_size or size, seed=1, dtype=dtype)]
    if kind == "LSTM":
        states.append(random(count, n, size, seed=2, dtype=dtype))
    x = random(max(lengths), n, 6, seed=3, dtype=dtype)

    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, final = layer(packed, tuple(states) if kind == "LSTM" else states[0])
    output, _ = nn.utils.rnn.pad_packed_sequence(output)
    found = [output, *(final if kind == "LSTM" else (final,))]

    parts = [one_sequence(layer, x[:length, i], [s[:, i] for s in states]) for i, length in enumerate(lengths)]
    output = nn.utils.rnn.pad_sequence([part[0] for part in parts])
    expected = [output, *(paceline.stack(s, 1) for s in zip(*(part[1] for part in parts), strict=True))]

    tolerance = 2e-5 if dtype == paceline.float32 else 1e-12
    found += gradients(layer, found, [x, *states])
    expected += gradients(layer, expected, [x, *states])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", GATES)
def test_cells_are_layers_of_one_step(kind):
    layer, cell = getattr(nn, kind)(3, 4), getattr(nn, f"{kind}Cell")(3, 4)
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in layer.named_parameters()})
    for shape in ((5, 3), (3,)):
        x = random(*shape, seed=0, dtype=paceline.float32)
        output, _ = layer(x.unsqueeze(0))
        state = cell(x)
        np.testing.assert_array_equal((state[0] if kind == "LSTM" else state).detach(), output[0].detach())


def results_with_threads(count, layer, x):
    before = paceline.get_num_threads()
    paceline.set_num_threads(count)
    try:
        output, _ = layer(x)
        return [output, *gradients(layer, [output], [x])]
    finally:
        paceline.set_num_threads(before)


@pytest.mark.parametrize("kind", GATES)
def test_bits_do_not_depend_on_threads(kind):
    layer, x = getattr(nn, kind)(8, 40), random(6, 37, 8, seed=0, dtype=paceline.float32)
    one, two = (results_with_threads(count, layer, x) for count in (1, 2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())


@pytest.mark.parametrize("kind", GATES)
def test_what_is_not_finite_stays_in_its_sequence(kind):
    layer, x = getattr(nn, kind)(8, 40), random(6, 37, 8, seed=0, dtype=paceline.float32).detach()
    clean, _ = layer(x)
    x[2, 5] = float("nan")
    output, _ = layer(x)
    assert output[:2, 5].isfinite().all() and output[2:, 5].isnan().all()
    others = [i for i in range(37) if i != 5]
    np.testing.assert_array_equal(output.detach()[:, others], clean.detach()[:, others])


def test_messages():
    layer = nn.LSTM(3, 4)
    with pytest.raises(ValueError, match=r"input dtype \(.*float64\) does not match weight dtype \(.*float32\)"):
        layer(paceline.zeros(2, 1, 3, dtype=paceline.float64))
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        layer(paceline.zeros(0, 1, 3))
    assert layer(paceline.zeros(2, 0, 3))[0].shape == (2, 0, 4)
