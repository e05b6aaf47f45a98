"""The compiled product of matrices against NumPy's in twice the precision, and what is built on it."""

import numpy as np
import pytest

import paceline
from paceline.tensor.ops import multiplying

pytest.importorskip("numba")

SIZES = [(1, 1, 1), (7, 3, 5), (64, 256, 32), (70, 33, 65), (33, 300, 17), (9, 2000, 40), (300, 8, 513)]
DTYPES = {np.float32: 1e-5, np.float64: 1e-13}


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    monkeypatch.setattr(multiplying, "LEAST_WORK", 0)


def layouts(rows, columns, dtype):
    x = np.random.default_rng(rows + columns).standard_normal((rows, columns)).astype(dtype)
    wide = np.zeros((rows, 2 * columns), dtype)
    wide[:, ::2] = x
    return x, np.asfortranarray(x), wide[:, ::2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "depth", "columns"), SIZES)
def test_product(rows, depth, columns, dtype):
    bias = np.linspace(-1, 1, columns, dtype=dtype)
    for a in layouts(rows, depth, dtype):
        for b in layouts(depth, columns, dtype):
            expected = a.astype(np.longdouble) @ b.astype(np.longdouble)
            allowed = DTYPES[dtype] * np.abs(expected).max()
            np.testing.assert_allclose(multiplying.product(a, b), expected, atol=allowed)
            out = np.full((rows, columns), np.nan, dtype)
            assert multiplying.product(a, b, bias, out) is out
            np.testing.assert_allclose(out, expected + bias, atol=allowed)


def test_nan_and_infinity_stay_in_their_rows_and_columns():
    a, b = np.ones((20, 30), np.float32), np.ones((30, 40), np.float32)
    a[3, 5], b[7, 11] = np.nan, np.inf
    out = multiplying.product(a, b)
    assert np.isnan(out[3]).all() and not np.isnan(np.delete(out, 3, 0)).any()
    assert np.isinf(np.delete(out[:, 11], 3)).all() and np.isfinite(np.delete(np.delete(out, 3, 0), 11, 1)).all()


def test_other_dtypes_and_wrong_sizes_are_left_to_numpy():
    x = np.ones((3, 4), np.float32)
    assert multiplying.product(x, x) is NotImplemented
    assert multiplying.product(x, x.T.astype(np.float64)) is NotImplemented
    assert multiplying.product(x.astype(int), x.T.astype(int)) is NotImplemented
    with pytest.raises(RuntimeError, match="weight expects 5"):
        paceline.nn.functional.linear(paceline.ones(3, 4), paceline.ones(2, 5))


def test_a_layer_of_sequences(monkeypatch):
    def gradients():
        paceline.manual_seed(0)
        layer, x = paceline.nn.Linear(17, 40), paceline.randn(3, 9, 17, requires_grad=True)
        out = layer(x)
        (out * out).sum().backward()
        return [v.detach().numpy() for v in (out, x.grad, layer.weight.grad, layer.bias.grad)]

    compiled = gradients()
    monkeypatch.setattr(multiplying, "LEAST_WORK", 1 << 62)
    for a, b in zip(compiled, gradients(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
