"""Sums by compiled kernels: against sums in extended precision, of shapes that meet every case of theirs."""

import itertools

import numpy as np
import pytest

import paceline as torch
from paceline.tensor import kernels
from paceline.tensor.ops import summing

pytestmark = pytest.mark.skipif(not kernels.usable(), reason="needs Numba")

SHAPES = [
    (1,), (2049,), (70000,), (5, 7), (2000, 3), (3, 2000), (1, 600, 1), (300, 5, 7), (1500, 2), (1025, 2, 3),
    (100, 1024), (4, 33, 31, 2), (200, 3, 40),
]  # fmt: skip
POWERS = {summing.VALUE: np.copy, summing.SIZE: np.abs, summing.SQUARE: np.square}


@pytest.fixture(params=[0, 1 << 13], ids=["kernels alone", "NumPy adds the pieces"])
def any_size(request, monkeypatch):
    monkeypatch.setattr(summing, "_SMALL", request.param)
    monkeypatch.setattr(summing, "_LEAST_SIZE", 0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_along_all_dims(shape, dtype, any_size):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for count, (power, terms_of) in itertools.product(range(1, len(shape) + 1), POWERS.items()):
        for dims in itertools.combinations(range(len(shape)), count):
            terms = terms_of(x.astype(np.longdouble))
            found = summing.sum_along(x, dims, count % 2 == 1, power)
            expected = terms.sum(dims, keepdims=count % 2 == 1)
            bound = abs(terms).sum(dims, keepdims=count % 2 == 1) * np.finfo(dtype).eps * 10
            assert found.dtype == dtype and found.shape == expected.shape
            assert (abs(found - expected) <= bound).all(), (dims, power)


def test_long_sums_are_as_accurate_as_in_pairs(any_size):
    x = np.full((1 << 17, 2), 0.1, np.float32)
    for view, dim in ((x, 0), (x.reshape(-1), 0), (x.reshape(2, -1), 1)):
        found = summing.sum_along(view, (dim,), False)
        expected = view.sum(dim, dtype=np.float64)
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # one by one: 5e-3


def test_nan_and_infinity_stay(any_size):
    x = np.ones((300, 700), np.float32)
    x[3, 5], x[200, 600] = np.nan, -np.inf
    for dim in (0, 1):
        np.testing.assert_array_equal(summing.sum_along(x, (dim,), False), x.sum(dim))
    assert np.isnan(summing.sum_along(x, (0, 1), False))


@pytest.mark.parametrize("call", [
    lambda x: x.sum(0), lambda x: x.sum((0, 2), keepdim=True), lambda x: x.mean(1), lambda x: x.sum(),
    lambda x: torch.linalg.vector_norm(x, 2, 1), lambda x: torch.linalg.vector_norm(x, 1),
    lambda x: x.sum_to_size(1, 4),
])  # fmt: skip
def test_large_inputs_give_what_small_ones_give(call, monkeypatch):
    x = torch.randn(50, 90, 4, dtype=torch.float64)
    expected = call(x)
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    monkeypatch.setattr(summing, "_LEAST_SIZE", 0)
    np.testing.assert_allclose(call(x).numpy(), expected.numpy(), rtol=1e-12)
    assert call(x).shape == expected.shape
