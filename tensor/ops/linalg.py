"""Products of matrices."""

from __future__ import annotations

import functools
import math
import operator
import string
from typing import Any

import numpy

from ...autograd.declaration import LARGE
from ...autograd.out import takes_out, write_into
from ...autograd.primitive import primitive
from ...autograd.variable import Variable
from ...runtime import dtypes
from ...runtime.arrays import Array
from ..kernels import compiled
from . import arithmetic as ar
from . import multiplying, reduction, shaping, summing


@primitive
def matmul_nd(xp, input: Array, other: Array):
    """Matrix product of operands with at least two dimensions; leading ones are broadcast."""
    if input.dtype.kind == "V" and input.ndim + other.ndim > 4:  # CuPy multiplies no batches of bfloat16
        return xp.matmul(input.astype(xp.float32), other.astype(xp.float32)).astype(input.dtype)
    out = xp.matmul(input, other)
    return out.astype(input.dtype) if input.dtype.kind == "V" else out  # NumPy makes bfloat16 float32


@matmul_nd.kernel("cpu")
def _matmul_nd(input: numpy.ndarray, other: numpy.ndarray) -> numpy.ndarray:
    """Two matrices go to BLAS through `dot` in half the time that `matmul` takes to find it."""
    if input.ndim == 2 and other.ndim == 2 and input.itemsize >= 4:
        if len(input) * other.size < multiplying.LEAST_WORK:
            return input.dot(other)
        out = multiplying.product(input, other)
        return input.dot(other) if out is NotImplemented else out
    return matmul_nd.declaration.body(numpy, input, other)


matmul_nd.vjp(
    input=lambda F, g, other: F.matmul_nd(g, F.transpose(other, -2, -1)),
    other=lambda F, g, input: F.matmul_nd(F.transpose(input, -2, -1), g),
)


def matmul(input: Any, other: Any, *, out: Any = None) -> Any:
    """The product of vectors, matrices or batches of matrices, by PyTorch's rules for each number of dimensions.

    Args:
        input: [..., n, k] or [k].
        other: [..., k, m] or [k].

    Example:
        >>> import paceline as torch
        >>> torch.matmul(torch.ones(2, 3), torch.ones(3))
        tensor([3., 3.])
    """
    if out is not None:
        return write_into(out, matmul(input, other), "matmul")
    try:
        a, b = input.array, other.array
    except AttributeError:
        wrong = ", ".join(type(x).__name__ for x in (input, other) if not isinstance(x, Variable))
        raise TypeError(f"matmul(): both arguments must be tensors, got {wrong}") from None
    if a.ndim == 0 or b.ndim == 0:
        raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {a.ndim}D and {b.ndim}D")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise RuntimeError(
            f"matmul(): mat1 and mat2 shapes cannot be multiplied ({list(a.shape)} and {list(b.shape)}): the last "
            f"dimension of the first is {a.shape[-1]}, the second has {inner} rows"
        )
    if a.dtype != b.dtype:
        raise RuntimeError(
            f"matmul(): expected both operands to have the same dtype, but got: {dtypes.of(a.dtype).name} != "
            f"{dtypes.of(b.dtype).name}; convert one with .to(dtype)"
        )
    if a.ndim > 2 and b.ndim <= 2 and a.size:  # one large product instead of many small ones
        rows = matmul(shaping.reshape(input, (-1, a.shape[-1])), other)
        return shaping.reshape(rows, (*a.shape[:-1], *b.shape[1:]))
    if a.ndim > 1 and b.ndim > 1:
        return matmul_nd(input, other)
    x = shaping.unsqueeze(input, 0) if a.ndim == 1 else input
    y = shaping.unsqueeze(other, 1) if b.ndim == 1 else other
    product = matmul_nd(x, y)
    if b.ndim == 1:
        product = shaping.squeeze(product, -1)
    return shaping.squeeze(product, -1 if b.ndim == 1 else -2) if a.ndim == 1 else product


def _with_dims(name: str, ndim: tuple[int, int], doc: str) -> Any:
    def function(input: Any, other: Any, *, out: Any = None) -> Any:
        found = (input.array.ndim, other.array.ndim)
        if found != ndim:
            raise RuntimeError(f"{name}(): expected tensors with {ndim[0]} and {ndim[1]} dimensions, got {found}")
        return matmul(input, other, out=out)

    function.__name__, function.__doc__ = name, doc
    return function


mm = _with_dims("mm", (2, 2), "The product of two matrices.")
bmm = _with_dims("bmm", (3, 3), "The products of two batches of matrices.")
mv = _with_dims("mv", (2, 1), "The product of a matrix and a vector.")
dot = _with_dims("dot", (1, 1), "The inner product of two vectors.")


@takes_out
def outer(input: Any, vec2: Any) -> Any:
    """The outer product of two vectors."""
    if input.array.ndim != 1 or vec2.array.ndim != 1:
        raise RuntimeError(f"outer: Expected 1-D arguments, but got {input.array.ndim}D and {vec2.array.ndim}D")
    return ar.mul(shaping.unsqueeze(input, 1), shaping.unsqueeze(vec2, 0))


@takes_out
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * (mat1 @ mat2)."""
    return scaled_sum(input, mm(mat1, mat2), beta, alpha)


def scaled_sum(input: Any, product: Any, beta: float, alpha: float) -> Any:
    """beta * input + alpha * product; where beta is 0, the input may be nan. Integers are multiplied by integers."""
    kind = product.array.dtype.kind
    if kind in "bui":
        beta, alpha = (bool(beta), bool(alpha)) if kind == "b" else (int(beta), int(alpha))
    if alpha != 1:
        product = ar.mul(product, alpha)
    if beta == 0:
        return shaping.expand(product, numpy.broadcast_shapes(input.array.shape, product.array.shape))
    return ar.add(product, input if beta == 1 else ar.mul(input, beta))


@primitive
def linear(xp, input: Array, weight: Array, bias: Array | None = None):
    """input @ weight.T + bias.

    Args:
        input: [..., in_features].
        weight: [out_features, in_features].
        bias: [out_features].

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.linear(torch.ones(2), torch.ones(3, 2))
        tensor([2., 2., 2.])
    """
    if weight.ndim != 2 or not input.ndim or input.dtype != weight.dtype:
        raise ValueError(_linear_mistake(input, weight))
    rows = input if input.ndim == 2 else _rows(input)
    try:
        out = xp.matmul(rows, weight.T)
    except ValueError:
        raise ValueError(_linear_mistake(input, weight)) from None
    if out.dtype != input.dtype:  # bfloat16, which NumPy multiplies in float32
        out = out.astype(input.dtype)
    if bias is not None:
        out += bias
    return out if input.ndim == 2 else out.reshape(*input.shape[:-1], weight.shape[0])


@linear.kernel("cpu")
def _linear(input: numpy.ndarray, weight: numpy.ndarray, bias: numpy.ndarray | None = None) -> numpy.ndarray:
    """The usual case with as few steps as possible, as in `_matmul_nd`."""
    if (
        input.ndim != 2
        or input.dtype is not weight.dtype
        or input.itemsize < 4
        or len(input) * weight.size >= multiplying.LEAST_WORK
    ):
        return _linear_of_any(input, weight, bias)
    try:
        out = input.dot(weight.T)
    except ValueError:
        raise ValueError(_linear_mistake(input, weight)) from None
    if bias is not None:
        # NumPy adds a number in half the time of a row
        out += bias.reshape(()) if bias.size == 1 == bias.ndim else bias
    return out


def _linear_replayed(raw: tuple, attributes: tuple) -> Any:
    input, weight, bias = raw
    if input.ndim != 2 or input.itemsize < 4 or len(input) * weight.size >= multiplying.LEAST_WORK:
        return None
    if bias is None:
        return lambda input, weight, bias: input.dot(weight.T)
    one = bias.size == 1 == bias.ndim
    return lambda input, weight, bias: operator.iadd(input.dot(weight.T), bias.reshape(()) if one else bias)


linear.declaration.replayed = _linear_replayed


def _linear_of_any(input: numpy.ndarray, weight: numpy.ndarray, bias: numpy.ndarray | None) -> numpy.ndarray:
    if input.ndim and weight.ndim == 2 and input.size * len(weight) >= multiplying.LEAST_WORK:
        out = multiplying.product(_rows(input), weight.T, bias)
        if out is not NotImplemented:
            return out.reshape(*input.shape[:-1], len(weight))
    return linear.declaration.body(numpy, input, weight, bias)


def _linear_mistake(x: Array, w: Array) -> str:
    if w.ndim != 2:
        return f"weight must be [out_features, in_features], its shape is {list(w.shape)}"
    if not x.ndim or x.shape[-1] != w.shape[1]:
        features = x.shape[-1] if x.ndim else 0
        return (
            f"input has {features} features in its last dim, weight expects {w.shape[1]} "
            f"(input shape {list(x.shape)}, weight shape {list(w.shape)})"
        )
    return (
        f"expected input and weight to have the same dtype, but got {dtypes.of(x.dtype).name} and "
        f"{dtypes.of(w.dtype).name}; convert one with .to(dtype)"
    )


@primitive
def sum_rows(xp, input: Array):
    """The sum over the first dimension."""
    return summing.add_rows(input) if xp is numpy and input.ndim == 2 else xp.add.reduce(input, 0)


@compiled(sum_rows, work=1 / 8)  # NumPy adds fewer rows as quickly
def _sum_rows(input: Array) -> Any:
    return summing.sum_along(input, (0,), False)


sum_rows.vjp(input=lambda F, g, input_shape: F.expand(g, input_shape))


def _rows(x: Any) -> Any:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # NumPy finds no -1 where there are no elements


def _linear_weight(F: Any, g: Any, input: Any, *, into: Array | None = None) -> Any:
    if g.ndim != 2:
        g, input = _rows(g), _rows(input)
    if into is None or into.dtype is not g.dtype or into.itemsize < 4:
        return F.matmul_nd(g.T, input)
    if into.size * len(g) >= multiplying.LEAST_WORK and g.__class__ is numpy.ndarray:
        out = multiplying.product(g.T, input, None, into)
        if out is not NotImplemented:
            return out
    return g.T.dot(input, into)


def _linear_bias(F: Any, g: Any, *, into: Array | None = None) -> Any:
    if g.ndim != 2:
        g = _rows(g)
    if into is None or into.dtype is not g.dtype or g.size >= LARGE:
        return F.sum_rows(g)
    if F.xp is numpy:
        return summing.add_rows(g, into)
    return F.xp.add.reduce(g, 0, None, into)


linear.vjp(
    input=lambda F, g, weight, input_shape: (
        F.matmul_nd(g, weight) if g.ndim == 2 else F.matmul_nd(_rows(g), weight).reshape(input_shape)
    ),
    weight=_linear_weight,
    bias=_linear_bias,
)


def einsum(equation: Any, *operands: Any) -> Any:
    """Sums of products by Einstein's notation, e.g. einsum("bij,bjk->bik", a, b).

    Each pair of operands, left to right, is brought to one batched matrix product.

    Args:
        equation: comma-separated indices of the operands, optionally "->" and the output's; "..." stands for the rest.
            Also einsum(a, [0, 1], b, [1, 2], [0, 2]): each operand with a list of numbers below 52, then the output's.
        operands: tensors, or one list of them.

    Example:
        >>> import paceline as torch
        >>> torch.einsum("i,i->", torch.ones(3), torch.ones(3))
        tensor(3.)
    """
    if not isinstance(equation, str):
        equation, operands = _from_sublists(equation, *operands)
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    terms, output = _parse(equation, tuple(x.array.ndim for x in operands))
    parts = [_diagonal(x, term) for x, term in zip(operands, terms, strict=True)]
    value, names = parts[0]
    for i, (other, other_names) in enumerate(parts[1:], 2):
        needed = set(output).union(*(n for _, n in parts[i:]))
        value, names = _contract(value, names, other, other_names, needed)
    extra = tuple(i for i, n in enumerate(names) if n not in output)
    if extra:
        value = reduction.sum(value, extra)
        names = [n for n in names if n in output]
    if names == output and len(operands) > 1:
        return value
    return shaping.permute_dims(value, [names.index(n) for n in output]) if output else value


def _from_sublists(*arguments: Any) -> tuple[str, tuple]:
    """The equation and the operands of the form that gives a list of numbers after each operand."""
    pairs, output = (arguments[:-1], arguments[-1:]) if len(arguments) % 2 else (arguments, ())
    texts = [_sublist_text(numbers) for numbers in pairs[1::2]]
    return ",".join(texts) + "".join(f"->{_sublist_text(numbers)}" for numbers in output), pairs[::2]


def _sublist_text(numbers: Any) -> str:
    if any(n is not Ellipsis and not 0 <= n < 52 for n in numbers):
        raise RuntimeError(f"einsum(): subscripts must be numbers from 0 to 51, got {list(numbers)}")
    return "".join("..." if n is Ellipsis else string.ascii_letters[n] for n in numbers)


@functools.lru_cache(maxsize=1024)
def _parse(equation: str, ndims: tuple[int, ...]) -> tuple[list[list[str]], list[str]]:
    """The index names of each operand and of the output, with those behind an ellipsis written out."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(ndims):
        raise RuntimeError(
            f"einsum(): the equation {equation!r} names {len(texts)} operands, but {len(ndims)} were given"
        )
    widths = [n - len(text.replace("...", "")) for text, n in zip(texts, ndims, strict=True)]
    rest = max((w for text, w in zip(texts, widths, strict=True) if "..." in text), default=0)
    dots = [f".{i}" for i in range(rest)]
    terms = []
    for i, (text, width) in enumerate(zip(texts, widths, strict=True)):
        if width < 0 or (width and "..." not in text):
            raise RuntimeError(
                f"einsum(): operand {i} has {ndims[i]} dimensions, but its subscript {text!r} names {ndims[i] - width}"
            )
        before, _, after = text.partition("...")
        terms.append([*before, *dots[rest - width :], *after] if "..." in text else [*text])
    names = [n for term in terms for n in term]
    if arrow:
        before, ellipsis, after = right.partition("...")
        output = [*before, *(dots if ellipsis else []), *after]
    else:
        output = dots + sorted(n for n in set(names) if names.count(n) == 1 and n not in dots)
    unknown = [n for n in output if n not in names]
    if unknown or len(set(output)) != len(output):
        raise RuntimeError(f"einsum(): the output of {equation!r} has subscripts that are unknown or used twice")
    return terms, output


def _diagonal(x: Any, names: list[str]) -> tuple[Any, list[str]]:
    """A repeated index means the diagonal."""
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            x = shaping.diagonal(x, 0, first, second)
            names = [n for i, n in enumerate(names) if i not in (first, second)] + [name]
    return x, names


def _contract(a: Any, a_names: list[str], b: Any, b_names: list[str], needed: set[str]) -> tuple[Any, list[str]]:
    """One pair of operands as a batched matrix product [batch, free of a, summed] @ [batch, summed, free of b]."""
    batch = [n for n in a_names if n in b_names and n in needed]
    summed = [n for n in a_names if n in b_names and n not in needed]
    a_free = [n for n in a_names if n not in b_names]
    b_free = [n for n in b_names if n not in a_names]
    sizes = dict(zip(a_names, a.array.shape, strict=True))
    for name, n in zip(b_names, b.array.shape, strict=True):
        if sizes.get(name, 1) == 1:
            sizes[name] = n
        elif n not in (1, sizes[name]):
            raise RuntimeError(f"einsum(): subscript {name!r} has size {sizes[name]} in one operand and {n} in another")
    groups = [batch] if batch else []
    x = _grouped(a, a_names, (*groups, a_free, summed), sizes)
    y = _grouped(b, b_names, (*groups, summed, b_free), sizes)
    names = batch + a_free + b_free
    product, size = matmul_nd(x, y), tuple(sizes[n] for n in names)
    return product if product.array.shape == size else shaping.reshape(product, size), names


def _grouped(x: Any, names: list[str], groups: tuple, sizes: dict[str, int]) -> Any:
    """The operand with its dimensions sorted into groups, each group made one dimension."""
    order = [n for group in groups for n in group]
    if order != names:
        x = shaping.permute(x, tuple(names.index(n) for n in order))
    size = tuple(sizes[n] for n in order)
    if x.array.shape != size:
        x = shaping.expand(x, size)
    size = tuple(math.prod(sizes[n] for n in group) for group in groups)
    return x if x.array.shape == size else shaping.reshape(x, size)
