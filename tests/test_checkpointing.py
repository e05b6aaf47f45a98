"""Activation checkpointing and hooks on saved tensors: the same gradients to the last bit, with less kept."""

import gc
import weakref

import numpy as np
import pytest

import paceline as torch
from paceline.autograd.function import once_differentiable
from paceline.autograd.graph import save_on_cpu, saved_tensors_hooks
from paceline.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential

nn = torch.nn


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 4), nn.Sigmoid(), nn.LayerNorm(4),
        nn.Linear(4, 3),
    )  # fmt: skip


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(5, 4, requires_grad=True)


def gradients(forward, net, x):
    torch.manual_seed(2)
    net.zero_grad()
    x.grad = None
    (forward(x) ** 2).sum().backward()
    return [x.grad.clone(), *(p.grad.clone() for p in net.parameters())]


def same(a, b):
    return all(np.array_equal(p.numpy(), q.numpy()) for p, q in zip(a, b, strict=True))


WAYS = {
    "whole": lambda net: lambda x: checkpoint(net, x, use_reentrant=False),
    "reentrant": lambda net: lambda x: checkpoint(net, x, use_reentrant=True),
    "by keyword": lambda net: lambda x: checkpoint(lambda *, given: net(given), given=x),
    "segments": lambda net: lambda x: checkpoint_sequential(net, 3, x, use_reentrant=False),
    "nested": lambda net: lambda x: checkpoint(lambda x: net[3:](checkpoint(net[:3], x)), x),
    "in containers": lambda net: lambda x: checkpoint(lambda d: {"y": net(d["x"])}, {"x": x})["y"],
}


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_the_same_to_the_last_bit(way, net, x):
    assert same(gradients(WAYS[way](net), net, x), gradients(net, net, x))


def test_random_numbers_go_on_as_without(net, x):
    torch.manual_seed(3)
    net(x).sum().backward()
    expected = torch.rand(3)
    torch.manual_seed(3)
    checkpoint(net, x).sum().backward()
    assert same([torch.rand(3)], [expected])


def test_activations_are_not_kept():
    kept = []

    def function(x):
        hidden = x.exp()
        kept.append(weakref.ref(hidden.array))
        return hidden.sin()

    x = torch.ones(3, requires_grad=True)
    y = function(x)
    assert kept[0]() is not None
    y = checkpoint(function, x)
    gc.collect()
    assert kept[1]() is None
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(np.e) * np.e * np.ones(3), rtol=1e-6)


def test_second_derivatives(net, x):
    def penalty(forward):
        torch.manual_seed(4)
        (g,) = torch.autograd.grad(forward(x).sum(), x, create_graph=True)
        return torch.autograd.grad((g**2).sum(), x)

    assert same(penalty(lambda x: checkpoint(net, x)), penalty(net))


def test_going_back_twice():
    x = torch.ones(2, requires_grad=True)
    y = checkpoint(torch.exp, x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.e * np.ones(2), rtol=1e-6)
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()


def test_without_gradients_the_function_is_just_called(net, x):
    with torch.no_grad():
        assert not checkpoint(net, x).requires_grad


def test_other_operations_the_second_time_are_refused():
    operations = iter([torch.sin, torch.cos])
    y = checkpoint(lambda x: next(operations)(x), torch.ones(2, requires_grad=True))
    with pytest.raises(CheckpointError, match="operation 0 was SinBackward0"):
        y.sum().backward()


def test_changed_arguments_are_refused():
    w, x = torch.ones(2, requires_grad=True), torch.ones(2)
    y = checkpoint(lambda x: x * w, x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_contexts():
    entered = []

    class Note:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            entered.append(self.name)

        def __exit__(self, *exc):
            pass

    y = checkpoint(torch.exp, torch.ones(1, requires_grad=True), context_fn=lambda: (Note("first"), Note("second")))
    assert entered == ["first"]
    y.backward()
    assert entered == ["first", "second"]


def test_segments_are_checked():
    with pytest.raises(ValueError, match="cannot cut 1 functions into 2 segments"):
        checkpoint_sequential([torch.exp], 2, torch.ones(1))


# -- hooks on saved tensors --------------------------------------------------------------------------------------------


def test_packed_values_come_back(net, x):
    store = []

    def pack(tensor):
        store.append(tensor.detach().clone())
        return len(store) - 1

    def forward(x):
        with saved_tensors_hooks(pack, lambda i: store[i]):
            return net(x)

    assert same(gradients(forward, net, x), gradients(net, net, x))
    assert store


def test_hooks_change_what_backward_uses():
    x = torch.tensor([3.0], requires_grad=True)
    with saved_tensors_hooks(lambda t: t, lambda t: t * 2):
        y = x * x
    z = x * x
    y.backward()
    assert x.grad.item() == 12
    x.grad = None
    z.backward()
    assert x.grad.item() == 6


def test_innermost_hooks_count():
    x = torch.tensor([3.0], requires_grad=True)
    seen = []
    with saved_tensors_hooks(lambda t: seen.append("outer") or t, lambda t: t):
        with saved_tensors_hooks(lambda t: seen.append("inner") or t, lambda t: t):
            x.exp()
        x.exp()
    assert seen == ["inner", "outer"]


def test_unpack_must_give_a_tensor():
    with saved_tensors_hooks(lambda t: t.tolist(), lambda values: values):
        y = torch.ones(1, requires_grad=True).exp()
    with pytest.raises(TypeError, match="unpack_hook expected to be a Tensor, got list"):
        y.backward()


def test_save_on_cpu(net, x, device):
    net, x = net.to(device), x.detach().to(device).requires_grad_()

    def forward(x):
        with save_on_cpu():
            return net(x)

    found, expected = gradients(forward, net, x), gradients(net, net, x)
    assert same([g.cpu() for g in found], [g.cpu() for g in expected])


# -- once_differentiable -----------------------------------------------------------------------------------------------


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


def test_once_differentiable():
    x = torch.tensor([2.0], requires_grad=True)
    Cube.apply(x).backward()
    assert x.grad.item() == 12
    (g,) = torch.autograd.grad(Cube.apply(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        g.backward()
