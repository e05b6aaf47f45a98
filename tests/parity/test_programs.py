"""Small programs on Paceline and on PyTorch: the corners where libraries differ."""

import warnings

import numpy as np
import pytest

import paceline

torch = pytest.importorskip("torch")


def leaf(t, *values):
    return t.tensor(values, dtype=t.float64, requires_grad=True)


def gradient(t, x, function):
    function(x).backward()
    return x.grad


def after(t, x, change):
    change(x)
    return x


def cube(t):
    return t.arange(24.0).reshape(2, 3, 4)


PROGRAMS = {
    # ties and corners of derivatives
    "amax shares ties": lambda t: gradient(t, leaf(t, 1, 3, 3), lambda x: x.amax()),
    "max() of ties": lambda t: gradient(t, leaf(t, 1, 3, 3), lambda x: x.max()),
    "max(dim) of ties": lambda t: [
        t.tensor([1.0, 3, 3]).max(0)[1],
        gradient(t, leaf(t, 1, 3, 3), lambda x: x.max(0)[0]),
    ],
    "min(dim) of ties": lambda t: [
        t.tensor([3.0, 1, 1]).min(0)[1],
        gradient(t, leaf(t, 3, 1, 1), lambda x: x.min(0)[0]),
    ],
    "maximum of ties": lambda t: gradient(t, leaf(t, 1, 2), lambda x: t.maximum(x, t.tensor([1.0, 3.0])).sum()),
    "argmax of ties": lambda t: [t.tensor([3, 3, 1]).argmax(), t.tensor([1.0, 0, 0]).argmin()],
    "clamp at its limits": lambda t: gradient(t, leaf(t, 0, 1, 2), lambda x: x.clamp(0, 1).sum()),
    "clamp crossed": lambda t: t.tensor([0.0, 5.0]).clamp(3, 1),
    "clamp by tensors at the limit": lambda t: gradient(
        t, leaf(t, 0, 1, 2), lambda x: x.clamp(max=t.tensor([0.0, 1, 1])).sum()
    ),
    "relu at 0": lambda t: gradient(t, leaf(t, -1, 0, 2), lambda x: x.relu().sum()),
    "abs at 0": lambda t: gradient(t, leaf(t, -1, 0, 2), lambda x: x.abs().sum()),
    "sqrt at 0": lambda t: gradient(t, leaf(t, 0, 4), lambda x: x.sqrt().sum()),
    "norm at 0": lambda t: gradient(t, leaf(t, 0, 0), lambda x: x.norm()),
    "1-norm at 0": lambda t: gradient(t, leaf(t, 0, 2), lambda x: x.norm(1)),
    "3-norm at 0": lambda t: gradient(t, leaf(t, 0, 2), lambda x: x.norm(3)),
    "inf-norm": lambda t: gradient(t, leaf(t, 2, -2, 1), lambda x: x.norm(float("inf"))),
    "prod with zeros": lambda t: [
        gradient(t, leaf(t, *v), lambda x: x.prod()) for v in ((2, 0, 3), (0, 0, 3), (1, 2, 3))
    ],
    "pow of 0": lambda t: [gradient(t, leaf(t, 0, 2), lambda x, n=n: (x**n).sum()) for n in (0, 1, 2, 3, 0.5)],
    "pow of negatives": lambda t: [t.tensor([-2.0, -0.5]) ** n for n in (2, 3, -1, 0.5)],
    "pow by a tensor at 0": lambda t: gradient(t, leaf(t, 0, 2, 3), lambda n: (t.tensor([0.0, 0, 2]) ** n).sum()),
    "number to a power": lambda t: [gradient(t, leaf(t, 0, 2, -1), lambda n, b=b: (b**n).sum()) for b in (2, 1, 0.5)],
    "integer powers": lambda t: [t.tensor([2, -3]) ** 3, t.tensor([2, 3]) ** t.tensor([0, 2]), 2 ** t.tensor([3, 4])],
    "where keeps nan out of values": lambda t: t.where(
        t.tensor([True, False]), t.tensor([1.0, float("nan")]), t.zeros(2)
    ),
    "nan in extremes": lambda t: [
        getattr(t.tensor([1.0, float("nan"), 2.0]), n)() for n in ("max", "min", "amax", "sum", "argmax")
    ],
    "logsumexp of -inf": lambda t: t.logsumexp(t.tensor([[-float("inf")] * 2, [0.0, -float("inf")]]), 1),
    "softmax of large numbers": lambda t: t.softmax(t.tensor([1000.0, 1001.0, -1000.0]), 0),
    "softmax of a 0-d tensor": lambda t: t.softmax(t.tensor(3.0), 0),
    "sigmoid of large numbers": lambda t: t.sigmoid(t.tensor([-1000.0, 1000.0, 0.0])),
    "division by 0": lambda t: [
        t.tensor([1.0, -1.0, 0.0]) / 0,
        t.tensor([1.0, -1.0]) // 0.0,
        t.tensor([5.5, -5.5]) % 2,
    ],
    "signs of remainders": lambda t: [
        f(t.tensor([-7, 7, -7, 7]), t.tensor([2, -2, -2, 2])) for f in (t.remainder, t.fmod, t.floor_divide)
    ],
    "rounding to even": lambda t: t.tensor([0.5, 1.5, 2.5, -0.5, -1.5]).round(),
    # variance
    "var of one element": lambda t: [t.tensor([3.0]).var(unbiased=False), t.tensor([3.0]).var(), t.tensor([3.0]).std()],
    "var corrections": lambda t: (
        [t.arange(4.0).var(correction=c) for c in (0, 1, 2, 3)] + [t.arange(4.0).std(0, correction=2)]
    ),
    "var over dims": lambda t: [
        cube(t).var(1),
        cube(t).var((0, 2)),
        cube(t).std(-1, keepdim=True),
        cube(t).var(1, False),
    ],
    "var of nothing": lambda t: t.zeros(0).var(),
    "mean of nothing": lambda t: [t.zeros(0).mean(), t.zeros(2, 0).mean(1), t.zeros(0).sum(), t.zeros(0).prod()],
    # integers and bools
    "sums of bools and bytes": lambda t: [
        t.tensor([True, True]).sum(),
        t.tensor([200, 100], dtype=t.uint8).sum(),
        t.tensor([200, 100], dtype=t.uint8).cumsum(0),
        t.tensor([True, False]).prod(),
    ],
    "sum with a dtype": lambda t: [t.ones(3, dtype=t.int64).sum(dtype=t.float32), t.ones(3).sum(0, dtype=t.float64)],
    "byte arithmetic": lambda t: [
        t.tensor([250], dtype=t.uint8) + 10,
        t.tensor([3], dtype=t.uint8) - 5,
        -t.tensor([1], dtype=t.uint8),
    ],
    "bool arithmetic": lambda t: [
        t.tensor([True]) + t.tensor([True]),
        t.tensor([True]) * 3,
        t.tensor([True]) & True,
        ~t.tensor([True]),
    ],
    "integer comparison": lambda t: [
        t.tensor([1, 2]) == 1.5,
        t.tensor([1, 2]) < t.tensor([1.5, 1.5]),
        t.tensor([True]) == 1,
    ],
    "integers with integers": lambda t: [
        t.tensor([1], dtype=a) + t.tensor([1], dtype=b) for a in (t.int8, t.uint8) for b in (t.int16, t.int8)
    ],
    # shapes
    "T of a matrix": lambda t: [t.arange(6).reshape(2, 3).T, cube(t).mT],
    "squeeze": lambda t: [t.zeros(1, 2, 1).squeeze(d) for d in (0, 1, 2, -1, (0, 2), (0, 1))],
    "expand": lambda t: [
        t.arange(3).expand(2, -1),
        t.tensor(1).expand(2, 2),
        t.zeros(1, 3).expand(-1, 3),
        t.zeros(1, 0).expand(2, 0),
    ],
    "reshape of nothing": lambda t: [t.zeros(0, 3).reshape(3, 0), t.zeros(0).reshape(0, 5), t.zeros(2, 0).flatten()],
    "cat with an empty vector": lambda t: [t.cat([t.zeros(0), t.ones(2, 2)]), t.cat([t.zeros(0, 2), t.ones(1, 2)])],
    "cat of dtypes": lambda t: t.cat([t.ones(1, dtype=t.int64), t.ones(1, dtype=t.float32), t.tensor([True])]),
    "split and chunk": lambda t: [
        *t.arange(7).split(3),
        *t.arange(7).chunk(4),
        *t.arange(4).chunk(3),
        *t.arange(5).split([1, 0, 4]),
        *t.zeros(0).chunk(2),
    ],
    "strides": lambda t: [
        t.zeros(2, 3).stride(),
        t.zeros(2, 3).t().stride(),
        t.zeros(2, 3)[:, 1].stride(),
        t.zeros(3).expand(2, 3).stride(),
        t.zeros(2, 3).t().is_contiguous(),
        t.zeros(2, 3).t().contiguous().stride(),
    ],
    "reductions of 0-d tensors": lambda t: [
        t.tensor(3.0).sum(0),
        t.tensor(3.0).max(0)[1],
        t.tensor(3.0).argmax(),
        t.tensor(3.0).cumsum(0),
        t.tensor(3.0).softmax(-1),
        t.tensor(3.0).sort()[1],
    ],
    "keepdim": lambda t: [
        cube(t).sum((0, 2), keepdim=True),
        cube(t).amax(1, keepdim=True),
        cube(t).argmax(2, keepdim=True),
        cube(t).argmax(keepdim=True),
    ],
    "roll and flip": lambda t: [
        t.arange(6).view(2, 3).roll(1),
        t.arange(6).view(2, 3).roll((1, -1), (0, 1)),
        t.arange(6).view(2, 3).flip(0, 1),
    ],
    "size arithmetic": lambda t: [
        t.zeros(2, 3, 4).shape[1:].numel(),
        (t.zeros(2).shape + (3,)) == (2, 3),
        t.zeros(2, 3).size(-1),
    ],
    # indexing
    "mixed indices": lambda t: [
        cube(t)[i]
        for i in (
            (0, slice(None), t.tensor([0, 1])),
            (slice(None), t.tensor([0, 1]), 0),
            (t.tensor([0, 1]), 0),
            (0, t.tensor([0, 1])),
            (t.tensor([0, 1]), slice(None), t.tensor([0, 3])),
            (t.tensor([[0], [1]]), t.tensor([0, 2])),
            (Ellipsis, t.tensor([1, 2]), 0),
            (None, t.tensor([0]), None),
            (t.tensor(1), t.tensor([2, 1])),
            (slice(None), None, t.tensor([0])),
            (1, Ellipsis, 0),
            (t.tensor(1),),
            ([0, 1], [1, 2]),
            (slice(None), [True, False, True]),
            t.tensor([True, False]),
            (t.tensor([True, False]), t.tensor([1])),
            (0, t.tensor([True, False, True]), slice(1, 3)),
            True,
            False,
            None,
            t.tensor(True),
            (slice(None), t.tensor([], dtype=t.int64)),
            (Ellipsis, slice(None, None, 2)),
            (slice(5, 9),),
            (slice(-2, None), slice(None, -1)),
            (t.tensor([0, 1], dtype=t.int32),),
            (t.tensor([1, 0], dtype=t.uint8),),
        )
    ],
    "masks over several dimensions": lambda t: [
        cube(t)[cube(t) > 20],
        cube(t)[t.ones(2, 3, dtype=t.bool)],
        cube(t)[:, t.ones(3, 4, dtype=t.bool)],
    ],
    "gradient of repeated indices": lambda t: gradient(
        t, leaf(t, 1, 2, 3), lambda x: (x[t.tensor([0, 0, 2])] * t.tensor([1.0, 2, 3])).sum()
    ),
    "assignments": lambda t: [
        after(t, cube(t), lambda x, i=i, v=v: x.__setitem__(i, v))
        for i, v in (
            (0, 5),
            ((slice(None), 1), t.arange(4.0)),
            ((0, slice(None), t.tensor([0, 1])), t.ones(3, 2)),
            (t.tensor([True, False]), -1.0),
            ((Ellipsis, 0), t.zeros(1)),
            ((slice(None), t.tensor([0, 2]), 1), t.tensor([[1.0, 2], [3, 4]])),
            (slice(None), t.ones(1, 1, 3, 4)),
            ((t.tensor([0, 1]), t.tensor([1, 2])), t.ones(2, 4)),
            (t.tensor([0, 0]), 7),
            ((1, None), 3.0),
            (cube(t) > 5, 0),
            (True, 2.0),
            (False, 3.0),
        )
    ],
    "assignment of a tensor with gradient": lambda t: gradient(
        t,
        leaf(t, 1, 2),
        lambda x: after(t, t.zeros(3, dtype=t.float64), lambda y: y.__setitem__(slice(1, None), x * x)).sum(),
    ),
    "index_put_ accumulates": lambda t: t.zeros(3).index_put_((t.tensor([0, 0, 2]),), t.ones(3), accumulate=True),
    "nonzero": lambda t: [
        t.tensor([[0, 1], [2, 0]]).nonzero(),
        t.tensor(1).nonzero(),
        t.tensor(0).nonzero(),
        t.zeros(0).nonzero(),
    ],
    "scatter of a number": lambda t: t.zeros(2, 3).scatter(1, t.tensor([[0, 2], [1, 1]]), 1.5),
    "unique": lambda t: t.unique(t.tensor([3, 1, 1, 2]), return_inverse=True, return_counts=True),
    "sort is stable": lambda t: [
        t.tensor([1, 0, 1, 0]).sort(stable=True)[1],
        t.tensor([1, 0, 1, 0]).sort(stable=True, descending=True)[1],
    ],
    "topk": lambda t: [*t.tensor([3.0, 1, 4]).topk(2), *t.tensor([[3.0, 1, 4]]).topk(1, largest=False)],
    # in place, views
    "view changed in place": lambda t: gradient(
        t, leaf(t, 1, 2, 3), lambda x: (lambda y: (y[1:].mul_(y[:2].clone()), y)[1])(x * 1).pow(2).sum()
    ),
    "base changed in place": lambda t: gradient(
        t, leaf(t, 1, 2, 3), lambda x: (lambda y: (lambda v: (y.mul_(2), v)[1])(y[1:]))(x * 1).pow(2).sum()
    ),
    "overlapping views": lambda t: gradient(
        t, leaf(t, 1, 2, 3), lambda x: (lambda y: (y[:2].mul_(3), y[1:].mul_(5), y)[2])(x * 1).prod()
    ),
    "diagonal changed in place": lambda t: gradient(
        t, leaf(t, 1, 2), lambda x: (lambda m: (m.diagonal().add_(x), m)[1])(t.outer(x, x) * 1).pow(2).sum()
    ),
    "transposed view changed in place": lambda t: gradient(
        t, leaf(t, 1, 2), lambda x: (lambda m: (m.t()[0].mul_(x), m)[1])(t.outer(x, x) * 1).pow(2).sum()
    ),
    "in place on a number of itself": lambda t: gradient(t, leaf(t, 1, 2), lambda x: (x * 1).mul_(2).exp_().sum()),
    "fill and zero": lambda t: [t.ones(2).fill_(3), t.ones(2).zero_(), t.ones(2).fill_(t.tensor(4))],
    "copy_ converts": lambda t: [
        t.zeros(2, dtype=t.int64).copy_(t.tensor([1.7, -1.7])),
        t.zeros(2, 2).copy_(t.arange(2)),
    ],
    "versions": lambda t: (lambda x: (x.add_(1), x[0].add_(1), x.detach().add_(1), x._version)[-1])(t.zeros(2)),
    # creation and conversion
    "arange": lambda t: [
        t.arange(1, 2, 0.3),
        t.arange(5, 0, -2),
        t.arange(3, dtype=t.float64),
        t.arange(0.5, 3),
        t.arange(2, 2),
        t.arange(0, 1, 0.1),
    ],
    "linspace": lambda t: [
        t.linspace(0, 1, 3),
        t.linspace(-3, 10, 7),
        t.linspace(1, 0, 2),
        t.linspace(0, 10, 4, dtype=t.int64),
    ],
    "full": lambda t: [
        t.full((2,), 1),
        t.full((2,), True),
        t.full((), 1.5),
        t.full((1,), 1j),
        t.full_like(t.ones(2, dtype=t.int64), 2.7),
    ],
    "tensor": lambda t: [
        t.tensor([[]]),
        t.tensor([1, 2.0]),
        t.tensor([True, 2]),
        t.tensor(()),
        t.tensor([[1], [2]], dtype=t.float16),
        t.tensor(np.float32(2)),
        t.tensor(np.arange(3, dtype=np.int8)),
        t.tensor([np.int32(1), 2]),
        t.tensor([np.float32(1)]),
    ],
    "conversion of nan and overflow": lambda t: [
        t.tensor([3e9]).int() if False else t.tensor([300.0]).short(),
        t.tensor([True]).float(),
    ],
    "tril and eye": lambda t: [t.ones(3, 3).tril(-1), t.eye(2, 3), t.eye(2, dtype=t.int64), t.ones(2, 2, 3).triu(1)],
    "cumsum of bools": lambda t: [
        t.tensor([True, True]).cumsum(0),
        t.tensor([[1, 2], [3, 4]]).cumsum(1),
        t.ones(3).cumsum(0, dtype=t.float64),
    ],
    "all and any": lambda t: [
        t.zeros(0).all(),
        t.zeros(0).any(),
        t.tensor([[1, 0], [2, 3]]).all(1),
        t.tensor([0.0, float("nan")]).any(),
    ],
    "matmul of every dimension": lambda t: [
        t.ones(a) @ t.ones(b)
        for a, b in (
            ((3,), (3,)),
            ((3,), (3, 2)),
            ((2, 3), (3,)),
            ((3,), (2, 3, 4)),
            ((2, 2, 3), (3,)),
            ((2, 1, 2, 3), (2, 3, 1)),
            ((0, 3), (3, 2)),
            ((2, 0), (0, 2)),
        )
    ],
    "matmul of integers": lambda t: t.arange(4).view(2, 2) @ t.arange(4).view(2, 2),
    "einsum": lambda t: [
        t.einsum(e, *(t.arange(float(np.prod(s))).view(s) for s in shapes))
        for e, *shapes in (
            ("ij->", (2, 3)),
            ("ij->j", (2, 3)),
            ("ii->i", (2, 2)),
            ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
            ("i,j->ij", (2,), (3,)),
            ("...ij->...ji", (2, 2, 3)),
            ("bhqd,bhkd->bhqk", (1, 2, 3, 2), (1, 2, 4, 2)),
            ("ij,jk,kl->il", (2, 2), (2, 3), (3, 2)),
            ("ijk", (1, 2, 3)),
            ("ba", (2, 3)),
        )
    ],
    # modes
    "requires_grad of results": lambda t: [
        (leaf(t, 1) > 0).requires_grad,
        leaf(t, 1).argmax().requires_grad,
        leaf(t, 1).detach().requires_grad,
        (leaf(t, 1) * 2).is_leaf,
        leaf(t, 1).long().requires_grad,
        leaf(t, 1).clone().requires_grad,
        t.zeros_like(leaf(t, 1)).requires_grad,
        leaf(t, 1).round().requires_grad,
    ],
    "grad of unused": lambda t: t.autograd.grad(leaf(t, 1).sum(), [leaf(t, 2)], allow_unused=True),
    "equality with strangers": lambda t: [t.ones(1) == None, t.ones(1) != None, t.ones(1) == "a"],  # noqa: E711
    "formatting": lambda t: [
        f"{t.tensor(1.5)}",
        f"{t.tensor(1.5):.3f}",
        f"{t.tensor([1])}",
        str(t.tensor(2)),
        f"{t.tensor(3):d}",
    ],
    "allclose": lambda t: [
        t.allclose(t.ones(2), t.ones(2) + 1e-9),
        t.allclose(t.ones(1), t.ones(1) * 2),
        t.equal(t.ones(2), t.ones(1)),
        t.isclose(t.tensor([float("nan"), 1]), t.tensor([float("nan"), 1]), equal_nan=True),
    ],
}


def simple(value):
    """A result as nested lists of arrays and plain values, with dtypes."""
    if isinstance(value, (paceline.Tensor, torch.Tensor)):
        return str(value.dtype).split(".")[-1], tuple(value.shape), value.detach().numpy()
    if isinstance(value, (list, tuple)):
        return [simple(v) for v in value]
    return value


def assert_same(ours, theirs):
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for i, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            try:
                assert_same(x, y)
            except AssertionError as error:
                error.add_note(f"in part {i}")
                raise
    elif isinstance(theirs, tuple):
        assert ours[:2] == theirs[:2]
        np.testing.assert_allclose(ours[2], theirs[2], rtol=1e-6, atol=1e-12)
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(simple(PROGRAMS[name](paceline)), simple(PROGRAMS[name](torch)))


def test_memory_goes_both_ways():
    ours = paceline.arange(3.0)
    theirs = torch.from_dlpack(ours)
    back = paceline.from_dlpack(theirs)
    theirs[0] = 5
    assert ours.tolist() == back.tolist() == [5, 1, 2]
    assert paceline.as_tensor(theirs.numpy()).tolist() == [5, 1, 2]
    assert paceline.tensor(theirs.numpy()).tolist() == [5, 1, 2]
