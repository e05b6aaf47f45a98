"""Optimizers, schedules and clipping against PyTorch's, and state exchanged with it."""

import copy
import math

import numpy as np
import pytest
from tables.optimizers import OPTIMIZERS

import paceline
from paceline import optim
from paceline.optim import lr_scheduler

torch = pytest.importorskip("torch")

SHAPES = [(3, 4), (4,), (), (2, 5)]
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}
rows = pytest.mark.parametrize("row", OPTIMIZERS, ids=repr)


def make(dtype="float64", seed=0):
    random = np.random.default_rng(seed)
    arrays = [np.asarray(random.standard_normal(s)) for s in SHAPES]
    ours = [paceline.tensor(a, dtype=getattr(paceline, dtype)).requires_grad_() for a in arrays]
    return ours, [torch.tensor(a, dtype=getattr(torch, dtype)).requires_grad_() for a in arrays]


def train(M, optimizer, params, steps, first=0):
    for t in range(first, first + steps):
        random = np.random.default_rng(t)
        optimizer.zero_grad()
        for i, p in enumerate(params):
            target = M.tensor(random.standard_normal(tuple(p.shape)), dtype=p.dtype)
            if (t + i) % 7:  # a parameter now and then has no gradient
                ((p - target) ** 2).sum().backward()
        optimizer.step()


def assert_close(ours, theirs, tolerance):
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance)


def both(row, dtype="float64"):
    ours, theirs = make(dtype)
    return (
        ours,
        theirs,
        getattr(optim, row.name)(ours, **row.options),
        getattr(torch.optim, row.name)(theirs, **row.options),
    )


@rows
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_twenty_steps(row, dtype):
    ours, theirs, optimizer, peer = both(row, dtype)
    train(paceline, optimizer, ours, 20)
    train(torch, peer, theirs, 20)
    assert_close(ours, theirs, TOLERANCE[dtype])


@rows
def test_options_and_state_have_pytorchs_names(row):
    ours, theirs, optimizer, peer = both(row)
    assert optimizer.defaults == peer.defaults
    assert repr(optimizer) == repr(peer)
    train(paceline, optimizer, ours, 8)
    train(torch, peer, theirs, 8)
    found, expected = optimizer.state_dict(), peer.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        assert list(found["state"][number]) == list(state)
        for name, value in state.items():
            np.testing.assert_allclose(found["state"][number][name].numpy(), value.numpy(), rtol=1e-12, atol=1e-15)
            assert repr(found["state"][number][name].dtype)[9:] == str(value.dtype)[6:]


@rows
def test_state_of_pytorch_continues_here_and_back(row):
    ours, theirs, optimizer, peer = both(row)
    train(torch, peer, theirs, 9)
    for p, q in zip(ours, theirs, strict=True):
        p.data.copy_(paceline.from_numpy(q.detach().numpy()))
    optimizer.load_state_dict(peer.state_dict())
    train(paceline, optimizer, ours, 9, first=9)
    train(torch, peer, theirs, 9, first=9)
    assert_close(ours, theirs, 1e-12)

    state = optimizer.state_dict()
    tensors = {i: {k: torch.tensor(v.numpy()) for k, v in s.items()} for i, s in state["state"].items()}
    peer.load_state_dict({**state, "state": tensors})
    train(paceline, optimizer, ours, 9, first=18)
    train(torch, peer, theirs, 9, first=18)
    assert_close(ours, theirs, 1e-12)


WHOLE = [
    ("LBFGS", {"max_iter": 3, "lr": 0.1, "history_size": 2}),
    ("LBFGS", {"max_iter": 3, "line_search_fn": "strong_wolfe"}),
    ("LBFGS", {"max_iter": 4, "max_eval": 3, "line_search_fn": "strong_wolfe", "tolerance_change": 0.0}),
    ("Muon", {"lr": 0.1, "momentum": 0.5}),
    ("Muon", {"lr": 0.1, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"}),
    ("Adafactor", {"lr": 0.3, "weight_decay": 0.1}),
]


def banana(M, name):
    """Rosenbrock's function of matrices: curved, so that line searches have something to do."""
    random = np.random.default_rng(1)
    arrays = [random.standard_normal((3, 4)), random.standard_normal((3, 4))]
    params = [M.tensor(a, dtype=M.float64).requires_grad_() for a in arrays]

    def closure():
        for p in params:
            p.grad = None
        x, y = params
        loss = ((1 - x) ** 2 + 10 * (y - x * x) ** 2).sum()
        loss.backward()
        return loss

    return params, closure


@pytest.mark.parametrize(("name", "options"), WHOLE)
def test_optimizers_of_whole_matrices_and_vectors(name, options):
    """Their steps, their state's names, and PyTorch's state going on here."""
    runs = []
    for M in (paceline, torch):
        params, closure = banana(M, name)
        optimizer = getattr(M.optim, name)(params, **options)
        losses = [optimizer.step(closure).item() for _ in range(6)]
        runs.append((params, closure, optimizer, losses))
    (ours, closure, optimizer, found), (theirs, their_closure, peer, expected) = runs
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert_close(ours, theirs, 1e-9)
    assert optimizer.defaults == peer.defaults
    for number, state in peer.state_dict()["state"].items():
        names = set(state) - {"al"}  # only memory to compute in
        assert names == set(optimizer.state_dict()["state"][number])

    params, closure = banana(paceline, name)
    for p, q in zip(params, theirs, strict=True):
        p.data.copy_(paceline.from_numpy(q.detach().numpy()))
    loaded = getattr(optim, name)(params, **options)
    loaded.load_state_dict(peer.state_dict())
    found = [loaded.step(closure).item() for _ in range(4)]
    np.testing.assert_allclose(found, [peer.step(their_closure).item() for _ in range(4)], rtol=1e-9)


SCHEDULES = {
    "LambdaLR": lambda S, o: S.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1 / (1 + t)]),
    "StepLR": lambda S, o: S.StepLR(o, 7, 0.5),
    "MultiStepLR": lambda S, o: S.MultiStepLR(o, [3, 9, 9, 30], 0.3),
    "ExponentialLR": lambda S, o: S.ExponentialLR(o, 0.9),
    "ConstantLR": lambda S, o: S.ConstantLR(o, 0.3, 8),
    "LinearLR": lambda S, o: S.LinearLR(o, 0.2, 0.9, 12),
    "CosineAnnealingLR": lambda S, o: S.CosineAnnealingLR(o, 10, 0.01),
    "OneCycleLR": lambda S, o: S.OneCycleLR(o, [0.5, 2.0], 50),
    "OneCycleLR three_phase": lambda S, o: S.OneCycleLR(o, 2.0, 51, three_phase=True, anneal_strategy="linear"),
    "MultiplicativeLR": lambda S, o: S.MultiplicativeLR(o, lambda t: 0.99),
    "PolynomialLR": lambda S, o: S.PolynomialLR(o, 30, 1.5),
    "CosineAnnealingWarmRestarts": lambda S, o: S.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "CyclicLR": lambda S, o: S.CyclicLR(o, [0.01, 0.02], 0.5, 5, 3, mode="exp_range", gamma=0.97),
    "CyclicLR scale_fn": lambda S, o: S.CyclicLR(o, 0.01, 0.5, 5, scale_fn=lambda x: 1 / x, scale_mode="cycle"),
    "SequentialLR": lambda S, o: S.SequentialLR(
        o,
        [
            S.LinearLR(o, 0.1, 1.0, 5), S.CosineAnnealingLR(o, 10), S.MultiplicativeLR(o, lambda t: 0.9),
            S.CosineAnnealingWarmRestarts(o, 4), S.StepLR(o, 3, 0.5),
        ],
        [5, 15, 20, 31],
    ),
    "ChainedScheduler": lambda S, o: S.ChainedScheduler([S.StepLR(o, 4, 0.5), S.CosineAnnealingLR(o, 9, 0.01)]),
}  # fmt: skip


def history(M, S, make_schedule, change):
    w, b = M.zeros(1, requires_grad=True), M.zeros(1, requires_grad=True)
    optimizer = M.optim.SGD([{"params": [w]}, {"params": [b], "lr": 0.3}], lr=0.1, momentum=0.9)
    schedule = make_schedule(S, optimizer)
    found = []
    for t in range(50):
        found += [value for group in optimizer.param_groups for value in (group["lr"], group["momentum"])]
        found += schedule.get_last_lr()
        optimizer.step()
        if change and t % 8 == 5:
            optimizer.param_groups[0]["lr"] *= 0.5
        schedule.step()
    return found


@pytest.mark.parametrize("change", [False, True], ids=["", "user changes lr"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_fifty_epochs_of_a_schedule(name, change):
    found = history(paceline, lr_scheduler, SCHEDULES[name], change)
    expected = history(torch, torch.optim.lr_scheduler, SCHEDULES[name], change)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("options", [{}, {"mode": "max", "threshold_mode": "abs"}, {"cooldown": 3, "min_lr": 0.01}])
def test_fifty_epochs_of_a_plateau(options):
    rates = []
    for M in (paceline, torch):
        optimizer = M.optim.SGD([M.zeros(1, requires_grad=True)], lr=1.0)
        schedule = M.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, **options)
        random = np.random.default_rng(3)
        rates.append([])
        for _ in range(50):
            schedule.step(random.standard_normal())
            rates[-1] += schedule.get_last_lr()
    assert rates[0] == rates[1]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_state_of_pytorchs_schedule_continues_here(name):
    """And the rates are those of PyTorch going on by itself."""

    def begin(M, steps):
        optimizer = M.optim.SGD([{"params": [M.zeros(1)]}, {"params": [M.zeros(1)], "lr": 0.3}], lr=0.1, momentum=0.9)
        schedule = SCHEDULES[name](M.optim.lr_scheduler, optimizer)
        optimizer.step()
        return optimizer, schedule, [step_of(schedule) for _ in range(steps)]

    def step_of(schedule):
        schedule.step()
        return schedule.get_last_lr()

    theirs, schedule, _ = begin(torch, 10)
    ours, other, _ = begin(paceline, 0)
    ours.load_state_dict(theirs.state_dict())
    other.load_state_dict(copy.deepcopy(schedule.state_dict()))
    np.testing.assert_allclose(
        [step_of(other) for _ in range(20)], [step_of(schedule) for _ in range(20)], rtol=1e-11, atol=1e-15
    )


@pytest.mark.parametrize("scheduler", ["StepLR", "ExponentialLR", "CosineAnnealingLR", "LinearLR"])
def test_resuming_by_last_epoch(scheduler):
    rates = []
    for M in (paceline, torch):
        optimizer = M.optim.SGD([{"params": [M.zeros(1, requires_grad=True)], "initial_lr": 1.0}], lr=0.5)
        argument = {} if scheduler == "LinearLR" else {"gamma" if scheduler == "ExponentialLR" else "T_max": 0.9}
        argument = {"step_size": 3} if scheduler == "StepLR" else argument
        schedule = getattr(M.optim.lr_scheduler, scheduler)(optimizer, **argument, last_epoch=1)
        rates.append([])
        for _ in range(10):
            optimizer.step()
            schedule.step()
            rates[-1] += schedule.get_last_lr()
    np.testing.assert_allclose(*rates, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("norm_type", [1, 2, 2.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.7, 100.0])
def test_clip_grad_norm(dtype, norm_type, max_norm):
    ours, theirs = make("float64")
    ours = [p.detach().to(getattr(paceline, dtype)).requires_grad_() for p in ours]
    theirs = [p.detach().to(getattr(torch, dtype)).requires_grad_() for p in theirs]
    for p, q in zip(ours, theirs, strict=True):
        (p * p).sum().backward()
        (q * q).sum().backward()
    found = paceline.nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6, "float64": 1e-12}[dtype]
    assert repr(found.dtype)[9:] == str(expected.dtype)[6:]
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            p.grad.to(paceline.float64).numpy(), q.grad.double().numpy(), rtol=tolerance, atol=tolerance * 1e-3
        )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_what_is_not_finite(bad):
    ours, theirs = make()
    optim.SGD(ours)
    for p, q in zip(ours, theirs, strict=True):
        p.sum().backward()
        q.sum().backward()
    ours[0].grad[0, 0] = bad
    theirs[0].grad[0, 0] = bad
    paceline.nn.utils.clip_grad_norm_(ours, 1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())
