"""dtypes: PyTorch's promotion rules written down as a table of their own, conversions, limits."""

import itertools

import numpy as np
import pytest

import paceline as torch

NAMES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
         "complex128")  # fmt: skip

# torch.promote_types for the first dtype of the row with each of NAMES, from PyTorch's documentation.
PROMOTED = """
bool       bool       uint8      int8       int16      int32      int64      float16    bfloat16   float32    float64    complex64  complex128
uint8      uint8      uint8      int16      int16      int32      int64      float16    bfloat16   float32    float64    complex64  complex128
int8       int8       int16      int8       int16      int32      int64      float16    bfloat16   float32    float64    complex64  complex128
int16      int16      int16      int16      int16      int32      int64      float16    bfloat16   float32    float64    complex64  complex128
int32      int32      int32      int32      int32      int32      int64      float16    bfloat16   float32    float64    complex64  complex128
int64      int64      int64      int64      int64      int64      int64      float16    bfloat16   float32    float64    complex64  complex128
float16    float16    float16    float16    float16    float16    float16    float16    float32    float32    float64    complex64  complex128
bfloat16   bfloat16   bfloat16   bfloat16   bfloat16   bfloat16   bfloat16   float32    bfloat16   float32    float64    complex64  complex128
float32    float32    float32    float32    float32    float32    float32    float32    float32    float32    float64    complex64  complex128
float64    float64    float64    float64    float64    float64    float64    float64    float64    float64    float64    complex128 complex128
complex64  complex64  complex64  complex64  complex64  complex64  complex64  complex64  complex64  complex64  complex128 complex64  complex128
complex128 complex128 complex128 complex128 complex128 complex128 complex128 complex128 complex128 complex128 complex128 complex128 complex128
"""  # noqa: E501
TABLE = {
    (row.split()[0], second): result
    for row in PROMOTED.strip().splitlines()
    for second, result in zip(NAMES, row.split()[1:], strict=True)
}
CATEGORY = {name: 0 if name == "bool" else 1 if "int" in name else 3 if "complex" in name else 2 for name in NAMES}


def of(name):
    return getattr(torch, name)


@pytest.mark.parametrize("first", NAMES)
def test_promotion_of_tensors(first, device):
    for second in NAMES:
        expected = TABLE[first, second]
        assert torch.promote_types(of(first), of(second)) is of(expected)
        x = torch.ones(2, dtype=of(first), device=device)
        y = torch.ones(2, dtype=of(second), device=device)
        for result in (x * y, torch.where(torch.tensor([True, False], device=device), x, y), torch.cat([x, y])):
            assert result.dtype is of(expected), f"{first} with {second}"
        assert torch.result_type(x, y) is of(expected) and (x == y).dtype is torch.bool


def test_integers_that_do_not_fit_count_by_their_lowest_bits():
    x, y = torch.tensor([1], dtype=torch.uint8), torch.tensor([100], dtype=torch.int8)
    assert ((x + 300).tolist(), (x * -1).tolist(), (300 - x).tolist()) == ([45], [255], [43])
    assert ((y - 1000).tolist(), (y + 127).tolist(), (y + 128).tolist()) == ([124], [-29], [-28])
    assert (x + 300).dtype is torch.uint8 and (x // 300).tolist() == [0] and (x + 43 == 300).tolist() == [True]
    with pytest.raises(OverflowError):
        x + 2**70


@pytest.mark.parametrize("first, second", list(itertools.product(NAMES, NAMES)))
def test_zero_dimensional_tensors_count_only_where_their_category_is_higher(first, second):
    x, y = torch.ones(2, dtype=of(first)), torch.ones((), dtype=of(second))
    low, high = CATEGORY[first], CATEGORY[second]
    if high <= low:
        expected = first
    elif high == 3 and low == 2:
        expected = "complex128" if first == "float64" else "complex64"
    else:
        expected = second
    assert (x * y).dtype is (y * x).dtype is torch.result_type(x, y) is of(expected)


@pytest.mark.parametrize("name", NAMES)
def test_python_numbers_are_weak(name, device):
    for shape in ((2,), ()):
        x = torch.ones(shape, dtype=of(name), device=device)
        category = CATEGORY[name]
        assert (x * True).dtype is x.dtype
        assert (x * 2).dtype is (x.dtype if category else torch.int64)
        assert (x * 2.5).dtype is (2.5 * x).dtype is (x.dtype if category >= 2 else torch.float32)
        wide = name in ("float64", "complex128")
        assert (x * 1j).dtype is (torch.complex128 if wide else torch.complex64)


@pytest.mark.parametrize("name", NAMES)
def test_division_gives_floats(name):
    x = torch.ones(2, dtype=of(name))
    assert (x / x).dtype is (x / 2).dtype is (x.dtype if CATEGORY[name] >= 2 else torch.float32)


@pytest.mark.parametrize("name", [n for n in NAMES if CATEGORY[n] < 2])
def test_integer_rules(name):
    x = torch.ones(2, 2, dtype=of(name))
    for function in (torch.sum, torch.prod, lambda x: x.sum(0), lambda x: x.cumsum(0)):
        assert function(x).dtype is torch.int64
    for function in (torch.exp, torch.sin, torch.sqrt, torch.sigmoid, torch.log, lambda x: x.softmax(0)):
        assert function(x).dtype is torch.float32
    assert x.amax().dtype is x.max().dtype is x.dtype and x.argmax().dtype is torch.int64
    assert (
        x.all().dtype is (x.dtype if name == "uint8" else torch.bool)
        and x.sum(dtype=torch.float64).dtype is torch.float64
    )
    with pytest.raises(RuntimeError, match="could not infer output dtype"):
        x.mean()
    assert x.mean(dtype=torch.float32).item() == 1


@pytest.mark.parametrize("name", [n for n in NAMES if CATEGORY[n] == 2])
def test_floats_keep_their_dtype(name, device):
    """Through functions, reductions, products and the gradients of all of them."""
    x = torch.ones(2, 2, dtype=of(name), device=device, requires_grad=True)
    functions = [
        torch.exp, torch.erf, torch.sigmoid, torch.abs, torch.sum, torch.mean, torch.amax, torch.floor, torch.square,
        lambda x: x * 2.5, lambda x: 1 / x, lambda x: x**3, lambda x: x**0.5, lambda x: x.clamp(0.1, 0.9),
        lambda x: x.softmax(1), lambda x: x.log_softmax(1), lambda x: x.var(), lambda x: x.norm(),
        lambda x: x @ x, lambda x: x.prod(), lambda x: x[0], lambda x: x.masked_fill(x > 0, 2.5), lambda x: x.cumsum(0),
        lambda x: x.logsumexp(0), lambda x: torch.where(x > 0, x, 2.5), lambda x: x.lerp(x, 0.3),
        lambda x: torch.einsum("ij,jk", x, x),
    ]  # fmt: skip
    for i, function in enumerate(functions):
        y = function(x)
        assert y.dtype is x.dtype, f"function {i} of {name} gives {y.dtype}"
        (g,) = torch.autograd.grad(y.sum(), x)
        assert g.dtype is x.dtype, f"gradient of function {i} of {name} is {g.dtype}"
    (x * 2.5).sum().backward()
    assert x.grad.dtype is x.dtype


def test_in_place_operations_keep_the_dtype_or_refuse():
    x = torch.ones(2)
    x += torch.ones(2, dtype=torch.float64)
    x *= 2
    assert x.dtype is torch.float32 and x.tolist() == [4, 4]
    n = torch.ones(2, dtype=torch.int64)
    n += True
    with pytest.raises(RuntimeError, match="result type float32 can't be cast to the desired output type int64"):
        n += 1.5
    with pytest.raises(RuntimeError, match="can't be cast"):
        n /= 2


def test_integer_division_and_remainder_follow_python():
    for a, b in itertools.product((-7, 7, 6), (2, -2, 3)):
        x, y = torch.tensor(a), torch.tensor(b)
        assert (x // y).item() == a // b and (x % y).item() == a % b and (x // b).item() == a // b
        assert torch.div(x, y, rounding_mode="trunc").item() == int(a / b)
        assert torch.fmod(x, y).item() == a - int(a / b) * b


def test_integer_powers():
    x = torch.tensor([2, -1, -1, 1, 3])
    assert (x ** torch.tensor([-1, -1, -2, -5, 3])).tolist() == [0, -1, 1, 1, 27] and (x**2).dtype is torch.int64
    with pytest.raises(RuntimeError, match="negative integer powers are not allowed"):
        x**-1


def test_unsigned_bytes_wrap_around():
    x = torch.tensor([250, 5], dtype=torch.uint8)
    assert (x + 10).tolist() == [4, 15] and (x + 10).dtype is torch.uint8 and x.sum().item() == 255
    assert (-torch.tensor([1], dtype=torch.uint8)).item() == 255 and torch.tensor([True, True]).sum().item() == 2


def test_conversions():
    x = torch.tensor([1.7, -1.7, 0.0])
    assert x.long().tolist() == [1, -1, 0] and x.bool().tolist() == [True, True, False] and x.int().dtype is torch.int32
    assert (
        x.half().dtype is torch.float16 and x.bfloat16().dtype is torch.bfloat16 and x.double().dtype is torch.float64
    )
    assert torch.tensor([1.0 + 2**-10]).bfloat16().float().item() == 1.0  # 8 bits of precision


def test_names_of_dtypes():
    assert repr(torch.float32) == "paceline.float32" and torch.float is torch.float32 and torch.long is torch.int64
    assert torch.half is torch.float16 and torch.double is torch.float64 and torch.cfloat is torch.complex64
    assert torch.float32.is_floating_point and not torch.int8.is_floating_point and torch.complex64.is_complex
    assert torch.int8.is_signed and not torch.uint8.is_signed and torch.bfloat16.itemsize == 2
    assert isinstance(torch.float32, torch.dtype) and torch.can_cast(torch.int64, torch.float16)
    assert not torch.can_cast(torch.float16, torch.int64) and not torch.can_cast(torch.complex64, torch.float64)


def test_the_default_dtype_is_floating():
    with pytest.raises(TypeError, match="expected a floating dtype"):
        torch.set_default_dtype(torch.int64)
    torch.set_default_dtype(torch.float64)
    assert torch.get_default_dtype() is torch.float64 and torch.exp(torch.tensor([1])).dtype is torch.float64


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_limits_of_floats(name):
    ours, theirs = torch.finfo(of(name)), np.finfo(name)
    assert (ours.bits, ours.eps, ours.max, ours.min, ours.tiny) == (
        theirs.bits, float(theirs.eps), float(theirs.max), float(theirs.min), float(theirs.tiny))  # fmt: skip
    assert torch.finfo(torch.bfloat16).eps == 2**-7 and torch.finfo().dtype == "float32"


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "int64"])
def test_limits_of_integers(name):
    ours, theirs = torch.iinfo(of(name)), np.iinfo(name)
    assert (ours.bits, ours.max, ours.min) == (theirs.bits, theirs.max, theirs.min)


def test_limits_of_the_wrong_kind():
    with pytest.raises(TypeError, match="requires a floating point input type"):
        torch.finfo(torch.int64)
    with pytest.raises(TypeError, match="requires an integer input type"):
        torch.iinfo(torch.float32)


def test_complex_numbers():
    z = torch.tensor([3 + 4j, -1j])
    assert abs(z).tolist() == [5, 1] and abs(z).dtype is torch.float32 and (z * z.conj()).tolist() == [25, 1]
    assert (z + 1).tolist() == [4 + 4j, 1 - 1j] and (z == z).all() and z.sum().item() == 3 + 3j
    np.testing.assert_allclose(torch.exp(z).numpy(), np.exp(z.numpy()), rtol=1e-6)
    assert (z @ z).item() == (3 + 4j) ** 2 - 1
