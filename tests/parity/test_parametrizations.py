"""Parametrized weights against PyTorch: names, values and gradients from the same state, and what removing leaves."""

import copy

import numpy as np
import pytest
import torch

import paceline

PAIR = (paceline, torch)


def linear(module, *size):
    torch.manual_seed(0)
    return module.nn.Linear(*size).double()


def conv(module, *size):
    torch.manual_seed(0)
    return module.nn.Conv2d(*size).double()


def parametrized(function, **options):
    return lambda module, net: getattr(module.nn.utils.parametrizations, function)(net, **options)


def older(function, **options):
    return lambda module, net: getattr(module.nn.utils, function)(net, **options)


CASES = {
    "weight_norm": (linear, (4, 3), parametrized("weight_norm")),
    "weight_norm over all": (linear, (4, 3), parametrized("weight_norm", dim=None)),
    "weight_norm of columns": (conv, (2, 3, 2), parametrized("weight_norm", dim=1)),
    "weight_norm of a bias": (linear, (4, 3), parametrized("weight_norm", name="bias")),
    "spectral_norm": (linear, (4, 3), parametrized("spectral_norm")),
    "spectral_norm of columns": (conv, (2, 3, 2), parametrized("spectral_norm", dim=1, n_power_iterations=3)),
    "spectral_norm of a bias": (linear, (4, 3), parametrized("spectral_norm", name="bias")),
    "orthogonal square": (linear, (4, 4), parametrized("orthogonal")),
    "orthogonal tall": (linear, (4, 6), parametrized("orthogonal")),
    "orthogonal wide": (linear, (6, 4), parametrized("orthogonal", orthogonal_map="cayley")),
    "orthogonal exp wide": (linear, (6, 4), parametrized("orthogonal", orthogonal_map="matrix_exp")),
    "orthogonal plain": (
        linear, (4, 6), parametrized("orthogonal", orthogonal_map="householder", use_trivialization=False)),
    "older weight_norm": (linear, (4, 3), older("weight_norm")),
    "older weight_norm over all": (linear, (4, 3), older("weight_norm", dim=None)),
    "older spectral_norm": (conv, (2, 3, 2), older("spectral_norm", n_power_iterations=2)),
}  # fmt: skip


def same_state(ours, theirs):
    ours.load_state_dict({k: paceline.tensor(v.numpy()) for k, v in theirs.state_dict().items()})


def output(module, net, size):
    shape = (5, size[0]) if len(size) == 2 else (2, size[0], 4, 4)
    return net(module.tensor(np.random.default_rng(1).standard_normal(shape)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", CASES)
def test_same_as_pytorch(case, mode):
    make, size, change = CASES[case]
    nets = [change(module, make(module, *size)) for module in PAIR]
    assert list(nets[0].state_dict()) == list(nets[1].state_dict())
    assert [k for k, _ in nets[0].named_parameters()] == [k for k, _ in nets[1].named_parameters()]
    assert repr(nets[0]) == repr(nets[1])
    with torch.no_grad():  # away from the special point that the parametrization starts from
        for p in nets[1].parameters():
            noise = 0.1 * torch.randn_like(p)
            if "orthogonal" in case and p.ndim == 2:  # whose diagonal holds signs
                noise.fill_diagonal_(0)
            p.add_(noise)
    same_state(*nets)
    results = []
    for module, net in zip(PAIR, nets, strict=True):
        getattr(net, mode)()
        out = output(module, net, size)
        out.sin().sum().backward()
        results.append([out, *(p.grad for p in net.parameters()), *net.buffers()])
    for x, y in zip(*results, strict=True):
        assert tuple(x.shape) == tuple(y.shape)
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("older")])
def test_removing_leaves_the_weight(case):
    make, size, change = CASES[case]
    net = change(paceline, make(paceline, *size)).eval()
    name = "bias" if "bias" in case else "weight"
    before = getattr(net, name).detach().clone()
    twin = copy.deepcopy(net)
    paceline.nn.utils.parametrize.remove_parametrizations(net, name)
    assert type(net) is getattr(paceline.nn, type(net).__name__)
    assert isinstance(getattr(net, name), paceline.nn.Parameter) and name in net.state_dict()
    np.testing.assert_array_equal(getattr(net, name).detach().numpy(), before.numpy())
    np.testing.assert_array_equal(getattr(twin, name).detach().numpy(), before.numpy())  # the copy stays parametrized


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_removing_the_older_ones(name):
    net = older(name)(paceline, linear(paceline, 4, 3)).eval()
    with pytest.raises(RuntimeError, match=f"Cannot register two {name} hooks"):
        older(name)(paceline, net)
    out = output(paceline, net, (4, 3))
    getattr(paceline.nn.utils, f"remove_{name}")(net)
    assert sorted(net.state_dict()) == ["bias", "weight"]
    np.testing.assert_allclose(output(paceline, net, (4, 3)).detach().numpy(), out.detach().numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match=f"{name} of 'weight' not found"):
        getattr(paceline.nn.utils, f"remove_{name}")(net)


def chain(module):
    class Symmetric(module.nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).mT

        def right_inverse(self, x):
            return x.triu()

    class Doubled(module.nn.Module):
        def forward(self, x):
            return 2 * x

        def right_inverse(self, x):
            return x / 2

    class RankOne(module.nn.Module):
        def forward(self, x, y):
            return x.unsqueeze(-1) @ y.unsqueeze(-2)

        def right_inverse(self, z):
            return z[:, 0].clone(), z[0].clone()

    class Flat(module.nn.Module):
        def forward(self, x):
            return x.reshape(-1)

    return Symmetric(), Doubled(), RankOne(), Flat()


@pytest.mark.parametrize("module", PAIR)
def test_chains_assignment_and_refusals(module):
    """The same program says the same on both libraries."""
    P = module.nn.utils.parametrize
    symmetric, doubled, rank_one, flat = chain(module)
    net = module.nn.Linear(3, 3)
    assert not P.is_parametrized(net)
    P.register_parametrization(net, "weight", symmetric)
    P.register_parametrization(net, "weight", doubled)
    assert P.is_parametrized(net, "weight") and not P.is_parametrized(net, "bias")
    assert P.type_before_parametrizations(net) is module.nn.Linear and isinstance(net, module.nn.Linear)
    assert list(net.state_dict()) == ["bias", "parametrizations.weight.original"]
    value = module.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    net.weight = value
    assert module.equal(net.weight, value)
    assert module.equal(net.parametrizations.weight.original.detach(), value.triu() / 2)
    with P.cached():
        assert net.weight is net.weight
    assert net.weight is not net.weight
    with pytest.raises(ValueError, match="shape"):
        P.register_parametrization(net, "bias", module.nn.Linear(3, 2))
    with pytest.raises(ValueError, match="shape"):
        P.register_parametrization(net, "weight", flat)
    with pytest.raises(ValueError, match="does not have a parameter"):
        P.register_parametrization(net, "wait", doubled)
    with pytest.raises(ValueError, match="does not have a parametrization"):
        P.remove_parametrizations(net, "bias")
    P.register_parametrization(net, "bias", flat)
    with pytest.raises(RuntimeError, match="does not implement right_inverse"):
        net.bias = module.zeros(3)
    P.remove_parametrizations(net, "weight", leave_parametrized=False)
    assert module.equal(net.weight.detach(), value.triu() / 2)
    P.remove_parametrizations(net, "bias")
    assert type(net) is module.nn.Linear and not hasattr(net, "parametrizations")
    two = P.register_parametrization(module.nn.Linear(2, 3), "weight", rank_one)
    assert list(two.state_dict()) == ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"]
    with pytest.raises(ValueError, match="sequence of tensors"):
        P.remove_parametrizations(two, "weight", leave_parametrized=False)
    other = P.transfer_parametrizations_and_params(two, module.nn.Linear(2, 3))
    assert other.parametrizations.weight.original0 is two.parametrizations.weight.original0
    assert module.equal(other.weight, two.weight)


def test_initial_weights_are_of_norm_one_and_orthogonal():
    net = parametrized("spectral_norm")(paceline, linear(paceline, 5, 4))
    for _ in range(50):
        weight = net.weight
    np.testing.assert_allclose(np.linalg.norm(weight.detach().numpy(), 2), 1, rtol=1e-6)
    plain = {"orthogonal_map": "householder", "use_trivialization": False}
    for size in ((4, 4), (4, 6), (6, 4)):
        for options in ({}, {"orthogonal_map": "cayley"}, plain):
            q = parametrized("orthogonal", **options)(paceline, linear(paceline, *size)).weight.detach().numpy()
            q = q if q.shape[0] >= q.shape[1] else q.T
            np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-12)


def test_skip_init_draws_nothing():
    paceline.manual_seed(3)
    expected = paceline.rand(2)
    paceline.manual_seed(3)
    net = paceline.nn.utils.skip_init(paceline.nn.Linear, 5, 1, dtype=paceline.float64)
    assert net.weight.dtype == paceline.float64 and tuple(net.weight.shape) == (1, 5)
    assert paceline.equal(paceline.rand(2), expected)
    with pytest.raises(RuntimeError, match="'device'"):
        paceline.nn.utils.skip_init(paceline.nn.ReLU)
