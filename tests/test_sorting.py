"""Sorting by integers that hold the elements and their places, against NumPy's stable sort."""

import numpy as np
import pytest

import paceline
from paceline.tensor.ops import ordering


def samples(dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 8, 9)) * 3).astype(dtype)  # with equal elements, but for floats
    if x.dtype.kind == "f":
        special = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0]
        x.ravel()[rng.permutation(x.size)[: 20 * len(special)]] = special * 20
    elif x.dtype.kind != "b":
        limits = np.iinfo(dtype)
        x.ravel()[[0, 1, 10, 11]] = [limits.min, limits.max] * 2
    return x


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("dtype", sorted(str(dtype) for dtype in ordering._SHORT))
def test_sorts_as_stably_as_numpy(monkeypatch, dtype, dim, descending):
    x = samples(dtype)
    monkeypatch.setattr(ordering, "_MANY", 0)
    values, indices = paceline.sort(paceline.from_numpy(x), dim, descending)
    keys = np.flip(x, dim) if descending else x  # of the reversed elements, equal ones keep their order backwards
    order = np.argsort(keys, dim, kind="stable")
    if descending:
        order = x.shape[dim] - 1 - np.flip(order, dim)
    np.testing.assert_array_equal(indices.numpy(), order)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, order, dim))


def test_the_largest_arrays_and_the_smallest_are_sorted_alike():
    x = np.random.default_rng(0).integers(0, 9, 5000).astype(np.int32)
    assert x.size > ordering._MANY
    values, indices = paceline.from_numpy(x).sort()
    np.testing.assert_array_equal(indices.numpy(), np.argsort(x, kind="stable"))
    np.testing.assert_array_equal(values.numpy(), np.sort(x))
