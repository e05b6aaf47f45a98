"""`out=` of primitives, of functions made of them and of samplers; names of in-place twins."""

import numpy as np
import pytest

import paceline as torch

X = torch.tensor([[1.0, -2.0], [3.0, 0.5]])

CALLS = {
    "unary": lambda out: torch.exp(X, out=out),
    "binary": lambda out: torch.mul(X, 2, out=out),
    "several": lambda out: torch.where(X > 0, X, -X, out=out),
    "reduction": lambda out: torch.sum(X, 1, out=out),
    "list": lambda out: torch.cat([X, X], out=out),
    "composed": lambda out: torch.lerp(X, X * 3, 0.5, out=out),
    "with alpha": lambda out: torch.add(X, X, alpha=3, out=out),
    "product": lambda out: torch.matmul(X, X, out=out),
    "linalg": lambda out: torch.linalg.inv(X, out=out),
    "creation": lambda out: torch.full((2, 2), 7.0, out=out),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_result_is_written_into_out(name):
    expected = CALLS[name](None)
    for out in (torch.empty_like(expected), torch.empty(0), torch.empty(0, dtype=torch.float64)):
        version = out._version
        assert CALLS[name](out) is out and out._version == version + 1
        assert out.shape == expected.shape
        np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-6)


NUMPY_NAMES = {
    "sum": lambda: torch.sum(X, axis=1, keepdims=True),
    "max": lambda: X.max(axis=1, keepdims=True).values,
    "std": lambda: torch.std(X, axis=1, keepdims=True),
    "sort": lambda: X.sort(axis=0).values,
}
NUMPY = {
    "sum": lambda x: x.sum(axis=1, keepdims=True),
    "max": lambda x: x.max(axis=1, keepdims=True),
    "std": lambda x: x.std(axis=1, keepdims=True, ddof=1),
    "sort": lambda x: np.sort(x, axis=0),
}


@pytest.mark.parametrize("name", NUMPY_NAMES)
def test_arguments_may_have_the_names_that_numpy_gives_them(name):
    np.testing.assert_allclose(NUMPY_NAMES[name]().numpy(), NUMPY[name](X.numpy()), rtol=1e-6)


def test_several_outputs():
    out = torch.empty(0), torch.empty(0, dtype=torch.int64)
    result = torch.max(X, 1, out=out)
    assert result.values is out[0] and result.indices is out[1]
    assert out[0].tolist() == [1.0, 3.0] and out[1].tolist() == [0, 0]
    out = torch.empty(2, 1), torch.empty(2, 1, dtype=torch.int64)
    torch.topk(X, 1, out=out)
    assert out[0].tolist() == [[1.0], [3.0]]


def test_a_view_as_out_writes_through():
    whole = torch.zeros(3, 2)
    torch.add(X[0], 1, out=whole[1])
    assert whole.tolist() == [[0, 0], [2, -1], [0, 0]]


def test_out_may_be_an_input():
    x = X.clone()
    torch.exp(x, out=x)
    torch.matmul(x, x, out=x)
    np.testing.assert_allclose(x.numpy(), np.exp(X.numpy()) @ np.exp(X.numpy()), rtol=1e-6)


LEAF = torch.ones(2, 2, requires_grad=True)

REFUSED = [
    (lambda: torch.mul(X, LEAF, out=torch.empty(2, 2)), RuntimeError, "automatic differentiation"),
    (lambda: torch.lerp(X, LEAF, 0.5, out=torch.empty(2, 2)), RuntimeError, "automatic differentiation"),
    (lambda: torch.mul(X, X, out=LEAF), RuntimeError, "automatic differentiation"),
    (lambda: torch.mul(X, X, out=torch.empty(2, 2, dtype=torch.int64)), RuntimeError, "float32 can't be cast.*int64"),
    (
        lambda: torch.mul(X, X, out=torch.empty(3)),
        RuntimeError,
        r"out has shape \[3\], but the result has shape \[2, 2\]",
    ),
    (lambda: torch.exp(X, out=3), TypeError, r"exp\(\): argument 'out' must be Tensor, not int"),
    (lambda: torch.max(X, 1, out=torch.empty(2)), TypeError, "tuple of 2 tensors"),
]


@pytest.mark.parametrize(("call", "kind", "text"), REFUSED)
def test_messages(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_out_is_free_under_no_grad():
    with torch.no_grad():
        out = torch.mul(X, LEAF, out=torch.empty(2, 2))
    assert not out.requires_grad and out.tolist() == X.tolist()


def test_comparisons_of_leaves_may_be_written():
    assert torch.gt(LEAF, 0, out=torch.empty(2, 2, dtype=torch.bool)).all()


# -- tensors that become their own views ------------------------------------------------------------------------------


def test_reshaping_in_place_keeps_gradients():
    w = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = w * 2
    assert y.unsqueeze_(0) is y and y.shape == (1, 3)
    y.mul_(y)
    y.squeeze_().sum().backward()
    assert w.grad.tolist() == [8.0, 16.0, 24.0]


def test_reshaping_a_view_in_place_still_writes_through():
    whole, w = torch.zeros(2, 3), torch.ones(3, requires_grad=True)
    row = whole[0].unsqueeze_(0)
    row += w
    (whole * torch.arange(6.0).reshape(2, 3)).sum().backward()
    assert whole[0].tolist() == [1, 1, 1] and w.grad.tolist() == [0, 1, 2]


def test_older_views_of_a_reshaped_tensor_are_refused():
    x, w = torch.zeros(2, 3), torch.ones(3, 2, requires_grad=True)
    row = x[0]
    x.t_().add_(w)
    with pytest.raises(RuntimeError, match="another shape in place"):
        row.sum().backward()


def test_in_place_twin_of_a_composed_function_keeps_what_it_saved():
    x = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    y = x * 1
    (y.mvlgamma_(2)).sum().backward()
    (expected,) = torch.autograd.grad(torch.mvlgamma(x, 2).sum(), x)
    assert x.grad.tolist() == expected.tolist()
