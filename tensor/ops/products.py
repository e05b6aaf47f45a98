"""Products of vectors, matrices and tensors that are made of `matmul` and elementwise products."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...runtime import dtypes
from . import arithmetic as ar
from . import cast, cumulative, linalg, norms, reduction, shaping
from . import pointwise as pw


def _same_dtype(name: str, *tensors: Any) -> None:
    found = list(dict.fromkeys(dtypes.of(x.array.dtype).name for x in tensors))
    if len(found) > 1:
        raise RuntimeError(f"{name}(): expected all tensors to have the same dtype, got {' and '.join(found)}")


def trace(input: Any) -> Any:
    """The sum of the diagonal of a matrix."""
    if input.array.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.array.ndim}")
    return reduction.sum(shaping.diagonal(input))


@takes_out
def inner(input: Any, other: Any) -> Any:
    """The sums of products over the last dims of both: out[..., ...] = sum_k input[..., k] * other[..., k].

    Example:
        >>> import paceline as torch
        >>> torch.inner(torch.ones(3), torch.ones(2, 3))
        tensor([3., 3.])
    """
    if not (input.array.ndim and other.array.ndim):
        return ar.mul(input, other)
    if input.array.shape[-1] != other.array.shape[-1]:
        raise RuntimeError(
            f"inner() the last dimension must match on both input tensors but got shapes {list(input.array.shape)} and "
            f"{list(other.array.shape)}"
        )
    return tensordot(input, other, ([-1], [-1]))


@takes_out
def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """The sum of products over pairs of dims.

    Args:
        a, b: tensors.
        dims: the dims of a and of b, as two lists, or a number: the last ones of a with the first ones of b.

    Example:
        >>> import paceline as torch
        >>> torch.tensordot(torch.ones(2, 3), torch.ones(3, 4), 1).shape
        paceline.Size([2, 4])
    """
    a_dims, b_dims = _dims_of_both(a, b, dims)
    a_shape, b_shape = a.array.shape, b.array.shape
    for i, j in zip(a_dims, b_dims, strict=True):
        if a_shape[i] != b_shape[j] and 1 not in (a_shape[i], b_shape[j]):
            raise RuntimeError(
                f"contracted dimensions need to match, but first has size {a_shape[i]} in dim {i} and second has size "
                f"{b_shape[j]} in dim {j}"
            )
        if a_shape[i] != b_shape[j]:  # one is 1: summed on its own
            wide, dim = (a, i) if b_shape[j] == 1 else (b, j)
            summed = reduction.sum(wide, dim, True)
            a, b = (summed, b) if wide is a else (a, summed)
    a_free = [i for i in range(len(a_shape)) if i not in a_dims]
    b_free = [i for i in range(len(b_shape)) if i not in b_dims]
    n = math.prod(a.array.shape[i] for i in a_dims)
    left = shaping.reshape(shaping.permute(a, (*a_free, *a_dims)), (math.prod(a_shape[i] for i in a_free), n))
    right = shaping.reshape(shaping.permute(b, (*b_dims, *b_free)), (n, math.prod(b_shape[i] for i in b_free)))
    shape = (*(a_shape[i] for i in a_free), *(b_shape[i] for i in b_free))
    return shaping.reshape(linalg.matmul(left, right), shape)


def _dims_of_both(a: Any, b: Any, dims: Any) -> tuple[tuple, tuple]:
    if hasattr(dims, "array"):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.array.ndim, b.array.ndim):
            raise RuntimeError(
                f"tensordot expects dims >= 0 and at most the number of dimensions of both, but got dims={dims}"
            )
        return tuple(range(a.array.ndim - dims, a.array.ndim)), tuple(range(dims))
    pair = [[d] if isinstance(d, int) else list(d) for d in dims]
    if len(pair) != 2 or len(pair[0]) != len(pair[1]):
        raise RuntimeError(f"both dimension lists should have same length, got {dims}")
    a_dims, b_dims = (
        reduction.as_dims(tuple(d), x.array.ndim) if d else () for d, x in zip(pair, (a, b), strict=True)
    )
    return a_dims, b_dims


@takes_out
def kron(input: Any, other: Any) -> Any:
    """The Kronecker product: blocks of `other`, one for each element of `input`.

    Example:
        >>> import paceline as torch
        >>> torch.kron(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
        tensor([1., 1., 2., 2.])
    """
    ndim = max(input.array.ndim, other.array.ndim)
    x = (1,) * (ndim - input.array.ndim) + input.array.shape
    y = (1,) * (ndim - other.array.ndim) + other.array.shape
    spread = shaping.reshape(input, tuple(n for pair in zip(x, (1,) * ndim, strict=True) for n in pair))
    blocks = shaping.reshape(other, tuple(n for pair in zip((1,) * ndim, y, strict=True) for n in pair))
    return shaping.reshape(ar.mul(spread, blocks), tuple(a * b for a, b in zip(x, y, strict=True)))


@takes_out
def vdot(input: Any, other: Any) -> Any:
    """The inner product of two vectors, the first conjugated."""
    return linalg.dot(pw.conj(input), other)


@takes_out
def vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    """The inner products along a dim, the first factor conjugated: sum(conj(x) * y, dim).

    Example:
        >>> import paceline as torch
        >>> torch.linalg.vecdot(torch.ones(2, 3), torch.ones(3))
        tensor([3., 3.])
    """
    _same_dtype("linalg.vecdot", x, y)
    x = pw.conj(x) if x.array.dtype.kind == "c" else x
    return cast.to_dtype(reduction.sum(ar.mul(x, y), dim), dtypes.of(x.array.dtype))


@takes_out
def cross_along(input: Any, other: Any, *, dim: int = -1) -> Any:
    """The cross product of vectors of 3 elements along dim.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.cross(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
        tensor([0., 0., 1.])
    """
    if input.array.ndim != other.array.ndim:
        raise RuntimeError(
            "linalg.cross: inputs must have the same number of dimensions, got "
            f"{input.array.ndim} and {other.array.ndim}"
        )
    for x in (input, other):
        if x.array.shape[dim] != 3:
            raise RuntimeError(
                f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.array.shape[dim]} and "
                f"{other.array.shape[dim]}"
            )
    input, other = shaping.broadcast_tensors(input, other)

    def turned(x: Any, step: int) -> Any:
        return shaping.roll(x, (step,), (dim,))

    return ar.sub(ar.mul(turned(input, -1), turned(other, 1)), ar.mul(turned(input, 1), turned(other, -1)))


@takes_out
def cross(input: Any, other: Any, dim: int | None = None) -> Any:
    """`linalg.cross` along dim, by default the first dim of 3 elements."""
    if dim is None:
        shape = numpy.broadcast_shapes(input.array.shape, other.array.shape)
        if 3 not in shape:
            raise RuntimeError(f"cross(): no dimension of size 3; broadcast the inputs have shape {list(shape)}")
        dim = shape.index(3)
    return cross_along(input, other, dim=dim)


@takes_out
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * (batch1 @ batch2), for batches of matrices."""
    return linalg.scaled_sum(input, linalg.bmm(batch1, batch2), beta, alpha)


@takes_out
def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * the sum of all batch1[i] @ batch2[i]."""
    total = reduction.sum(linalg.bmm(batch1, batch2), 0)
    return linalg.scaled_sum(input, cast.to_dtype(total, dtypes.of(batch1.array.dtype)), beta, alpha)


@takes_out
def addmv(input: Any, mat: Any, vec: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * (mat @ vec)."""
    return linalg.scaled_sum(input, linalg.mv(mat, vec), beta, alpha)


@takes_out
def addr(input: Any, vec1: Any, vec2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * the outer product of two vectors."""
    return linalg.scaled_sum(input, linalg.outer(vec1, vec2), beta, alpha)


@takes_out
def multi_dot(tensors: Any) -> Any:
    """The product of a chain of matrices, in the order that takes the fewest multiplications.

    Args:
        tensors: at least two; the first and the last may be vectors.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.multi_dot([torch.ones(2, 3), torch.ones(3, 4), torch.ones(4)])
        tensor([12., 12.])
    """
    tensors = list(tensors)
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    first, last = tensors[0].array.ndim == 1, tensors[-1].array.ndim == 1
    if first:
        tensors[0] = shaping.unsqueeze(tensors[0], 0)
    if last:
        tensors[-1] = shaping.unsqueeze(tensors[-1], 1)
    for i, x in enumerate(tensors):
        if x.array.ndim != 2:
            raise RuntimeError(f"multi_dot(): tensor {i} must be 2D but got {x.array.ndim}D")
    product = _ordered_product(tensors)
    if last:
        product = shaping.squeeze(product, 1)
    return shaping.squeeze(product, 0) if first else product


def _ordered_product(matrices: list) -> Any:
    """By dynamic programming over the places to split the chain (Cormen et al., section 15.2)."""
    sizes = [matrices[0].array.shape[0], *(m.array.shape[1] for m in matrices)]
    count = len(matrices)
    cost = {(i, i): 0 for i in range(count)}
    split: dict[tuple[int, int], int] = {}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            costs = [cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)]
            cost[i, j] = min(costs)
            split[i, j] = i + costs.index(cost[i, j])

    def product(i: int, j: int) -> Any:
        if i == j:
            return matrices[i]
        return linalg.matmul(product(i, split[i, j]), product(split[i, j] + 1, j))

    return product(0, count - 1)


@takes_out
def chain_matmul(*matrices: Any) -> Any:
    """torch.chain_matmul, the older form of `linalg.multi_dot`."""
    return matrices[0] if len(matrices) == 1 else multi_dot(matrices)


def vander(x: Any, *, N: int | None = None) -> Any:
    """The powers 0 ... N - 1 of the elements, as rows of a matrix; N is the length of x unless given.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.vander(torch.tensor([1, 2, 3]))
        tensor([[1, 1, 1],
                [1, 2, 4],
                [1, 3, 9]])
    """
    count = N if N is not None else x.array.shape[-1] if x.array.ndim else 1
    if count <= 1:
        raise RuntimeError(f"linalg.vander: N must be greater than 1, got {count}")
    if x.array.ndim == 0:
        x = shaping.reshape(x, (1,))
    if x.array.dtype == bool:
        x = cast.to_dtype(x, dtypes.int64)
    repeated = shaping.expand(shaping.unsqueeze(x, -1), (*x.array.shape, count - 1))
    powers = cumulative.cumprod(repeated, -1)
    return shaping.cat([ar.ones_like(shaping.unsqueeze(x, -1)), powers], -1)


def cdist(
    x1: Any, x2: Any, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary"
) -> Any:
    """The p-norm distances between all rows of x1 and all rows of x2.

    Args:
        x1: [..., n, k].
        x2: [..., m, k].
        p: of the norm; inf is the largest difference.
        compute_mode: accepted for PyTorch's sake; distances are always computed from differences, which is exact.

    Returns:
        [..., n, m].

    Example:
        >>> import paceline as torch
        >>> torch.cdist(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[5.]])
    """
    if p < 0:
        raise RuntimeError(f"cdist only supports non-negative p values, got {p}")
    if x1.array.shape[-1:] != x2.array.shape[-1:]:
        raise RuntimeError(
            f"cdist: X1 and X2 must have the same number of columns, got {x1.array.shape[-1]} and {x2.array.shape[-1]}"
        )
    differences = ar.sub(shaping.unsqueeze(x1, -2), shaping.unsqueeze(x2, -3))
    if not differences.array.shape[-1]:
        return reduction.sum(differences, -1)
    return norms.vector_norm(differences, p, -1)


def diagonal_of_matrices(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """`torch.diagonal` of the last two dims by default."""
    return shaping.diagonal(A, offset, dim1, dim2)
