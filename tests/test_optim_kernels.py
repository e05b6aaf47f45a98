"""The compiled steps of optimizers: the same bits as their portable update, the oracle."""

import numpy as np
import pytest
from tables.optimizers import OPTIMIZERS

import paceline as torch
from paceline import optim
from paceline.tensor import kernels

pytestmark = pytest.mark.skipif(not kernels.usable(), reason="needs Numba")

SIZES = [(3, 67), (5,), (129,), (1,)]  # odd, so that loops have remainders and the arena gaps


def trained(row, dtype, gradients, steps):
    """Parameters and state after some steps along gradients that `gradients(rng, shape)` draws."""
    rng = np.random.default_rng(1)
    params = [torch.tensor(rng.standard_normal(size), dtype=dtype).requires_grad_() for size in SIZES]
    optimizer = getattr(optim, row.name)(params, **row.options)
    for _ in range(steps):
        optimizer.zero_grad()
        with np.errstate(all="ignore"):
            for p in params:
                (p * torch.tensor(gradients(rng, p.shape), dtype=dtype)).sum().backward()
            optimizer.step()
    arrays = {f"parameter {i}": p.array for i, p in enumerate(params)}
    for i, p in enumerate(params):
        arrays.update((f"{name} {i}", value.array) for name, value in optimizer.state[p].items())
    return arrays


def normal(rng, shape):
    return rng.standard_normal(shape)


def special(rng, shape):
    """Gradients with zeros, infinities, NaN and numbers whose squares are too large or too small."""
    values = rng.standard_normal(shape)
    where = rng.random(shape) < 0.1
    values[where] = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, 1e-30], where.sum())
    return values


ELEMENTWISE = [row for row in OPTIMIZERS if issubclass(getattr(optim, row.name), optim.flat.ElementwiseOptimizer)]


@pytest.mark.parametrize("row", ELEMENTWISE, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=repr)
@pytest.mark.parametrize("gradients", [normal, special])
def test_compiled_steps_have_the_bits_of_the_portable_update(row, dtype, gradients, monkeypatch):
    expected = trained(row, dtype, gradients, 7)
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    found = trained(row, dtype, gradients, 7)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_every_elementwise_optimizer_is_compiled():
    assert not [row.name for row in ELEMENTWISE if getattr(optim, row.name).fused_update is None]


def test_the_compiled_step_is_taken_by_size(monkeypatch):
    sizes = []
    monkeypatch.setattr(optim.SGD, "fused_update", staticmethod(lambda p, g, *rest: sizes.append(p.size)))
    for size in (kernels.LEAST_SIZE - 1, kernels.LEAST_SIZE):
        p = torch.ones(size, requires_grad=True)
        optimizer = optim.SGD([p], lr=1.0)
        p.sum().backward()
        optimizer.step()
    assert sizes == [kernels.LEAST_SIZE]


def test_an_update_written_anew_does_not_inherit_the_compiled_step(monkeypatch):
    class Shrink(optim.SGD):
        @staticmethod
        def update(xp, p, g, state, hp, step, scratch):
            p *= 0.5

    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    p = torch.ones(3, requires_grad=True)
    optimizer = Shrink([p], lr=1.0)
    p.sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(p.array, [0.5, 0.5, 0.5])
