"""Arenas: any set of parameters keeps its values and gradients, and what is not in place is never mistaken for it."""

import copy
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paceline as torch
from paceline import optim
from paceline.autograd.variable import any_leaf
from paceline.runtime.arrays import to_host
from paceline.tensor.arena import ALIGNMENT, Arena, flat_gradients, home_of, settle

shapes = st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=8)
dtypes = st.sampled_from(["float16", "bfloat16", "float32", "float64"])


def make(shapes, device="cpu", dtype="float64"):
    numbers = iter(range(1, 1000))
    return [torch.full(s, next(numbers), dtype=getattr(torch, dtype), device=device).requires_grad_() for s in shapes]


def values(tensors):
    return [to_host(t.array).astype(float).tolist() for t in tensors]


def gap_mask(arena):
    mask = np.ones(arena.data.size, bool)
    for start, stop in arena.ranges:
        mask[start:stop] = False
    return mask


@given(shapes=shapes, dtype=dtypes)
@settings(deadline=None, max_examples=50)
def test_layout(device, shapes, dtype):
    params = make(shapes, device, dtype)
    before = values(params)
    arena = Arena(params)
    assert values(params) == before
    assert all(p.data_ptr() % ALIGNMENT == 0 for p in params if p.numel())
    assert not to_host(arena.data).astype(float)[gap_mask(arena)].any()
    for p, (start, stop) in zip(params, arena.ranges, strict=True):
        arena.data[start:stop] = 7  # the parameter is this memory
        assert (to_host(p.array) == 7).all()
        assert (p.grad, p.is_leaf, p.requires_grad, p.is_contiguous()) == (None, True, True, True)


@given(shapes=shapes, present=st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_any_subset_with_gradients_trains_as_without_arena(device, shapes, present, seed):
    together, alone = make(shapes, device), make(shapes, device)
    optimizer = optim.Adam(together, lr=0.1)
    optimizers = [optim.Adam([p], lr=0.1) for p in alone]
    random = np.random.default_rng(seed)
    for chosen in present:
        optimizer.zero_grad()
        for single in optimizers:
            single.zero_grad()
        for i, (p, q) in enumerate(zip(together, alone, strict=True)):
            if i in chosen:
                weight = torch.tensor(random.standard_normal(tuple(p.shape)), device=device)
                (p * weight).sum().backward()
                (q * weight).sum().backward()
        optimizer.step()
        for single in optimizers:
            single.step()
        assert values(together) == values(alone)
        arena = home_of(together[0])[0]
        for array in (arena.data, arena.grad):
            assert not to_host(array)[gap_mask(arena)].any()


@given(shapes=shapes, chosen=st.lists(st.integers(0, 7), max_size=10))
@settings(deadline=None, max_examples=50)
def test_flat_gradients_are_all_gradients(shapes, chosen):
    params = make(shapes)
    Arena(params)
    for p in params:
        (p * p).sum().backward()
    chosen = [params[i] for i in chosen if i < len(params)]
    flat = np.concatenate([a.ravel() for a in flat_gradients([p.grad for p in chosen])] or [[]])
    expected = np.concatenate([p.grad.array.ravel() for p in chosen] or [[]])
    assert flat[flat != 0].tolist() == expected.tolist()


def test_gradients_land_in_the_arena():
    params = make([(2,), (3,)])
    arena = Arena(params)
    for p in params:
        (p * 5).sum().backward()
    assert all(p.grad is p.grad_slot for p in params)
    assert arena.grad[:2].tolist() == [5, 5]
    assert len(flat_gradients([p.grad for p in params])) == 1


def test_gradients_there_before_are_kept():
    params = make([(2,), (3,)])
    params[1].grad = torch.full((3,), 4.0, dtype=torch.float64)
    Arena(params)
    assert params[0].grad is None
    assert params[1].grad.tolist() == [4, 4, 4]
    params[1].sum().backward()
    assert params[1].grad.tolist() == [5, 5, 5]


def test_a_gradient_on_the_tape_stays_there():
    (p,) = make([(2,)])
    (p**3).sum().backward(create_graph=True)
    gradient = p.grad
    Arena([p])
    assert p.grad is gradient
    assert gradient.requires_grad


def test_of_finds_the_arena_that_holds_exactly_these():
    params = make([(2,), (3,), (4,), (5,)])
    arena = Arena.of(params)
    assert Arena.of(params) is arena
    assert Arena.of(reversed(params)) is arena
    assert Arena.of(params[1:3]) is arena
    assert Arena.of([params[1], params[2], params[1]]) is arena
    assert home_of(params[2]) == (arena, 2)
    apart = Arena.of([params[0], params[2]])
    assert apart is not arena
    assert Arena.of(params) not in (arena, apart)


def test_of_with_a_tied_parameter_and_new_ones():
    a, b = make([(2,), (3,)])
    Arena([a])
    arena = Arena.of([a, b, a])
    assert (home_of(a), home_of(b)) == ((arena, 0), (arena, 1))
    assert values([a, b]) == [[1, 1], [2, 2, 2]]


def test_rebound_parameters_have_no_home():
    a, b = make([(2,), (3,)])
    arena = Arena.of([a, b])
    kept = a.data
    a.data = torch.zeros(2, dtype=torch.float64)
    assert home_of(a) is None
    assert Arena.of([a, b]) is not arena
    other = Arena.of([a, b])
    a.data = kept
    assert home_of(a) is None
    assert home_of(b) == (other, 1)


def test_gradients_of_converted_parameters_do_not_go_into_the_old_slot():
    (p,) = make([(2,)])
    Arena([p])
    p.data = p.data.float()
    (p * 2).sum().backward()
    assert p.grad.dtype is torch.float32


def test_settle_moves_what_is_trained_by_dtype_and_leaves_what_has_a_home():
    a, b, c = [*make([(2,), (3,)]), *make([(4,)], dtype="float32")]
    frozen = torch.zeros(2)
    arena = Arena([b])
    settle([a, b, c, frozen])
    assert home_of(b) == (arena, 0)
    assert home_of(frozen) is None
    assert len({home_of(a)[0], home_of(b)[0], home_of(c)[0]}) == 3


def test_copies_do_not_share_the_arena():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    twin = copy.deepcopy(model)
    assert not any(home_of(p) for p in twin.parameters())
    before = values(twin.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert values(twin.parameters()) == before
    assert [p.grad for p in twin.parameters()] == [None] * 4


def test_forward_before_the_move_and_backward_after():
    (p,) = make([(2,)])
    loss = (p * p).sum()
    Arena([p])
    loss.backward()
    assert p.grad.tolist() == [2, 2]


def test_nothing_keeps_an_arena_whose_parameters_are_gone():
    params = make([(2,), (3,)])
    arena = Arena(params)
    slots = arena.slots
    del arena, params  # without the garbage collector: no cycle may hold device memory
    assert [slot() for slot in slots] == [None, None]


def test_errors():
    a, b = make([(2,), (3,)])
    with pytest.raises(ValueError, match="parameter 1 must be a leaf"):
        Arena([a, b * 2])
    with pytest.raises(TypeError, match="parameter 1 has float32 on cpu, parameter 0 has float64 on cpu"):
        Arena([a, *make([(1,)], dtype="float32")])


def test_the_gradient_of_a_linear_layer_is_made_in_its_place(monkeypatch):
    monkeypatch.setattr(any_leaf, "hooked", False)  # other tests may have set it, for good
    layer = torch.nn.Linear(1000, 1000)
    Arena(list(layer.parameters()))
    x = torch.ones(2, 1000)
    for _ in range(2):
        loss = (layer(x) ** 2).sum()
        layer.zero_grad()
        tracemalloc.start()
        loss.backward()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < layer.weight.array.nbytes / 2
        assert layer.weight.grad is layer.weight.grad_slot
        expected = 2 * (layer(x).detach().numpy().T @ x.numpy())
        np.testing.assert_allclose(layer.weight.grad.numpy(), expected, rtol=1e-5)


def test_a_kept_gradient_of_a_linear_layer_stays_as_it_was():
    layer = torch.nn.Linear(3, 2)
    Arena(list(layer.parameters()))
    layer(torch.ones(1, 3)).sum().backward()
    kept = layer.weight.grad
    layer.zero_grad()
    layer(torch.full((1, 3), 5.0)).sum().backward()
    np.testing.assert_array_equal(kept.numpy(), np.ones((2, 3)))
    np.testing.assert_array_equal(layer.weight.grad.numpy(), np.full((2, 3), 5))
