"""Learning rate schedules against their closed forms."""

import copy
import math
import warnings

import numpy as np
import pytest

import paceline as torch
from paceline import optim
from paceline.optim import lr_scheduler


def weight():
    return torch.zeros(2, requires_grad=True)


def without_momentum():
    return optim.Adagrad([weight()], lr=1.0)


def other_schedule():
    return S.StepLR(without_momentum(), 1)


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
    "MultiplicativeLR": (lambda o: S.MultiplicativeLR(o, lambda t: 1 / t), lambda t: 1 / math.factorial(t)),
    "PolynomialLR": (lambda o: S.PolynomialLR(o, 6, 2.0), lambda t: (1 - min(t, 6) / 6) ** 2),
    "CosineAnnealingWarmRestarts": (
        lambda o: S.CosineAnnealingWarmRestarts(o, 2, 2, 0.1),
        lambda t: 0.1 + 0.45 * (1 + math.cos(math.pi * next((t - s) / (s + 2) for s in (14, 6, 2, 0) if t >= s))),
    ),
    "CyclicLR": (
        lambda o: S.CyclicLR(o, 1.0, 4.0, 2, 4, mode="triangular2"),
        lambda t: 1 + 3 * 0.5 ** (t // 6) * (t % 6 / 2 if t % 6 < 2 else (6 - t % 6) / 4),
    ),
    "SequentialLR": (
        lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.25, 1.0, 3), S.StepLR(o, 2), S.ExponentialLR(o, 0.5)], [3, 7]),
        lambda t: 0.25 * (t + 1) if t < 3 else 0.1 ** ((t - 3) // 2) if t < 7 else 0.5 ** (t - 7),
    ),
    "ChainedScheduler": (
        lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.25, 4), S.ExponentialLR(o, 0.9)]),
        lambda t: (0.25 if t < 4 else 1.0) * 0.9**t,
    ),
    "SequentialLR of composed ones": (
        lambda o: S.SequentialLR(
            o,
            [
                S.SequentialLR(o, [S.ChainedScheduler([S.ConstantLR(o, 0.25, 4), S.ExponentialLR(o, 0.9)]),
                                   S.PolynomialLR(o, 4)], [5]),
                S.StepLR(o, 3),
            ],
            [8],
        ),
        lambda t: (0.25 if t < 4 else 1.0) * 0.9**t if t < 5 else 1 - (t - 5) / 4 if t < 8 else 0.1 ** ((t - 8) // 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_follow_their_closed_form(name):
    make_schedule, closed_form = SCHEDULES[name]
    np.testing.assert_allclose(
        rates(*schedule_of(make_schedule), 16), [closed_form(t) for t in range(16)], rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_resume_from_their_state(name):
    make_schedule, closed_form = SCHEDULES[name]
    optimizer, schedule = schedule_of(make_schedule)
    rates(optimizer, schedule, 4)
    other_optimizer, other = schedule_of(make_schedule)
    other_optimizer.load_state_dict(optimizer.state_dict())
    other.load_state_dict(copy.deepcopy(schedule.state_dict()))
    np.testing.assert_allclose(
        rates(other_optimizer, other, 8), [closed_form(t) for t in range(4, 12)], rtol=1e-12, atol=1e-15
    )


def test_every_schedule_is_tested():
    assert set(S.__all__) - {"LRScheduler", "ReduceLROnPlateau"} == {name.split()[0] for name in SCHEDULES}


NOT_BY_EPOCH = {"MultiplicativeLR", "SequentialLR", "ChainedScheduler", "SequentialLR of composed ones"}


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - NOT_BY_EPOCH))
def test_a_schedule_can_be_sent_to_any_epoch(name):
    make_schedule, closed_form = SCHEDULES[name]
    optimizer, schedule = schedule_of(make_schedule)
    optimizer.step()
    for t in (9, 3, 4, 0, 12):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The epoch parameter")
            schedule.step(t)
        assert schedule.get_last_lr() == [pytest.approx(closed_form(t), rel=1e-12, abs=1e-15)]


def test_steps_by_epoch_warn_but_where_they_may_be_fractions():
    optimizer, schedule = schedule_of(lambda o: S.StepLR(o, 3))
    optimizer.step()
    with pytest.warns(UserWarning, match="epoch parameter in `scheduler.step"):
        schedule.step(2)
    optimizer, schedule = schedule_of(lambda o: S.CosineAnnealingWarmRestarts(o, 4))
    schedule.step(5.5)
    assert schedule.get_last_lr() == [pytest.approx((1 + math.cos(math.pi * 1.5 / 4)) / 2)]
    assert (schedule.last_epoch, schedule.T_cur, schedule.T_i) == (5, 1.5, 4)


@pytest.mark.parametrize("make_schedule", [
    lambda o: S.StepLR(o, 1, 0.5),
    lambda o: S.LinearLR(o, 1.0, 0.25, 6),
    lambda o: S.ReduceLROnPlateau(o, patience=0, factor=0.5),
])  # fmt: skip
def test_a_rate_in_a_tensor_stays_in_it(make_schedule):
    lr = torch.tensor(0.5)
    optimizer = optim.SGD([weight()], lr=lr)
    schedule = make_schedule(optimizer)
    optimizer.step()
    for _ in range(3):
        schedule.step(*[1.0] * isinstance(schedule, S.ReduceLROnPlateau))
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == schedule.get_last_lr()[0] < 0.5
    assert not isinstance(schedule, S.StepLR) or lr.item() == 0.0625


def test_a_rate_of_zero_is_left_again():
    found = rates(*schedule_of(lambda o: S.ConstantLR(o, 0.0, 2)), 4)
    assert found == [0, 0, 1, 1]


class Halving:
    """A callable object, whose attributes are saved."""

    def __init__(self):
        self.calls = 0

    def __call__(self, t):
        self.calls += 1
        return 0.5**t


@pytest.mark.parametrize("make_schedule", [
    S.LambdaLR, S.MultiplicativeLR, lambda o, f: S.CyclicLR(o, 0.1, 1.0, 4, scale_fn=f, scale_mode="iterations")
])  # fmt: skip
def test_state_of_callable_objects_is_saved(make_schedule):
    function, other_function = Halving(), Halving()
    optimizer, schedule = schedule_of(lambda o: make_schedule(o, function))
    _, other = schedule_of(lambda o: make_schedule(o, other_function))
    rates(optimizer, schedule, 4)
    assert other_function.calls < function.calls
    other.load_state_dict(schedule.state_dict())
    assert other_function.calls == function.calls


@pytest.mark.parametrize(("mode", "height"), [
    ("triangular", lambda t: 1.0), ("triangular2", lambda t: 0.5 ** (t // 4)), ("exp_range", lambda t: 0.9**t)
])  # fmt: skip
def test_cycles_move_momentum_against_the_rate(mode, height):
    optimizer = optim.Adam([weight()])
    schedule = S.CyclicLR(optimizer, 0.0, 1.0, 2, mode=mode, gamma=0.9, base_momentum=0.5, max_momentum=0.75)
    for t in range(12):
        (lr,), momentum = schedule.get_last_lr(), optimizer.param_groups[0]["betas"][0]
        assert lr == pytest.approx(height(t) * [0, 0.5, 1, 0.5][t % 4])
        assert momentum == pytest.approx(0.75 - 0.25 * lr)
        optimizer.step()
        schedule.step()


def test_schedules_of_older_scripts_run():
    class Warmup(S._LRScheduler):
        def get_lr(self):
            assert self._get_lr_called_within_step
            return [base * min(1.0, (self.last_epoch + 1) / 4) for base in self.base_lrs]

    assert rates(*schedule_of(Warmup), 5) == [0.25, 0.5, 0.75, 1, 1]


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


def test_plateau_with_groups_added_later():
    optimizer = optim.SGD([weight()], lr=1.0)
    schedules = [S.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, min_lr=low) for low in (0.0, [0.0])]
    optimizer.add_param_group({"params": weight(), "lr": 4.0})
    for _ in range(2):
        schedules[0].step(1.0)
    assert schedules[0].get_last_lr() == [0.5, 2.0]
    schedules[1].step(1.0)
    with pytest.raises(RuntimeError, match="2 param groups, but there were 1"):
        schedules[1].step(1.0)


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
    (lambda o: S.OneCycleLR(o, 1.0, 5), ValueError, "must support momentum or beta1"),
    (lambda o: S.CyclicLR(o, 0.1, 1.0), ValueError, "must support momentum or beta1"),
    (lambda o: S.CyclicLR(o, 0.1, 1.0, mode="square"), ValueError, "mode 'square' is invalid"),
    (lambda o: S.CyclicLR(o, [0.1, 0.2], 1.0), ValueError, "expected 1 base_lr"),
    (lambda o: S.CosineAnnealingWarmRestarts(o, 0), ValueError, "positive integer T_0, but got 0"),
    (lambda o: S.CosineAnnealingWarmRestarts(o, 1, 0.5), ValueError, "T_mult >= 1, but got 0.5"),
    (lambda o: S.CosineAnnealingWarmRestarts(o, 1, eta_min="0"), ValueError, "eta_min, but got 0"),
    (lambda o: S.CosineAnnealingWarmRestarts(o, 1).step(-1), ValueError, "non-negative epoch, but got -1"),
    (lambda o: S.SequentialLR(o, [], []), ValueError, "at least one scheduler"),
    (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)], [1]), ValueError, "1 schedulers and 1 milestones"),
    (lambda o: S.SequentialLR(o, [o], []), TypeError, "Adagrad at index 0 should have `optimizer`"),
    (lambda o: S.ChainedScheduler([S.ReduceLROnPlateau(o)]), ValueError, "does not support `ReduceLROnPlateau`"),
    (
        lambda o: S.ChainedScheduler([S.StepLR(o, 1), other_schedule()]),
        ValueError,
        "index 1 has another",
    ),
    (
        lambda o: S.SequentialLR(o, [S.StepLR(o, 1), S.ChainedScheduler([S.StepLR(o, 1)])], [1]),
        NotImplementedError,
        "ChainedScheduler at index 1 cannot start in the middle",
    ),
    (lambda o: S.ReduceLROnPlateau(o, "best"), ValueError, "mode best"),
    (lambda o: S.ReduceLROnPlateau(o, factor=1.0), ValueError, "< 1.0"),
    (lambda o: S.ReduceLROnPlateau(o, threshold_mode="x"), ValueError, "threshold mode x"),
    (lambda o: S.LRScheduler(o), NotImplementedError, "does not define get_lr"),
]


@pytest.mark.parametrize(("call", "error", "message"), SCHEDULE_ERRORS, ids=[m for _, _, m in SCHEDULE_ERRORS])
def test_schedule_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(without_momentum())
