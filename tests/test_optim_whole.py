"""Optimizers that work on whole matrices or on the vector of all parameters: Muon and L-BFGS."""

import copy
import math

import numpy as np
import pytest

import paceline as torch
from paceline import optim
from paceline.runtime.arrays import to_host


def leaf(values, device="cpu"):
    return torch.tensor(values, dtype=torch.float64, device=device).requires_grad_()


# -- Muon ------------------------------------------------------------------------------------------------------------


def matrix(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def moved_to_one(singular, coefficients=(3.4445, -4.775, 2.0315), steps=5):
    """What the iteration makes of singular values: an odd polynomial, applied again and again."""
    a, b, c = coefficients
    s = singular / np.linalg.norm(singular)
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3), (1, 5)])
@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw"])
def test_muon_moves_singular_values_and_keeps_singular_vectors(shape, adjust, device):
    start, g = matrix(shape), matrix(shape, 1)
    w = leaf(start, device)
    w.grad = torch.tensor(g, device=device)
    optim.Muon([w], lr=0.5, weight_decay=0.1, nesterov=False, momentum=0.9, adjust_lr_fn=adjust).step()
    u, s, v = np.linalg.svd(0.1 * g, full_matrices=False)
    n, m = shape
    ratio = 0.2 * math.sqrt(max(n, m)) if adjust == "match_rms_adamw" else math.sqrt(max(1, n / m))
    expected = start * (1 - 0.5 * 0.1) - 0.5 * ratio * (u * moved_to_one(s)) @ v
    np.testing.assert_allclose(to_host(w.array), expected, atol=0.03)  # bfloat16 within


def test_muon_looks_ahead_with_nesterov():
    w, g = leaf(np.zeros((3, 3))), [matrix((3, 3), seed) for seed in (1, 2)]
    optimizer = optim.Muon([w], lr=1.0, weight_decay=0.0, momentum=0.5)
    for gradient in g:
        w.data.zero_()
        w.grad = torch.tensor(gradient)
        optimizer.step()
    mean = 0.25 * g[0] + 0.5 * g[1]
    u, s, v = np.linalg.svd(0.5 * mean + 0.5 * g[1])
    np.testing.assert_allclose(w.detach().numpy(), -(u * moved_to_one(s)) @ v, atol=0.03)
    np.testing.assert_allclose(optimizer.state[w]["momentum_buffer"].numpy(), mean, rtol=1e-12)


def test_muon_waits_where_there_is_no_gradient():
    w, v = leaf(matrix((2, 2))), leaf(matrix((2, 2)))
    optimizer = optim.Muon([w, v])
    (w * w).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(v.detach().numpy(), matrix((2, 2)))
    assert list(optimizer.state_dict()["state"]) == [0]


# -- L-BFGS ----------------------------------------------------------------------------------------------------------


def rosenbrock(x, y):
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def valley(device="cpu", **options):
    """Rosenbrock's function, whose minimum is at (1, 1), of two parameters, and an optimizer for it."""
    x, y = leaf([-1.2], device), leaf(1.0, device)
    optimizer = optim.LBFGS([x, y], **options)
    seen = []

    def closure():
        optimizer.zero_grad()
        loss = rosenbrock(x, y).sum()
        loss.backward()
        seen.append((x.item(), y.item(), loss.item(), x.grad.item(), y.grad.item()))
        return loss

    return (x, y), optimizer, closure, seen


def test_the_line_search_finds_the_end_of_the_valley(device):
    (x, y), optimizer, closure, _ = valley(device, line_search_fn="strong_wolfe", max_iter=100, tolerance_change=0)
    first = optimizer.step(closure)
    assert first.item() == pytest.approx(rosenbrock(-1.2, 1.0))
    np.testing.assert_allclose([x.item(), y.item()], [1, 1], rtol=1e-6)


def test_every_step_of_the_line_search_fulfils_wolfes_conditions():
    params, optimizer, closure, seen = valley(line_search_fn="strong_wolfe", max_iter=1)
    for _ in range(25):
        before = np.array([p.item() for p in params])
        seen.clear()
        optimizer.step(closure)
        step = np.array([p.item() for p in params]) - before
        _, _, loss, *gradient = seen[0]
        _, _, new_loss, *new_gradient = next(s for s in seen if np.allclose(s[:2], before + step, rtol=1e-14))
        slope = np.dot(gradient, step)
        assert new_loss <= loss + 1e-4 * slope
        assert abs(np.dot(new_gradient, step)) <= 0.9 * abs(slope)


def test_steps_without_search_solve_a_quadratic():
    """The solution is that of linear algebra."""
    a = matrix((4, 4))
    a, b = a @ a.T + np.eye(4), matrix((4,), 2)
    w = leaf(np.zeros(4))
    optimizer = optim.LBFGS([w], max_iter=60, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * w @ torch.tensor(a) @ w - torch.tensor(b) @ w
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    np.testing.assert_allclose(w.detach().numpy(), np.linalg.solve(a, b), rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"line_search_fn": "strong_wolfe"}])
def test_a_loaded_state_goes_on_with_the_same_bits(options):
    params, optimizer, closure, _ = valley(max_iter=4, lr=0.5, history_size=3, **options)
    others, other, other_closure, _ = valley(max_iter=4, lr=0.5, history_size=3, **options)
    for _ in range(3):
        optimizer.step(closure)
    for p, q in zip(others, params, strict=True):
        p.data.copy_(q.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(closure)
        other.step(other_closure)
    assert [p.item() for p in params] == [p.item() for p in others]
    assert len(optimizer.state[params[0]]["old_dirs"]) == 3


@pytest.mark.parametrize("max_eval", [1, 2, 7])
def test_the_closure_is_called_no_more_often_than_allowed(max_eval):
    params, optimizer, closure, seen = valley(max_iter=50, max_eval=max_eval)
    optimizer.step(closure)
    assert len(seen) <= max(max_eval, 2)
    assert optimizer.state[params[0]]["func_evals"] == len(seen)


def test_nothing_moves_at_a_minimum():
    (x, y), optimizer, closure, seen = valley(line_search_fn="strong_wolfe")
    x.data.fill_(1.0)
    optimizer.step(closure)
    assert (x.item(), y.item(), len(seen)) == (1.0, 1.0, 1)


def test_parameters_without_gradient_stay():
    (x, y), _, _, _ = valley()
    optimizer = optim.LBFGS([x, y])

    def closure():
        optimizer.zero_grad()
        loss = (x * x).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert y.item() == 1.0 and abs(x.item()) < 1e-6


# -- bad input -------------------------------------------------------------------------------------------------------

ERRORS = [
    (lambda w: optim.Muon([w[0]]), ValueError, r"can't optimize a non-leaf"),
    (lambda w: optim.Muon([leaf([1.0])]), ValueError, r"only supports 2D parameters .* size: \[1\]"),
    (lambda w: optim.Muon([w], adjust_lr_fn="x"), ValueError, "Adjust learning rate function x is not supported"),
    (lambda w: optim.Muon([w], ns_steps=100), ValueError, "less than 100"),
    (lambda w: optim.Muon([w], ns_coefficients=(1, 2)), ValueError, "exactly 3 values"),
    (lambda w: optim.Adafactor([w], beta2_decay=0.1), ValueError, "beta2_decay should be <= 0 but is: 0.1"),
    (lambda w: optim.Adafactor([w], eps=(-1, 0)), ValueError, "epsilon1 should be >= 0 but is: -1"),
    (lambda w: optim.Adafactor([w], d=0.5), ValueError, "threshold d should be >= 1 but is: 0.5"),
    (lambda w: optim.LBFGS([w], lr=-1), ValueError, "Invalid learning rate: -1"),
    (lambda w: optim.LBFGS([w], line_search_fn="wolfe"), RuntimeError, "only 'strong_wolfe' is supported"),
    (lambda w: optim.LBFGS([{"params": [w]}, {"params": [leaf(0.0)]}]), ValueError, "parameter groups"),
    (lambda w: optim.LBFGS([w]).step(), TypeError, "closure"),
    (lambda w: optim.SparseAdam, AttributeError, "no SparseAdam: gradients are never sparse"),
    (lambda w: optim.Adadelta([w], rho=1.5), ValueError, "Invalid rho value: 1.5"),
    (lambda w: optim.NAdam([w], momentum_decay=-1), ValueError, "Invalid momentum_decay value: -1"),
    (lambda w: optim.Rprop([w], etas=(0.5, 0.9)), ValueError, "Invalid eta values: 0.5, 0.9"),
    (lambda w: optim.SGD([w], lr=torch.ones(2)), ValueError, r"Tensor lr must be 1-element, but has shape \[2\]"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(leaf(np.eye(2)))
