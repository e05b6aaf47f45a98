"""The rows of all tables, and what is excused from having one."""

from __future__ import annotations

import importlib

import pytest

from .internal_ops import INTERNAL
from .ops import PUBLIC

# Each package may bring rows in a table of its own, as a list ROWS.
MORE_TABLES = (
    "tables.nn_ops",
    "tables.spatial_ops",
    "tables.special_ops",
    "tables.linalg_ops",
    "tables.fft_ops",
    "tables.structure_ops",
    "tables.shape_ops",
)

# Primitives of these modules are compared with independent references where their layers are tested.
EXCUSED_MODULES = {
    f"paceline.tensor.ops.{name}": "rows come with the layers' own tests"
    for name in ("attention", "convolution", "pooling", "normalization", "embedding", "loss", "fft")
}

_RAW_INDEX = "its index holds raw arrays; the rows __getitem__ and __setitem__ pass through it, forward and backward"
_LOSS = "rows come with the losses' own tests"
_SETTING = "a setting, not an operation: tests/test_tensor.py"
_RANDOM = "random: tests/test_tensor.py"
_TAPE = "about the tape: tests/test_autograd.py"
_BRIDGE = "to and from other libraries: tests/test_tensor.py"
_DTYPES = "about dtypes: tests/test_dtypes.py"
_MEMORY = "about memory, not values: tests/test_tensor.py"

EXCUSED = {
    **dict.fromkeys(("take_index", "add_at"), _RAW_INDEX),
    **dict.fromkeys(("softmax_cross_entropy", "softmax_cross_entropy_backward"), _LOSS),
    **dict.fromkeys(
        ("get_default_device", "set_default_device", "get_num_threads", "set_num_threads", "set_printoptions"), _SETTING
    ),
    **dict.fromkeys(("get_default_dtype", "set_default_dtype", "promote_types", "result_type", "can_cast", "finfo",
                     "iinfo", "type", "half", "bfloat16", "cfloat", "cdouble", "dtype"), _DTYPES),
    **dict.fromkeys(("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal",
                     "bernoulli", "multinomial", "uniform_", "normal_", "bernoulli_", "Generator", "manual_seed",
                     "seed", "initial_seed", "get_rng_state", "set_rng_state"), _RANDOM),
    **dict.fromkeys(("poisson", "binomial", "exponential_", "cauchy_", "log_normal_", "geometric_", "random_"),
                    "random: tests/test_random.py"),
    **dict.fromkeys(("no_grad", "enable_grad", "set_grad_enabled", "inference_mode", "is_grad_enabled",
                     "is_inference_mode_enabled", "is_anomaly_enabled", "backward", "detach_", "requires_grad_",
                     "retain_grad", "register_hook", "register_post_accumulate_grad_hook"), _TAPE),
    **dict.fromkeys(("from_numpy", "from_dlpack", "as_tensor", "numpy", "__array__", "__dlpack__", "__dlpack_device__",
                     "__deepcopy__", "__reduce_ex__", "cuda", "device"), _BRIDGE),
    **dict.fromkeys(("layout", "memory_format"), _SETTING),
    **dict.fromkeys(("empty", "empty_like", "new_empty", "data_ptr", "get_device", "Size", "Tensor", "__init__"),
                    _MEMORY),
    **dict.fromkeys(("BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor",
                     "HalfTensor", "IntTensor", "LongTensor", "ShortTensor"), "of one dtype: tests/test_tensor.py"),
    **dict.fromkeys(("__repr__", "__format__"), "tests/test_printing.py"),
    **dict.fromkeys(("save", "load"), "tests/test_serialization.py"),
    **dict.fromkeys(("autocast", "is_autocast_enabled", "use_deterministic_algorithms", "set_float32_matmul_precision",
                     "get_float32_matmul_precision"), "no operations: tests/test_amp.py"),
    "vmap": "tests/test_func.py",
    "compile": "tests/test_api_page.py",
    "__hash__": "by identity: tests/test_tensor.py",
}  # fmt: skip


def rows() -> list:
    """Every row there is."""
    found = [*PUBLIC, *INTERNAL]
    for name in MORE_TABLES:
        if importlib.util.find_spec(name) is not None:
            found += importlib.import_module(name).ROWS
    return found


def params(*, where=lambda op: True) -> list:
    """pytest parameters of the rows that a test is about, with readable names."""
    seen: dict[str, int] = {}
    chosen = []
    for op in rows():
        seen[op.name] = seen.get(op.name, 0) + 1
        label = f"{'primitive ' if op.internal else ''}{op.name}{f' {seen[op.name]}' if seen[op.name] > 1 else ''}"
        if where(op):
            chosen.append(pytest.param(op, id=label.replace(" ", "-")))
    return chosen
