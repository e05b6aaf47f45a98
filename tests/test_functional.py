"""autograd.functional: against closed forms."""

import numpy as np
import pytest

import paceline as torch
from paceline.autograd import functional

RNG = np.random.default_rng(0)
A = RNG.standard_normal((3, 4))
X = RNG.standard_normal(4)
V = RNG.standard_normal(4)
W = RNG.standard_normal(3)


def t(array):
    return torch.tensor(array)


def tanh_of_product(x):
    """Its Jacobian is diag(1 - tanh^2) A."""
    return (t(A) @ x).tanh()


JACOBIAN = (1 - np.tanh(A @ X) ** 2)[:, None] * A


def cubes(x):
    """Its Hessian is diag(6 x)."""
    return (x**3).sum()


def near(found, expected):
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_vjp():
    outputs, product = functional.vjp(tanh_of_product, t(X), t(W))
    near(outputs, np.tanh(A @ X))
    near(product, W @ JACOBIAN)


def test_jvp():
    outputs, product = functional.jvp(tanh_of_product, t(X), t(V))
    near(outputs, np.tanh(A @ X))
    near(product, JACOBIAN @ V)


@pytest.mark.parametrize("options", [{}, {"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}])
def test_jacobian(options):
    near(functional.jacobian(tanh_of_product, t(X), **options), JACOBIAN)


@pytest.mark.parametrize("options", [{}, {"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}])
def test_jacobian_of_several(options):
    def func(a, x):
        return a @ x, a.sum()

    (by_a, by_x), (sum_by_a, sum_by_x) = functional.jacobian(func, (t(A), t(X)), **options)
    near(by_a, np.einsum("ij,k->ijk", np.eye(3), X))
    near(by_x, A)
    near(sum_by_a, np.ones((3, 4)))
    near(sum_by_x, np.zeros(4))


@pytest.mark.parametrize("vectorize", [False, True])
def test_hessian(vectorize):
    near(functional.hessian(cubes, t(X), vectorize=vectorize), np.diag(6 * X))


def test_hessian_of_several():
    (aa, ax), (xa, xx) = functional.hessian(lambda a, x: (a @ x).sum(), (t(A), t(X)))
    near(aa, np.zeros((3, 4, 3, 4)))
    near(ax, np.broadcast_to(np.eye(4), (3, 4, 4)))
    near(xa, np.moveaxis(np.broadcast_to(np.eye(4), (3, 4, 4)), 2, 0))
    near(xx, np.zeros((4, 4)))


@pytest.mark.parametrize("product", [functional.hvp, functional.vhp])
def test_products_with_the_hessian(product):
    output, found = product(cubes, t(X), t(V))
    near(output, (X**3).sum())
    near(found, 6 * X * V)


@pytest.mark.parametrize("name", ["jacobian", "hessian"])
def test_create_graph_lets_gradients_through(name):
    x = t(X).requires_grad_()
    getattr(functional, name)(cubes, x, create_graph=True).sum().backward()
    near(x.grad, 6 * X if name == "jacobian" else np.full(4, 6.0))
    assert not getattr(functional, name)(cubes, x).requires_grad


def test_strict():
    assert (functional.jacobian(lambda x: torch.ones(2), t(X)) == 0).all()
    with pytest.raises(RuntimeError, match="Output 0 of the user-provided function does not require gradients"):
        functional.jacobian(lambda x: torch.ones(2), t(X), strict=True)
    with pytest.raises(RuntimeError, match="independent of input 1"):
        functional.vjp(lambda x, y: x.sum(), (t(X), t(V)), strict=True)


def test_messages():
    with pytest.raises(RuntimeError, match="v can only be None if the output"):
        functional.vjp(tanh_of_product, t(X))
    with pytest.raises(RuntimeError, match="v has the shapes"):
        functional.vjp(tanh_of_product, t(X), t(V))
    with pytest.raises(RuntimeError, match="hessian should contain a single element"):
        functional.hessian(tanh_of_product, t(X))
    with pytest.raises(TypeError, match="inputs must be a Tensor or a tuple"):
        functional.jacobian(tanh_of_product, X)
    with pytest.raises(NotImplementedError, match="vectorize=True"):
        functional.jacobian(tanh_of_product, t(X), strategy="forward-mode")
