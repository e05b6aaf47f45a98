"""Optimizers against the textbook's formulas, in and out of arenas."""

import copy
import math
import pickle

import numpy as np
import pytest
from tables.optimizers import OPTIMIZERS

import paceline as torch
from paceline import optim
from paceline.optim.flat import ElementwiseOptimizer
from paceline.runtime.arrays import to_host
from paceline.tensor.arena import home_of

SHAPES = [(3, 4), (4,), (), (2, 1, 5), (0,)]
IN_OTHER_FILES = {"LBFGS", "Muon"}  # test_optim_whole.py
rows = pytest.mark.parametrize("row", OPTIMIZERS, ids=repr)
elementwise_rows = pytest.mark.parametrize("row", [row for row in OPTIMIZERS if row.name != "Adafactor"], ids=repr)


def make(device="cpu", dtype=torch.float64, shapes=SHAPES, seed=0):
    random = np.random.default_rng(seed)
    return [torch.tensor(random.standard_normal(s), dtype=dtype, device=device).requires_grad_() for s in shapes]


def give_gradients(params, seed):
    """Gradients by backward, the same for the same seed."""
    random = np.random.default_rng(seed)
    for p in params:
        weight = torch.tensor(random.standard_normal(tuple(p.shape)), dtype=p.dtype, device=p.device)
        (p * weight).sum().backward()


def build(row, params, **options):
    return getattr(optim, row.name)(params, **{**row.options, **options})


def values(params):
    return [to_host(p.array).copy() for p in params]


def train(optimizer, params, steps=4, first=0):
    for t in range(first, first + steps):
        optimizer.zero_grad()
        give_gradients(params, t)
        optimizer.step()
    return values(params)


def assert_bits_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_optimizer_has_a_row():
    classes = [c for c in vars(optim).values() if isinstance(c, type) and issubclass(c, optim.Optimizer)]
    assert {c.__name__ for c in classes} - {"Optimizer"} == {row.name for row in OPTIMIZERS} | IN_OTHER_FILES


# -- what a step computes --------------------------------------------------------------------------------------------


@rows
def test_steps_follow_the_textbook(row, device):
    params = make(device)
    expected, memories = values(params), [{} for _ in params]
    optimizer = build(row, params)
    for t in range(1, 5):
        optimizer.zero_grad()
        give_gradients(params, t)
        gradients = [to_host(p.grad.array).copy() for p in params]
        optimizer.step()
        expected = [
            row.reference(p, g, memory, t, **row.options)
            for p, g, memory in zip(expected, gradients, memories, strict=True)
        ]
        for p, q, g in zip(params, expected, gradients, strict=True):
            np.testing.assert_allclose(to_host(p.array), q, rtol=row.tolerance, atol=1e-2 * row.tolerance)
            np.testing.assert_array_equal(to_host(p.grad.array), g)  # the step leaves gradients alone


@rows
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_in_an_arena_and_alone(row, device, dtype):
    dtype = getattr(torch, dtype)
    params = make(device, dtype)
    together = train(build(row, params), params)

    rebound = make(device, dtype)
    optimizer = build(row, rebound)
    for p in rebound:
        p.data = p.data.clone()
    assert not any(map(home_of, rebound))
    assert_bits_equal(train(optimizer, rebound), together)

    one_by_one = make(device, dtype)
    optimizers = [build(row, [p]) for p in one_by_one]
    for t in range(4):
        for optimizer in optimizers:
            optimizer.zero_grad()
        give_gradients(one_by_one, t)
        for optimizer in optimizers:
            optimizer.step()
    assert_bits_equal(values(one_by_one), together)


@elementwise_rows
def test_bits_do_not_depend_on_how_long_arrays_are_cut(row, device, monkeypatch):
    whole = make(device, torch.float32)
    expected = train(build(row, whole), whole)
    monkeypatch.setattr("paceline.optim.flat._CHUNK_CPU", 5 * 4)
    monkeypatch.setattr("paceline.optim.flat._CHUNK_GPU", 5 * 4)
    cut = make(device, torch.float32)
    assert_bits_equal(train(build(row, cut), cut), expected)


@rows
def test_parameters_without_gradient_wait_with_their_own_step_count(row):
    present = [[0, 2], [1], [], [0, 1, 2, 3, 4], [3, 4], [0, 1, 2, 3, 4]]
    params, alone = make(), make()
    optimizer = build(row, params)
    optimizers = [build(row, [p]) for p in alone]
    for t, chosen in enumerate(present):
        for each in (optimizer, *optimizers):
            each.zero_grad()
            each.param_groups[0]["lr"] *= 0.9  # which the first step of some depends on
        give_gradients([params[i] for i in chosen], t)
        give_gradients([alone[i] for i in chosen], t)
        optimizer.step()
        for single in optimizers:
            single.step()
        assert_bits_equal(values(params), values(alone))
    for i, p in enumerate(params):
        if "step" in optimizer.state[p]:
            assert optimizer.state[p]["step"].item() == sum(i in chosen for chosen in present)


@elementwise_rows
def test_float16_leaves_gaps_zero(row, device):
    params = make(device, torch.float16, [(3,), (2,)])
    arena = home_of_all(build(row, params), params)
    train(build(row, params), params)
    assert not to_host(arena.data[3:32]).any()


def home_of_all(optimizer, params):
    arenas = {home_of(p)[0] for p in params}
    assert len(arenas) == 1
    return arenas.pop()


def test_backward_through_a_graph_from_before_the_step_is_refused():
    (w,) = make(shapes=[(3,)])
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# -- what users do between steps -------------------------------------------------------------------------------------


def do_nothing(optimizer, params):
    pass


def rebind_a_gradient(optimizer, params):
    params[1].grad = params[1].grad.clone()


def rebind_the_data_of_a_gradient(optimizer, params):
    params[0].grad.data = params[0].grad.data.clone()


def rebind_data(optimizer, params):
    params[0].data = params[0].data.clone()


def rebind_to_transposed_memory(optimizer, params):
    params[0].data = torch.tensor(np.ascontiguousarray(values(params)[0].T), device=params[0].device).t()


def swap_data_and_back(optimizer, params):
    kept = [p.data for p in params]
    for p in params:
        p.data = p.data * 2
    for p, data in zip(params, kept, strict=True):
        p.data = data


def keep_gradients(optimizer, params):
    optimizer.kept = [p.grad for p in params]


def move_into_another_arena(optimizer, params):
    optimizer.other = type(optimizer)(make(params[0].device) + params[:2])


def look_at_all_state(optimizer, params):
    [optimizer.state[p] for p in params]


def replace_the_list(optimizer, params):
    optimizer.param_groups[0]["params"] = list(params)


def deep_copy_state(optimizer, params):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


INTERFERENCES = [
    do_nothing, rebind_a_gradient, rebind_the_data_of_a_gradient, rebind_data, rebind_to_transposed_memory,
    swap_data_and_back, keep_gradients, move_into_another_arena, look_at_all_state, replace_the_list, deep_copy_state,
]  # fmt: skip


@elementwise_rows
@pytest.mark.parametrize("interfere", INTERFERENCES)
def test_rebinding_between_steps_changes_no_bit(row, interfere, device):
    plain = make(device)
    expected = train(build(row, plain), plain, steps=6)
    params = make(device)
    optimizer = build(row, params)
    for t in range(6):
        optimizer.zero_grad()
        give_gradients(params, t)
        if t % 2:
            interfere(optimizer, params)
        optimizer.step()
    assert_bits_equal(values(params), expected)


def test_kept_gradients_stay_as_they_were():
    params = make()
    optimizer = optim.SGD(params, lr=0.1)
    give_gradients(params, 0)
    kept = [p.grad for p in params]
    before = values(kept)
    optimizer.step()
    train(optimizer, params)
    assert_bits_equal(values(kept), before)


def test_the_rebound_data_is_what_is_updated():
    (p,) = make(shapes=[(3,)])
    optimizer = optim.SGD([p], lr=1.0)
    mine = torch.ones(3, dtype=torch.float64)
    p.data = mine
    p.grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    assert mine.tolist() == [0, 0, 0]


def test_parameters_converted_after_the_optimizer_was_made():
    params = make(dtype=torch.float32)
    optimizer = optim.Adam(params, lr=0.01)
    train(optimizer, params, steps=1)
    for p in params:
        p.data = p.data.double()
        p.grad = None
    train(optimizer, params, first=1)
    assert all(p.grad.dtype is torch.float64 for p in params)
    assert all(optimizer.state[p]["exp_avg"].dtype is torch.float64 for p in params)


def test_two_optimizers_over_the_same_parameters():
    params, (w, b) = make(shapes=[(2,), (3,)]), make(shapes=[(2,), (3,)])
    both = [optim.SGD(params, lr=0.1, momentum=0.9), optim.Adam(params[::-1], lr=0.01)]
    expected, memories = values([w, b]), [{}, {}, {}, {}]
    for t in range(1, 4):
        both[0].zero_grad()
        give_gradients(params, t)
        gradients = values([p.grad for p in params])
        for optimizer in both:
            optimizer.step()
        for i, g in enumerate(gradients):
            sgd = next(r.reference for r in OPTIMIZERS if r.name == "SGD")
            adam = next(r.reference for r in OPTIMIZERS if r.name == "Adam")
            expected[i] = sgd(expected[i], g, memories[i], t, lr=0.1, momentum=0.9)
            expected[i] = adam(expected[i], g, memories[i + 2], t, lr=0.01)
    for p, q in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q, rtol=1e-12)


def test_groups_with_options_of_their_own_changed_between_steps():
    a, b = make(shapes=[(2,), (2,)])
    optimizer = optim.SGD([{"params": [a], "lr": 1.0, "name": "first"}, {"params": b}], lr=0.5)
    start = values([a, b])
    for p in (a, b):
        p.grad = torch.ones(2, dtype=torch.float64)
    optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] *= 0.1
    optimizer.step()
    np.testing.assert_allclose(start[0] - values([a])[0], 1.1)
    np.testing.assert_allclose(start[1] - values([b])[0], 0.55)


def test_momentum_switched_on_later():
    (p,) = make(shapes=[(1,)])
    optimizer = optim.SGD([p], lr=1.0)
    p.grad = torch.ones(1, dtype=torch.float64)
    start = p.item()
    optimizer.step()
    assert optimizer.state_dict()["state"] == {}
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    optimizer.step()
    assert start - p.item() == pytest.approx(1 + 1 + 1.5)


def test_parameters_frozen_first_and_added_or_thawed_later():
    a, b = make(shapes=[(2,), (2,)])
    frozen = torch.zeros(2, dtype=torch.float64)
    optimizer = optim.SGD([a, frozen], lr=0.1)
    optimizer.add_param_group({"params": b, "lr": 1.0})
    train(optimizer, [a, b], steps=1)
    assert frozen.tolist() == [0, 0]
    frozen.requires_grad_()
    optimizer.zero_grad()
    frozen.sum().backward()
    optimizer.step()
    np.testing.assert_allclose(frozen.detach().numpy(), [-0.1, -0.1])


def test_state_can_be_forgotten():
    params, fresh = make(), make()
    optimizer = optim.Adam(params, lr=0.01)
    train(optimizer, params, steps=2)
    optimizer.state.clear()
    for p, q in zip(fresh, params, strict=True):
        q.data.copy_(p.data)
    assert_bits_equal(train(optimizer, params), train(optim.Adam(fresh, lr=0.01), fresh))


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none, device):
    params = make(device)
    optimizer = optim.SGD(params, lr=0.1)
    give_gradients(params, 0)
    params[0].grad = params[0].grad.clone()
    del params[1].grad
    optimizer.zero_grad(set_to_none)
    if set_to_none:
        assert all(p.grad is None for p in params)
    else:
        assert params[1].grad is None
        assert not any(to_host(p.grad.array).any() for p in params if p.grad is not None)


def test_closure_runs_with_gradients_on_and_its_loss_is_returned():
    (p,) = make(shapes=[(2,)])
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    before = (p * p).sum().item()
    with torch.no_grad():
        assert optimizer.step(closure).item() == before
    assert (p * p).sum().item() == pytest.approx(before * 0.64)


def test_hooks_run_around_the_step_until_removed():
    (p,) = make(shapes=[(1,)])
    p.grad = torch.ones(1, dtype=torch.float64)
    optimizer, seen = optim.SGD([p], lr=1.0), []
    handles = [
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", o is optimizer, p.item()))),
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", o is optimizer, p.item()))),
    ]
    start = p.item()
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert seen == [("before", True, start), ("after", True, start - 1)]


def test_hooks_around_saving_and_loading():
    def named(name, replacement=None):
        def hook(*args):
            seen.append((name, args[1:]))
            return replacement and replacement(*args[1:])

        return hook

    def faster(state_dict):
        return {**state_dict, "param_groups": [{**group, "lr": 2.0} for group in state_dict["param_groups"]]}

    optimizer, seen = optim.SGD([weight()], lr=1.0), []
    handles = [
        optimizer.register_state_dict_pre_hook(named("saving")),
        optimizer.register_state_dict_post_hook(named("saved", lambda s: {**s, "extra": 1})),
        optimizer.register_load_state_dict_pre_hook(named("loading")),
        optimizer.register_load_state_dict_pre_hook(named("first", faster), prepend=True),
        optimizer.register_load_state_dict_post_hook(named("loaded")),
    ]
    state = optimizer.state_dict()
    assert state["extra"] == 1 and optimizer.param_groups[0]["lr"] == 1.0
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 2.0 and state["param_groups"][0]["lr"] == 1.0
    assert [name for name, _ in seen] == ["saving", "saved", "first", "loading", "loaded"]
    assert seen[3][1][0]["param_groups"][0]["lr"] == 2.0
    for handle in handles:
        handle.remove()
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(seen) == 5


# -- saving and copying ----------------------------------------------------------------------------------------------


@rows
def test_loaded_state_continues_with_the_same_bits(row, device):
    params, others = make(device), make(device)
    optimizer = build(row, params)
    train(optimizer, params)
    for p, q in zip(others, params, strict=True):
        p.data.copy_(q.data)
    other = build(row, others, lr=123.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.param_groups[0]["lr"] == row.options["lr"]
    assert_bits_equal(train(other, others, first=4), train(optimizer, params, first=4))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_have_parameters_and_state_of_their_own(copied):
    params = make()
    optimizer = optim.Adam(params, lr=0.01)
    train(optimizer, params)
    twin = copied(optimizer)
    theirs = twin.param_groups[0]["params"]
    before = values(theirs)
    expected = train(optimizer, params, first=4)
    assert_bits_equal(values(theirs), before)
    assert_bits_equal(train(twin, theirs, first=4), expected)


def test_a_loaded_state_shares_no_memory():
    params, others = make(), make()
    optimizer, other = optim.Adam(params), optim.Adam(others)
    train(optimizer, params)
    other.load_state_dict(optimizer.state_dict())
    before = values([other.state[p]["exp_avg"] for p in others])
    train(optimizer, params)
    assert_bits_equal(values([other.state[p]["exp_avg"] for p in others]), before)


def test_repr():
    text = repr(optim.SGD(make(), lr=0.1))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n    differentiable: False\n")
    assert text.endswith("    nesterov: False\n    weight_decay: 0\n)")


def test_parameters_with_names():
    model = torch.nn.Linear(2, 1)
    optimizer = optim.SGD(model.named_parameters(), lr=1.0)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    model(torch.ones(1, 2)).sum().backward()
    before = values(model.parameters())
    optimizer.step()
    assert_bits_equal(values(model.parameters()), [b - 1 for b in before])

    other = optim.SGD([{"params": list(model.named_parameters()), "lr": 0.5}])
    saved = optim.SGD(model.parameters(), lr=2.0).state_dict()
    other.load_state_dict(saved)
    assert (other.param_groups[0]["param_names"], other.param_groups[0]["lr"]) == (["weight", "bias"], 2.0)
    with pytest.raises(ValueError, match="with/without names"):
        other.add_param_group({"params": weight()})
    with pytest.raises(ValueError, match="Some param names are missing"):
        optim.SGD([("weight", model.weight), model.bias])


@pytest.mark.parametrize(
    ("name", "options"),
    [("Adam", {"lr": 0.25, "betas": (0.5, 0.75)}), ("SGD", {"lr": 0.25, "weight_decay": 0.5}), ("LBFGS", {"lr": 0.5})],
)
def test_options_in_tensors(name, options):
    found = []
    for number in (float, torch.tensor):
        params = make()
        given = {k: tuple(map(number, v)) if isinstance(v, tuple) else number(v) for k, v in options.items()}
        optimizer = getattr(optim, name)(params, **given)
        give_gradients(params, 0)
        optimizer.step(lambda: torch.tensor(1.0))
        found.append(values(params))
    assert_bits_equal(*found)


def test_states_of_any_shape_are_loaded_into_optimizers_written_as_in_pytorch():
    class Remembering(optim.Optimizer):
        def step(self):
            for p in self.param_groups[0]["params"]:
                self.state[p] = {"step": 3, "factor": torch.ones(7), "past": [torch.zeros(1), None], "name": "w"}

    optimizer, other = Remembering([weight()], {}), Remembering([weight()], {})
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    (state,) = other.state.values()
    assert (state["step"], state["name"], state["past"][1]) == (3, "w", None)
    assert torch.equal(state["factor"], torch.ones(7)) and torch.equal(state["past"][0], torch.zeros(1))


# -- bad input -------------------------------------------------------------------------------------------------------


def weight():
    return torch.zeros(2, requires_grad=True)


ERRORS = [
    (lambda: optim.SGD([], lr=0.1), ValueError, "optimizer got an empty parameter list"),
    (lambda: optim.SGD(weight(), lr=0.1), TypeError, "iterable of Tensors or dicts, but got a Tensor"),
    (lambda: optim.SGD([weight() * 2], lr=0.1), ValueError, "can't optimize a non-leaf Tensor"),
    (lambda: optim.SGD([1.0], lr=0.1), TypeError, "can only optimize Tensors, but one of the params is float"),
    (lambda: optim.SGD([{"params": {weight()}}], lr=0.1), TypeError, "ordering of tensors in sets"),
    (lambda: optim.SGD([torch.zeros(1, dtype=torch.complex64)], lr=0.1), TypeError, "complex"),
    (lambda: optim.SGD([weight()], lr=-1), ValueError, "Invalid learning rate: -1"),
    (lambda: optim.SGD([weight()], lr=math.nan), ValueError, "Invalid learning rate: nan"),
    (lambda: optim.SGD([weight()], momentum=-0.5), ValueError, "Invalid momentum value: -0.5"),
    (lambda: optim.SGD([weight()], weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
    (lambda: optim.SGD([weight()], nesterov=True), ValueError, "Nesterov momentum requires a momentum"),
    (lambda: optim.SGD([weight()], lr=0.1, differentiable=True), NotImplementedError, "differentiable=True"),
    (lambda: optim.SGD([weight()], learning_rate=0.1), TypeError, "learning_rate"),
    (lambda: optim.Adam([weight()], betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
    (lambda: optim.Adam([weight()], eps=-1), ValueError, "Invalid epsilon value: -1"),
    (lambda: optim.Adam([weight()], capturable=True), NotImplementedError, "capturable=True"),
    (lambda: optim.SGD([weight()]).add_param_group([weight()]), TypeError, "param_group must be a dict"),
    (lambda: optim.Optimizer([weight()], {}).step(), NotImplementedError, "does not define step"),
    (lambda: optim.SGD([weight()]).load_state_dict({"state": {}, "param_groups": []}), ValueError, "0 instead of 1"),
    (
        lambda: optim.SGD([weight()]).load_state_dict(optim.SGD([weight(), weight()]).state_dict()),
        ValueError,
        "doesn't match the size of optimizer's group",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_parameter_in_two_groups_is_refused_and_twice_in_one_warned_of():
    w = weight()
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        optim.SGD([{"params": [w]}, {"params": [w]}], lr=0.1)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = optim.SGD([w, w], lr=1.0)
    w.sum().backward()
    optimizer.step()
    assert w.tolist() == [-1, -1]


def test_loading_state_of_another_shape_names_it():
    trained, w = torch.zeros(3, requires_grad=True), weight()
    optimizer = optim.Adam([trained])
    trained.sum().backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"'exp_avg' of parameter 0 has shape \[3\], the parameter has \[2\]"):
        optim.Adam([w]).load_state_dict(optimizer.state_dict())


def test_an_optimizer_written_as_in_pytorch():
    class SignDescent(optim.Optimizer):
        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    state["step"] = state.get("step", 0) + 1
                    p.add_(p.grad.sign(), alpha=-group["lr"])

    w = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = SignDescent([w], {"lr": 0.5})
    (w * w).sum().backward()
    optimizer.step()
    assert w.tolist() == [0.5, -1.5]
    assert optimizer.state_dict() == {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.5, "params": [0]}]}
    assert not isinstance(optimizer, ElementwiseOptimizer)
