"""Loops of kernels over `prange` run on threads."""

import re

import numpy as np
import pytest

from paceline.tensor import kernels

numba = pytest.importorskip("numba")

prange = numba.prange


def kernel(function):
    return kernels.sources.compiler.jit(function)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels.sources.cache, "folders", lambda: (tmp_path,))


@pytest.fixture(params=[1, 2])
def threads(request):
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("this process may use one thread")
    kernels.sources.compiler  # noqa: B018  (chooses how threads run)
    before = numba.get_num_threads()
    numba.set_num_threads(request.param)
    yield request.param
    numba.set_num_threads(before)


def add_power(power):
    @kernel
    def add(x, scales, out):
        for k in range(len(scales)):
            factor = scales[k]
            for i in prange(x.size):
                value = x[i] ** power
                out[i] += value * factor
        rows = out.size // 2
        for i in prange(rows):
            out[2 * i] += rows
        return rows

    return add


def test_every_part_of_a_range_is_run_once(threads):
    add = add_power(3)
    for size in (0, 1, 2, 3, 1001):
        x, out = np.linspace(-1, 1, size), np.ones(size)
        rows = add(x, (2.0, 0.5), out)
        expected = 1 + x**3 * 2.5
        expected[: 2 * rows : 2] += rows
        assert rows == size // 2
        np.testing.assert_allclose(out, expected)


@kernel
def fill_on_request(sizes, out):
    for i in prange(sizes.size):
        memory = np.empty(sizes[i])
        memory[:1] = i
        out[i] = memory[0]


def test_a_thread_without_memory_is_heard_of(threads):
    out = np.zeros(4)
    fill_on_request(np.array([1, 2, 3, 4]), out)
    assert out.tolist() == [0, 1, 2, 3]
    with pytest.raises(MemoryError):
        fill_on_request(np.array([1, 1, 1, 1 << 60]), out)


@kernel
def add_rows(rows, out):
    for i in prange(out.size):
        out[i] += rows[0, i] + rows[1:][0, i]


def test_bodies_are_vectorized_and_count_no_references():
    """Either is lost without a wrong result, and costs a factor of ten."""
    rows, out = np.arange(20.0).reshape(2, 10), np.zeros(10)
    add_rows(rows, out)
    assert (out == rows.sum(0)).all()
    (code,) = add_rows.inspect_llvm().values()
    (share,) = [text for text in code.split("\ndefine ")[1:] if ".share(" in text.splitlines()[0]]
    body = share.split("\n}")[0]
    assert "x double>" in body
    assert "NRT_incref" not in body


@pytest.mark.parametrize(
    ("family", "name", "signature"),
    [
        ("optimizer", "sgd_momentum", "f4[::1], f4[::1], f4[::1], f4, f4, f4, b1, f4, b1, b1"),
        ("recurrent", "lstm_backward", ", ".join(["f4[:, ::1]"] * 6)),
    ],
)
def test_kernels_of_many_arrays_are_vectorized(family, name, signature):
    """They no longer are if LLVM loses sight of which arrays share no memory, or of a loop's shape."""
    module = getattr(kernels.sources, family)
    compiled = module.jit()(getattr(module, name).py_func)
    compiled.compile(f"({signature})")
    (code,) = compiled.inspect_llvm().values()
    assert re.search(r"fmul .*<\d+ x float>", code)
