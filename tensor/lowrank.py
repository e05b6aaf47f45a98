"""Approximate decompositions of large matrices by random projection.

Halko, Martinsson and Tropp, "Finding structure with randomness" (2009), algorithms 4.4 and 5.1.
"""

from __future__ import annotations

from typing import Any

from ..autograd.return_types import return_type
from . import random
from .ops import arithmetic as ar
from .ops import linalg, reduction
from .ops.decompositions import qr
from .ops.matrices import check_matrix, mH
from .ops.spectra import svd

_LowRank = return_type("svd_lowrank", "U", "S", "V")


def _basis(A: Any, q: int, niter: int) -> Any:
    """q orthonormal columns that nearly span the range of A."""
    Q = qr(linalg.matmul(A, random.randn(A.array.shape[-1], q, dtype=A.dtype, device=A.device))).Q
    for _ in range(niter):
        Q = qr(linalg.matmul(mH(A), Q)).Q
        Q = qr(linalg.matmul(A, Q)).Q
    return Q


def svd_lowrank(A: Any, q: int | None = 6, niter: int | None = 2, M: Any = None) -> Any:
    """The q largest singular values and their vectors, nearly: A - M = U diag(S) V^H if its rank is at most q.

    Args:
        A: [..., m, n].
        q: a little more than the rank that is looked for.
        niter: steps of subspace iteration, for slowly falling singular values.
        M: subtracted from A, broadcast to its shape.

    Returns:
        (U, S, V): [..., m, q], [..., q] and [..., n, q].
    """
    check_matrix(A, "svd_lowrank")
    q = 6 if q is None else q
    rows, columns = A.array.shape[-2:]
    if not 0 <= q <= min(rows, columns):
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(rows, columns)}")
    A = A if M is None else ar.sub(A, M)
    if rows < columns:
        U, S, V = svd_lowrank(mH(A), q, niter)
        return _LowRank(V, S, U)
    Q = _basis(A, q, 2 if niter is None else niter)
    U, S, Vh = svd(linalg.matmul(mH(Q), A), full_matrices=False)
    return _LowRank(linalg.matmul(Q, U), S, mH(Vh))


def pca_lowrank(A: Any, q: int | None = None, center: bool = True, niter: int = 2) -> Any:
    """The q principal directions of the rows of A, as the columns of V: `svd_lowrank` of A without its column means.

    Args:
        A: [..., m, n], m observations of n quantities.
        q: default min(6, m, n).
        center: whether to subtract the means.
    """
    check_matrix(A, "pca_lowrank")
    q = min(6, *A.array.shape[-2:]) if q is None else q
    return svd_lowrank(A, q, niter, reduction.mean(A, -2, True) if center else None)
