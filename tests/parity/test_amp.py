"""Loss scaling beside PyTorch's."""

import pytest

import paceline

torch = pytest.importorskip("torch")


def run(library, overflows):
    w = library.tensor([1.0, -2.0], requires_grad=True)
    v = library.tensor([0.5], requires_grad=True)
    optimizers = library.optim.Adam([w], lr=0.1), library.optim.SGD([v], lr=0.1)
    scaler = library.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
    seen = []
    for overflow in overflows:
        scaler.scale((w * w).sum() * v.sum()).backward()
        if overflow:
            v.grad[0] = float("nan")
        scaler.unscale_(optimizers[0])
        for optimizer in optimizers:
            scaler.step(optimizer)
            optimizer.zero_grad()
        scaler.update()
        seen += [*w.tolist(), *v.tolist(), scaler.get_scale()]
    return seen, scaler.state_dict()


def test_two_optimizers_of_which_one_overflows():
    overflows = (False, True, False, False, True, True, False, False, False)
    (found, state), (expected, their_state) = run(paceline, overflows), run(torch, overflows)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6) and state == their_state
