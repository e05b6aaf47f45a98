"""Sums, and reading and writing at indices, by compiled kernels: of shapes that meet every case of theirs."""

import itertools

import numpy as np
import pytest

import paceline as torch
from paceline.tensor import kernels
from paceline.tensor.ops import summing

pytestmark = pytest.mark.skipif(not kernels.usable(), reason="needs Numba")

SHAPES = [
    (1,), (2049,), (70000,), (5, 7), (2000, 3), (3, 2000), (1, 600, 1), (300, 5, 7), (1500, 2), (1025, 2, 3),
    (100, 1024), (4, 33, 31, 2), (200, 3, 40),
]  # fmt: skip
POWERS = {summing.VALUE: np.copy, summing.SIZE: np.abs, summing.SQUARE: np.square}


@pytest.fixture(params=[0, 1 << 13], ids=["kernels alone", "NumPy adds the pieces"])
def any_size(request, monkeypatch):
    monkeypatch.setattr(summing, "_SMALL", request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_along_all_dims(shape, dtype, any_size):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for count, (power, terms_of) in itertools.product(range(1, len(shape) + 1), POWERS.items()):
        for dims in itertools.combinations(range(len(shape)), count):
            terms = terms_of(x.astype(np.longdouble))
            found = summing.sum_along(x, dims, count % 2 == 1, power)
            expected = terms.sum(dims, keepdims=count % 2 == 1)
            bound = abs(terms).sum(dims, keepdims=count % 2 == 1) * np.finfo(dtype).eps * 10
            assert found.dtype == dtype and found.shape == expected.shape
            assert (abs(found - expected) <= bound).all(), (dims, power)


def test_long_sums_are_as_accurate_as_in_pairs(any_size):
    x = np.full((1 << 17, 2), 0.1, np.float32)
    for view, dim in ((x, 0), (x.reshape(-1), 0), (x.reshape(2, -1), 1)):
        found = summing.sum_along(view, (dim,), False)
        expected = view.sum(dim, dtype=np.float64)
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # one by one: 5e-3


def test_nan_and_infinity_stay(any_size):
    x = np.ones((300, 700), np.float32)
    x[3, 5], x[200, 600] = np.nan, -np.inf
    for dim in (0, 1):
        np.testing.assert_array_equal(summing.sum_along(x, (dim,), False), x.sum(dim))
    assert np.isnan(summing.sum_along(x, (0, 1), False))


@pytest.mark.parametrize("call", [
    lambda x: x.sum(0), lambda x: x.sum((0, 2), keepdim=True), lambda x: x.mean(1), lambda x: x.sum(),
    lambda x: torch.linalg.vector_norm(x, 2, 1), lambda x: torch.linalg.vector_norm(x, 1),
    lambda x: x.sum_to_size(1, 4),
])  # fmt: skip
def test_large_inputs_give_what_small_ones_give(call, monkeypatch):
    x = torch.randn(50, 90, 4, dtype=torch.float64)
    expected = call(x)
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    np.testing.assert_allclose(call(x).numpy(), expected.numpy(), rtol=1e-12)
    assert call(x).shape == expected.shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("special", [False, True])
def test_extremes_along_all_dims(shape, special, any_size):
    x = np.random.default_rng(3).integers(-50, 50, shape).astype(np.float32)  # with equal elements
    if special:
        x[np.random.default_rng(4).random(shape) < 0.02] = np.nan
        x[np.random.default_rng(5).random(shape) < 0.02] = np.inf
    for count, smallest in itertools.product(range(1, len(shape) + 1), (False, True)):
        for dims in itertools.combinations(range(len(shape)), count):
            found = summing.extreme_along(x, dims, count % 2 == 1, smallest)
            if found is not NotImplemented:
                np.testing.assert_array_equal(found, (np.min if smallest else np.max)(x, dims, keepdims=count % 2 == 1))
    for dim, smallest in itertools.product(range(len(shape)), (False, True)):
        found = summing.extreme_places(x, dim, smallest)
        if found is not NotImplemented:
            np.testing.assert_array_equal(found, (np.argmin if smallest else np.argmax)(x, dim))


def place_sample(shape, dim, count, repeated):
    """An array, places along dim for `count` elements and what goes there; perhaps the same places for all columns."""
    rng = np.random.default_rng(1)
    part = (*shape[:dim], count, *shape[dim + 1 :])
    x = torch.tensor(rng.standard_normal(shape)).requires_grad_()
    source = torch.tensor(rng.standard_normal(part)).requires_grad_()
    vector = torch.tensor(rng.integers(0, shape[dim], count))
    column = vector.reshape([-1 if i == dim else 1 for i in range(len(shape))])
    index = column.expand(*part) if repeated else torch.tensor(rng.integers(0, shape[dim], part))
    return x, index, source, vector


PLACINGS = {
    "gather": lambda x, dim, index, source, vector: x.gather(dim, index),
    "scatter": lambda x, dim, index, source, vector: x.scatter(dim, index.sort(dim)[0], source),
    "scatter_add": lambda x, dim, index, source, vector: x.scatter_add(dim, index, source),
    "index_add": lambda x, dim, index, source, vector: x.index_add(dim, vector, source),
    "index_select": lambda x, dim, index, source, vector: x.index_select(dim, vector),
    "take_along_dim": lambda x, dim, index, source, vector: x.take_along_dim(index - x.shape[dim], dim),
    "cumsum": lambda x, dim, index, source, vector: x.cumsum(dim),
    "cumprod": lambda x, dim, index, source, vector: x.cumprod(dim),
    "prod": lambda x, dim, index, source, vector: x.prod(dim),
    "flip": lambda x, dim, index, source, vector: x.flip(dim),
    "flip all": lambda x, dim, index, source, vector: x.flip(tuple(range(x.ndim))),
    "flip around the middle": lambda x, dim, index, source, vector: x.flip(0, x.ndim - 1) if x.ndim > 2 else x.flip(0),
    "logsumexp": lambda x, dim, index, source, vector: x.logsumexp(dim),
    "logsumexp of all": lambda x, dim, index, source, vector: x.logsumexp(tuple(range(x.ndim)), keepdim=True),
    "logsumexp around the middle": lambda x, dim, index, source, vector: x.logsumexp((0, -1) if x.ndim > 2 else 0),
    "tril": lambda x, dim, index, source, vector: torch.atleast_2d(x).tril(dim - 1),
    "triu": lambda x, dim, index, source, vector: torch.atleast_2d(x).triu(dim - 1),
    "prod of all": lambda x, dim, index, source, vector: x.prod(),
}


@pytest.mark.parametrize("name", PLACINGS)
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("shape", "dim"), [((7,), 0), ((5, 130), 0), ((5, 130), 1), ((3, 4, 70), 1), ((3, 4, 70), 2)])
def test_placing_as_the_portable_bodies(name, repeated, shape, dim, monkeypatch):
    results = []
    for least in (kernels.LEAST_SIZE, 0):
        monkeypatch.setattr(kernels, "LEAST_SIZE", least)
        x, index, source, vector = place_sample(shape, dim, 9, repeated)
        out = PLACINGS[name](x, dim, index, source, vector)
        grads = torch.autograd.grad((out * out).sum(), (x, source), allow_unused=True)
        results.append([out.detach().numpy(), *(None if g is None else g.numpy() for g in grads)])
    for portable, compiled in zip(*results, strict=True):
        if portable is not None:
            np.testing.assert_allclose(compiled, portable, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding_idx", [None, 3])
def test_embedding_gradients(padding_idx, monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    rng = np.random.default_rng(2)
    weight = torch.tensor(rng.standard_normal((11, 100))).requires_grad_()
    indices = torch.tensor(rng.integers(0, 11, (6, 7)))
    g = rng.standard_normal((6, 7, 100))
    torch.nn.functional.embedding(indices, weight, padding_idx).backward(torch.tensor(g))
    expected = np.zeros((11, 100))
    np.add.at(expected, indices.numpy(), g)
    if padding_idx is not None:
        expected[padding_idx] = 0
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("least", [0, 1 << 40], ids=["kernel", "portable"])
@pytest.mark.parametrize("width", [3, 40, 300])
def test_embedding_gradients_in_an_arena_begin_anew_each_step(least, width, monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", least)
    table = torch.nn.Embedding(13, width, padding_idx=2)
    optimizer = torch.optim.SGD(table.parameters(), lr=0)
    for seed in range(3):
        indices = np.random.default_rng(seed).integers(0, 13, 5)  # some rows get nothing, others in each step
        optimizer.zero_grad()
        table(torch.tensor(indices)).sum().backward()
        optimizer.step()
        expected = np.bincount(indices, minlength=13)
        expected[2] = 0
        np.testing.assert_array_equal(table.weight.grad.numpy(), np.repeat(expected[:, None], width, 1))


REFUSING = {
    "gather": lambda x, dim, index: x.gather(dim, index),
    "scatter_add": lambda x, dim, index: x.scatter_add(dim, index, x),
    "scatter": lambda x, dim, index: x.scatter(dim, index, x),
    "scatter a number": lambda x, dim, index: x.scatter(dim, index, 2.0),
    "scatter_reduce": lambda x, dim, index: x.scatter_reduce(dim, index, x, "prod"),
    "take_along_dim": lambda x, dim, index: x.take_along_dim(torch.where(index < 0, -4, index), dim),
    "index_select": lambda x, dim, index: x.index_select(dim, index.transpose(dim, 0)[:, 0, 0]),
}


@pytest.mark.parametrize("name", REFUSING)
@pytest.mark.parametrize("bad", [-1, 3])
@pytest.mark.parametrize("dim", range(3))
def test_places_out_of_range_are_refused(name, bad, dim, monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    repeated = torch.tensor([0, bad, 1]).reshape([-1 if i == dim else 1 for i in range(3)]).expand(3, 3, 3)
    for index in (repeated.clone(), repeated):
        with pytest.raises((RuntimeError, IndexError), match=f"out of bounds for dimension {dim}"):
            REFUSING[name](torch.ones(3, 3, 3), dim, index)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_topk_of_equal_elements_and_nan_is_what_sort_gives(largest, dtype):
    x = torch.from_numpy(np.random.default_rng(6).integers(-9, 9, (90, 130, 3))).to(dtype)
    x[::5, ::7], x[1::5, ::9], x[2::5, ::4] = np.nan, np.inf, -np.inf
    for dim, k in ((1, 7), (0, 32), (2, 1)):
        found, (values, indices) = x.topk(k, dim, largest), x.sort(dim, largest)
        np.testing.assert_array_equal(found.values.numpy(), values.narrow(dim, 0, k).numpy())
        np.testing.assert_array_equal(found.indices.numpy(), indices.narrow(dim, 0, k).numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("change", ["none", "zeros", "overflow", "underflow"])
def test_gradients_of_products_are_products_of_all_others(change, dim, dtype, monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    x = np.random.default_rng(7).uniform(0.9, 1.1, (5, 1500) if dim else (1500, 5)).astype(dtype)
    rows, limits = np.moveaxis(x, dim, 1), np.finfo(dtype)
    if change == "zeros":
        rows[0, 3], rows[1, [4, 900]] = 0, 0
    elif change != "none":  # the product is out of range, that without the first element is not
        rows[:, 0] = limits.max if change == "overflow" else limits.tiny
        rows[:, 1:] **= 0.001
        rows[:, 1] = 2 if change == "overflow" else 1e-3
    leaf = torch.from_numpy(x).requires_grad_()
    expected = [[np.prod(np.delete(row, i)) for i in range(1500)] for row in rows.astype(np.longdouble)]
    with np.errstate(over="ignore"):
        leaf.prod(dim).backward(torch.ones(5, dtype=leaf.dtype))
        found = np.moveaxis(leaf.grad.numpy(), dim, 1)
        np.testing.assert_allclose(found, np.array(expected).astype(dtype), 3e3 * limits.eps, limits.tiny)


def test_long_running_totals_lose_no_digits(monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    x = np.full((100_000, 2), 0.1, np.float32)
    for view, dim in ((x, 0), (x[:, 0].copy(), 0), (x.reshape(2, -1), 1)):
        found = torch.from_numpy(view).cumsum(dim).numpy()
        np.testing.assert_allclose(found, view.cumsum(dim, dtype=np.float64), rtol=1e-7)  # in float32: 1e-3


@pytest.mark.parametrize("name", ["scatter_add", "index_add"])
def test_sums_at_places_have_the_same_bits_on_any_number_of_threads(name, monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    threads, found = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        x, index, source, vector = place_sample((5, 201), 0, 999, False)
        found.append(PLACINGS[name](x.float(), 0, index, source.float(), vector).detach().numpy())
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logsumexp_of_infinities_nan_and_long_rows(dtype, monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 0)
    x = np.random.default_rng(8).standard_normal((7, 9000)).astype(dtype)
    x[1, 5000], x[2], x[3, 8], x[4, 3], x[4, 4], x[5, ::2], x[6] = np.inf, -np.inf, np.nan, np.inf, np.nan, -np.inf, 900
    with np.errstate(invalid="ignore"):
        expected = np.logaddexp.reduce(x.astype(np.float64), 1)
    for view, dim in ((x, 1), (x.T.copy(), 0)):
        np.testing.assert_allclose(torch.from_numpy(view).logsumexp(dim).numpy(), expected, rtol=1e-6)
