"""Averages of models over training (optim.swa_utils), against means computed by NumPy."""

import copy
import math

import numpy as np
import pytest

import paceline as torch
from paceline.optim import swa_utils
from paceline.optim.swa_utils import SWALR, AveragedModel, update_bn


def model_of(seed=0, device="cpu"):
    """A model with parameters, buffers and a weight that is used twice."""
    torch.manual_seed(seed)
    first = torch.nn.Linear(3, 4)
    second = torch.nn.Linear(3, 4)
    second.weight = first.weight
    return torch.nn.Sequential(first, torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3), second).to(device)


def train(model, updates, after):
    """Random parameters and buffers, once for each update; returns what they were."""
    random, seen = np.random.default_rng(0), []
    for _ in range(updates):
        for tensor in (*model.parameters(), *model.buffers()):
            values = random.standard_normal(tuple(tensor.shape)) * 10
            tensor.data.copy_(torch.tensor(values).to(tensor.dtype))
        seen.append({name: t.detach().cpu().numpy().copy() for name, t in model.state_dict().items()})
        after(model)
    return seen


def ema(values, decay=0.75):
    average = values[0]
    for value in values[1:]:
        average = decay * average + (1 - decay) * value
    return average


AVERAGES = {
    "mean": ({}, lambda values: np.mean(values, 0)),
    "mean by avg_fn": ({"avg_fn": swa_utils.get_swa_avg_fn()}, lambda values: np.mean(values, 0)),
    "mean by multi_avg_fn": ({"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}, lambda values: np.mean(values, 0)),
    "ema by avg_fn": ({"avg_fn": swa_utils.get_ema_avg_fn(0.75)}, ema),
    "ema by multi_avg_fn": ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.75)}, ema),
    "a function of one's own": ({"avg_fn": lambda a, c, n: torch.maximum(a, c)}, lambda values: np.max(values, 0)),
}


@pytest.mark.parametrize("in_arena", [False, True])
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("name", AVERAGES)
def test_averages(name, use_buffers, in_arena, device):
    options, expected = AVERAGES[name]
    model = model_of(device=device)
    if in_arena:
        torch.optim.SGD(model.parameters(), lr=0.1)
    averaged = AveragedModel(model, use_buffers=use_buffers, **options)
    seen = train(model, 5, averaged.update_parameters)
    assert averaged.n_averaged.item() == 5
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for key, tensor in averaged.module.state_dict().items():
        values = [s[key].astype(np.float64) for s in seen]
        if key == "1.num_batches_tracked" and use_buffers:
            assert abs(tensor.item() - expected(values)) <= 5  # cut to an integer at each update
        elif key in parameters or use_buffers:
            np.testing.assert_allclose(tensor.cpu().numpy(), expected(values), rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(tensor.cpu().numpy(), seen[-1][key])


def test_the_first_update_copies():
    model = model_of()
    averaged = AveragedModel(model)
    seen = train(model, 1, averaged.update_parameters)
    for key, tensor in averaged.module.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), seen[0][key])


def test_the_copy_shares_no_memory_and_its_calls_are_the_models():
    model = model_of().eval()
    averaged, x = AveragedModel(model).eval(), torch.randn(5, 3)
    before = model(x)
    assert torch.equal(averaged(x), before)
    train(model, 1, lambda model: None)
    assert torch.equal(averaged(x), before)


def test_state_of_an_averaged_model_goes_on():
    model = model_of()
    averaged = AveragedModel(model)
    train(model, 3, averaged.update_parameters)
    other = AveragedModel(model_of(1))
    other.load_state_dict(averaged.state_dict())
    assert "n_averaged" in averaged.state_dict() and "module.0.weight" in averaged.state_dict()
    for a in (averaged, other):
        a.update_parameters(model)
    assert all(torch.equal(a, b) for a, b in zip(averaged.parameters(), other.parameters(), strict=True))
    assert copy.deepcopy(averaged).n_averaged.item() == 4


def test_training_goes_on_through_the_average():
    """Averages are written by no_grad: a graph of the model from before the update still leads back."""
    model = model_of()
    averaged = AveragedModel(model)
    loss = model(torch.randn(4, 3)).sum()
    averaged.update_parameters(model)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None for p in averaged.parameters())


@pytest.mark.parametrize("as_pairs", [False, True])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_update_bn_averages_over_the_data(momentum, as_pairs, device):
    norm = torch.nn.BatchNorm1d(3, momentum=momentum).to(device).eval()
    norm.running_mean.fill_(100.0)
    random = np.random.default_rng(0)
    batches = [random.standard_normal((4, 3)).astype(np.float32) for _ in range(5)]
    loader = [torch.tensor(b) for b in batches]
    update_bn([(b, None) for b in loader] if as_pairs else loader, torch.nn.Sequential(norm).eval(), device)
    np.testing.assert_allclose(norm.running_mean.cpu().numpy(), np.mean(batches, (0, 1)), rtol=1e-5, atol=1e-6)
    variance = np.mean([b.var(0, ddof=1) for b in batches], 0)
    np.testing.assert_allclose(norm.running_var.cpu().numpy(), variance, rtol=1e-5)
    assert (norm.momentum, norm.training) == (momentum, False)


def test_update_bn_leaves_the_model_as_it_was_after_an_error():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3)).eval()
    with pytest.raises(ValueError):
        update_bn([torch.zeros(3)], model)
    assert (model[0].momentum, model.training) == (0.1, False)


def test_update_bn_of_a_model_without_batch_norm_reads_no_data():
    update_bn(iter(lambda: pytest.fail("the loader was read"), None), torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"anneal_epochs": 4, "anneal_strategy": "linear"}, lambda t: 1 - 0.75 * min(t, 4) / 4),
        ({"anneal_epochs": 4}, lambda t: 1 - 0.75 * (1 - math.cos(math.pi * min(t, 4) / 4)) / 2),
        ({"anneal_epochs": 0}, lambda t: 0.25),
    ],
)
def test_swalr_anneals_to_its_rate(options, expected):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, found = SWALR(optimizer, 0.25, **options), []
    for _ in range(8):
        found += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(found, [expected(t) for t in range(8)], rtol=1e-12)


def test_swalr_overrules_a_changed_rate_at_the_end():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = SWALR(optimizer, 0.25, anneal_epochs=1)
    optimizer.step()
    schedule.step()
    optimizer.param_groups[0]["lr"] = 7.0
    schedule.step()
    assert schedule.get_last_lr() == [0.25]


ERRORS = [
    (lambda o: swa_utils.get_ema_avg_fn(1.5), ValueError, "Invalid decay value 1.5"),
    (lambda o: swa_utils.get_ema_multi_avg_fn(-0.5), ValueError, "Invalid decay value -0.5"),
    (lambda o: AveragedModel(model_of(), avg_fn=max, multi_avg_fn=max), AssertionError, "Only one of avg_fn"),
    (lambda o: SWALR(o, 0.1, anneal_strategy="exp"), ValueError, "instead got exp"),
    (lambda o: SWALR(o, 0.1, anneal_epochs=-1), ValueError, "anneal_epochs must be equal or greater than 0, got -1"),
    (lambda o: SWALR(o, [0.1, 0.2]), ValueError, "expected 1 swa_lr"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[m for _, _, m in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0))
