"""Loss scaling against the unscaled computation; autocast and the switches that scripts set change nothing."""

import numpy as np
import pytest

import paceline as torch
from paceline import nn


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def weights(model):
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


@pytest.mark.parametrize("clip", [False, True])
def test_scaled_training_is_training(clip):
    """Factors are powers of two, so not a bit may differ."""
    found = []
    for enabled in (True, False):
        model, optimizer = problem()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2, enabled=enabled)
        for step in range(5):
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(2, 3) * step).square().mean()).backward()
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
        found.append(weights(model))
    np.testing.assert_array_equal(*found)
    assert scaler.get_scale() == 1.0 and scaler.state_dict() == {} and not scaler.is_enabled()


def test_the_factor_falls_with_overflows_and_grows_without():
    model, optimizer = problem()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=2)
    factors = []
    for overflow in (False, False, True, False, True, False, False):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(2, 3)).sum()).backward()
        if overflow:
            model[2].weight.grad[0, 1] = float("inf")
        before = weights(model)
        scaler.step(optimizer)
        assert (weights(model) == before).all() == overflow
        scaler.update()
        factors.append(scaler.get_scale())
    assert factors == [8, 32, 8, 8, 2, 2, 8]
    other = torch.amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    assert other.get_growth_factor() == 4 and other.get_backoff_factor() == 0.25 and other.get_growth_interval() == 2
    scaler.update(new_scale=3.0)
    assert scaler.get_scale() == 3.0


def test_the_factor_stays_finite():
    w = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1)
    w.grad = torch.ones(1)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**127


def test_losses_in_containers_and_of_half_precision():
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    one, (two, three) = scaler.scale([torch.tensor(1.0), (torch.tensor(2.0), torch.tensor(3.0))])
    assert (float(one), float(two), float(three)) == (4, 8, 12)
    large = torch.amp.GradScaler("cpu").scale(torch.tensor(2.0, dtype=torch.float16))
    assert large.dtype == torch.float32 and float(large) == 2.0**17


def test_a_fresh_scaler_for_cuda_disables_itself_without_one():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.warns(UserWarning, match="no CUDA device: disabling it"):
        assert not torch.cuda.amp.GradScaler().is_enabled()


def stepped(scaler, optimizer):
    scaler.step(optimizer)
    return scaler


def with_gradients(dtype=torch.float32):
    w = torch.ones(1, dtype=dtype, requires_grad=True)
    w.grad = torch.ones(1, dtype=dtype)
    return torch.optim.SGD([w], lr=0.1)


def scaler():
    return torch.amp.GradScaler("cpu")


def twice(function):
    function()
    function()


MISUSES = {
    "unscale twice": (RuntimeError, "already been called", lambda s, o: twice(lambda: s.unscale_(o))),
    "unscale after step": (RuntimeError, "after step", lambda s, o: stepped(s, o).unscale_(o)),
    "step twice": (RuntimeError, "already been called", lambda s, o: stepped(s, o).step(o)),
    "a closure": (RuntimeError, "Closure use", lambda s, o: s.step(o, closure=lambda: 0)),
    "update first": (AssertionError, "prior to update", lambda s, o: s.update()),
    "an empty state": (RuntimeError, "state dict is empty", lambda s, o: s.load_state_dict({})),
    "no gradients": (AssertionError, "No inf checks", lambda s, o: (o.zero_grad(), s.step(o))),
    "a number": (ValueError, "a Tensor or an iterable of Tensors, got float", lambda s, o: s.scale(1.0)),
    "half gradients": (ValueError, "FP16", lambda s, o: s.unscale_(with_gradients(torch.float16))),
    "a growth factor": (AssertionError, "growth", lambda s, o: torch.amp.GradScaler("cpu", growth_factor=1.0)),
    "a backoff factor": (AssertionError, "backoff", lambda s, o: torch.amp.GradScaler("cpu", backoff_factor=1.0)),
    "a device": (RuntimeError, "unsupported autocast device_type 'tpu'", lambda s, o: torch.autocast("tpu")),
    "no device": (ValueError, "of type `str`", lambda s, o: torch.autocast(torch.device("cpu"))),
    "a precision": (RuntimeError, "highest, high, medium", lambda s, o: torch.set_float32_matmul_precision("low")),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse(name):
    kind, message, function = MISUSES[name]
    with pytest.raises(kind, match=message):
        function(scaler(), with_gradients())


def test_autocast_warns_and_leaves_dtypes_alone():
    with pytest.warns(UserWarning, match="no mixed precision yet"):
        region = torch.autocast("cpu", dtype=torch.bfloat16)
    with region, torch.cuda.amp.autocast(enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32 and not torch.is_autocast_enabled()

    @torch.amp.autocast("cuda", enabled=False)
    def product(x):
        return x @ x

    assert product(torch.ones(2, 2)).tolist() == [[2, 2], [2, 2]]
    assert not torch.amp.is_autocast_available("cpu")


def test_functions_for_autocast_are_functions():
    class Double(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cpu")
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            return g * 2

    x = torch.ones(2, requires_grad=True)
    Double.apply(x).sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_switches_are_accepted(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("high")
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.is_available() and not torch.backends.mps.is_available()
    before = torch.get_rng_state().tolist()
    if not torch.cuda.is_available():
        torch.cuda.manual_seed_all(3)
        assert torch.get_rng_state().tolist() == before
