"""Random tensors: moments and quantiles of every sampler against its distribution's, dtypes, generators, messages."""

import math

import numpy as np
import pytest

import paceline as torch

SIZE = 40_000


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(7)


def filled(name, *args, dtype=torch.float64):
    return getattr(torch.empty(SIZE, dtype=dtype), name)(*args).numpy().astype(np.float64)


def within(found, expected, spread):
    """Five standard errors of a mean over SIZE draws with that standard deviation."""
    assert abs(found - expected) < 5 * spread / math.sqrt(SIZE), f"{found} is not {expected}"


MOMENTS = {
    "uniform_": ((-1.0, 3.0), 1.0, 4 / math.sqrt(12)),
    "normal_": ((2.0, 3.0), 2.0, 3.0),
    "exponential_": ((2.0,), 0.5, 0.5),
    "log_normal_": ((0.1, 0.5), math.exp(0.1 + 0.125), math.exp(0.225) * math.sqrt(math.exp(0.25) - 1)),
    "geometric_": ((0.25,), 4.0, math.sqrt(0.75) / 0.25),
    "bernoulli_": ((0.3,), 0.3, math.sqrt(0.21)),
    "random_": ((3, 9), 5.5, math.sqrt(35 / 12)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=repr)
@pytest.mark.parametrize("name", MOMENTS)
def test_mean_and_spread_of_in_place_samplers(name, dtype):
    args, mean, std = MOMENTS[name]
    drawn = filled(name, *args, dtype=dtype)
    within(drawn.mean(), mean, std)
    assert abs(drawn.std() / std - 1) < 0.06


QUANTILES = {
    "exponential_": ((2.0,), lambda q: -math.log(1 - q) / 2),
    "cauchy_": ((1.0, 2.0), lambda q: 1 + 2 * math.tan(math.pi * (q - 0.5))),
    "uniform_": ((-1.0, 3.0), lambda q: -1 + 4 * q),
    "log_normal_": ((0.0, 1.0), lambda q: {0.1: 0.277606, 0.5: 1.0, 0.9: 3.602224}[q]),
}


@pytest.mark.parametrize("name", QUANTILES)
def test_quantiles_of_in_place_samplers(name):
    args, quantile = QUANTILES[name]
    drawn = filled(name, *args)
    for q in (0.1, 0.5, 0.9):
        within((drawn < quantile(q)).mean(), q, math.sqrt(q * (1 - q)))


def test_ranges():
    assert set(torch.empty(1000).geometric_(0.5).long().unique().tolist()) >= {1, 2, 3}
    assert torch.empty(1000).geometric_(0.5).min() == 1
    assert set(torch.empty(1000, dtype=torch.int64).random_(3, 6).tolist()) == {3, 4, 5}
    assert set(torch.empty(1000, dtype=torch.int32).random_(3).tolist()) == {0, 1, 2}
    assert set(torch.empty(1000, dtype=torch.bool).random_().tolist()) == {False, True}
    assert torch.empty(1000, dtype=torch.uint8).random_().max() > 200
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        drawn = torch.rand(50_000, dtype=dtype).float()
        assert 0 <= drawn.min() and drawn.max() < 1


def test_complex_numbers_have_unit_variance():
    z = torch.randn(SIZE, dtype=torch.complex128).numpy()
    within((np.abs(z) ** 2).mean(), 1.0, 1.0)
    assert abs(z.real.std() / math.sqrt(0.5) - 1) < 0.03 and abs((z.real * z.imag).mean()) < 0.02
    assert torch.rand(3, dtype=torch.complex64).dtype is torch.complex64
    z = torch.empty(SIZE, dtype=torch.complex64).normal_(1.0, 2.0).numpy()
    assert abs(z.mean() - 1) < 0.05 and abs(z.std() - 2) < 0.05


def test_normal_takes_numbers_and_tensors():
    means, stds = torch.tensor([[-10.0], [10.0]]), torch.tensor([1.0, 3.0])
    drawn = torch.stack([torch.normal(means, stds) for _ in range(2000)])
    assert drawn.shape == (2000, 2, 2)
    np.testing.assert_allclose(drawn.mean(0).numpy(), [[-10, -10], [10, 10]], atol=0.4)
    np.testing.assert_allclose(drawn.std(0).numpy(), [[1, 3], [1, 3]], rtol=0.1)
    assert torch.normal(2.0, torch.ones(3)).shape == (3,)
    assert torch.normal(torch.ones(3, dtype=torch.float64)).dtype is torch.float64
    assert torch.normal(1.0, 2.0, (2, 3), dtype=torch.float64).dtype is torch.float64


def test_poisson_and_binomial():
    rates = torch.full((SIZE,), 3.5)
    drawn = torch.poisson(rates)
    assert drawn.dtype is torch.float32
    within(float(drawn.mean()), 3.5, math.sqrt(3.5))
    assert abs(float(drawn.var()) / 3.5 - 1) < 0.06
    drawn = torch.binomial(torch.full((SIZE,), 10.0), torch.full((SIZE,), 0.2))
    within(float(drawn.mean()), 2.0, math.sqrt(1.6))


def test_bernoulli_draws_with_each_elements_probability():
    drawn = torch.stack([torch.bernoulli(torch.tensor([0.0, 0.2, 0.9, 1.0])) for _ in range(3000)]).mean(0)
    np.testing.assert_allclose(drawn.numpy(), [0, 0.2, 0.9, 1], atol=0.04)
    assert set(torch.empty(2, 3).bernoulli_(torch.tensor([0.0, 1.0, 0.0]))[:, 1].tolist()) == {1.0}
    assert torch.bernoulli(torch.zeros(5), 1.0).sum() == 5


@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_draws_in_proportion_to_the_weights(replacement):
    weights = torch.tensor([1.0, 0.0, 3.0, 6.0])
    first = np.concatenate([torch.multinomial(weights.expand(2000, 4), 2, replacement).numpy()[:, 0] for _ in range(4)])
    np.testing.assert_allclose(np.bincount(first, minlength=4) / len(first), [0.1, 0, 0.3, 0.6], atol=0.025)
    assert torch.multinomial(weights, 3, replacement).shape == (3,)


def test_multinomial_without_replacement_draws_the_rest_in_proportion():
    drawn = torch.multinomial(torch.tensor([1.0, 3.0, 6.0]).expand(8000, 3), 2).numpy()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    after_last = drawn[drawn[:, 0] == 2][:, 1]
    np.testing.assert_allclose(np.bincount(after_last, minlength=3)[:2] / len(after_last), [0.25, 0.75], atol=0.03)


SAMPLERS = [
    lambda g: torch.rand(3, generator=g),
    lambda g: torch.randn(3, generator=g),
    lambda g: torch.randint(0, 100, (3,), generator=g),
    lambda g: torch.randint(high=100, size=(3,), generator=g),
    lambda g: torch.randperm(9, generator=g),
    lambda g: torch.normal(0.0, 1.0, (3,), generator=g),
    lambda g: torch.bernoulli(torch.full((9,), 0.5), generator=g),
    lambda g: torch.poisson(torch.full((9,), 5.0), generator=g),
    lambda g: torch.multinomial(torch.ones(9), 3, generator=g),
    *(lambda g, n=n, a=a[0]: getattr(torch.empty(9), n)(*a, generator=g) for n, a in MOMENTS.items()),
]


@pytest.mark.parametrize("draw", SAMPLERS)
def test_a_generator_decides_the_numbers(draw):
    first, again = (draw(torch.Generator().manual_seed(3)).tolist() for _ in range(2))
    assert first == again
    before = torch.get_rng_state().tolist()
    other = draw(torch.Generator().manual_seed(4)).tolist()
    assert other != first
    assert torch.get_rng_state().tolist() == before  # the default stream was not touched


MESSAGES = [
    (lambda: torch.empty(2).exponential_(0), RuntimeError, "lambda > 0"),
    (lambda: torch.empty(2).cauchy_(0, -1), RuntimeError, "sigma > 0"),
    (lambda: torch.empty(2).geometric_(1.0), RuntimeError, "to be in"),
    (lambda: torch.empty(2).uniform_(2, 1), RuntimeError, "range"),
    (lambda: torch.empty(2).normal_(0, -1), RuntimeError, "std >= 0"),
    (lambda: torch.empty(2).random_(5, 5), RuntimeError, "less than"),
    (lambda: torch.empty(2).bernoulli_(1.5), RuntimeError, r"p to be in \[0, 1\]"),
    (lambda: torch.empty(2, dtype=torch.int64).exponential_(), NotImplementedError, "int64"),
    (lambda: torch.ones(2, requires_grad=True).normal_(), RuntimeError, "leaf Variable"),
    (lambda: torch.poisson(-torch.ones(1)), RuntimeError, "non-negative"),
    (lambda: torch.multinomial(torch.ones(2), 3), RuntimeError, "without replacement"),
    (lambda: torch.multinomial(torch.zeros(2), 1), RuntimeError, "sum of probabilities"),
    (lambda: torch.multinomial(-torch.ones(2), 1), RuntimeError, "element < 0"),
    (lambda: torch.multinomial(torch.ones(2), 0), RuntimeError, "n_sample <= 0"),
    (lambda: torch.rand(2, dtype=torch.int64), RuntimeError, "randint"),
    (lambda: torch.rand(2, generator=3), TypeError, "Generator"),
]


@pytest.mark.parametrize(("call", "kind", "text"), MESSAGES)
def test_messages(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_fork_leaves_the_stream_as_it_was(enabled):
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.random.manual_seed(3)
    with pytest.raises(KeyError), torch.random.fork_rng(enabled=enabled):
        torch.rand(5)
        raise KeyError
    assert (torch.rand(2).tolist() == expected) is enabled
