"""torch.norm and what is measured with it."""

from __future__ import annotations

from typing import Any

from ...autograd.out import takes_out
from ...runtime import dtypes
from . import arithmetic as ar
from . import norms
from .reduction import Dim
from .shaping import one_dim


@takes_out
def norm(
    input: Any, p: float | str | None = "fro", dim: Dim = None, keepdim: bool = False, dtype: dtypes.dtype | None = None
) -> Any:
    """The p-norm along dim: sum(|input|**p)**(1/p); p may be inf, "fro" means 2, "nuc" the sum of singular values.

    Example:
        >>> import paceline as torch
        >>> torch.norm(torch.tensor([3.0, 4.0]))
        tensor(5.)
    """
    if p == "nuc":
        dims = tuple(range(input.array.ndim)) if dim is None else dim
        return norms.matrix_norm(input, "nuc", dims, keepdim, dtype=dtype)  # type: ignore[arg-type]
    p = 2.0 if p in ("fro", None) else p
    if not isinstance(p, int | float):
        raise RuntimeError(f"norm(): expected p to be a number, inf, 'fro' or 'nuc', got {p!r}")
    return norms.vector_norm(input, p, dim, keepdim, dtype=dtype)


def dist(input: Any, other: Any, p: float = 2) -> Any:
    """The p-norm of input - other.

    Example:
        >>> import paceline as torch
        >>> torch.dist(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 6.0]))
        tensor(5.)
    """
    return norm(ar.sub(input, other), p)


@takes_out
def renorm(input: Any, p: float, dim: int, maxnorm: float) -> Any:
    """The tensor with each slice of dim whose p-norm is larger than maxnorm scaled down to it."""
    if input.array.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input.array.ndim} dimensions")
    if p <= 0 or maxnorm < 0:
        raise RuntimeError(f"renorm: expected p > 0 and maxnorm >= 0, got p {p} and maxnorm {maxnorm}")
    dim = one_dim(dim, input.array.ndim)
    sizes = norm(input, p, tuple(d for d in range(input.array.ndim) if d != dim), True)
    # PyTorch's guard against dividing by 0, which shows in the values
    return ar.mul(input, ar.where(ar.gt(sizes, maxnorm), ar.true_divide(maxnorm, ar.add(sizes, 1e-7)), 1.0))
