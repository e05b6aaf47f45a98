"""Learning rate schedules against their closed forms."""

import copy
import math

import numpy as np
import pytest

import paceline as torch
from paceline import optim
from paceline.optim import lr_scheduler


def weight():
    return torch.zeros(2, requires_grad=True)


def schedule_of(make_schedule, lr=1.0):
    optimizer = optim.SGD([weight()], lr=lr, momentum=0.9)
    return optimizer, make_schedule(optimizer)


def rates(optimizer, schedule, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    return found


S = lr_scheduler
SCHEDULES = {
    "LambdaLR": (lambda o: S.LambdaLR(o, lambda t: 0.9**t), lambda t: 0.9**t),
    "StepLR": (lambda o: S.StepLR(o, 3, 0.5), lambda t: 0.5 ** (t // 3)),
    "MultiStepLR": (lambda o: S.MultiStepLR(o, [2, 5, 5]), lambda t: 0.1 ** ((t >= 2) + 2 * (t >= 5))),
    "ExponentialLR": (lambda o: S.ExponentialLR(o, 0.8), lambda t: 0.8**t),
    "ConstantLR": (lambda o: S.ConstantLR(o, 0.25, 4), lambda t: 0.25 if t < 4 else 1.0),
    "LinearLR": (lambda o: S.LinearLR(o, 0.1, 1.0, 5), lambda t: 0.1 + 0.9 * min(t, 5) / 5),
    "CosineAnnealingLR": (
        lambda o: S.CosineAnnealingLR(o, 6, 0.1), lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * t / 6)) / 2
    ),
    "OneCycleLR": (
        lambda o: S.OneCycleLR(o, 2.0, 16, pct_start=0.5, anneal_strategy="linear", div_factor=4, final_div_factor=5),
        lambda t: 0.5 + 1.5 * t / 7 if t <= 7 else 2 - 1.9 * (t - 7) / 8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_follow_their_closed_form(name):
    make_schedule, closed_form = SCHEDULES[name]
    np.testing.assert_allclose(rates(*schedule_of(make_schedule), 16), [closed_form(t) for t in range(16)], rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_resume_from_their_state(name):
    make_schedule, closed_form = SCHEDULES[name]
    optimizer, schedule = schedule_of(make_schedule)
    rates(optimizer, schedule, 4)
    other_optimizer, other = schedule_of(make_schedule)
    other_optimizer.load_state_dict(optimizer.state_dict())
    other.load_state_dict(copy.deepcopy(schedule.state_dict()))
    np.testing.assert_allclose(rates(other_optimizer, other, 8), [closed_form(t) for t in range(4, 12)], rtol=1e-12)


def test_every_schedule_is_tested():
    classes = {n for n, c in vars(S).items() if isinstance(c, type) and c.__module__ == S.__name__}
    assert classes - {"LRScheduler", "ReduceLROnPlateau"} == set(SCHEDULES)


def test_one_cycle_moves_momentum_against_the_rate():
    optimizer, schedule = schedule_of(lambda o: S.OneCycleLR(o, 1.0, epochs=2, steps_per_epoch=10))
    momenta, lrs = [], []
    for _ in range(20):
        momenta.append(optimizer.param_groups[0]["momentum"])
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert (momenta[0], min(momenta), momenta[19]) == pytest.approx((0.95, 0.85, 0.95))
    assert np.argmax(lrs) == np.argmin(momenta)


@pytest.mark.parametrize(("mode", "metrics"), [("min", [3, 2, 2, 2, 2, 2, 1, 1]), ("max", [3, 4, 4, 4, 4, 4, 5, 5])])
def test_plateau_reduces_after_patience_ran_out(mode, metrics):
    optimizer = optim.SGD([weight()], lr=1.0)
    schedule = S.ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=1, min_lr=0.25)
    found = []
    for metric in metrics:
        schedule.step(torch.tensor(float(metric)))
        found.append(schedule.get_last_lr()[0])
    assert found == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_stepping_the_schedule_first_warns():
    _, schedule = schedule_of(lambda o: S.StepLR(o, 3))
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        schedule.step()


SCHEDULE_ERRORS = [
    (lambda o: S.StepLR(1, 3), TypeError, "int is not an Optimizer"),
    (lambda o: S.StepLR(o, 3, last_epoch=4), KeyError, "initial_lr"),
    (lambda o: S.LambdaLR(o, [abs, abs]), ValueError, "expected 1 lr_lambdas"),
    (lambda o: S.ConstantLR(o, 2.0), ValueError, "between 0 and 1, got 2.0"),
    (lambda o: S.LinearLR(o, 0.0), ValueError, "Starting multiplicative factor"),
    (lambda o: S.LinearLR(o, end_factor=2.0), ValueError, "Ending multiplicative factor"),
    (lambda o: S.OneCycleLR(o, 1.0), ValueError, "total_steps OR"),
    (lambda o: S.OneCycleLR(o, 1.0, 0), ValueError, "positive integer total_steps, but got 0"),
    (lambda o: S.OneCycleLR(o, 1.0, 5, pct_start=2), ValueError, "pct_start, but got 2"),
    (lambda o: S.OneCycleLR(o, 1.0, 5, anneal_strategy="exp"), ValueError, "instead got exp"),
    (lambda o: S.ReduceLROnPlateau(o, "best"), ValueError, "mode best"),
    (lambda o: S.ReduceLROnPlateau(o, factor=1.0), ValueError, "< 1.0"),
    (lambda o: S.ReduceLROnPlateau(o, threshold_mode="x"), ValueError, "threshold mode x"),
    (lambda o: S.LRScheduler(o), NotImplementedError, "does not define get_lr"),
]


@pytest.mark.parametrize(("call", "error", "message"), SCHEDULE_ERRORS, ids=[m for _, _, m in SCHEDULE_ERRORS])
def test_schedule_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(optim.SGD([weight()], lr=1.0))
