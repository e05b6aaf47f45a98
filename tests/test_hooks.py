"""Hooks of modules around forward, backward, saving and loading, and what copies of modules keep."""

import copy
import pickle

import numpy as np
import pytest

import paceline as torch

nn = torch.nn


class Twice(nn.Module):
    """2 a + 3 b of two arguments."""

    def forward(self, a, b=None, *, scale=1.0):
        return (2 * a + (0 if b is None else 3 * b)) * scale


def ones(*shape):
    return torch.ones(*shape, requires_grad=True)


def test_forward_hooks_in_order():
    module, seen = Twice(), []
    module.register_forward_pre_hook(lambda m, args: seen.append("first"))
    module.register_forward_pre_hook(lambda m, args: seen.append("before") or args[0] + 1, prepend=True)
    module.register_forward_hook(lambda m, args, output: seen.append("after") or output * 10)
    assert module(ones(1)).item() == 40
    assert seen == ["before", "first", "after"]


def test_forward_hooks_with_named_arguments():
    module = Twice()
    module.register_forward_pre_hook(lambda m, args, kwargs: (args, {**kwargs, "scale": 5.0}), with_kwargs=True)
    module.register_forward_hook(lambda m, args, kwargs, output: output + kwargs["scale"], with_kwargs=True)
    assert module(ones(1)).item() == 15


def test_forward_hooks_that_are_always_called():
    seen = []

    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("broken")

    module = Broken()
    module.register_forward_hook(lambda m, args, output: seen.append(output), always_call=True)
    module.register_forward_hook(lambda m, args, output: seen.append("not this one"))
    with pytest.raises(ValueError, match="broken"):
        module(ones(1))
    assert seen == [None]


def test_removed_hooks():
    module = Twice()
    with module.register_forward_hook(lambda m, args, output: output * 0):
        assert module(ones(1)).item() == 0
    assert module(ones(1)).item() == 2


def test_backward_hooks_see_and_replace_gradients():
    module, seen = Twice(), []
    module.register_full_backward_pre_hook(lambda m, grad_output: (grad_output[0] * 10,))
    module.register_full_backward_hook(lambda m, inputs, outputs: seen.append((inputs, outputs)))
    module.register_full_backward_hook(lambda m, inputs, outputs: (inputs[0] + 1, inputs[1]))
    a, b = ones(2), ones(2)
    module(a, b).sum().backward()
    ((inputs, outputs),) = seen
    assert [g.tolist() for g in inputs] == [[20, 20], [30, 30]]
    assert [g.tolist() for g in outputs] == [[10, 10]]
    assert a.grad.tolist() == [21, 21] and b.grad.tolist() == [30, 30]


def test_backward_hooks_of_arguments_without_gradients():
    seen = []
    linear = nn.Linear(2, 2)
    linear.register_full_backward_hook(lambda m, inputs, outputs: seen.append((inputs, outputs[0].tolist())))
    linear(torch.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1, 1]])]
    assert linear.weight.grad is not None
    module = Twice()
    module.register_full_backward_hook(lambda m, inputs, outputs: seen.append([g is None for g in inputs]))
    module(torch.ones(1), ones(1)).sum().backward()
    assert seen[1] == [True, False]


def test_backward_hooks_of_several_outputs():
    seen = []

    class Split(nn.Module):
        def forward(self, x):
            return x[:1], x[1:], "no tensor"

    module = Split()
    module.register_full_backward_hook(lambda m, inputs, outputs: seen.append((inputs, outputs)))
    x = ones(3)
    module(x)[0].sum().backward()
    ((inputs, outputs),) = seen
    assert inputs[0].tolist() == [1, 0, 0]
    assert outputs[0].tolist() == [1] and outputs[1:] == (None, None)


def test_backward_hooks_and_checking():
    module = Twice()
    module.register_full_backward_hook(lambda m, inputs, outputs: inputs + inputs)
    with pytest.raises(RuntimeError, match="expected 1 gradients"):
        module(ones(1)).backward()
    with torch.no_grad():
        assert not module(ones(1)).requires_grad
    smooth = nn.Tanh()
    smooth.register_full_backward_hook(lambda m, inputs, outputs: None)
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(smooth, x)


# -- state -------------------------------------------------------------------------------------------------------------


def test_state_dict_hooks():
    net, seen = nn.Sequential(nn.Linear(1, 1)), []
    net[0].register_state_dict_pre_hook(lambda m, prefix, keep_vars: seen.append((prefix, keep_vars)))
    net[0].register_state_dict_post_hook(lambda m, state, prefix, metadata: state.update({prefix + "more": 1}))
    assert list(net.state_dict(prefix="net.")) == ["net.0.weight", "net.0.bias", "net.0.more"]
    assert seen == [("net.0.", False)]
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0\.more"'):
        net.load_state_dict(net.state_dict())


def test_hooks_before_loading():
    def rename(state, prefix, metadata, strict, missing, unexpected, errors):
        state[prefix + "weight"] = state.pop(prefix + "kernel")

    net = nn.Sequential(nn.Linear(1, 1))
    net[0]._register_load_state_dict_pre_hook(rename)
    state = {"0.kernel": torch.full((1, 1), 7.0), "0.bias": torch.zeros(1)}
    net.load_state_dict(state)
    assert net[0].weight.item() == 7
    assert list(state) == ["0.kernel", "0.bias"]

    modules = []
    net.register_load_state_dict_pre_hook(lambda module, state, *rest: modules.append(module))
    net.load_state_dict(state)
    assert modules == [net]
    net._register_load_state_dict_pre_hook(lambda *args: args[-1].append("not today"))
    with pytest.raises(RuntimeError, match="not today"):
        net.load_state_dict(state)


def test_hooks_after_loading():
    linear = nn.Linear(1, 1)
    linear.register_load_state_dict_post_hook(lambda module, keys: keys.missing_keys.clear())
    linear.load_state_dict({"weight": torch.full((1, 1), 7.0)})
    assert linear.weight.item() == 7
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"other"'):
        linear.load_state_dict({"other": torch.ones(1)})


# -- copies ------------------------------------------------------------------------------------------------------------


def double(module, args, output):
    return output * 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_keep_hooks_and_shared_weights(duplicate):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    net.register_forward_hook(double)
    other = duplicate(net)
    x = torch.ones(2)
    np.testing.assert_array_equal(other(x).detach().numpy(), net(x).detach().numpy())
    assert other[0].weight is other[1].weight and other[0].weight is not net[0].weight
    assert [n for n, _ in other.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    other._forward_hooks.clear()
    np.testing.assert_array_equal(2 * other(x).detach().numpy(), net(x).detach().numpy())


def test_compile_is_accepted():
    net = nn.Linear(1, 1)
    assert net.compile(mode="reduce-overhead", fullgraph=True) is None
