"""How `vmap` runs operations on a whole batch at once: the examples are along a first dimension that they do not know.

A rule gets the operation, its tensor inputs as values of the whole batch (where `batched` says so) and its attributes.
It returns the batch of results, or NotImplemented to have the examples done one by one, as is done for all operations
without a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...autograd.batching import elementwise, family_rules, rules
from .arithmetic import add
from .linalg import matmul_nd
from .reduction import as_dims
from .shaping import expand, one_dim, reshape, select, transpose, unsqueeze

Rule = Callable[[Callable, tuple, tuple, tuple], Any]

def _of_matrices(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    if not all(batched) or len({x.array.ndim for x in values}) > 1 or values[0].array.ndim < 3:
        return NotImplemented
    return function(*values, *attributes)


def _along_dims(position: int = 0) -> Rule:
    """One input and, at a position among the attributes, a dimension, several, or None for all of them."""

    def rule(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
        (x,), dim = values, attributes[position]
        ndim = x.array.ndim - 1
        if not ndim:
            return NotImplemented
        shifted: Any = one_dim(dim, ndim) + 1 if isinstance(dim, int) else tuple(d + 1 for d in as_dims(dim, ndim))
        return function(x, *attributes[:position], shifted, *attributes[position + 1 :])

    return rule


def _of_all_or_one(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """Reductions whose `dim` is one dimension or None for all elements."""
    (x,), (dim, keepdim) = values, attributes
    if dim is not None:
        return _along_dims()(function, values, batched, attributes)
    if keepdim:
        return NotImplemented
    return function(reshape(x, (x.array.shape[0], -1)), 1, False) if x.array.size else NotImplemented


def _sizes(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """A shape to have, without the batch."""
    (x,), (shape,) = values, attributes
    count = x.array.shape[0]
    if -1 in shape and function.__name__ == "reshape":
        rest = math.prod(n for n in shape if n != -1)
        shape = tuple((x.array.size // max(count * rest, 1)) if n == -1 else n for n in shape)
    if function.__name__ == "expand":
        missing = len(shape) + 1 - x.array.ndim
        if missing < 0 or -1 in shape[:missing]:
            return NotImplemented
        x = reshape(x, (count, *(1,) * missing, *x.array.shape[1:]))
    return function(x, (count, *shape))


def _sum_to_size(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    (x,), (size,) = values, attributes
    count, missing = x.array.shape[0], x.array.ndim - 1 - len(size)
    return reshape(function(x, (count, *(1,) * missing, *size)), (count, *size))


def _permute(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    return function(values[0], (0, *(d + 1 for d in attributes[0])))


def _two_dims(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """transpose(dim0, dim1)."""
    ndim = values[0].array.ndim - 1
    if not ndim:
        return values[0]
    return function(values[0], *(one_dim(d, ndim) + 1 for d in attributes))


def _unsqueeze(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    return function(values[0], one_dim(attributes[0], values[0].array.ndim) + 1)


def _squeeze(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    shape = values[0].array.shape[1:]
    dims = as_dims(attributes[0], len(shape))
    kept = tuple(n for i, n in enumerate(shape) if n != 1 or i not in dims)
    return reshape(values[0], (values[0].array.shape[0], *kept))


def _one_dim_first(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """select and narrow: a dimension, then numbers."""
    return function(values[0], one_dim(attributes[0], values[0].array.ndim - 1) + 1, *attributes[1:])


def _embed_range(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    size, dim, start = attributes
    return function(values[0], (values[0].array.shape[0], *size), one_dim(dim, len(size)) + 1, start)


def _slice(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """slice_view(index) and embed_slice(size, index)."""
    index = (slice(None), *attributes[-1])
    sizes = ((values[0].array.shape[0], *size) for size in attributes[:-1])
    return function(values[0], *sizes, index)


def _join(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """cat and stack."""
    count = next(x.array.shape[0] for x, b in zip(values, batched, strict=True) if b)
    ndim = max(x.array.ndim - b for x, b in zip(values, batched, strict=True))
    if any(x.array.ndim - b != ndim for x, b in zip(values, batched, strict=True)) or not ndim:
        return NotImplemented
    whole = [x if b else expand(x, (count, *x.array.shape)) for x, b in zip(values, batched, strict=True)]
    return function(whole, one_dim(attributes[0], ndim + (function.__name__ == "stack")) + 1)


def _same(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    return function(values[0], *attributes)


def _triangle(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    return function(values[0], *attributes) if values[0].array.ndim > 2 else NotImplemented


def _matmul(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """A vector becomes a matrix, so that what is before the last two dimensions broadcasts as for one example."""
    (a, b), (a_batched, b_batched) = values, batched
    a_ndim, b_ndim = a.array.ndim - a_batched, b.array.ndim - b_batched
    if a_ndim == 1:
        a = unsqueeze(a, -2)
    if b_ndim == 1:
        b = unsqueeze(b, -1)
    ndim = max(a_ndim, b_ndim, 2)
    a, b = (_filled(x, ndim + 1) if is_batched else x for x, is_batched in ((a, a_batched), (b, b_batched)))
    out = function(a, b)
    out = select(out, -1, 0) if b_ndim == 1 else out
    return select(out, -1 if b_ndim == 1 else -2, 0) if a_ndim == 1 else out


def _filled(x: Any, ndim: int) -> Any:
    shape = x.array.shape
    return reshape(x, (shape[0], *(1,) * (ndim - len(shape)), *shape[1:]))


def _linear(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    x, weight, bias = values
    if not (batched[1] or batched[2]) and x.array.ndim > 1:
        return function(x, weight, bias)
    out = _matmul(matmul_nd, (x, transpose(weight, -1, -2)), batched[:2], ())
    if bias is None:
        return out
    both = (batched[0] or batched[1], batched[2])
    return elementwise(add, (out, bias), both, ())


def _images(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """Operations on [n, ...] whose other inputs are the same for all examples: the batch is folded into n."""
    x = values[0]
    if not batched[0] or any(batched[1:]) or x.array.ndim < 3:
        return NotImplemented
    count, n = x.array.shape[:2]
    out = function(reshape(x, (count * n, *x.array.shape[2:])), *values[1:], *attributes)
    return reshape(out, (count, n, *out.array.shape[1:]))


def _lookup(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """embedding(weight, indices): only the indices may be batched."""
    return NotImplemented if batched[0] else function(*values, *attributes)


def _attention(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """attention(query, key, value, mask): the batch is one more dimension before the last two."""
    return function(*values, *attributes) if all(batched[:3]) and values[3] is None else NotImplemented


_RULES: dict[Rule, str] = {
    _along_dims(): "sum mean amax amin all any logsumexp euclidean variance deviation softmax log_softmax cumsum "
    "cumprod logcumsumexp cummax cummin sort first_in_order flip",
    _along_dims(1): "power_norm",
    _of_all_or_one: "prod argmax argmin",
    _sizes: "reshape expand",
    _sum_to_size: "sum_to_size",
    _permute: "permute",
    _two_dims: "transpose",
    _unsqueeze: "unsqueeze",
    _squeeze: "squeeze",
    _one_dim_first: "select narrow",
    _embed_range: "embed_range",
    _slice: "slice_view embed_slice",
    _join: "cat stack",
    _same: "alias contiguous_copy",
    _triangle: "tril triu",
    _matmul: "matmul_nd",
    _linear: "linear",
    _images: "convolution max_pool avg_pool",
    _lookup: "embedding",
    _attention: "attention",
}


# All operations of these families treat every element alike, and broadcast.
_ELEMENTWISE = "arithmetic bessel binary cast complex pointwise polynomials rounding special"
# These work on the last two dimensions, whatever is before them.
_MATRICES = "decompositions determinants solving spectra least_squares matrix_functions"

for _rule, _names in _RULES.items():
    rules.update(dict.fromkeys(_names.split(), _rule))
family_rules.update(dict.fromkeys(_ELEMENTWISE.split(), elementwise))
family_rules.update(dict.fromkeys(_MATRICES.split(), _of_matrices))
