"""Operations against PyTorch's own sample inputs (op_db): values and gradients, by public name."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch

import paceline

from .convert import difference, tensors_in, to_paceline

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

# Not what a dense float, integer and bool tensor library has, or no public API of PyTorch's.
OUT_OF_SCOPE = {
    "sparse.sampled_addmm": "sparse tensors",
    "sparse.mm": "sparse tensors",
    "to_sparse": "sparse tensors",
    "torch._scaled_mm": "float8",
    "torch._scaled_mm_v2": "float8",
    "jiterator_unary": "CUDA jiterator",
    "jiterator_binary": "CUDA jiterator",
    "jiterator_4inputs_with_extra_args": "CUDA jiterator",
    "jiterator_binary_return_by_ref": "CUDA jiterator",
    "jiterator_2inputs_2outputs": "CUDA jiterator",
    "chalf": "complex32, which NumPy does not have",
    "nonzero_static": "a compiler's internal",
    "hash_tensor": "internal",
    "resize_": "memory behind a tensor cannot grow",
    "resize_as_": "memory behind a tensor cannot grow",
    "slice": "no public name",
    "uniform": "tested as Tensor.uniform_",
}
_INTERNAL = ("_", "torch.ops.", "native_", "max_pool2d_with_indices_backward", "grid_sampler_", "masked.", "alias_copy")
_RANDOM = {
    "bernoulli", "cauchy", "exponential", "geometric", "log_normal", "normal", "uniform", "multinomial", "rand_like",
    "randint", "randint_like", "randn", "randn_like", "nn.functional.dropout", "nn.functional.dropout2d",
    "nn.functional.dropout3d", "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout",
    "nn.functional.rrelu", "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d",
    "svd_lowrank", "pca_lowrank",
}  # fmt: skip
# PyTorch's own error in float64, against mpmath with 15 digits; SciPy's is below 1e-15 there.
_IMPRECISE_IN_TORCH = {f"special.bessel_{name}": 1e-6 for name in ("j0", "j1", "y0", "y1")}
# At inputs of 1e4 float32 has no more digits: there both libraries are as far from the values in float64.
# The gradient of a layer norm over one element is 0; PyTorch's is its rounding error over sqrt(eps).
_COARSE_IN_FLOAT32 = {"logcumsumexp": 3e-3, "nn.functional.layer_norm": 2e-4}
# What PyTorch's own gradcheck refuses; tests/tables has finite differences for it.
_WRONG_GRADIENT_IN_TORCH = {"as_strided_scatter"}
# Entries that show a public function with its arguments in another order.
_REORDERED = {
    "where": lambda f: lambda input, condition, *other: f(condition, input, *other),
    "einsum": lambda f: lambda tensors, equation: f(equation, tensors),
    "nn.functional.embedding": lambda f: lambda weight, indices, **kwargs: f(indices, weight, **kwargs),
    "nn.functional.embedding_bag": lambda f: lambda weight, indices, **kwargs: f(indices, weight, **kwargs),
}
# Entries of op_db that call their function with something else than the sample, by full name.
_WRAPPED = {
    "linalg.lstsq/grad_oriented": lambda f: lambda a, b, driver: f(a, b, driver=driver)[:2],
    "linalg.pinv/singular": lambda f: lambda a, b: f(a @ b.mT),
    "svd_lowrank": lambda f: lambda a, b, **kwargs: f(a @ b.mT, **kwargs),
    "pca_lowrank": lambda f: lambda a, b, **kwargs: f(a @ b.mT, **kwargs),
}
# The argument that is a triangular factor: PyTorch's gradients are right only for what flows on to its triangle.
_TRIANGULAR = {"cholesky_inverse": 0, "cholesky_solve": 1}
_OPEN_AMONG_EQUALS = {"sort", "argsort", "topk", "kthvalue", "median", "mode"}
_UNINITIALIZED = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}
DTYPES = (torch.float32, torch.float64, torch.int64, torch.bool, torch.complex128)


def scope(info: Any) -> str:
    """Why an entry of op_db is out of scope, "" if it is in."""
    if info.name in OUT_OF_SCOPE:
        return OUT_OF_SCOPE[info.name]
    if info.name.startswith(_INTERNAL) and not info.name.startswith("__"):
        return "internal to PyTorch"
    if "triton" in info.variant_test_name:
        return "internal to PyTorch"
    return ""


def full_name(info: Any) -> str:
    return info.name + (f"/{info.variant_test_name}" if info.variant_test_name else "")


def find(name: str) -> Callable | None:
    """Paceline's function of that public name, else the Tensor method."""
    found: Any = paceline
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            break
    if callable(found):
        return _REORDERED.get(name, lambda f: f)(found)
    if "." in name:
        return None
    in_place = name.removesuffix("_") + "_"
    if hasattr(paceline.Tensor, in_place) and (name == in_place or not hasattr(paceline.Tensor, name)):
        return lambda input, *args, **kwargs: getattr(input.clone(), in_place)(*args, **kwargs)
    if not hasattr(paceline.Tensor, name):
        return None
    method = paceline.Tensor.__dict__.get(name, getattr(paceline.Tensor, name))
    return (lambda input: getattr(input, name)) if isinstance(method, property) else getattr(paceline.Tensor, name)


@dataclasses.dataclass
class Outcome:
    """How one entry did: status is "pass", "missing", "error" or "wrong"."""

    name: str
    status: str
    samples: int = 0
    detail: str = ""


def run(info: Any, limit: int | None = None) -> Outcome:
    """All samples of an entry for all dtypes that it supports; the first that goes wrong ends it."""
    name, count = full_name(info), 0
    function = find(info.name + "_" if info.variant_test_name == "in_place" else info.name)
    if function is None:
        return Outcome(name, "missing")
    function = _WRAPPED.get(name, lambda f: f)(function)
    for dtype in DTYPES:
        if dtype not in info.dtypes:
            continue
        for sample in samples(info, dtype, limit):
            if sample is None:
                continue
            status, detail = check(info, function, sample, dtype)
            count += 1
            if status != "pass":
                return Outcome(name, status, count, f"{str(dtype).removeprefix('torch.')}: {detail} on {brief(sample)}")
    return Outcome(name, "pass", count)


def samples(info: Any, dtype: torch.dtype, limit: int | None) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        grad = dtype.is_floating_point or dtype.is_complex
        needs_grad = grad and info.supports_autograd and dtype in info.backward_dtypes
        for sample in itertools.islice(info.sample_inputs("cpu", dtype, requires_grad=needs_grad), limit):
            yield sample.transform(as_leaf)


def as_leaf(value: Any) -> Any:
    """A view that was made off the tape as a leaf: PyTorch gives such views no gradient."""
    view = isinstance(value, torch.Tensor) and value.requires_grad and value.is_leaf and value._is_view()
    return value.detach().requires_grad_() if view else value


def brief(sample: Any) -> str:
    def text(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(text, value)) + "]"
        return repr(value)

    parts = [text(sample.input), *map(text, sample.args), *(f"{k}={text(v)}" for k, v in sample.kwargs.items())]
    return f"({', '.join(parts)})"[:300]


def tolerance(dtype: torch.dtype, others: Any) -> tuple[float, float]:
    """How close values must be: as in float32 if the input, a further argument (weights) or the result is."""
    single = dtype == torch.float32 or any(t.dtype in (torch.float32, torch.complex64) for t in tensors_in(others))
    return (1e-4, 1e-5) if single else (1e-7, 1e-7)


def named_elements(name: str, result: Any, sample: Any) -> Any:
    """Indices as the elements they name, where PyTorch leaves open which one of equal elements it picks."""
    if name not in _OPEN_AMONG_EQUALS or sample.kwargs.get("stable"):
        return result
    position = 1 if name in ("topk", "kthvalue") else 0
    dim = sample.kwargs.get("dim", sample.args[position] if len(sample.args) > position else -1)
    x = sample.input.detach()
    index = tensors_in(result)[-1].detach()
    if x.ndim == 0 or index.is_floating_point() or (len(tensors_in(result)) == 1 and name != "argsort"):
        return result
    if isinstance(index, torch.Tensor):
        return [*tensors_in(result)[:-1], torch.take_along_dim(x, index.reshape(_kept(x, index, dim)), dim)]
    array = numpy.take_along_axis(x.numpy(), index.array.reshape(_kept(x, index, dim)), dim)
    return [*tensors_in(result)[:-1], paceline.from_numpy(array)]


def _kept(x: torch.Tensor, index: Any, dim: int) -> tuple:
    """The shape of an index with the reduced dimension in its place."""
    return tuple(index.shape) if index.ndim == x.ndim else (*x.shape[: dim % x.ndim], 1, *x.shape[dim % x.ndim + 1 :])


def on_triangle(name: str, function: Callable) -> Callable:
    """The function of the triangle of its triangular argument, for either library."""
    if name not in _TRIANGULAR:
        return function
    index = _TRIANGULAR[name]

    def of_triangle(*args: Any, upper: bool = False) -> Any:
        factor = args[index].triu() if upper else args[index].tril()
        return function(*args[:index], factor, *args[index + 1 :], upper=upper)

    return of_triangle


def check(info: Any, function: Callable, sample: Any, dtype: torch.dtype) -> tuple[str, str]:
    """One sample: the result, and the gradients under a random cotangent."""
    given = (sample.input, *sample.args)
    try:
        ours_in, ours_kwargs = to_paceline((given, sample.kwargs))
    except AttributeError as error:
        return "error", f"an argument has no counterpart: {error}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = on_triangle(info.name, info.op)(*given, **sample.kwargs)
        except Exception:
            return "pass", ""  # a sample that PyTorch itself refuses here
        rtol, atol = tolerance(dtype, [theirs, *sample.args, sample.kwargs])
        atol = _IMPRECISE_IN_TORCH.get(info.name, atol)
        if dtype == torch.float32:
            atol = _COARSE_IN_FLOAT32.get(info.name, atol)
        try:
            ours = on_triangle(info.name, function)(*ours_in, **ours_kwargs)
        except Exception as error:
            return "error", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        values = info.name not in _RANDOM and info.name not in _UNINITIALIZED and not drops(info, sample)
        process = sample.output_process_fn_grad
        try:
            theirs_shown = process(theirs)
            ours_shown = process(ours) if theirs_shown is not theirs else ours
        except Exception:
            theirs_shown, ours_shown = theirs, ours
        pair = (named_elements(info.name, result, sample) for result in (ours_shown, theirs_shown))
        found = difference(*pair, rtol, atol, values)
        if found:
            return "wrong", found
        if info.name in _WRONG_GRADIENT_IN_TORCH:
            return "pass", ""
        if values and any(t.requires_grad for t in tensors_in([given, sample.kwargs])):
            return check_gradients(theirs_shown, ours_shown, (given, sample.kwargs), (ours_in, ours_kwargs), rtol, atol)
    return "pass", ""


def drops(info: Any, sample: Any) -> bool:
    """Whether a sample of attention drops weights at random, so that only shapes can be compared."""
    if info.name == "nn.functional.multi_head_attention_forward":
        return sample.args[9] > 0 and sample.kwargs.get("training", True)
    return sample.kwargs.get("dropout_p", 0) > 0


def check_gradients(
    theirs: Any, ours: Any, theirs_in: Any, ours_in: Any, rtol: float, atol: float
) -> tuple[str, str]:
    roots = [(t, o) for t, o in zip(tensors_in(theirs), tensors_in(ours), strict=True) if t.requires_grad]
    if not roots:
        return "pass", ""
    leaves = [(t, o) for t, o in zip(tensors_in(theirs_in), tensors_in(ours_in), strict=True) if t.requires_grad]
    for _, o in roots:
        if not o.requires_grad:
            return "wrong", "an output that PyTorch differentiates does not require grad"
    cotangents = [torch.randn_like(t) for t, _ in roots]
    try:
        expected = torch.autograd.grad([t for t, _ in roots], [t for t, _ in leaves], cotangents, allow_unused=True)
    except RuntimeError:
        return "pass", ""  # PyTorch has no derivative here
    try:
        found = paceline.autograd.grad(
            [o for _, o in roots], [o for _, o in leaves], [to_paceline(c) for c in cotangents], allow_unused=True
        )
    except Exception as error:
        return "error", f"backward: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    # rounding is relative to the terms of a gradient, which may cancel: their size is that of the largest gradient
    known = [e for e in expected if e is not None and e.numel() and bool(torch.isfinite(e).all())]
    scale = max([1.0, *(float(e.abs().max()) for e in known)])
    for g, e in zip(found, expected, strict=True):
        if e is None or g is None:
            zero = e if g is None else g
            if zero is not None and bool((zero != 0).any()):
                return "wrong", "no gradient where PyTorch's is not 0" if g is None else "a gradient where none is"
            continue
        different = difference(g, e, rtol * 10, atol * scale)
        if different:
            return "wrong", f"gradient: {different}"
    return "pass", ""


def in_scope() -> list:
    """The entries of op_db that Paceline is to have."""
    return [info for info in op_db if not scope(info)]
