"""Tensors print as PyTorch's do, apart from the name of the library."""

import itertools
import pickle

import numpy as np
import pytest

import paceline

torch = pytest.importorskip("torch")

_rng = np.random.default_rng(5)
DTYPES = (
    "bool",
    "uint8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)
SHAPES = (
    (),
    (1,),
    (5,),
    (0,),
    (2, 3),
    (3, 0),
    (0, 4),
    (2, 2, 2),
    (1, 1, 1, 2),
    (1001,),
    (40, 40),
    (7, 30),
    (2, 600),
    (11, 12, 13),
    (30,),
    (1, 5, 1),
    (3, 1),
)
VALUES = {
    "small integers": lambda shape: _rng.integers(-9, 10, shape),
    "large integers": lambda shape: _rng.integers(-(10**6), 10**6, shape),
    "normal": lambda shape: _rng.standard_normal(shape),
    "wide": lambda shape: _rng.standard_normal(shape) * 10.0 ** _rng.integers(-6, 7, shape),
    "tiny": lambda shape: _rng.standard_normal(shape) * 1e-7,
    "huge": lambda shape: _rng.standard_normal(shape) * 1e10,
    "zeros": np.zeros,
    "one kind of size": lambda shape: 1000 + _rng.random(shape),
}
SPECIAL = (
    [1.0, np.nan],
    [np.inf, -np.inf],
    [np.nan],
    [1.5, np.inf, -2.25],
    [1e-5, 1.0],
    [1e5, 1.5],
    [123456789.0],
    [1e8],
    [1e9],
    [-0.0, 0.0],
    [0.1],
    [100000.5],
    [99999.99999],
    [1e-38],
    [3.14159265],
    [1.0, 2.0, 3.0],
    [1e20],
    [0.00001, 0.00002],
    [1e-4],
    [9.9e-5],
    [1000.0, 0.5],
    [1001.0, 1.0],
    [5e-324],
    [[1.0, np.nan], [np.inf, 2.5]],
    [1j, 2.5 + 1e-6j],
    [complex(np.nan, np.inf)],
    [1 + 2j, -3.5 - 4j],
    [0j],
    [-1 - 0.0j],
    [1e10 + 1j],
)


@pytest.fixture(autouse=True)
def same_length_of_names(monkeypatch):
    """Where a line ends depends on the length of the dtype's name."""
    monkeypatch.setattr(paceline.dtype, "__repr__", lambda self: f"torch.{self.name}")


def assert_prints_alike(ours, theirs, what=""):
    assert repr(ours) == repr(theirs) == str(ours), what


def pair(array, name):
    theirs = torch.from_numpy(np.array(array)).to(getattr(torch, name))
    return paceline.from_numpy(np.array(array)).to(getattr(paceline, name)), theirs


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("kind", VALUES)
def test_values_of_all_dtypes_and_shapes(kind, name):
    for shape in SHAPES:
        values = np.asarray(VALUES[kind](shape))
        if name == "uint8":
            values = np.abs(values) % 256
        if "complex" in name:
            values = values + 1j * np.asarray(VALUES[kind](shape))
        with np.errstate(all="ignore"):
            if name == "float16":
                values = values.astype(np.float32)  # PyTorch rounds float64 to float16 in two steps
            assert_prints_alike(*pair(values, name), f"{kind} {name}{list(shape)}")


@pytest.mark.parametrize("values", SPECIAL, ids=repr)
@pytest.mark.parametrize("name", ["float32", "float64", "complex64"])
def test_special_values(values, name):
    if "complex" not in name and np.iscomplexobj(values):
        pytest.skip("complex values")
    with np.errstate(all="ignore"):
        assert_prints_alike(*pair(np.array(values), name))
        for value in np.ravel(values):
            assert_prints_alike(*pair(np.array(value), name))


def test_the_tape_in_print():
    for module in (paceline, torch):
        x = module.ones(2, requires_grad=True)
        assert repr(x) == "tensor([1., 1.], requires_grad=True)"
        assert repr(x.detach()) == "tensor([1., 1.])"
        for y, name in (
            (x * 2, "Mul"),
            (x.sum(), "Sum"),
            (x.exp(), "Exp"),
            (x / 2, "Div"),
            (x - 1, "Sub"),
            (x.view(1, 2), "View"),
            (x.mean(), "Mean"),
            (x @ x, "Dot"),
            (-x, "Neg"),
            (x**2, "Pow"),
            (x[0], "Select"),
            (x.relu(), "Relu"),
            (x.clone(), "Clone"),
            (x.softmax(0), "Softmax"),
        ):
            text = repr(y)
            assert "grad_fn=<" in text and "Backward0>)" in text, f"{module.__name__} {name}: {text}"


def test_names_of_common_nodes():
    """`grad_fn` is read in tutorials and in bug reports."""
    for function in (
        lambda t, x: x * 2,
        lambda t, x: x + 1,
        lambda t, x: x - 1,
        lambda t, x: x / 2,
        lambda t, x: x.sum(),
        lambda t, x: x.exp(),
        lambda t, x: x.mean(),
        lambda t, x: -x,
        lambda t, x: x**2,
        lambda t, x: x.relu(),
        lambda t, x: x.clone(),
        lambda t, x: x.sigmoid(),
        lambda t, x: x.tanh(),
        lambda t, x: t.cat([x, x]),
        lambda t, x: t.stack([x, x]),
    ):
        ours = function(paceline, paceline.ones(2, requires_grad=True))
        theirs = function(torch, torch.ones(2, requires_grad=True))
        assert ours.grad_fn.name() == theirs.grad_fn.name() and repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2},
        {"threshold": 5},
        {"edgeitems": 1, "threshold": 5},
        {"linewidth": 40},
        {"sci_mode": True},
        {"sci_mode": False},
        {"precision": 8, "linewidth": 120},
    ],
    ids=repr,
)
def test_options(options):
    reset = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None}
    values = _rng.standard_normal((6, 7)) * 100
    try:
        for module in (paceline, torch):
            module.set_printoptions(**options)
        for array, name in itertools.product(
            (values, values[0], values[0, 0], values.astype(int)), ("float32", "float64")
        ):
            assert_prints_alike(*pair(array, name), f"{options}")
    finally:
        for module in (paceline, torch):
            module.set_printoptions(**reset)


def test_format():
    for value in (2.5, 3, True):
        for spec in ("", "8", ".3f" if value != 3 else "d"):
            if not (value is True and spec == ".3f"):
                assert format(paceline.tensor(value), spec) == format(torch.tensor(value), spec)
    assert f"{paceline.ones(2)}" == f"{torch.ones(2)}"


def test_views_and_defaults():
    x, y = paceline.arange(6).view(2, 3).t(), torch.arange(6).view(2, 3).t()
    assert_prints_alike(x, y)
    for dtype in ("float64", "float32"):
        try:
            paceline.set_default_dtype(getattr(paceline, dtype))
            torch.set_default_dtype(getattr(torch, dtype))
            for name in ("float32", "float64", "int64", "complex64", "complex128"):
                for array in (np.ones(2), np.ones(()), np.ones((0, 2))):
                    assert_prints_alike(*pair(array, name))
        finally:
            torch.set_default_dtype(torch.float32)


def test_sizes_and_devices():
    for function in (lambda t: t.zeros(2, 3).shape, lambda t: t.device("cpu"), lambda t: t.zeros(0).shape):
        assert repr(function(paceline)) == repr(function(torch)).replace("torch.", "paceline.")


RESULTS = {
    **{name: lambda M, x, name=name: getattr(x, name)(1) for name in ("max", "min", "median", "nanmedian", "mode")},
    **{name: lambda M, x, name=name: getattr(M, name)(x, 1) for name in ("sort", "topk", "kthvalue", "cummax")},
    **{name: lambda M, x, name=name: getattr(M.linalg, name)(x) for name in ("slogdet", "lu_factor", "inv_ex")},
    "aminmax": lambda M, x: M.aminmax(x),
    "frexp": lambda M, x: M.frexp(x),
    "histogram": lambda M, x: M.histogram(x.flatten(), 3),
}


@pytest.mark.parametrize("name", RESULTS)
def test_named_results(name):
    values = [[4.0, 1.0], [0.5, 3.0]]
    ours, theirs = (RESULTS[name](M, M.tensor(values)) for M in (paceline, torch))
    assert repr(ours) == repr(theirs).replace("torch.return_types", "paceline.return_types")
    again = pickle.loads(pickle.dumps(ours))
    assert type(again) is type(ours) and repr(again) == repr(ours)
