"""func and autograd.functional against PyTorch's, nested in each other."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import paceline  # noqa: E402

RNG = np.random.default_rng(0)
A, B, V = RNG.standard_normal((3, 4)), RNG.standard_normal(4), RNG.standard_normal(4)
W, X = RNG.standard_normal((4, 2)), RNG.standard_normal((5, 4))


def wave(x):
    return (x.sin() * x).sum()


def loss(w, x):
    return ((x @ w).tanh() ** 2).sum()


def product(a, b):
    return (a @ b).exp(), a.sum()


# each takes a library, then tensors of it
CASES = {
    "gradient of a gradient": (lambda t, x: t.func.grad(lambda x: t.func.grad(wave)(x).pow(2).sum())(x), B),
    "hessian": (lambda t, x: t.func.hessian(wave)(x), B),
    "jacrev": (lambda t, a, b: t.func.jacrev(product, (0, 1))(a, b), A, B),
    "jacfwd": (lambda t, a, b: t.func.jacfwd(product, (0, 1))(a, b), A, B),
    "jvp": (lambda t, x, v: t.func.jvp(lambda x: (x * x).sin(), (x,), (v,)), B, V),
    "vjp": (lambda t, x, v: t.func.vjp(lambda x: (x * x).sin(), x)[1](v), B, V),
    "vmap": (lambda t, x, w: t.func.vmap(lambda x, w: (x @ w).softmax(-1), (0, None))(x, w), X, W),
    "dims": (lambda t, x: t.func.vmap(lambda x: (x.sum(), x.reshape(2, 2)), 1, (0, 2))(x), X.T.copy()),
    "per-example gradients": (lambda t, w, x: t.func.vmap(t.func.grad(loss), (None, 0))(w, x), W, X),
    "gradient of a vmap": (lambda t, w, x: t.func.grad(lambda w: t.func.vmap(loss, (None, 0))(w, x).sum())(w), W, X),
    "per-example hessians": (lambda t, x: t.func.vmap(t.func.hessian(wave))(x), X),
    "per-example Jacobians": (lambda t, x: t.func.vmap(t.func.jacrev(lambda x: x.cumsum(0) * x))(x), X),
    "four deep": (
        lambda t, x, a: t.func.vmap(
            t.func.grad(
                lambda x: t.func.vmap(t.func.grad(lambda y: (y**3).sum() * x.sum()))(a).pow(2).sum()
            )
        )(x), X, A),
    "functional.jacobian": (lambda t, a, b: t.autograd.functional.jacobian(product, (a, b)), A, B),
    "functional.hessian": (
        lambda t, a, b: t.autograd.functional.hessian(lambda a, b: (a @ b).pow(3).sum(), (a, b)), A, B),
    "functional.hvp": (lambda t, x, v: t.autograd.functional.hvp(wave, x, v), B, V),
    "functional.vhp": (lambda t, x, v: t.autograd.functional.vhp(wave, x, v), B, V),
    "functional.jvp": (lambda t, x, v: t.autograd.functional.jvp(sin_times, x, v), B, V),
    "functional.vjp": (lambda t, x, v: t.autograd.functional.vjp(sin_times, x, v), B, V),
}  # fmt: skip


def sin_times(x):
    return x.sin() * x


def flat(value):
    return [y for x in value for y in flat(x)] if isinstance(value, tuple | list) else [value]


@pytest.mark.parametrize("name", CASES)
def test_same_as_pytorch(name):
    call, *arrays = CASES[name]
    ours = flat(call(paceline, *map(paceline.tensor, arrays)))
    theirs = flat(call(torch, *map(torch.tensor, arrays)))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-12)
        assert a.requires_grad == b.requires_grad
