"""Which in-place methods and `out=` arguments PyTorch has and Paceline lacks: none but those listed with a reason."""

import inspect

import pytest

torch = pytest.importorskip("torch")

import paceline  # noqa: E402

from . import operations  # noqa: E402

_FIXED_MEMORY = "memory behind a tensor cannot grow or be exchanged"
NO_METHOD = {
    **dict.fromkeys(("resize_", "resize_as_", "set_"), _FIXED_MEMORY),
    **dict.fromkeys(("resize_as_sparse_", "sparse_resize_", "sparse_resize_and_clear_"), "sparse tensors"),
    **dict.fromkeys(("map_", "map2_"), "internal: PyTorch does not document them"),
    "share_memory_": "loader workers hand batches over by themselves",
}
NO_OUT = {
    "equal": "its result is a Python bool",
    "histogramdd": "its results are a list and a tensor",
    **dict.fromkeys(
        ("nn.functional.normalize", "nn.functional.avg_pool2d", "nn.functional.avg_pool3d",
         "nn.functional.softshrink", "nn.functional.hardshrink"),
        "functions of layers, which nobody calls with out",
    ),
}  # fmt: skip


def test_in_place_methods():
    theirs = {n for n in dir(torch.Tensor) if n.endswith("_") and not n.endswith("__") and not n.startswith("_")}
    missing = {n for n in theirs if not hasattr(paceline.Tensor, n)}
    assert missing == set(NO_METHOD)


def test_in_place_operators():
    theirs = {n for n in dir(torch.Tensor) if n.startswith("__i") and callable(getattr(torch.Tensor, n))}
    assert not {n for n in theirs if not hasattr(paceline.Tensor, n)} - {"__idiv__"}  # Python 2's


def public(name):
    found = paceline
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def test_out_arguments():
    with_out = {info.name for info in operations.in_scope() if info.supports_out and public(info.name)}
    missing = {name for name in with_out if "out" not in inspect.signature(public(name)).parameters}
    assert missing == set(NO_OUT)
