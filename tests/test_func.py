"""func: transforms of functions against closed forms, and vmap against a loop for every row of the table."""

import numpy as np
import pytest
from tables.all_ops import params
from tables.table import outputs

import paceline as torch
from paceline import func

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))
W = RNG.standard_normal((4, 3))


def t(array):
    return torch.tensor(array)


def near(found, expected):
    assert tuple(found.shape) == np.shape(expected)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_gradients_of_any_order():
    sin = torch.sin
    for expected in (np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x), np.sin):
        sin = func.grad(sin)
        near(sin(t(X[0, 0])), expected(X[0, 0]))


def test_argnums_and_aux():
    def f(a, b, scale=1.0):
        return (a * b * scale).sum(), {"largest": a.max()}

    (by_a, by_b), aux = func.grad(f, argnums=(0, 1), has_aux=True)(t(X[0]), t(X[1]), scale=2.0)
    near(by_a, 2 * X[1])
    near(by_b, 2 * X[0])
    near(aux["largest"], X[0].max())
    gradient, (value, _) = func.grad_and_value(f, has_aux=True)(t(X[0]), t(X[1]))
    near(gradient, X[1])
    near(value, X[0] @ X[1])


def test_gradient_by_a_container():
    found = func.grad(lambda p, x: (p["w"] * x).sum() + p["b"])({"w": t(X[0]), "b": t(1.0)}, t(X[1]))
    near(found["w"], X[1])
    near(found["b"], 1.0)


def test_vjp_and_jvp():
    output, vjp_fn = func.vjp(lambda x, w: x @ w, t(X), t(W))
    near(output, X @ W)
    v = RNG.standard_normal((5, 3))
    by_x, by_w = vjp_fn(t(v))
    near(by_x, v @ W.T)
    near(by_w, X.T @ v)
    output, product = func.jvp(lambda x: x.sin(), (t(X),), (t(X + 1),))
    near(output, np.sin(X))
    near(product, np.cos(X) * (X + 1))


@pytest.mark.parametrize("jacobian", [func.jacrev, func.jacfwd])
def test_jacobians(jacobian):
    near(jacobian(lambda x: (x @ t(W)).tanh())(t(X[0])), (1 - np.tanh(X[0] @ W) ** 2)[:, None] * W.T)
    found = jacobian(lambda x, w: {"product": x @ w, "sum": x.sum()}, argnums=(0, 1))(t(X[0]), t(W))
    near(found["product"][1], np.einsum("k,ji->jki", X[0], np.eye(3)))
    near(found["sum"][0], np.ones(4))
    near(found["sum"][1], np.zeros((4, 3)))


def test_jacrev_in_chunks():
    near(func.jacrev(torch.square, chunk_size=3)(t(X[0])), np.diag(2 * X[0]))


def test_hessian():
    near(func.hessian(lambda x: (x**3).sum())(t(X[0])), np.diag(6 * X[0]))
    near(func.vmap(func.hessian(lambda x: (x**3).sum()))(t(X)), np.stack([np.diag(6 * x) for x in X]))


def test_results_stay_on_the_tape_only_where_the_caller_needs_it():
    def cube(x):
        return (x**3).sum()

    assert not func.grad(cube)(t(X[0])).requires_grad
    x = t(X[0]).requires_grad_()
    func.grad(cube)(x).sum().backward()
    near(x.grad, 6 * X[0])
    with torch.no_grad():
        assert not func.grad(cube)(x).requires_grad
    w = t(W).requires_grad_()  # only closed over
    func.vmap(func.grad(lambda x: (x @ w).pow(2).sum()))(t(X)).sum().backward()
    near(w.grad, 2 * (np.ones((4, 5)) @ X @ W + X.T @ (np.ones((5, 4)) @ W)))


# -- vmap --------------------------------------------------------------------------------------------------------------


def test_per_example_gradients():
    def loss(w, x):
        return ((x @ w) ** 2).sum()

    found = func.vmap(func.grad(loss), (None, 0))(t(W), t(X))
    near(found, np.stack([2 * np.outer(x, x @ W) for x in X]))


def test_dims_of_arguments_and_results():
    found = func.vmap(lambda d, c: (d["x"] * c, d["x"].sum()), ({"x": 1}, None), (1, 0))({"x": t(X)}, t(2.0))
    near(found[0], 2 * X)
    near(found[1], X.sum(0))
    near(func.vmap(func.vmap(torch.mul, (None, 0)), (0, None))(t(X[0]), t(X[1])), np.outer(X[0], X[1]))
    near(func.vmap(lambda x: t(1.0), chunk_size=2)(t(X)), np.ones(5))
    near(func.vmap(lambda x: x * 2, chunk_size=2)(t(X)), 2 * X)


def test_dtypes_are_those_of_single_examples():
    scalars, vector = t(X[:, 0]), torch.ones(3)  # float64 [5] and float32 [3]: alone a 0-d tensor does not promote
    assert func.vmap(lambda s: s * vector)(scalars).dtype == torch.float32


def test_conditions_on_values_are_taken_per_example():
    near(func.vmap(lambda x: x if x.sum() > 0 else -x)(t(X)), np.where(X.sum(1, keepdims=True) > 0, X, -X))
    near(func.vmap(lambda x, i: x[i])(t(X), t(np.array([0, 1, 2, 3, 0]))), X[np.arange(5), [0, 1, 2, 3, 0]])


def test_changes_in_place():
    def change(x):
        y = x.clone()
        y[0] = 7.0
        return y.add_(1)

    expected = X + 1
    expected[:, 0] = 8
    near(func.vmap(change)(t(X)), expected)
    x = t(X)
    func.vmap(lambda x: x.mul_(2))(x)
    near(x, 2 * X)


def test_random_numbers():
    def noisy(x):
        return x + torch.rand(4, dtype=torch.float64)

    zeros = torch.zeros(3, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="randomness error mode"):
        func.vmap(noisy)(zeros)
    same = func.vmap(noisy, randomness="same")(zeros)
    assert (same == same[0]).all()
    different = func.vmap(noisy, randomness="different")(zeros)
    assert not (different[0] == different[1]).any()


def test_functions_of_users():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * x**2 * g

    near(func.vmap(func.grad(lambda x: Cube.apply(x).sum()))(t(X)), 3 * X**2)


def test_convolutions_take_the_whole_batch():
    images, weight = RNG.standard_normal((3, 2, 1, 5, 5)), RNG.standard_normal((2, 1, 3, 3))
    conv = torch.nn.functional.conv2d
    found = func.vmap(lambda x: conv(x, t(weight)))(t(images))
    near(found, np.stack([conv(t(x), t(weight)).numpy() for x in images]))


def test_messages():
    with pytest.raises(ValueError, match="same size in the mapped dimension"):
        func.vmap(torch.add)(t(X), t(X[:2]))
    with pytest.raises(ValueError, match="must only return tensors, got type int"):
        func.vmap(lambda x: 3)(t(X))
    with pytest.raises(ValueError, match="at least one input"):
        func.vmap(torch.sin, None)(t(X))
    with pytest.raises(RuntimeError, match="one tensor of 0 dimensions"):
        func.grad(torch.sin)(t(X))
    with pytest.raises(RuntimeError, match=r"use func\.grad, which"):
        func.vmap(lambda x: x.sum().backward())(t(X).requires_grad_())
    with pytest.raises(RuntimeError, match=r"use func\.grad within"):
        w = t(W).requires_grad_()
        func.vmap(lambda x: torch.autograd.grad((x @ w).sum(), w)[0])(t(X))


def _leaves_of(sample):
    """The arrays of a sample, and a function that puts others in their places."""
    leaves = []

    def note(array):
        leaves.append(array)
        return _Place(len(leaves) - 1)

    args, kwargs = sample.tensors(note)

    def fill(value, tensors):
        if isinstance(value, _Place):
            return tensors[value.index]
        return type(value)(fill(v, tensors) for v in value) if type(value) in (list, tuple) else value

    return leaves, lambda tensors: (fill(args, tensors), {k: fill(v, tensors) for k, v in kwargs.items()})


class _Place:
    def __init__(self, index):
        self.index = index


@pytest.mark.parametrize("op", params(where=lambda op: op.differentiable))
def test_vmap_is_a_loop(op):
    """Two examples at once give what each gives alone: with all floating inputs batched, and with only the first."""
    for sample in op.samples:
        leaves, filled = _leaves_of(sample)
        floating = [i for i, a in enumerate(leaves) if a.dtype == np.float64]
        pairs = [np.stack([leaves[i], leaves[i] * 0.97]) for i in floating]

        def call(*xs, leaves=leaves, filled=filled, floating=floating):
            tensors = [t(a) for a in leaves]
            for i, x in zip(floating, xs, strict=True):
                tensors[i] = x
            args, kwargs = filled(tensors)
            return tuple(outputs(op(torch, *args, **kwargs)))

        for dims in {(0,) * len(pairs), (0,) + (None,) * (len(pairs) - 1)} if pairs else ():
            alone = [call(*(t(p[k] if d == 0 else p[0]) for p, d in zip(pairs, dims, strict=True))) for k in (0, 1)]
            given = [t(p if d == 0 else p[0]) for p, d in zip(pairs, dims, strict=True)]
            together = func.vmap(call, dims, randomness="same")(*given)
            for found, *expected in zip(together, *alone, strict=True):
                for k in (0, 1):
                    assert found[k].dtype == expected[k].dtype
                    np.testing.assert_allclose(found[k].numpy(), expected[k].numpy(), rtol=1e-6, atol=1e-9)


# -- modules -----------------------------------------------------------------------------------------------------------


def test_functional_call():
    net = torch.nn.Linear(4, 3, dtype=torch.float64)
    before = net.weight
    near(func.functional_call(net, {"weight": t(W.T)}, t(X)), X @ W + net.bias.detach().numpy())
    assert net.weight is before
    found = func.grad(lambda p: func.functional_call(net, p, (t(X),)).sum())(dict(net.named_parameters()))
    near(found["weight"], np.broadcast_to(X.sum(0), (3, 4)))
    with pytest.raises(AttributeError, match="no parameter or buffer 'wieght'"):
        func.functional_call(net, {"wieght": t(W.T)}, t(X))
    with pytest.raises(RuntimeError, match=r"missing keys \['bias'\]"):
        func.functional_call(net, {"weight": t(W.T)}, t(X), strict=True)


def test_functional_call_of_shared_weights():
    net = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    doubled = {"0.weight": torch.eye(3) * 2}
    near(func.functional_call(net, doubled, torch.ones(3)), np.full(3, 4.0))


def test_ensemble():
    nets = [torch.nn.Linear(4, 2, dtype=torch.float64) for _ in range(3)]
    parameters, buffers = func.stack_module_state(nets)
    found = func.vmap(lambda p, x: func.functional_call(nets[0], p, x), (0, None))({**parameters, **buffers}, t(X))
    near(found, np.stack([net(t(X)).detach().numpy() for net in nets]))
    assert parameters["weight"].requires_grad and parameters["weight"].is_leaf
