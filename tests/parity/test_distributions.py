"""Distributions against PyTorch's: values and the gradients of parameters."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import paceline  # noqa: E402

RNG = np.random.default_rng(0)
LOC, SCALE = RNG.standard_normal((4, 3)), RNG.random((4, 3)) + 0.2
PROBS = RNG.random((4, 3))
LOGITS = RNG.standard_normal((4, 3)) * 5
INDICES = RNG.integers(3, size=(2, 4))
BITS = RNG.integers(2, size=(4, 3)).astype(float)


def normal(lib, loc, scale):
    return lib.distributions.Normal(loc, scale)


def uniform(lib, low, width):
    return lib.distributions.Uniform(low, low + width)


def bernoulli(lib, probs):
    return lib.distributions.Bernoulli(probs)


def bernoulli_of_logits(lib, logits):
    return lib.distributions.Bernoulli(logits=logits)


def categorical(lib, probs):
    return lib.distributions.Categorical(probs)


def categorical_of_logits(lib, logits):
    return lib.distributions.Categorical(logits=logits)


def independent(lib, loc, scale):
    return lib.distributions.Independent(normal(lib, loc, scale), 1)


# how to make one, its parameters, values that it can have, and other parameters to compare with
CASES = [
    (normal, (LOC, SCALE), LOC[::-1].copy(), (LOC[::-1].copy(), SCALE[::-1].copy())),
    (uniform, (LOC, SCALE), LOC + SCALE / 3, (LOC - 1, SCALE + 3)),
    (bernoulli, (PROBS,), BITS, (PROBS[::-1].copy(),)),
    (bernoulli, (np.array([0.0, 1.0, 0.3, 0.0]),), np.array([0.0, 1.0, 1.0, 1.0]), (np.array([0.2, 0.5, 0.0, 0.0]),)),
    (bernoulli_of_logits, (LOGITS,), BITS, (LOGITS[::-1].copy(),)),
    (categorical, (PROBS,), INDICES, (PROBS[::-1].copy(),)),
    (categorical, (np.array([0.0, 1.0, 3.0]),), np.array([1, 2]), (np.array([1.0, 0.0, 3.0]),)),
    (categorical_of_logits, (LOGITS,), INDICES, (LOGITS[::-1].copy(),)),
    (independent, (LOC, SCALE), LOC[::-1].copy(), (LOC[::-1].copy(), SCALE[::-1].copy())),
]
ASKED = {
    "log_prob": lambda lib, one, value, other: one.log_prob(value),
    "entropy": lambda lib, one, value, other: one.entropy(),
    "kl": lambda lib, one, value, other: lib.distributions.kl_divergence(one, other),
    "mean": lambda lib, one, value, other: one.mean,
    "stddev": lambda lib, one, value, other: one.stddev,
    "perplexity": lambda lib, one, value, other: one.perplexity(),
    "probs": lambda lib, one, value, other: one.probs,
    "logits": lambda lib, one, value, other: one.logits,
    "cdf": lambda lib, one, value, other: one.cdf(value),
    "mode": lambda lib, one, value, other: one.mode,
}


OF_ALL = ("log_prob", "entropy", "kl", "perplexity")
OF_SOME = {
    normal: ("mean", "stddev", "cdf"),
    uniform: ("mean", "stddev", "cdf"),
    bernoulli: ("mean", "stddev", "probs", "logits"),
    bernoulli_of_logits: ("mean", "stddev", "probs", "logits"),
    categorical: ("mode", "probs", "logits"),
    categorical_of_logits: ("mode", "probs", "logits"),
    independent: ("mean", "stddev"),
}


@pytest.mark.parametrize(
    ("case", "asked"), [(i, asked) for i, (make, *_) in enumerate(CASES) for asked in OF_ALL + OF_SOME[make]]
)
def test_values_and_gradients(case, asked):
    make, parameters, value, others = CASES[case]
    found = []
    for lib in (torch, paceline):
        leaves = [lib.tensor(p, requires_grad=True) for p in parameters]
        one, other = make(lib, *leaves), make(lib, *map(lib.tensor, others))
        result = ASKED[asked](lib, one, lib.tensor(value), other)
        if result.requires_grad:
            result.sum().backward()
        found.append([x.detach().numpy() for x in (result, *(leaf.grad for leaf in leaves)) if x is not None])
    assert len(found[0]) == len(found[1])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_shapes_of_samples(case):
    make, parameters, _, _ = CASES[case]
    theirs, ours = (make(lib, *map(lib.tensor, parameters)) for lib in (torch, paceline))
    assert (ours.batch_shape, ours.event_shape) == (tuple(theirs.batch_shape), tuple(theirs.event_shape))
    for shape in ((), (5,), (2, 3)):
        sample, expected = ours.sample(shape), theirs.sample(shape)
        assert tuple(sample.shape) == tuple(expected.shape)
        assert str(sample.dtype).split(".")[1] == str(expected.dtype).split(".")[1]
    assert ours.has_rsample == theirs.has_rsample
