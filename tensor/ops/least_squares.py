"""What stands in for an inverse where there is none: pseudoinverse, rank, least squares."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.return_types import return_type
from ...autograd.variable import box
from ...runtime import arrays
from ...runtime.arrays import Array
from . import arithmetic as ar
from . import linalg, reduction, shaping, spectra
from . import pointwise as pw
from .matrices import adjoint, attempt, check_matrix, check_square, product
from .solving import is_vector


@primitive(holomorphic=False)
def pseudoinverse(xp, input: Array, atol: Any, rtol: Any, hermitian: bool):
    """V diag(1 / S) U^H without the singular values up to max(atol, rtol * the largest)."""
    why = "linalg.pinv: the singular values did not converge"
    if hermitian:
        values, U = attempt(xp, why, xp.linalg.eigh, input)
        sizes, Vh = xp.abs(values), xp.conj(U).swapaxes(-2, -1)
    else:
        U, values, Vh = attempt(xp, why, xp.linalg.svd, input, False)
        sizes = values
    if not input.size:
        return xp.zeros(input.shape[:-2] + input.shape[:-3:-1], input.dtype)
    cut = xp.maximum(atol, rtol * sizes.max(-1))[..., None]
    kept = sizes > cut
    reciprocals = xp.where(kept, 1 / xp.where(kept, values, 1), 0)
    Uh, V = xp.conj(U).swapaxes(-2, -1), xp.conj(Vh).swapaxes(-2, -1)
    return xp.matmul(V * reciprocals[..., None, :].astype(sizes.dtype), Uh)


def _pseudoinverse_input(F: Any, g: Any, input: Any, out: Any) -> Any:
    """Golub and Pereyra (1973); holds where the rank does not change."""
    out_h, g_h = adjoint(F, out), adjoint(F, g)
    beyond_columns = g_h - product(F, input, out, g_h)
    beyond_rows = g_h - product(F, g_h, out, input)
    return (
        product(F, beyond_columns, out, out_h) + product(F, out_h, out, beyond_rows) - product(F, out_h, g, out_h)
    )


pseudoinverse.vjp(input=_pseudoinverse_input)

def _tolerances(A: Any, atol: Any, rtol: Any) -> tuple[Any, Any]:
    """Both as numbers or arrays; by default the rounding of the dtype, unless an absolute one is given."""
    raw = [x.array if hasattr(x, "array") else x for x in (atol, rtol)]
    if raw[1] is None:
        default = max(A.array.shape[-2:]) * float(numpy.finfo(A.array.dtype).eps)
        xp = arrays.module_of(A.array)
        raw[1] = default if raw[0] is None else xp.where(xp.asarray(raw[0]) > 0, 0.0, default)
    return raw[0] if raw[0] is not None else 0.0, raw[1]


@takes_out
def pinv(A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Any:
    """The pseudoinverse (Moore-Penrose), through the singular values.

    Args:
        A: [..., m, n].
        rcond: the older name of rtol.
        hermitian: A is Hermitian: through its eigenvalues instead.
        atol, rtol: singular values up to max(atol, rtol * largest) count as 0; default max(m, n) times the dtype's eps.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.pinv(torch.tensor([[2.0], [0.0]]))
        tensor([[0.5000, 0.0000]])
    """
    (check_square if hermitian else check_matrix)(A, "linalg.pinv")
    return pseudoinverse(A, *_tolerances(A, atol, rcond if rtol is None else rtol), hermitian)


def pinverse(input: Any, rcond: float = 1e-15) -> Any:
    """torch.pinverse: `linalg.pinv` with rtol = rcond."""
    return pinv(input, rcond)


@takes_out
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Any:
    """The number of singular values above max(atol, rtol * largest), as int64 [...]; `tol` is the older name of atol.

    Example:
        >>> import paceline as torch
        >>> torch.linalg.matrix_rank(torch.ones(2, 2))
        tensor(1)
    """
    (check_square if hermitian else check_matrix)(A, "linalg.matrix_rank")
    atol, rtol = (tol, 0.0) if tol is not None else (atol, rtol)
    atol, rtol = _tolerances(A, atol, rtol)
    off_tape = A.detach()
    values = pw.abs(spectra.eigvalsh(off_tape)) if hermitian else spectra.svdvals(off_tape)
    sizes = values.array
    if not sizes.size:
        return box(arrays.module_of(sizes).zeros(sizes.shape[:-1], numpy.int64))
    cut = arrays.module_of(sizes).maximum(atol, rtol * sizes.max(-1))
    return box(arrays.module_of(sizes).asarray((sizes > cut[..., None]).sum(-1)))


_LeastSquares = return_type("linalg_lstsq", "solution", "residuals", "rank", "singular_values")
_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@takes_out
def lstsq(A: Any, B: Any, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """The X of smallest size that minimizes the size of A X - B, in the Frobenius norm.

    Args:
        A: [..., m, n].
        B: [..., m, k], or [..., m].
        rcond: singular values up to rcond * largest count as 0; default max(m, n) times the dtype's eps.
        driver: as PyTorch's; it decides which results are filled, all compute through the singular values.

    Returns:
        (solution, residuals, rank, singular_values): residuals [..., k] are the squared sizes of the columns of
        A X - B, if m > n and all ranks are n (else empty); rank unless the driver is "gels"; the singular values for
        "gelsd" and "gelss".

    Example:
        >>> import paceline as torch
        >>> torch.linalg.lstsq(torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [3.0]])).solution
        tensor([[2.]])
    """
    check_matrix(A, "linalg.lstsq")
    driver = "gelsy" if driver is None else driver
    if driver not in _DRIVERS:
        raise RuntimeError(f"linalg.lstsq: parameter `driver` should be one of {_DRIVERS}, got {driver!r}")
    vector = is_vector(A, B)
    right = shaping.unsqueeze(B, -1) if vector else B
    rtol = None if rcond is None or rcond == -1 else rcond
    solution = linalg.matmul_nd(pinv(A, rtol=rtol), right)
    off_tape = A.detach()
    rank = matrix_rank(off_tape, rtol=rtol)
    xp = arrays.module_of(A.array)
    rows, columns = A.array.shape[-2:]
    miss = pw.abs(ar.sub(linalg.matmul_nd(A, solution), right))
    residuals = reduction.sum(ar.mul(miss, miss), -2)
    if rows <= columns or driver == "gelsy" or bool((rank.array < columns).any()):
        residuals = shaping.narrow(shaping.reshape(residuals, (-1,)), 0, 0, 0)
    singular = spectra.svdvals(off_tape) if driver in ("gelsd", "gelss") else box(xp.zeros((0,), residuals.array.dtype))
    if driver == "gels":
        rank = box(xp.zeros((0,), numpy.int64))
    return _LeastSquares(shaping.squeeze(solution, -1) if vector else solution, residuals, rank, singular)
