"""Every operation of the tables: values, derivatives of first and second order, in-place twins, kernels, devices."""

import contextlib
import inspect

import numpy as np
import pytest
from conftest import EMULATED
from tables.all_ops import EXCUSED, EXCUSED_MODULES, params, rows
from tables.table import outputs, to_numpy

import paceline
from paceline.autograd.declaration import registry
from paceline.autograd.primitive import RAW_NUMPY
from paceline.runtime.arrays import device_count

gradcheck, gradgradcheck = paceline.autograd.gradcheck, paceline.autograd.gradgradcheck


def skip_if_missing(op, device):
    if op.cpu_only and device == "cuda":
        pytest.skip("this operation is for the CPU only, as in PyTorch")
    if not op.emulated and device == "cuda" and EMULATED:
        pytest.skip("the emulated device lacks it")


def arguments(sample, device="cpu", leaves=False):
    """The sample's arguments as tensors, and its differentiable ones."""
    found = []

    def make(array):
        tensor = paceline.from_numpy(array.copy("K")).to(device)
        if leaves and array.dtype == np.float64:
            tensor.requires_grad_()
            found.append(tensor)
        return tensor

    args, kwargs = sample.tensors(make)
    return args, kwargs, found


def call(op, sample, device="cpu", leaves=False):
    args, kwargs, found = arguments(sample, device, leaves)
    return op(paceline, *args, **kwargs), found


def assert_same(found, expected, tolerance, what):
    found, expected = outputs(found), outputs(expected)
    assert len(found) == len(expected), what
    for x, y in zip(found, expected, strict=True):
        if x is None or y is None:
            assert x is y, what
            continue
        x, y = np.asarray(to_numpy(x)), np.asarray(to_numpy(y))
        assert x.shape == y.shape, f"{what}: shape {x.shape}, expected {y.shape}"
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=what)


def backward(results, leaves, create_graph=False):
    """Gradients of a fixed random projection of the outputs."""
    roots = [y for y in outputs(results) if isinstance(y, paceline.Tensor) and y.requires_grad]
    random = np.random.default_rng(1)
    weights = [paceline.tensor(random.standard_normal(y.shape), dtype=y.dtype, device=y.device) for y in roots]
    return paceline.autograd.grad(roots, leaves, weights, create_graph=create_graph, allow_unused=True)


# -- the tables are complete -------------------------------------------------------------------------------------------


def test_every_primitive_has_a_row():
    named = {op.name for op in rows()} | {alias for op in rows() for alias in op.aliases}
    missing = [
        name
        for name, function in registry.items()
        if name not in named and name not in EXCUSED and function.declaration.body.__module__ not in EXCUSED_MODULES
    ]
    assert not missing, f"primitives without a row in tests/tables: {missing}"


def public_names():
    """What `paceline` shows of the packages below nn."""
    shown = {n: v for n in dir(paceline) if not n.startswith("_") and callable(v := getattr(paceline, n))}
    return [
        n
        for n, v in shown.items()
        if (getattr(v, "__module__", None) or "").startswith(BELOW_NN) and not hasattr(v, "__path__")
    ]


BELOW_NN = ("paceline.runtime", "paceline.autograd", "paceline.tensor")


def test_every_public_function_has_a_row():
    named = {op.name for op in rows() if not op.internal} | {alias for op in rows() for alias in op.aliases}
    missing = [name for name in public_names() if name not in named and name not in EXCUSED]
    assert not missing, f"public functions without a row in tests/tables: {missing}"


def test_every_method_has_a_row():
    named = {op.name for op in rows() if not op.internal} | {alias for op in rows() for alias in op.aliases}
    named |= {op.in_place for op in rows() if op.in_place} | {f"{alias}_" for op in rows() for alias in op.aliases}
    named |= {f"__i{name[2:]}" for name in named if name.startswith("__")}
    missing = [
        name
        for name, value in vars(paceline.Tensor).items()
        if (inspect.isroutine(value) or name in ("T", "mT"))
        and not (name.startswith("_") and not name.startswith("__"))
        and name not in named
        and name not in EXCUSED
    ]
    assert not missing, f"methods without a row in tests/tables: {missing}"


def test_nothing_is_excused_that_is_gone():
    gone = [n for n in EXCUSED if n not in registry and not hasattr(paceline, n) and not hasattr(paceline.Tensor, n)]
    assert not gone


@pytest.mark.parametrize("op", params(where=lambda op: op.aliases))
def test_aliases_are_the_same_function(op):
    for alias in op.aliases:
        for home in (paceline, paceline.Tensor):
            if hasattr(home, alias):
                assert getattr(home, alias) is getattr(home, op.name)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", params(where=lambda op: op.reference))
def test_values(op, device):
    skip_if_missing(op, device)
    for sample in op.samples:
        with np.errstate(all="ignore"):
            expected = op.reference(*sample.args, **sample.kwargs)
        result, _ = call(op, sample, device)
        assert_same(result, expected, 1e-5 if result_is_float32(result) else 1e-12, f"{op.name}{sample}")


def result_is_float32(result):
    return any(isinstance(x, paceline.Tensor) and x.dtype is paceline.float32 for x in outputs(result))


@pytest.mark.parametrize("op", params(where=lambda op: op.is_method and op.name != "where"))
def test_method_equals_function(op):
    for sample in op.samples:
        args, kwargs, _ = arguments(sample)
        if not isinstance(args[0], paceline.Tensor):
            continue
        function, method = op(paceline, *args, **kwargs), getattr(args[0], op.name)(*args[1:], **kwargs)
        assert_same(method, function, 0, f"{op.name}{sample}")


def fits_into(result, tensor):
    """Whether an operation's result can be written into its first argument."""
    if not isinstance(tensor, paceline.Tensor) or not isinstance(result, paceline.Tensor):
        return False
    return result.shape == tensor.shape and paceline.can_cast(result.dtype, tensor.dtype)


@pytest.mark.parametrize("op", params(where=lambda op: op.in_place))
def test_in_place_twin(op, device):
    """The twin returns its own tensor with the values and the gradients of the ordinary operation."""
    skip_if_missing(op, device)
    tried = 0
    for sample in op.samples:
        expected, leaves = call(op, sample, device, leaves=op.differentiable)
        args, kwargs, twin_leaves = arguments(sample, device, leaves=op.differentiable)
        if not fits_into(expected, args[0]):
            continue
        x = args[0].clone()
        result = getattr(x, op.in_place)(*args[1:], **kwargs)
        assert result is x and x._version == 1
        assert_same(x, expected.to(x.dtype), 0, f"{op.in_place}{sample}")
        if op.differentiable and leaves:
            assert_same(
                backward(result, twin_leaves), backward(expected, leaves), 1e-14, f"gradient of {op.in_place}{sample}"
            )
        tried += 1
    if not tried:
        pytest.skip("no sample's result fits into its first argument")


@pytest.mark.parametrize("op", params())
def test_inputs_stay_as_they_are(op):
    for sample in op.samples:
        before, _, _ = arguments(sample)
        args, kwargs, _ = arguments(sample)
        op(paceline, *args, **kwargs)
        for x, y in zip(args, before, strict=True):
            if isinstance(x, paceline.Tensor):
                np.testing.assert_array_equal(to_numpy(x), to_numpy(y), err_msg=f"{op.name}{sample}")


# -- derivatives -------------------------------------------------------------------------------------------------------


def as_function(op, sample, leaves):
    """The operation as a function of its differentiable arguments, for the checkers."""

    def function(*values):
        it = iter(values)
        args, kwargs = sample.tensors(
            lambda a: next(it) if a.dtype == np.float64 else paceline.from_numpy(a).to(values[0].device)
        )
        floating = [y for y in outputs(op(paceline, *args, **kwargs)) if y.dtype.is_floating_point]
        return tuple(floating)

    return function


def differentiable(op):
    return op.differentiable and any(arguments(sample, leaves=True)[2] for sample in op.samples)


@pytest.mark.parametrize("op", params(where=differentiable))
def test_first_derivatives(op, device):
    skip_if_missing(op, device)
    for sample in op.samples:
        results, leaves = call(op, sample, device, leaves=True)
        if leaves:
            floating = [y for y in outputs(results) if y.dtype.is_floating_point]
            assert all(y.requires_grad for y in floating), f"{op.name}{sample}: an output is cut off"
            single = any(y.dtype is paceline.float32 for y in floating)
            options = {"eps": 1e-2, "atol": 1e-3} if single else {}
            gradcheck(as_function(op, sample, leaves), leaves, **options)


@pytest.mark.parametrize("op", params(where=lambda op: op.second and differentiable(op)))
def test_second_derivatives(op, device):
    skip_if_missing(op, device)
    for sample in op.samples:
        _, leaves = call(op, sample, device, leaves=True)
        if leaves and all(x.numel() <= 8 for x in leaves):
            gradgradcheck(as_function(op, sample, leaves), leaves)


@pytest.mark.parametrize("op", params(where=lambda op: not op.differentiable))
def test_what_has_no_derivative_is_off_the_tape(op):
    """Results that do not depend smoothly on their inputs either require no gradient or get zeros."""
    for sample in op.samples:
        results, leaves = call(op, sample, leaves=True)
        for y in outputs(results):
            if isinstance(y, paceline.Tensor) and y.requires_grad:
                for g in backward(results, leaves):
                    assert g is None or g.shape in {x.shape for x in leaves}


@pytest.mark.parametrize("op", params(where=differentiable))
def test_raw_and_recorded_backward_agree_to_the_bit(op, device):
    skip_if_missing(op, device)
    for sample in op.samples:
        results, leaves = call(op, sample, device, leaves=True)
        again, leaves_again = call(op, sample, device, leaves=True)
        raw, recorded = backward(results, leaves), backward(again, leaves_again, create_graph=True)
        for x, g, h in zip(leaves, raw, recorded, strict=True):
            assert (g is None) == (h is None)
            if g is not None:
                assert g.shape == h.shape == x.shape and g.dtype == h.dtype == x.dtype, f"{op.name}{sample}"
                assert not g.requires_grad
                # NumPy's complex numbers, which 0-d arrays become on the way, round differently from its arrays
                tolerance = 1e-12 if op.fused else 1e-15 if not x.ndim else 0
                assert_same(g, h, tolerance, f"{op.name}{sample}")


# -- devices and kernels -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(device_count() == 0, reason="no CUDA device")
@pytest.mark.parametrize("op", params())
def test_cuda_equals_cpu(op):
    skip_if_missing(op, "cuda")
    for sample in op.samples:
        (here, x), (there, y) = (call(op, sample, device, leaves=op.differentiable) for device in ("cpu", "cuda"))
        for a, b in zip(outputs(here), outputs(there), strict=True):
            if isinstance(a, paceline.Tensor):
                assert a.dtype == b.dtype and a.shape == b.shape, f"{op.name}{sample}"
        assert_same(there, here, 1e-6, f"{op.name}{sample}")
        if x:
            assert_same(backward(there, y), backward(here, x), 1e-6, f"gradient of {op.name}{sample}")


@contextlib.contextmanager
def portable_bodies():
    """Without the registered kernels, neither forward nor backward."""
    kept = []
    for function in registry.values():
        d = function.declaration
        kept.append((d, dict(d.kernels), dict(d.fused)))
        for table in (d.kernels, d.fused, d.bodies, d.plans):
            table.clear()
    raw = {k: v for k, v in vars(RAW_NUMPY).items() if k != "xp"}
    for name in raw:
        delattr(RAW_NUMPY, name)
    try:
        yield
    finally:
        for d, kernels, fused in kept:
            for table in (d.bodies, d.plans):
                table.clear()
            d.kernels.update(kernels)
            d.fused.update(fused)
        for name in [k for k in vars(RAW_NUMPY) if k != "xp"]:
            delattr(RAW_NUMPY, name)


@pytest.mark.parametrize("op", params())
def test_kernels_equal_portable_bodies(op):
    for sample in op.samples:
        fast, x = call(op, sample, leaves=op.differentiable)
        fast_gradients = backward(fast, x) if x else ()
        with portable_bodies():
            slow, y = call(op, sample, leaves=op.differentiable)
            slow_gradients = backward(slow, y) if y else ()
        assert_same(fast, slow, 1e-6, f"{op.name}{sample}")
        assert_same(fast_gradients, slow_gradients, 1e-6, f"gradient of {op.name}{sample}")
