"""Every compiled kernel against the portable body and the written rules, on the samples of the table of operations."""

import contextlib
import functools

import numpy as np
import pytest
from tables.all_ops import rows
from tables.table import outputs
from test_ops import assert_same, backward, portable_bodies

import paceline
from paceline.autograd.declaration import registry
from paceline.autograd.primitive import RAW_NUMPY
from paceline.tensor import kernels

pytest.importorskip("numba")

DECLARATIONS = {name: function.declaration for name, function in registry.items()}
# name of the primitive -> what was registered with kernels.compiled and kernels.compiled_vjp
FORWARD = {n: d.kernels["cpu"].compiled for n, d in DECLARATIONS.items() if hasattr(d.kernels.get("cpu"), "compiled")}
BACKWARD = {n: d.fused["cpu"].function for n, d in DECLARATIONS.items() if d.fused_takes.get("cpu") is not None}
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-10}


@contextlib.contextmanager
def replaced_kernels(replace):
    """Inputs of any size take the compiled kernels, each replaced by `replace(its name, its function, direction)`."""
    least_size, kernels.LEAST_SIZE = kernels.LEAST_SIZE, 0
    kept = {name: (dict(d.kernels), d.replayed) for name, d in DECLARATIONS.items()}
    try:
        for name, function in FORWARD.items():
            kernels.compiled(registry[name])(replace(name, function, "forward"))
        for name, function in BACKWARD.items():
            DECLARATIONS[name].fused["cpu"].function = replace(name, function, "backward")
        forget_plans()
        yield
    finally:
        kernels.LEAST_SIZE = least_size
        for name, d in DECLARATIONS.items():
            d.kernels.update(kept[name][0])
            d.replayed = kept[name][1]
        for name, function in BACKWARD.items():
            DECLARATIONS[name].fused["cpu"].function = function
        forget_plans()


def forget_plans():
    """Make calls look up their kernels anew."""
    for d in DECLARATIONS.values():
        d.bodies.clear()
        d.plans.clear()
    for name in [name for name in vars(RAW_NUMPY) if name != "xp"]:
        delattr(RAW_NUMPY, name)


def run(op, sample, dtype):
    """Outputs, and gradients of the floating inputs, with the sample's floating arrays in one dtype."""
    leaves = []

    def make(array):
        if array.dtype != np.float64:
            return paceline.from_numpy(array.copy("K"))
        tensor = paceline.from_numpy(array.astype(dtype))
        if op.differentiable:
            leaves.append(tensor.requires_grad_())
        return tensor

    args, kwargs = sample.tensors(make)
    results = op(paceline, *args, **kwargs)
    roots = [y for y in outputs(results) if isinstance(y, paceline.Tensor) and y.requires_grad]
    return results, backward(results, leaves) if leaves and roots else ()


def noting(table):
    """For `replaced_kernels`: adds (name, direction) to the table when a kernel computes, and does not decline."""

    def replace(name, function, direction):
        @functools.wraps(function)
        def note(*args, **kwargs):
            result = function(*args, **kwargs)
            if result is not NotImplemented:
                table.add((name, direction))
            return result

        return note

    return replace


@functools.cache
def samples_by_kernel():
    """(name of the primitive, direction) -> the (row, sample) on which its kernel computes."""
    found = {}
    computed = set()
    with replaced_kernels(noting(computed)):
        for op in rows():
            for sample in op.samples:
                computed.clear()
                run(op, sample, np.float64)
                for kernel in computed:
                    found.setdefault(kernel, []).append((op, sample))
    return found


@pytest.mark.parametrize(
    ("name", "direction"), [*((name, "forward") for name in FORWARD), *((name, "backward") for name in BACKWARD)]
)
def test_kernel_equals_portable_body_and_rules(name, direction):
    samples = samples_by_kernel().get((name, direction))
    assert samples, "no row of the table reaches this kernel: it declines all samples, or a row is missing"
    for dtype, tolerance in TOLERANCE.items():
        computed = set()
        for op, sample in samples:
            with replaced_kernels(noting(computed)):
                found = run(op, sample, dtype)
            with portable_bodies():
                expected = run(op, sample, dtype)
            assert_same(found[0], expected[0], tolerance, f"{op.name}{sample}")
            assert_same(found[1], expected[1], tolerance, f"gradients of {op.name}{sample}")
        assert (name, direction) in computed, f"the kernel does not take {dtype.__name__}"


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, 1e30, -1e30, 1e-30, -1e-30, 1e-42, 20.5, -20.5, 100.0, -100.0, 800.0, -800.0]


def elementwise(name):
    """Whether a primitive with a kernel is a function of each element, with no attribute that has to be given."""
    d = DECLARATIONS[name]
    if name not in FORWARD or d.inputs != ("input",) or d.required != 1:
        return False
    shape = (2, 3)
    result = registry[name](paceline.ones(*shape))
    return isinstance(result, paceline.Tensor) and result.shape == shape


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [name for name in sorted(FORWARD) if elementwise(name)])
def test_special_values(name, dtype):
    """NaN, infinities and extreme values come out as from the portable body and the written rule."""

    def gradient_and_value():
        x = paceline.tensor([SPECIAL], dtype=getattr(paceline, dtype.__name__), requires_grad=True)
        out = registry[name](x)
        out.backward(paceline.ones_like(x))
        return out.detach(), x.grad

    with replaced_kernels(lambda name, function, direction: function):
        found = gradient_and_value()
    with portable_bodies():
        expected = gradient_and_value()
    for x, y, what in zip(found, expected, ("value", "gradient"), strict=True):
        np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=TOLERANCE[dtype], atol=1e-7, err_msg=what)


# -- arithmetic on two large arrays, which the samples of the table are too small for ----------------------------------

ARITHMETIC = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "true_divide": np.divide, "maximum": np.maximum,
              "minimum": np.minimum}  # fmt: skip
WIDE = (400, 20, 30)
PAIRS = [
    (WIDE, WIDE), (WIDE, (30,)), (WIDE, (1, 20, 30)), (WIDE, (20, 1)), (WIDE, (400, 1, 1)), (WIDE, (400, 20, 1)),
    (WIDE, ()), (WIDE, (1, 1, 1)), (WIDE, (400, 1, 30)), ((30,), WIDE), ((400, 1, 30), (20, 1)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_large_arithmetic_equals_numpy_to_the_bit(name, dtype):
    random = np.random.default_rng(0)

    def compare(x, y):
        tensors = (paceline.from_numpy(v) if isinstance(v, np.ndarray) else v for v in (x, y))
        found = registry[name](*tensors)
        np.testing.assert_array_equal(found.numpy(), ARITHMETIC[name](x, y), strict=True)

    for pair in PAIRS:
        x, y = (np.asarray(random.uniform(-2, 2, shape), dtype) for shape in pair)
        x.flat[::7], y.flat[1::7] = np.nan, np.inf
        compare(x, y)
    x = random.uniform(-2, 2, (500, 300)).astype(dtype)
    for pair in ((x, 1.5), (1.5, x), (x.T, 3), (x.T, x.T), (x.T, x.reshape(300, 500)), (x[:, ::-1], x), (x[::2], 2)):
        compare(*pair)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_large_powers_and_choices_equal_numpy(dtype):
    random = np.random.default_rng(0)
    x, y = random.uniform(-2, 2, (2, 500, 300)).astype(dtype)
    x.flat[::7], x.flat[1::7], x.flat[2::7] = np.nan, np.inf, 0
    a, b, mask = (paceline.from_numpy(v) for v in (x, y, x > y))
    with np.errstate(invalid="ignore", divide="ignore"):
        for exponent, expected in ((2, x * x), (3, x**3), (-1, 1 / x), (0.5, np.sqrt(x)), (-0.5, 1 / np.sqrt(x))):
            np.testing.assert_allclose((a**exponent).numpy(), expected, rtol=4 * np.finfo(dtype).eps)
    for first, second in ((a, b), (a, 0.5), (0.5, b), (a.T.contiguous().T, b), (a[:1], b), (a, b[:, :1])):
        arrays = [v.numpy() if isinstance(v, paceline.Tensor) else dtype(v) for v in (first, second)]
        found = paceline.where(mask, first, second).numpy()
        np.testing.assert_array_equal(found, np.where(x > y, *arrays), strict=True)
    one = paceline.tensor(0.5, dtype=a.dtype)
    for condition in (mask, mask[0], mask[:, :1]):
        for first, second in ((a, one), (one, b), (a, b)):
            expected = np.where(condition.numpy(), first.numpy(), second.numpy())
            np.testing.assert_array_equal(paceline.where(condition, first, second).numpy(), expected, strict=True)
        np.testing.assert_array_equal(a.masked_fill(condition, 2).numpy(), np.where(condition.numpy(), dtype(2), x))


def test_masks_of_several_dims_pick_and_place_rows_as_numpy_does():
    x = np.random.default_rng(0).standard_normal((30, 40, 3)).astype(np.float32)
    a = paceline.from_numpy(x).requires_grad_()
    for mask in (x > 0, x[..., 0] > 0, x[:, 0, 0] > 0, x > 9):
        a.grad = None
        picked = a[paceline.from_numpy(mask)]
        np.testing.assert_array_equal(picked.detach().numpy(), x[mask])
        picked.backward(2 * picked.detach())
        expected = np.zeros_like(x)
        expected[mask] = 2 * x[mask]
        np.testing.assert_array_equal(a.grad.numpy(), expected)
        np.testing.assert_array_equal(paceline.from_numpy(mask).nonzero().numpy(), np.argwhere(mask))
    rows = paceline.zeros(4, 0, requires_grad=True)
    picked = rows[paceline.tensor([True, False, True, True])]
    picked.sum().backward()
    assert picked.shape == (3, 0) and rows.grad.shape == (4, 0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(300, 500), (70001,)])
def test_large_mean_squared_error_equals_the_formula(shape, dtype):
    x, y = np.random.default_rng(0).standard_normal((2, *shape))
    a, b = (paceline.from_numpy(v.astype(dtype)).requires_grad_() for v in (x, y))
    loss = paceline.nn.functional.mse_loss(a, b)
    (loss * 3).backward()
    np.testing.assert_allclose(loss.item(), ((x - y) ** 2).mean(), rtol=TOLERANCE[dtype])
    for leaf, expected in ((a, 6 * (x - y) / x.size), (b, 6 * (y - x) / x.size)):
        np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=TOLERANCE[dtype], atol=1e-9)
