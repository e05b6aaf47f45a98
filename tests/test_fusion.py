"""Chains of elementwise operations in one pass: eager's bits, forward and backward, in memory that nobody else has."""


import gc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import paceline as torch
from paceline.runtime import buffers
from paceline.tensor import kernels
from paceline.tensor.ops import chains

pytest.importorskip("numba")

F = torch.nn.functional
ONE = {
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "exp": lambda x: torch.exp(torch.clamp(x, -5, 5)), "relu": F.relu,
    "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "softplus": F.softplus,
    "square": torch.square, "power": lambda x: x**2,
    "cube": lambda x: x**3, "square root": lambda x: (x * x + 1) ** 0.5,
    "neg": torch.neg, "leaky": lambda x: F.leaky_relu(x, 0.2),
    "clamp": lambda x: x.clamp(-1, 0.5), "half": lambda x: x * 0.5, "one minus": lambda x: 1 - x,
    "third": lambda x: x / 3, "over": lambda x: 2 / (x * x + 1), "shifted": lambda x: x + 1, "sin": torch.sin,
    "chosen": lambda x: torch.where(x > 0.1, x, -x), "filled": lambda x: x.masked_fill(x <= 0, 2.0),
    "both": lambda x: torch.where((x > -1) & ~(x >= 1) | (x == 3), x, 0.5), "flag": lambda x: (0 < x).to(x.dtype),
    "double": lambda x: x.double().mul(1 / 3).to(x.dtype), "half zero": lambda x: torch.where(x != x, 0.0, x / 2),
    "whole": lambda x: ((x > 0).long() * 3 - (x < 1).int() + 1).to(x.dtype),
    "mish": F.mish, "abs": torch.abs, "root": lambda x: torch.sqrt(x * x + 1),
}  # fmt: skip
TWO = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": lambda x, y: x / (y * y + 1),
    "max": torch.maximum, "where": lambda x, y: torch.where(x > 0, x, y),
}  # fmt: skip
SHAPES = ((6, 4, 5), (5,), (1, 4, 5), (4, 5), (), (1,), (6, 1, 1))  # the first is that of the chain


@pytest.fixture(autouse=True)
def small_arrays_are_large(monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 64)


@pytest.fixture
def passes(monkeypatch):
    """How many operations each chain that ran was made of."""
    found = []
    call = chains.Chain.__call__

    def noted(chain, *arrays):
        results = call(chain, *arrays)
        if results is not None:
            found.append(len(chain.instructions))
        return results

    monkeypatch.setattr(chains.Chain, "__call__", noted)
    return found


@st.composite
def programs(draw):
    """Operations on what was computed before: (name, operands as numbers of values)."""
    count = draw(st.integers(1, 3))
    shapes = [SHAPES[0], *(draw(st.sampled_from(SHAPES)) for _ in range(count - 1))]
    steps = []
    for k in range(draw(st.integers(2, 9))):
        value = st.integers(0, count + k - 1)
        if draw(st.booleans()):
            steps.append((draw(st.sampled_from(sorted(ONE))), (draw(value),)))
        else:
            steps.append((draw(st.sampled_from(sorted(TWO))), (draw(value), draw(value))))
    wanted = [draw(st.booleans()) for _ in shapes]
    returned = draw(st.lists(st.integers(count, count + len(steps) - 1), max_size=2, unique=True))
    gradient = draw(st.sampled_from(("full", "expanded", "transposed")))
    return shapes, steps, wanted, returned, gradient, draw(st.sampled_from((np.float32, np.float64)))


def function(steps, returned):
    def run(*inputs):
        values = list(inputs)
        for name, operands in steps:
            values.append((ONE | TWO)[name](*(values[i] for i in operands)))
        return tuple(values[i] for i in returned) + (values[-1] + values[0],)

    return run


def bits(tensors):
    """All bits, those of NaNs apart: which of two NaNs comes out of an addition is the compiler's choice."""
    arrays = [None if t is None else t.detach().numpy() for t in tensors]
    return [None if a is None else (a.dtype, a.strides, np.where(np.isnan(a), np.nan, a).tobytes()) for a in arrays]


def step(run, arrays, wanted, gradient, times=1):
    """Outputs and gradients of a call, the gradients added up over some calls."""
    inputs = [torch.tensor(a).requires_grad_(w) for a, w in zip(arrays, wanted, strict=True)]
    for _ in range(times):
        outputs = run(*inputs)
        last = outputs[-1]
        if last.requires_grad:
            last.backward(gradient(last), retain_graph=False)
    return bits([*outputs, *(x.grad for x in inputs)])


GRADIENTS = {
    "full": lambda y: y.detach() * 2,
    "expanded": lambda y: torch.ones((), dtype=y.dtype).expand(y.shape),
    "transposed": lambda y: torch.from_numpy(np.asfortranarray(y.detach().numpy())),
}


@example(program=([(6, 4, 5)], [("double", (0,)), ("mul", (0, 1))], [True], [], "full", np.float32), seed=0)
@example(program=([(6, 4, 5), (5,)], [("add", (0, 1)), ("div", (1, 2))], [False, True], [], "full", np.float32), seed=0)
@settings(max_examples=120, deadline=None)
@given(program=programs(), seed=st.integers(0, 1000))
def test_any_chain_has_the_bits_of_its_operations(program, seed):
    shapes, steps, wanted, returned, gradient, dtype = program
    run = function(steps, returned)
    compiled = torch.compile(run, fullgraph=True)
    rng = np.random.default_rng(seed)
    for times in (1, 2):
        arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        found, expected = (step(f, arrays, wanted, GRADIENTS[gradient], times) for f in (compiled, run))
        assert found == expected


ROWS = {  # shape of the chain, of rows repeated along it, and whether their gradients are added up in its pass
    "rows": ((100, 300), (300,), (1, 300), True), "short rows": ((2000, 7), (7,), (7,), True),
    "pieces": ((1000, 64), (64,), (1, 64), True), "a wide row": ((9, 1000), (1000,), (1000,), True),
    "matrices": ((40, 16, 32), (16, 32), (32,), True), "two widths": ((40, 16, 30), (16, 30), (30,), True),
    "gaps": ((100, 1, 300), (1, 1, 300), (300,), True), "few": ((30, 30), (30,), (30,), False),
    "columns": ((100, 300), (100, 1), (), False),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ROWS)
def test_gradients_of_rows_have_the_bits_of_sums_of_gradients(name, dtype, monkeypatch):
    def run(x, scale, shift):
        h = torch.tanh(x * scale + shift)
        return torch.sigmoid(h * shift) * scale - h

    call, added = chains.Chain.__call__, []

    def noted(chain, *given):
        added.extend(chain.sums)
        return call(chain, *given)

    monkeypatch.setattr(chains.Chain, "__call__", noted)
    *shapes, in_the_pass = ROWS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    compiled = torch.compile(run, fullgraph=True)
    for gradient in GRADIENTS.values():
        found, expected = (step(f, arrays, [True] * 3, gradient, 2) for f in (compiled, run))
        assert found == expected
    assert bool(added) is in_the_pass


def block(x, scale, shift):
    h = F.gelu(x * scale + shift)
    return torch.tanh(h) * x + h * torch.sigmoid(x)


def test_a_chain_is_one_pass_forward_and_one_backward(passes):
    compiled = torch.compile(block, fullgraph=True)
    x = torch.randn(20, 8, requires_grad=True)
    compiled(x, torch.ones(8), torch.ones(8)).sum().backward()
    assert [length > 6 for length in passes] == [True, True]


def test_results_of_earlier_calls_do_not_change():
    compiled = torch.compile(block, fullgraph=True)
    scale = torch.ones(8, requires_grad=True)
    kept, copies = [], []
    for _ in range(4):
        x = torch.randn(20, 8, requires_grad=True)
        y = compiled(x, scale, torch.ones(8))
        kept += [y, y.detach()[2:5]]
        y.sum().backward()
        kept += [x.grad, scale.grad]
        scale.grad = None
        copies += [t.detach().clone() for t in kept[-4:]]
    assert bits(kept) == bits(copies)


def test_a_chain_adds_to_a_gradient_that_was_there_before(passes):
    def function(x, w):
        h = x * 2
        chain = torch.tanh(h) * 3
        return chain + h @ w

    x, w = torch.randn(20, 8, requires_grad=True), torch.randn(8, 8)
    found = []
    for f in (function, torch.compile(function, fullgraph=True)):
        f(x, w).sum().backward()
        found.append(bits([x.grad]))
        x.grad = None
    assert found[0] == found[1]
    assert len(passes) == 2


def test_backward_runs_after_later_calls():
    compiled = torch.compile(block, fullgraph=True)
    inputs = [torch.randn(20, 8, requires_grad=True) for _ in range(3)]
    found = []
    for f in (compiled, block):
        outputs = [f(x, torch.ones(8), torch.ones(8)) for x in inputs]
        for y in reversed(outputs):
            y.sum().backward()
        found.append(bits([*outputs, *(x.grad for x in inputs)]))
        for x in inputs:
            x.grad = None
    assert found[0] == found[1]


def test_results_may_be_changed_in_place():
    compiled = torch.compile(lambda x: (x * 2 + 1).tanh(), fullgraph=True)
    x = torch.randn(20, 8)
    expected = compiled(x).clone()
    compiled(x).zero_()
    assert bits([compiled(x)]) == bits([expected])


def test_in_threads_without_numba_and_in_other_layouts_the_bits_are_the_same(passes, monkeypatch):
    compiled = torch.compile(block, fullgraph=True)
    rows = torch.ones(8), torch.ones(8)
    x = torch.randn(20, 8, requires_grad=True)
    expected = bits([compiled(x, *rows)])
    passes.clear()
    monkeypatch.setattr(chains, "usable", lambda: False)  # as in a forked process
    assert bits([compiled(x, *rows)]) == expected
    assert not passes


def saved_by(y):
    return [x for x in gc.get_referents(y.node) if type(x) is tuple for x in x if isinstance(x, np.ndarray)]


def test_what_lies_between_is_computed_again_rather_than_kept(passes):
    compiled = torch.compile(block, fullgraph=True)
    x, row = torch.randn(20, 8, requires_grad=True), torch.ones(8)
    y = compiled(x, row, row)
    assert all(any(a is t.array for t in (x, row)) for a in saved_by(y))
    y.sum().backward()
    assert passes[1] > passes[0] + 6


def test_what_the_caller_may_change_is_not_computed_from():
    """tanh() keeps its result, not its input, which may be changed before backward runs."""
    x = torch.randn(20, 8, requires_grad=True)
    found = []
    for f in (lambda x: torch.tanh(torch.tanh(x)), torch.compile(lambda x: torch.tanh(torch.tanh(x)), fullgraph=True)):
        y = f(x)
        with torch.no_grad():
            x.mul_(2)
        y.sum().backward()
        with torch.no_grad():
            x.div_(2)
        found.append(bits([y, x.grad]))
        x.grad = None
    assert found[0] == found[1]


def test_gradients_of_gradients_through_what_was_not_kept():
    x = torch.randn(8, 8, requires_grad=True)
    row = torch.randn(8, requires_grad=True)
    found = []
    for f in (block, torch.compile(block, fullgraph=True)):
        first = torch.autograd.grad(f(x, row, row).sum(), (x, row), create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in first), (x, row))
        found.append(bits([*first, *second]))
    assert found[0] == found[1]


def test_without_the_kernels_what_was_not_kept_is_computed_again(monkeypatch):
    x, row = torch.randn(20, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    found = []
    for f in (block, torch.compile(block, fullgraph=True)):
        y = f(x, row, row)
        with monkeypatch.context() as context:
            context.setattr(chains, "usable", lambda: False)
            y.sum().backward()
        found.append(bits([y, x.grad, row.grad]))
        x.grad = row.grad = None
    assert found[0] == found[1]


def test_large_arrays_are_used_again_only_if_nobody_has_them(monkeypatch):
    monkeypatch.setattr(buffers, "_LEAST", 0)
    monkeypatch.setattr(buffers, "_KEPT", 4 * 480)
    monkeypatch.setattr(buffers, "_large", [])
    float32 = np.dtype(np.float32)
    first = buffers.empty((120,), float32)
    place = first.ctypes.data
    views = first[3:], memoryview(first), torch.from_numpy(first)
    assert buffers.empty((120,), float32).ctypes.data != place
    for view in views:
        del first
        first = view
        assert buffers.empty((120,), float32).ctypes.data != place
    del first, views, view
    assert buffers.empty((120,), float32).ctypes.data == place
    kept = [buffers.empty((120,), float32) for _ in range(9)]
    assert len({array.ctypes.data for array in kept}) == 9
    assert sum(array.nbytes for array in buffers._large) <= 4 * 480
    del kept
    assert buffers.empty((60, 2), float32).shape == (60, 2)
    test_results_of_earlier_calls_do_not_change()


@pytest.mark.parametrize("name", ["tanh", "power", "cube", "square root", "neg", "relu", "gelu", "abs", "over",
                                  "chosen", "filled", "both", "double", "half zero"])  # fmt: skip
def test_each_operation_is_a_part_of_chains(name, passes):
    x = torch.randn(20, 8, requires_grad=True)
    torch.compile(lambda x: 2 * ONE[name](x + 1), fullgraph=True)(x).sum().backward()
    assert len(passes) == 2
