"""Distributions against closed forms and the moments of their samples; tests/parity compares their formulas."""

import math

import numpy as np
import pytest

import paceline as torch
from paceline.distributions import Bernoulli, Categorical, Independent, Normal, Uniform, kl_divergence

DRAWS = 20_000


@pytest.mark.parametrize(
    ("make", "mean", "variance"),
    [
        (lambda: Normal(torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 3.0])), [-1, 2], [0.25, 9]),
        (lambda: Uniform(torch.tensor([0.0, -2.0]), 4.0), [2, 1], [16 / 12, 3]),
        (lambda: Bernoulli(torch.tensor([0.1, 0.5])), [0.1, 0.5], [0.09, 0.25]),
    ],
)
def test_moments_of_samples(make, mean, variance):
    torch.manual_seed(0)
    samples = make().sample((DRAWS,)).numpy()
    assert samples.shape == (DRAWS, 2)
    error = 5 * np.sqrt(np.array(variance) / DRAWS)  # five standard deviations of a mean
    assert (abs(samples.mean(0) - mean) < error).all()
    np.testing.assert_allclose(samples.var(0), variance, rtol=0.06)
    np.testing.assert_allclose(make().mean.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(make().variance.numpy(), variance, rtol=1e-6)


def test_categories_come_as_often_as_they_should():
    torch.manual_seed(0)
    probs = np.array([[1.0, 2.0, 5.0], [0.0, 1.0, 0.0]])
    samples = Categorical(torch.tensor(probs)).sample((DRAWS,))
    assert samples.shape == (DRAWS, 2) and samples.dtype is torch.int64
    seen = (samples.numpy()[..., None] == np.arange(3)).mean(0)
    np.testing.assert_allclose(seen, probs / probs.sum(1, keepdims=True), atol=0.02)


def test_gradients_reach_parameters_through_samples():
    loc, scale = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    draw = Normal(loc, scale).rsample((3,))
    draw.sum().backward()
    assert loc.grad.item() == 3
    np.testing.assert_allclose(scale.grad.item(), ((draw.detach() - 1) / 2).sum().item(), rtol=1e-6)
    assert not Normal(loc, scale).sample().requires_grad


def test_probabilities_first_asked_for_without_recording_are_recorded():
    logits = torch.zeros(3, requires_grad=True)
    policy = Categorical(logits=logits)
    policy.sample()
    policy.probs[0].backward()
    np.testing.assert_allclose(logits.grad.numpy(), [2 / 9, -1 / 9, -1 / 9], rtol=1e-6)


def test_divergences():
    wide = Independent(Normal(torch.zeros(3), 1.0), 1)
    assert kl_divergence(wide, wide).item() == 0
    assert kl_divergence(Independent(Normal(torch.ones(3), 1.0), 1), wide).item() == 1.5
    fair, sure = Bernoulli(torch.tensor(0.5)), Bernoulli(torch.tensor(1.0))
    np.testing.assert_allclose(kl_divergence(sure, fair).item(), math.log(2), rtol=1e-6)
    assert kl_divergence(fair, sure).item() == math.inf
    with pytest.raises(NotImplementedError, match="p type Bernoulli and q type Independent"):
        kl_divergence(fair, wide)


WRONG = {
    "scale": (lambda: Normal(0.0, -1.0), "scale to be positive"),
    "bounds": (lambda: Uniform(1.0, 1.0), "low to be less than high"),
    "a probability": (lambda: Bernoulli(1.5), "probs to be between 0 and 1"),
    "no sum": (lambda: Categorical(torch.zeros(2)), "probs to be not negative, with a positive sum"),
    "nan": (lambda: Categorical(logits=torch.tensor([0.0, math.nan])), "logits to be numbers"),
    "both": (lambda: Categorical(torch.ones(2), torch.ones(2)), "but not both"),
    "a category": (lambda: Categorical(torch.ones(3)).log_prob(torch.tensor(3)), r"value to be one of 0 \.\.\. 2"),
    "a bit": (lambda: Bernoulli(0.5).log_prob(torch.tensor(0.5)), "value to be 0 or 1"),
    "outside": (lambda: Uniform(0.0, 1.0).log_prob(torch.tensor(2.0)), "value to be between low and high"),
    "dimensions": (lambda: Independent(Normal(0.0, 1.0), 1), "reinterpreted_batch_ndims=1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_parameters_and_values_are_refused(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_not_checked_if_asked_not_to():
    assert Uniform(0.0, 1.0, validate_args=False).log_prob(torch.tensor(2.0)).item() == -math.inf
    with pytest.raises(NotImplementedError, match=r"Bernoulli: its samples cannot be differentiated; use sample\(\)"):
        Bernoulli(0.5).rsample()
