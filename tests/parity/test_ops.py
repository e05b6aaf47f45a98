"""The rows of the tables against PyTorch: values, dtypes, shapes, gradients, promotion and exceptions."""

import itertools
import operator
import warnings

import numpy as np
import pytest
from tables.all_ops import params
from tables.table import outputs

import paceline

torch = pytest.importorskip("torch")

# Where paceline means to differ, or PyTorch leaves it open: (row, dtype) -> why.
DIFFERENT = {
    ("polygamma", "float64"): "PyTorch's is right to 1e-9 only",
    **{
        (name, "float16"): "PyTorch has complex numbers of half precision, NumPy has none"
        for name in ("real", "imag", "abs", "sgn", "mul", "complex", "compose", "conj_physical", "view_as_real")
    },
    **{("matrix_exp", half): "PyTorch's is nan or infinite" for half in ("float16", "bfloat16")},
    ("view_as_complex", "float16"): "PyTorch has complex numbers of half precision, NumPy has none",
    **{("kthvalue", dtype): "which of equal elements" for dtype in ("int64", "uint8", "bool")},
    ("topk", "int64"): "which of equal elements",
    ("topk", "uint8"): "which of equal elements",
    ("topk", "bool"): "which of equal elements",
    **{
        (name, dtype): "PyTorch drops the fraction of the factor"
        for name in ("addmm", "addcmul")
        for dtype in ("int64", "uint8", "bool")
    },
    **{(name, "bool"): "with an integer factor PyTorch stays bool" for name in ("add", "index_add")},
}
COMPLEX32 = "torch.complex32"  # half precision complex numbers: NumPy has none, paceline gives complex64
TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5, "complex64": 1e-5}
NAMES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
         "complex128")  # fmt: skip

public = params(where=lambda op: not op.internal)


def both(array, name=None, leaf=False):
    """The same tensor twice, with the array's own dtype or a named one, and with the array's own strides."""
    theirs = torch.from_numpy(array.copy("K"))
    ours = paceline.from_numpy(array.copy("K"))
    if name is not None:
        theirs, ours = theirs.to(getattr(torch, name)), ours.to(getattr(paceline, name))
    if leaf and theirs.is_floating_point():
        theirs, ours = theirs.detach().requires_grad_(), ours.detach().requires_grad_()
    return ours, theirs


def plain(x):
    """A result, tensor or not, as something NumPy compares."""
    if isinstance(x, torch.Tensor):
        x = x.detach().resolve_conj()
        return (x.float() if x.dtype is torch.bfloat16 else x).numpy()
    if isinstance(x, paceline.Tensor):
        array = x.detach().numpy()
        return array.astype(np.float32) if x.dtype is paceline.bfloat16 else array
    return np.asarray(x)


def assert_same(ours, theirs, what, tolerance=None):
    ours, theirs = outputs(ours), outputs(theirs)
    assert len(ours) == len(theirs), f"{what}: {len(ours)} outputs, PyTorch has {len(theirs)}"
    for x, y in zip(ours, theirs, strict=True):
        assert isinstance(x, paceline.Tensor) == isinstance(y, torch.Tensor), (
            f"{what}: {type(x)}, PyTorch has {type(y)}"
        )
        if isinstance(y, torch.Tensor):
            name = str(y.dtype).removeprefix("torch.")
            assert x.dtype.name == name, f"{what}: {x.dtype.name}, PyTorch has {name}"
            assert tuple(x.shape) == tuple(y.shape), f"{what}: shape {x.shape}, PyTorch has {tuple(y.shape)}"
            allowed = tolerance or TOLERANCE.get(name, 1e-12)
        else:
            allowed = tolerance or 1e-12
        np.testing.assert_allclose(plain(x), plain(y), rtol=allowed, atol=allowed, err_msg=what)


def attempt(function, *args):
    """The result, or the exception that came instead."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args), None
    except Exception as error:
        return None, error


def run(op, sample, name=None, leaf=False):
    """One call by both libraries: (result or exception) of each, and the leaves of each."""
    found, leaves = [], []
    for side, module in enumerate((paceline, torch)):
        mine = []

        def make(array, side=side, mine=mine):
            floating = array.dtype == np.float64
            tensor = both(array, name if floating else None, leaf and floating)[side]
            if leaf and floating and tensor.requires_grad:
                mine.append(tensor)
            return tensor

        args, kwargs = sample.tensors(make)
        found.append(attempt(lambda args=args, kwargs=kwargs, module=module: op(module, *args, **kwargs)))
        leaves.append(mine)
    return found, leaves


@pytest.mark.parametrize("op", public)
@pytest.mark.parametrize("name", ["float32", "float64", "int64", "uint8", "bool", "float16", "bfloat16"])
def test_values_and_dtypes(op, name):
    """Where PyTorch gives a result, paceline gives the same."""
    for sample in op.samples:
        ((ours, failure), (theirs, refusal)), _ = run(op, sample, name)
        if refusal is None and (op.name, name) not in DIFFERENT:
            if failure is not None:
                raise AssertionError(f"{op.name}{sample} of {name}: PyTorch gives {theirs}") from failure
            assert_same(ours, theirs, f"{op.name}{sample} of {name}")


@pytest.mark.parametrize("op", params(where=lambda op: not op.internal and op.differentiable))
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_gradients(op, name):
    for sample in op.samples:
        ((ours, failure), (theirs, refusal)), (x, y) = run(op, sample, name, leaf=True)
        if refusal is not None or not y:
            continue
        assert failure is None, f"{op.name}{sample}: {failure!r}"
        gradients = []
        for module, results, leaves in ((paceline, ours, x), (torch, theirs, y)):
            roots = [r for r in outputs(results) if getattr(r, "requires_grad", False)]
            random = np.random.default_rng(2)
            weights = [module.tensor(random.standard_normal(tuple(r.shape)), dtype=r.dtype) for r in roots]
            gradients.append(
                attempt(lambda m=module, *a: m.autograd.grad(*a, allow_unused=True), roots, leaves, weights)
            )
        (mine, failure), (expected, refusal) = gradients
        if refusal is not None:
            continue
        assert failure is None, f"gradient of {op.name}{sample}: {failure!r}"
        for g, h in zip(mine, expected, strict=True):
            if g is None or h is None:  # PyTorch has zeros where nothing of an overwritten value is left
                assert h is None or not h.any(), f"gradient of {op.name}{sample}: {g}, PyTorch has {h}"
            else:
                assert_same(g, h, f"gradient of {op.name}{sample} in {name}")


# -- promotion ---------------------------------------------------------------------------------------------------------

SCALARS = (True, 2, 2.5, 1 + 2j)
BINARY = {
    "add": operator.add, "mul": operator.mul, "truediv": operator.truediv, "eq": operator.eq, "lt": operator.lt,
    "sub": operator.sub, "floordiv": operator.floordiv, "pow": operator.pow,
}  # fmt: skip


def operands(name):
    """A tensor with dimensions and a 0-d one of a dtype."""
    return both(np.array([1.0, 2.0]), name), both(np.array(2.0), name)


@pytest.mark.parametrize("function", BINARY.values(), ids=BINARY)
@pytest.mark.parametrize("first", NAMES)
def test_promotion(function, first):
    for second in NAMES:
        for (a, x), (b, y) in itertools.product(operands(first), operands(second)):
            compare(function, a, b, x, y, f"{first}{list(x.shape)} with {second}{list(y.shape)}")
    for (a, x), number in itertools.product(operands(first), SCALARS):
        compare(function, a, number, x, number, f"{first}{list(x.shape)} with {number}")
        compare(function, number, a, number, x, f"{number} with {first}{list(x.shape)}")


def compare(function, a, b, x, y, what):
    theirs, refusal = attempt(lambda: function(x, y))
    ours, failure = attempt(lambda: function(a, b))
    if refusal is None and str(getattr(theirs, "dtype", "")) != COMPLEX32:
        assert failure is None, f"{what}: {failure!r}, PyTorch gives {theirs}"
        assert_same(ours, theirs, what)


@pytest.mark.parametrize("first", NAMES)
def test_promote_types_result_type_and_can_cast(first):
    for second in NAMES:
        (a, b), (x, y) = ((getattr(m, first), getattr(m, second)) for m in (paceline, torch))
        if str(torch.promote_types(x, y)) != COMPLEX32:
            assert repr(paceline.promote_types(a, b)) == repr(torch.promote_types(x, y)).replace("torch", "paceline")
        assert paceline.can_cast(a, b) == torch.can_cast(x, y), f"can_cast({first}, {second})"
    for (a, x), number in itertools.product(operands(first), SCALARS):
        expected = torch.result_type(x, number)
        if str(expected) != COMPLEX32:
            assert repr(paceline.result_type(a, number)) == repr(expected).replace("torch", "paceline")


@pytest.mark.parametrize("name", NAMES)
def test_limits_of_dtypes(name):
    ours, theirs = getattr(paceline, name), getattr(torch, name)
    assert ours.itemsize == theirs.itemsize
    assert ours.is_floating_point == theirs.is_floating_point and ours.is_complex == theirs.is_complex
    assert ours.is_signed == theirs.is_signed
    if theirs.is_floating_point:
        for field in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution", "dtype"):
            assert getattr(paceline.finfo(ours), field) == getattr(torch.finfo(theirs), field), field
    elif not theirs.is_complex and name != "bool":
        for field in ("bits", "max", "min", "dtype"):
            assert getattr(paceline.iinfo(ours), field) == getattr(torch.iinfo(theirs), field), field


# -- bad input ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "add shapes": lambda t: t.ones(2) + t.ones(3),
    "add str": lambda t: t.ones(2) + "a",
    "add None": lambda t: t.ones(2) + None,
    "sub bool": lambda t: t.tensor([True]) - t.tensor([True]),
    "neg bool": lambda t: -t.tensor([True]),
    "pow negative": lambda t: t.tensor([2]) ** -1,
    "rounding_mode": lambda t: t.div(t.ones(1), 2, rounding_mode="up"),
    "bitwise float": lambda t: t.ones(1) & t.ones(1),
    "shape -1 twice": lambda t: t.ones(4).reshape(-1, -1),
    "reshape size": lambda t: t.ones(4).reshape(3),
    "view of transpose": lambda t: t.ones(2, 3).t().view(6),
    "view size": lambda t: t.ones(4).view(3),
    "sum dim": lambda t: t.ones(2).sum(1),
    "sum dim twice": lambda t: t.ones(2, 2).sum((0, 0)),
    "mean of ints": lambda t: t.ones(2, dtype=t.int64).mean(),
    "amax of nothing": lambda t: t.ones(0).amax(),
    "max of nothing": lambda t: t.ones(0).max(),
    "argmax of nothing": lambda t: t.ones(0).argmax(),
    "max dim of nothing": lambda t: t.ones(2, 0).max(1),
    "softmax dim": lambda t: t.softmax(t.ones(2), 1),
    "permute": lambda t: t.ones(2, 3).permute(0, 0),
    "permute count": lambda t: t.ones(2, 3).permute(0),
    "transpose dim": lambda t: t.ones(2).transpose(0, 2),
    "unsqueeze dim": lambda t: t.ones(2).unsqueeze(3),
    "squeeze dim": lambda t: t.ones(2).squeeze(2),
    "expand": lambda t: t.ones(2).expand(3),
    "expand fewer": lambda t: t.ones(2, 2).expand(2),
    "cat shapes": lambda t: t.cat([t.ones(2, 2), t.ones(2, 3)]),
    "cat tensor": lambda t: t.cat(t.ones(2)),
    "cat number": lambda t: t.cat([t.ones(2), 1]),
    "cat 0-d": lambda t: t.cat([t.ones(()), t.ones(())]),
    "cat dims": lambda t: t.cat([t.ones(2), t.ones(2, 2)]),
    "cat dim": lambda t: t.cat([t.ones(2), t.ones(2)], 1),
    "stack shapes": lambda t: t.stack([t.ones(2), t.ones(3)]),
    "split sizes": lambda t: t.ones(4).split([1, 2]),
    "split size": lambda t: t.ones(4).split(-1),
    "chunk": lambda t: t.ones(4).chunk(0),
    "narrow": lambda t: t.ones(4).narrow(0, 2, 3),
    "select": lambda t: t.ones(4).select(0, 4),
    "index": lambda t: t.ones(4)[4],
    "index dims": lambda t: t.ones(4)[0, 0],
    "index tensor": lambda t: t.ones(4)[t.tensor([4])],
    "index float": lambda t: t.ones(4)[t.tensor([1.0])],
    "index number": lambda t: t.ones(4)[1.0],
    "index str": lambda t: t.ones(4)["a"],
    "index mask": lambda t: t.ones(4)[t.tensor([True, False])],
    "index 0-d": lambda t: t.ones(())[0],
    "index step": lambda t: t.ones(4)[::-1],
    "setitem shape": lambda t: t.ones(4).__setitem__(slice(0, 2), t.ones(3)),
    "setitem mask shape": lambda t: t.ones(3).__setitem__(t.tensor([True, False, True]), t.ones(3)),
    "gather dims": lambda t: t.ones(2, 2).gather(0, t.tensor([0])),
    "gather range": lambda t: t.ones(2).gather(0, t.tensor([2])),
    "gather dtype": lambda t: t.ones(2).gather(0, t.tensor([0.0])),
    "gather None": lambda t: t.ones(2).gather(0, None),
    "scatter range": lambda t: t.zeros(2).scatter(0, t.tensor([2]), t.ones(1)),
    "index_select range": lambda t: t.ones(2).index_select(0, t.tensor([2])),
    "index_select dims": lambda t: t.ones(2).index_select(0, t.tensor([[0]])),
    "masked_fill": lambda t: t.ones(2).masked_fill(t.tensor([1, 0]), 0.0),
    "masked_fill value": lambda t: t.ones(2).masked_fill(t.tensor([True, False]), t.ones(2)),
    "masked_select": lambda t: t.ones(2).masked_select(t.tensor([1, 0])),
    "topk": lambda t: t.ones(2).topk(3),
    "matmul inner": lambda t: t.ones(2, 3) @ t.ones(2, 3),
    "matmul 0-d": lambda t: t.ones(()) @ t.ones(2),
    "matmul dtypes": lambda t: t.ones(2, 2) @ t.ones(2, 2, dtype=t.float64),
    "mm dims": lambda t: t.mm(t.ones(2), t.ones(2, 2)),
    "bmm dims": lambda t: t.bmm(t.ones(2, 2), t.ones(2, 2)),
    "dot dims": lambda t: t.dot(t.ones(2, 2), t.ones(2)),
    "dot sizes": lambda t: t.dot(t.ones(3), t.ones(2)),
    "outer": lambda t: t.outer(t.ones(2, 2), t.ones(2)),
    "einsum count": lambda t: t.einsum("i,j", t.ones(2)),
    "einsum dims": lambda t: t.einsum("ij", t.ones(2)),
    "einsum sizes": lambda t: t.einsum("i,i", t.ones(2), t.ones(3)),
    "einsum output": lambda t: t.einsum("i->j", t.ones(2)),
    "clamp nothing": lambda t: t.ones(2).clamp(),
    "where dtype": lambda t: t.where(t.tensor([1.0]), 1.0, t.ones(1)),
    "item": lambda t: t.ones(2).item(),
    "bool": lambda t: bool(t.ones(2)),
    "bool of nothing": lambda t: bool(t.ones(0)),
    "len": lambda t: len(t.ones(())),
    "iter": lambda t: list(t.ones(())),
    "index of float": lambda t: [1, 2][t.tensor(1.0)],
    "float": lambda t: float(t.ones(2)),
    "numpy of leaf": lambda t: t.ones(2, requires_grad=True).numpy(),
    "requires_grad of ints": lambda t: t.ones(2, dtype=t.int64, requires_grad=True),
    "leaf in place": lambda t: t.ones(2, requires_grad=True).add_(1),
    "in place shape": lambda t: t.ones(2).add_(t.ones(3, 2)),
    "in place dtype": lambda t: t.ones(2, dtype=t.int64).add_(1.5),
    "in place expanded": lambda t: t.ones(1).expand(2).add_(1),
    "zeros negative": lambda t: t.zeros(-1),
    "zeros float": lambda t: t.zeros(1.5),
    "zeros str": lambda t: t.zeros("a"),
    "arange step": lambda t: t.arange(0, 2, 0),
    "arange sign": lambda t: t.arange(0, 2, -1),
    "linspace": lambda t: t.linspace(0, 1, -1),
    "tensor ragged": lambda t: t.tensor([[1], [1, 2]]),
    "tensor str": lambda t: t.tensor("a"),
    "tensor strs": lambda t: t.tensor(["a"]),
    "tensor None": lambda t: t.tensor(None),
    "tensor mixed": lambda t: t.tensor([1, None]),
    "from_numpy list": lambda t: t.from_numpy([1]),
    "from_numpy str": lambda t: t.from_numpy(np.array(["a"])),
    "device": lambda t: t.device("nope"),
    "finfo": lambda t: t.finfo(t.int64),
    "iinfo": lambda t: t.iinfo(t.float32),
    "randint": lambda t: t.randint(3, 3, (2,)),
    "multinomial negative": lambda t: t.multinomial(t.tensor([-1.0, 1.0]), 1),
    "bernoulli": lambda t: t.bernoulli(t.tensor([2.0])),
    "unknown option": lambda t: t.ones(2).sum(axes=1),
    "set_default_dtype": lambda t: t.set_default_dtype(t.int64),
    "backward of vector": lambda t: (t.ones(2, requires_grad=True) * 2).backward(),
    "backward without grad": lambda t: t.ones(()).backward(),
    "backward shape": lambda t: (t.ones(2, requires_grad=True) * 2).backward(t.ones(3)),
    "grad of wrong shape": lambda t: setattr(t.ones(2), "grad", t.ones(3)),
    "grad of wrong type": lambda t: setattr(t.ones(2), "grad", 3),
    "deepcopy of computed": lambda t: __import__("copy").deepcopy(t.ones(2, requires_grad=True) * 2),
    "roll": lambda t: t.ones(2, 2).roll((1, 2), 0),
    "flip": lambda t: t.ones(2).flip(1),
    "tril": lambda t: t.ones(2).tril(),
    "diag": lambda t: t.ones(1, 1, 1).diag(),
    "t": lambda t: t.ones(1, 1, 1).t(),
    "repeat": lambda t: t.ones(1, 1).repeat(2),
    "unflatten": lambda t: t.ones(6).unflatten(0, (4, 2)),
    "movedim": lambda t: t.ones(2, 2).movedim((0, 1), (0,)),
    "norm": lambda t: t.norm(t.ones(2), "x"),
    "bincount": lambda t: t.bincount(t.tensor([-1])),
    "bincount dims": lambda t: t.bincount(t.tensor([[1]])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_the_same_exception(name):
    _, theirs = attempt(lambda: REFUSED[name](torch))
    _, ours = attempt(lambda: REFUSED[name](paceline))
    assert theirs is not None, "PyTorch takes this"
    assert ours is not None, f"PyTorch raises {theirs!r}"
    expected = RuntimeError if isinstance(theirs, NotImplementedError) else type(theirs)  # its base: as good to catch
    assert type(ours) is expected, f"{ours!r}, PyTorch raises {theirs!r}"
