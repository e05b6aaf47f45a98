"""Clipping of gradients, in and out of arenas."""

import math

import numpy as np
import pytest
from test_optim import give_gradients, make, values

import paceline as torch
from paceline import optim
from paceline.runtime.arrays import to_host
from paceline.tensor import kernels
from paceline.tensor.arena import home_of
from paceline.tensor.clip import clip_grad_norm_, clip_grad_value_, get_total_norm


@pytest.fixture(autouse=True, params=["portable", "compiled"])
def kernel(request, monkeypatch):
    if request.param == "compiled":
        pytest.importorskip("numba")
        monkeypatch.setattr(kernels, "LEAST_SIZE", 0)


def with_gradients(device, arena, dtype=torch.float64):
    params = make(device, dtype)
    if arena:
        optim.SGD(params)
    give_gradients(params, 0)
    return params, np.concatenate([g.ravel() for g in values([p.grad for p in params])])


@pytest.mark.parametrize("arena", [True, False])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1000.0])
def test_clip_grad_norm(norm_type, max_norm, arena, device):
    params, flat = with_gradients(device, arena)
    expected = np.linalg.norm(flat, norm_type)
    norm = clip_grad_norm_(params, max_norm, norm_type)
    assert norm.item() == pytest.approx(expected, rel=1e-12)
    clipped = np.concatenate([g.ravel() for g in values([p.grad for p in params])])
    np.testing.assert_allclose(clipped, flat * min(1, max_norm / (expected + 1e-6)), rtol=1e-12)
    assert get_total_norm([p.grad for p in params], norm_type).item() <= max(max_norm, 1e-9) * (1 + 1e-9)


def test_parameters_that_got_other_memory_are_clipped():
    params = [torch.zeros(3, requires_grad=True), torch.zeros(4, requires_grad=True)]
    optim.SGD(params, lr=0.1)
    params[1].data = torch.zeros(6)
    sum(p.sum() for p in params).backward()
    assert float(clip_grad_norm_(params, 1.5)) == pytest.approx(3)
    assert torch.allclose(params[1].grad, torch.full((6,), 0.5))


@pytest.mark.parametrize("elsewhere", [(0,), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("norm_type", [1.0, 2.0])
def test_norms_do_not_depend_on_where_gradients_lie(norm_type, elsewhere, device):
    """Otherwise replicas of which one has gradients outside of its arena would drift apart."""
    params = [torch.zeros(size, 7, device=device, requires_grad=True) for size in (13, 101, 29)]
    optim.SGD(params, lr=0.1)
    weights = [torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for i, p in enumerate(params)]
    sum((p * w.to(device)).sum() for p, w in zip(params, weights, strict=True)).backward()
    for i in elsewhere:
        moved = params[i].grad.clone()
        params[i].grad = moved.T.contiguous().T if i else moved
    found = clip_grad_norm_(params, 1.0, norm_type)
    for p, w in zip(params, weights, strict=True):
        p.grad = None
        (p * w.to(device)).sum().backward()
    assert all(p.grad is p.grad_slot for p in params)
    expected = clip_grad_norm_(params, 1.0, norm_type)
    assert found.item() == expected.item()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite(bad, device):
    params, _ = with_gradients(device, arena=True)
    params[0].grad.array[0, 0] = bad
    with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert not math.isfinite(clip_grad_norm_(params, 1.0).item())
    arena = home_of(params[0])[0]
    for (_, stop), (start, _) in zip(arena.ranges, arena.ranges[1:], strict=False):
        assert not to_host(arena.grad[stop:start]).any()


def test_clip_grad_value(device):
    params, flat = with_gradients(device, arena=True)
    clip_grad_value_(params, 0.5)
    clipped = np.concatenate([g.ravel() for g in values([p.grad for p in params])])
    np.testing.assert_array_equal(clipped, flat.clip(-0.5, 0.5))


def test_float16_norms_are_summed_in_float32():
    w = torch.full((1000,), 10.0, dtype=torch.float16).requires_grad_()
    w.grad = torch.full((1000,), 10.0, dtype=torch.float16)
    norm = clip_grad_norm_(w, 1.0)
    assert (norm.dtype, round(norm.item())) == (torch.float16, 316)


def test_nothing_to_clip():
    assert clip_grad_norm_([], 1.0).item() == 0
    assert clip_grad_norm_([torch.zeros(2, requires_grad=True)], 1.0).item() == 0
