"""Initial values: the moments and bounds that the papers give, and exact structure where there is any."""

import math
import statistics

import numpy as np
import pytest

import paceline as torch
from paceline.nn import init

SHAPE = (60, 40, 5)  # fan_in 200, fan_out 300


def uniform(bound):
    return 0, bound / math.sqrt(3), bound


def normal(std):
    return 0, std, math.inf


# how it is called -> mean, standard deviation, largest magnitude
DISTRIBUTIONS = {
    "uniform_": (lambda t, g: init.uniform_(t, -2, 2, generator=g), uniform(2)),
    "normal_": (lambda t, g: init.normal_(t, 3, 0.5, generator=g), (3, 0.5, math.inf)),
    "trunc_normal_": (lambda t, g: init.trunc_normal_(t, generator=g), (0, 0.8796, 2)),
    "trunc_normal_ one-sided": (lambda t, g: init.trunc_normal_(t, 1, 2, 1, 1e9, g), (1 + 1.5958, 1.2056, math.inf)),
    "xavier_uniform_": (lambda t, g: init.xavier_uniform_(t, 2, g), uniform(2 * math.sqrt(6 / 500))),
    "xavier_normal_": (lambda t, g: init.xavier_normal_(t, generator=g), normal(math.sqrt(2 / 500))),
    "kaiming_uniform_": (lambda t, g: init.kaiming_uniform_(t, math.sqrt(5), generator=g), uniform(1 / math.sqrt(200))),
    "kaiming_normal_": (lambda t, g: init.kaiming_normal_(t, 0, "fan_out", "relu", g), normal(math.sqrt(2 / 300))),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name, device):
    fill, (mean, std, largest) = DISTRIBUTIONS[name]
    tensor = torch.empty(SHAPE, device=device, requires_grad=True)
    assert fill(tensor, torch.Generator().manual_seed(1)) is tensor
    assert tensor.is_leaf and tensor.grad_fn is None
    values = tensor.detach().cpu().numpy().astype(np.float64)
    error = std / math.sqrt(values.size)
    assert abs(values.mean() - mean) < 5 * error
    assert abs(values.std() - std) < 5 * error
    assert abs(values).max() <= largest + 1e-6
    again = fill(torch.empty(SHAPE, device=device), torch.Generator().manual_seed(1))
    assert torch.equal(again, tensor.detach())
    assert not torch.equal(fill(again, torch.Generator().manual_seed(2)), tensor.detach())


def test_truncated_normal_in_the_far_tail():
    values = init.trunc_normal_(torch.empty(1000), 0, 1, 5, 6).numpy()
    assert 5 <= values.min() and values.max() <= 6
    assert abs(values.mean() - 5.1831) < 0.05


def test_inverse_error_function():
    x = np.linspace(-1, 1, 2001)[1:-1]
    exact = [statistics.NormalDist().inv_cdf((v + 1) / 2) / math.sqrt(2) for v in x]
    np.testing.assert_allclose(init._erfinv(x), exact, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal(shape, device):
    matrix = init.orthogonal_(torch.empty(shape, dtype=torch.float64, device=device), gain=2).cpu().numpy()
    matrix = matrix.reshape(shape[0], -1)
    square = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(square, 4 * np.eye(len(square)), atol=1e-12)


def test_constants(device):
    assert init.constant_(torch.empty(2, device=device), 3.5).tolist() == [3.5, 3.5]
    assert init.ones_(torch.empty(2, device=device)).tolist() == [1, 1]
    assert init.zeros_(torch.ones(2, device=device)).tolist() == [0, 0]
    assert init.eye_(torch.empty(2, 3, device=device)).tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_copies_channels(groups):
    weight = init.dirac_(torch.empty(4, 4 // groups, 3, 3), groups)
    image = torch.randn(1, 4, 5, 5)
    copied = torch.nn.functional.conv2d(image, weight, padding=1, groups=groups)
    np.testing.assert_array_equal(copied.numpy(), image.numpy())


def test_sparse():
    values = init.sparse_(torch.empty(10, 7), 0.25, 0.5).numpy()
    assert ((values == 0).sum(0) == 3).all()
    assert 0.3 < values[values != 0].std() < 0.7


@pytest.mark.parametrize(
    "name, slope, gain",
    [
        ("linear", None, 1), ("sigmoid", None, 1), ("tanh", None, 5 / 3), ("relu", None, math.sqrt(2)),
        ("leaky_relu", None, math.sqrt(2 / 1.0001)), ("leaky_relu", 1, 1), ("selu", None, 0.75),
    ],
)  # fmt: skip
def test_gain(name, slope, gain):
    assert init.calculate_gain(name, slope) == pytest.approx(gain)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: init.uniform_([1.0]), TypeError, r"uniform_\(\): tensor should be a Tensor, got list"),
        (lambda: init.xavier_uniform_(torch.empty(3)), ValueError, r"fewer than 2 dimensions, got shape \[3\]"),
        (lambda: init.eye_(torch.empty(3)), ValueError, r"2 dimensions are supported, got shape \[3\]"),
        (lambda: init.sparse_(torch.empty(3, 3), 2), ValueError, "fraction from 0 to 1, got 2"),
        (lambda: init.trunc_normal_(torch.empty(3), 0, 1, 2, 1), RuntimeError, "a <= b, got a=2 and b=1"),
        (lambda: init.calculate_gain("swish"), ValueError, "Unsupported nonlinearity swish; there are linear"),
        (lambda: init.dirac_(torch.empty(3, 3, 3), 2), ValueError, "divisible by groups, got 3 channels and 2 groups"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_nothing_to_fill_is_a_warning():
    with pytest.warns(UserWarning, match="zero-element"):
        init.kaiming_normal_(torch.empty(0, 3))
