"""The approximations that compiled kernels use, against NumPy in twice the precision, in units in the last place."""

import math

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from paceline.tensor.kernels import approximations  # noqa: E402

# name -> (bound in ulp, reference in long double, range of inputs)
FUNCTIONS = {
    "exp": (1, np.exp, (-1000, 1000)),
    "exp_falling": (1, np.exp, (-1000, 0)),
    "expm1": (3, np.expm1, (-1000, 1000)),
    "tanh": (3, np.tanh, (-25, 25)),
    "sigmoid": (3, lambda x: 1 / (1 + np.exp(-x)), (-800, 800)),
    "log": (1, np.log, (0, 10)),
    "log1p": (2, np.log1p, (-1, 10)),
    "erf": (4, np.vectorize(math.erf), (-7, 7)),
}
WITHOUT_SUBNORMALS = ("exp_falling", "sigmoid")
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, -5e-324, 1e-45, -1e-45, 1e-310, 1e-40, 1e308, -1e308,
           3e38, -3e38, 88.7, -87.3, -103.97, 104.0, 709.7, -708.4, -745.1, 1e-5, -1e-5]  # fmt: skip


def evaluate(function, x):
    @numba.njit(error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})  # as kernels are, not kept
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    out = np.empty_like(x)
    loop(x, out)
    return out


def points(low, high, dtype):
    """Numbers of the range, densely around 0 and 1 and over all magnitudes, and special ones."""
    random = np.random.default_rng(0)
    span = 100.0 if dtype == np.float32 else 700.0
    magnitudes = np.exp(random.uniform(-span, math.log(high or 1), 50_000))
    x = [random.uniform(low, high, 50_000), random.uniform(max(low, -2), 2, 50_000), magnitudes]
    if low < 0:
        x.append(-magnitudes[magnitudes < -low])
    with np.errstate(over="ignore"):
        x = np.concatenate([*x, SPECIAL]).astype(dtype)
    return x if high > 0 else x[~(x > 0)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_within_the_stated_bound(name, dtype):
    bound, reference, (low, high) = FUNCTIONS[name]
    x = points(low, high, dtype)
    found = evaluate(getattr(approximations, name), x)
    assert found.dtype == dtype
    with np.errstate(all="ignore"):
        exact = np.asarray(reference(x.astype(np.longdouble)), np.longdouble)
        rounded = exact.astype(dtype)
        if name in WITHOUT_SUBNORMALS:
            rounded[np.abs(rounded) < np.finfo(dtype).tiny * 1.02] = 0
            found[rounded == 0] = exact[rounded == 0] = 0
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(found[~finite], rounded[~finite])
        error = np.abs(found[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite]))
    slack = 0.5 if name == "erf" and dtype == np.float64 else 0  # Python's own is in double precision
    assert error.max() <= bound + slack, f"at {x[finite][error.argmax()]!r}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_distribution(dtype):
    """Distribution function and density, also where the former is tiny."""
    x = np.concatenate([np.linspace(-9, 9, 20_001), [0, np.inf, -np.inf, np.nan, 60, -60]]).astype(dtype)
    exact = x.astype(np.float64)
    allowed = np.where(np.isfinite(exact), 8 + exact**2, 1) * np.finfo(dtype).eps
    distribution, density = (evaluate(_part(i), x) for i in (0, 1))
    for found, expected in (
        (distribution, np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(exact)),
        (density, np.exp(-exact * exact / 2) / math.sqrt(2 * math.pi)),
    ):
        assert found.dtype == dtype
        wrong = np.abs(found - expected) > allowed * expected + np.finfo(dtype).tiny
        assert not wrong.any(), x[wrong]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(x))


def _part(index):
    @numba.extending.register_jitable
    def part(x):
        return approximations.normal(x)[index]

    return part
