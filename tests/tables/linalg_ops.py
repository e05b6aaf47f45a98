"""Rows for linear algebra: products, systems, determinants, norms, decompositions.

Decompositions are compared through what they promise (their factors multiply to the matrix, columns are orthonormal)
and with SciPy where the result is unique. Complex matrices are given as real and imaginary parts, so that the checks
of derivatives reach them.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

from paceline.runtime import dtypes

from .ops import ints, rnd, spread
from .table import Op
from .table import Sample as S


def internal(name, samples, reference, **options):
    return Op(name, samples, reference, internal=True, emulated=False, **options)


def within(name, samples, reference, namespace="linalg", **options):
    """A row for a function of a namespace, `linalg.det` and the like."""
    return Op(f"{namespace}.{name}", samples, reference, emulated=False,
              call=lambda m, *args, **kwargs: getattr(getattr(m, namespace), name)(*args, **kwargs),
              **options)  # fmt: skip


def public(name, samples, reference, **options):
    return Op(name, samples, reference, **({"emulated": False} | options))


def of_complex(name, samples, reference, function, **options):
    """A row for a function of a complex matrix given by its parts; complex results are shown by their parts."""

    def call(m, re, im):
        return _parts(m, function(m, m.complex(re, im)))

    def expected(re, im):
        found = reference(re + 1j * im)
        found = found if isinstance(found, tuple) else (found,)
        return tuple(np.stack([x.real, x.imag], -1) if np.iscomplexobj(x) else x for x in found)

    return Op(name, samples, expected, call=call, emulated=False, **options)


def values_of(name, samples, reference, function):
    """A row for values alone: where derivatives need a gauge or do not exist."""

    def call(m, *args):
        return function(m, *(a.detach() if hasattr(a, "detach") else a for a in args))

    return Op(name, samples, reference, call=call, emulated=False, differentiable=False)


def _parts(m, result):
    results = result if isinstance(result, tuple) else (result,)
    return tuple(m.view_as_real(x) if x.is_complex() else x for x in results)


def product(name, samples, reference, **options):
    """A row for what needs no solver, which the emulated device has."""
    return Op(name, samples, reference, **options)


def regular(*shape):
    """Matrices far from singular, with singular values well apart."""
    return rnd(*shape, low=-1, high=1) + np.eye(*shape[-2:]) * np.arange(2, 2 + shape[-1]) * 1.5


def symmetric(*shape):
    x = regular(*shape)
    return x + x.swapaxes(-2, -1)


def positive(*shape):
    x = regular(*shape)
    return x @ x.swapaxes(-2, -1)


def each(function):
    """A SciPy function of one matrix, for batches."""
    return lambda x, *args: np.stack([function(m, *args) for m in x]) if x.ndim > 2 else function(x, *args)


def triangles(x, upper=False):
    return np.triu(x) if upper else np.tril(x)


PARTS = [S(regular(2, 2), rnd(2, 2))]
MATRICES = [S(regular(2, 2)), S(regular(3, 2, 2)), S(regular(2, 2).T), S(regular(0, 0)), S(regular(3, 3))]


def _compact_lu(x):
    packed, pivots = scipy.linalg.lu_factor(x)
    return packed, (pivots + 1).astype(np.int32), np.zeros((), np.int32)


def _vandermonde(x, N=None):
    return np.vander(x, N, increasing=True) if x.ndim == 1 else np.stack([_vandermonde(row, N) for row in x])


def _house(a, tau):
    return scipy.linalg.lapack.dorgqr(a, tau)[0]


def _cofactors(a):
    """By minors."""
    n = a.shape[-1]
    out = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            minor = np.delete(np.delete(a, i, 0), j, 1)
            out[i, j] = (-1) ** (i + j) * np.linalg.det(minor)
    return out


def _cdist(a, b, p=2.0):
    return np.linalg.norm(a[..., :, None, :] - b[..., None, :, :], p, axis=-1)


def _slogdet(x):
    return tuple(np.linalg.slogdet(x))


def _ldl_pieces(a, hermitian):
    packed, pivots, info = scipy.linalg.lapack.dsytrf(a, lower=1)
    return np.tril(packed), pivots.astype(np.int32), np.asarray(info, np.int32)


SINGULAR = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])
PACKED, TAU = scipy.linalg.lapack.dgeqrf(np.asfortranarray(regular(3, 2)))[:2]
MATRIX_OF_3 = np.array([[0.1, 2.0, 1.0], [3.0, 1.0, 0.5], [1.0, 4.0, -2.0]])
LU_OF_3, PIVOTS_OF_3 = scipy.linalg.lu_factor(MATRIX_OF_3)
PIVOTS_OF_3 = (PIVOTS_OF_3 + 1).astype(np.int32)
LD_OF_2, LD_PIVOTS_OF_2 = scipy.linalg.lapack.dsytrf(symmetric(2, 2), lower=1)[:2]

PRODUCTS = [
    product("ger", [S(rnd(2), rnd(3))], np.outer),
    product("__rmatmul__", [S(rnd(3, 2), rnd(2, 3)), S(rnd(3), rnd(2, 3))], lambda a, b: b @ a),
    product("trace", [S(rnd(2, 3)), S(rnd(0, 2)), S(ints(2, 2))], np.trace),
    product("inner", [S(rnd(3), rnd(3)), S(rnd(2, 3), rnd(2, 3)), S(rnd(), rnd(2))], np.inner),
    product("tensordot", [S(rnd(2, 3), rnd(3, 2), 1), S(rnd(2, 2), rnd(2, 2), 2), S(rnd(2), rnd(3), 0)], np.tensordot),
    product("tensordot", [S(rnd(2, 3), rnd(2, 2), dims=([0], [1]))], lambda a, b, dims: np.tensordot(a, b, dims)),
    product("kron", [S(rnd(2), rnd(3)), S(rnd(2, 2), rnd(1, 2)), S(rnd(2), rnd(2, 2))], np.kron),
    product("vdot", [S(rnd(3), rnd(3))], np.vdot),
    product("cross", [S(rnd(3), rnd(3)), S(rnd(2, 3), rnd(2, 3), 1)], lambda a, b, dim=-1: np.cross(a, b, axis=dim)),
    product("addmv", [S(rnd(2), rnd(2, 3), rnd(3)), S(rnd(2), rnd(2, 2), rnd(2), beta=0.5, alpha=2.0)],
           lambda c, a, b, beta=1, alpha=1: beta * c + alpha * a @ b),
    product("addr", [S(rnd(2, 3), rnd(2), rnd(3)), S(rnd(2, 2), rnd(2), rnd(2), beta=0, alpha=2.0)],
           lambda c, a, b, beta=1, alpha=1: beta * c + alpha * np.outer(a, b)),
    public("addbmm", [S(rnd(2, 2), rnd(2, 2, 1), rnd(2, 1, 2), beta=2.0)],
           lambda c, a, b, beta=1, alpha=1: beta * c + (a @ b).sum(0)),
    public("baddbmm", [S(rnd(2, 2, 2), rnd(2, 2, 1), rnd(2, 1, 2), alpha=-1.0)],
           lambda c, a, b, beta=1, alpha=1: beta * c + alpha * (a @ b)),
    product("chain_matmul", [S(rnd(2, 1), rnd(1, 3), rnd(3, 2))], lambda *x: np.linalg.multi_dot(x)),
    product("cdist", [S(rnd(2, 2), rnd(3, 2)), S(rnd(2, 2), rnd(2, 2), p=1.0), S(rnd(2, 2), rnd(2, 2), p=math.inf)],
           _cdist),
    within("multi_dot", [S([rnd(2), rnd(2, 3), rnd(3, 2), rnd(2)]), S([rnd(2, 1), rnd(1, 3)])], np.linalg.multi_dot),
    within("vecdot", [S(rnd(2, 3), rnd(2, 3)), S(rnd(2, 3), rnd(3)), S(rnd(3, 2), rnd(3, 2), dim=0)],
           lambda a, b, dim=-1: (a * b).sum(dim)),
    within("cross", [S(rnd(2, 3), rnd(1, 3))], np.cross),
    within("vander", [S(rnd(3)), S(rnd(2, 2), N=4), S(ints(3))], _vandermonde, fused=True),
    within("diagonal", [S(rnd(2, 2, 3))], lambda x: np.diagonal(x, 0, -2, -1)),
    public("matrix_power", [S(regular(2, 2), 3), S(regular(2, 2, 2), 0), S(regular(2, 2), -2), S(ints(2, 2), 2)],
           np.linalg.matrix_power),
]  # fmt: skip

SYSTEMS = [
    internal("solve_nd", [S(regular(2, 2), rnd(2, 3)), S(regular(3, 2, 2), rnd(2, 1))], np.linalg.solve),
    internal("inverse", MATRICES, np.linalg.inv),
    internal("solve_triangular_left", [S(regular(2, 2), rnd(2, 2), True), S(regular(2, 2, 2), rnd(2, 1), False)],
             lambda a, b, upper: np.linalg.solve(triangles(a, upper), b)),
    internal("solve_triangular_left", [S(regular(2, 2), rnd(2, 2), False, True)],
             lambda a, b, upper, unit: np.linalg.solve(np.tril(a, -1) + np.eye(2), b)),
    public("inverse", MATRICES, np.linalg.inv),
    public("triangular_solve", [S(rnd(2, 3), regular(2, 2)), S(rnd(2, 1), regular(2, 2), False)],
           lambda b, a, upper=True: (np.linalg.solve(triangles(a, upper), b), a)),
    public("triangular_solve", [S(rnd(2, 1), regular(2, 2), transpose=True)],
           lambda b, a, transpose: (np.linalg.solve(np.triu(a).T, b), a)),
    public("cholesky_solve", [S(rnd(2, 1), regular(2, 2)), S(rnd(2, 1), regular(2, 2), True)],
           lambda b, a, upper=False: scipy.linalg.cho_solve((a, not upper), b)),
    public("cholesky_inverse", [S(regular(2, 2))], lambda a: np.linalg.inv(np.tril(a) @ np.tril(a).T)),
    public("lu_solve", [S(rnd(3, 1), LU_OF_3, PIVOTS_OF_3)], lambda b, lu, p: scipy.linalg.lu_solve((lu, p - 1), b),
           second=False),
    within("lu_solve", [S(LU_OF_3, PIVOTS_OF_3, rnd(3, 1), adjoint=True)],
           lambda lu, p, b, adjoint: scipy.linalg.lu_solve((lu, p - 1), b, 1), second=False),
    within("solve", [S(regular(2, 2), rnd(2)), S(regular(2, 2), rnd(2, 1)), S(regular(3, 2, 2), rnd(3, 2, 1))],
           np.linalg.solve),
    within("solve", [S(regular(2, 2), rnd(1, 2), left=False)], lambda a, b, left: b @ np.linalg.inv(a)),
    within("solve_ex", [S(regular(2, 2), rnd(2, 1))], lambda a, b: (np.linalg.solve(a, b), np.zeros((), np.int32))),
    within("inv_ex", [S(regular(2, 2))], lambda a: (np.linalg.inv(a), np.zeros((), np.int32))),
    within("solve_triangular", [S(regular(2, 2), rnd(1, 2), upper=True, left=False)],
           lambda a, b, upper, left: b @ np.linalg.inv(np.triu(a))),
    within("tensorinv", [S(regular(4, 4).reshape(2, 2, 4), ind=2)], lambda x, ind: np.linalg.tensorinv(x, ind)),
    within("tensorsolve", [S(regular(4, 4).reshape(2, 2, 4), rnd(2, 2))], np.linalg.tensorsolve),
    of_complex("solve of complex", PARTS, lambda x: np.linalg.solve(x, x.T), lambda m, x: m.linalg.solve(x, x.T)),
    of_complex("solve_triangular of complex", PARTS, lambda x: np.linalg.solve(np.triu(x), x.T),
               lambda m, x: m.linalg.solve_triangular(x, x.T, upper=True)),
]  # fmt: skip

INVERSES = [
    internal("pseudoinverse", [S(rnd(2, 3), 0.0, 1e-12, False), S(np.outer(rnd(3), rnd(2)), 0.0, 1e-12, False)],
             lambda x, atol, rtol, h: np.linalg.pinv(x, rtol), differentiable=False),
    internal("pseudoinverse", [S(rnd(2, 3), 0.0, 1e-12, False), S(rnd(4, 2), 0.0, 1e-12, False)],
             lambda x, atol, rtol, h: np.linalg.pinv(x)),
    public("pinverse", [S(rnd(2, 3)), S(rnd(3, 2))], np.linalg.pinv),
    within("pinv", [S(SINGULAR), S(symmetric(2, 2), hermitian=True), S(np.diag([2.0, 1e-3]), rtol=1e-2)],
           lambda x, hermitian=False, rtol=1e-12: np.linalg.pinv(x, rtol), differentiable=False),
    within("matrix_rank", [S(SINGULAR), S(rnd(2, 3)), S(np.zeros((2, 2))), S(rnd(0, 2)),
                            S(np.eye(3) * 1e-3, atol=1e-2)],
           lambda x, atol=None: np.linalg.matrix_rank(x, tol=atol), differentiable=False),
    Op("linalg.lstsq", [S(rnd(4, 2), rnd(4, 1)), S(rnd(1, 2), rnd(1, 2))], lambda a, b: np.linalg.lstsq(a, b)[0],
       call=lambda m, a, b: m.linalg.lstsq(a, b).solution, emulated=False),
    Op("linalg.lstsq", [S(rnd(4, 2), rnd(4, 3))],
       lambda a, b: (np.linalg.lstsq(a, b)[1], np.asarray(2), np.linalg.svd(a, compute_uv=False)),
       call=lambda m, a, b: tuple(m.linalg.lstsq(a, b, driver="gelsd"))[1:], emulated=False, differentiable=False),
    of_complex("pinv of complex", [S(rnd(2, 1), rnd(2, 1))], np.linalg.pinv, lambda m, x: m.linalg.pinv(x)),
]  # fmt: skip

DETERMINANTS = [
    internal("determinant", MATRICES + [S(SINGULAR)], np.linalg.det),
    internal("cofactors", [S(regular(2, 2)), S(SINGULAR), S(rnd(3, 3))], _cofactors, second=False),
    internal("log_determinant", [S(regular(2, 2)), S(-regular(3, 3))], _slogdet),
    public("det", [S(regular(2, 2)), S(regular(2, 2, 2)), S(np.zeros((2, 2)))], np.linalg.det),
    public("logdet", [S(positive(2, 2)), S(positive(2, 2, 2))], lambda x: np.log(np.linalg.det(x))),
    values_of("logdet", [S(np.diag([1.0, -1.0])), S(SINGULAR * 0)], lambda x: np.log(np.linalg.det(x)),
           lambda m, x: m.logdet(x)),
    public("slogdet", [S(regular(2, 2)), S(regular(3, 2, 2))], _slogdet),
    of_complex("det of complex", PARTS, np.linalg.det, lambda m, x: m.linalg.det(x)),
    of_complex("slogdet of complex", PARTS, _slogdet, lambda m, x: tuple(m.linalg.slogdet(x))),
]  # fmt: skip

FUNCTIONS = [
    internal("matrix_exponential", [S(rnd(2, 2)), S(rnd(2, 2, 2)), S(rnd(0, 2, 2))], scipy.linalg.expm),
    public("matrix_exp", [S(rnd(3, 3)), S(np.array([[0.0, 1.0], [0.0, 0.0]]))], scipy.linalg.expm),
    within("householder_product", [S(np.ascontiguousarray(PACKED), TAU)], _house, second=False),
    public("ormqr", [S(np.ascontiguousarray(PACKED), TAU, rnd(3, 1)),
                     S(np.ascontiguousarray(PACKED), TAU, rnd(3, 1), True, True)],
           lambda a, tau, c, left=True, t=False: scipy.linalg.lapack.dormqr("L", "T" if t else "N", a, tau, c, 64)[0],
           second=False),
    of_complex("matrix_exp of complex", PARTS, scipy.linalg.expm, lambda m, x: m.linalg.matrix_exp(x)),
]  # fmt: skip

NORMS = [
    internal("power_norm", [S(rnd(2, 3), 2.0, 1), S(rnd(4), 3.0), S(rnd(4), 1.0, None, True), S(rnd(4), 0.5),
           S(rnd(4), -1.5)],
             lambda x, p, dim=None, keepdim=False: np.linalg.norm(x, p, dim, keepdim)),
    internal("power_norm", [S(spread(4), math.inf), S(spread(4), -math.inf)], lambda x, p: np.linalg.norm(x, p)),
    internal("power_norm", [S(np.zeros(3), p) for p in (0.0, 0.5, 1.0, 2.0, 3.0, math.inf)],
           lambda x, p: np.asarray(0.0),
             differentiable=False),
    within("vector_norm", [S(rnd(2, 2), 3, 0), S(rnd(2, 2), 1), S(rnd(2, 2), 2, (0, 1), True)],
           lambda x, p, dim=None, keepdim=False: (abs(x) ** p).sum(dim, keepdims=keepdim) ** (1 / p)),
    within("matrix_norm", [S(regular(2, 2), p) for p in ("fro", "nuc", 2, -2, 1, -1, math.inf, -math.inf)],
           np.linalg.norm),
    within("norm", [S(rnd(4)), S(rnd(2, 2), "nuc"), S(rnd(2, 2), 1, 0), S(rnd(3, 2, 2), "fro", (1, 2), True)],
           lambda x, p=None, dim=None, keepdim=False: np.linalg.norm(x, p, dim, keepdim)),
    within("cond", [S(regular(2, 2)), S(regular(2, 2), 1), S(regular(2, 2), "fro"), S(regular(2, 2), -2)],
           np.linalg.cond),
    of_complex("norms of complex", PARTS, lambda x: (np.linalg.norm(x), np.linalg.norm(x, 1), np.linalg.norm(x, "nuc")),
               lambda m, x: (m.linalg.norm(x), m.linalg.norm(x, 1), m.linalg.norm(x, "nuc"))),
]  # fmt: skip

DECOMPOSITIONS = [
    internal("cholesky_factor", [S(positive(2, 2), False), S(positive(3, 2, 2), True)],
             lambda x, upper: np.linalg.cholesky(x, upper=upper), differentiable=False),
    public("cholesky", [S(positive(2, 2)), S(positive(2, 2), True)],
           lambda x, upper=False: np.linalg.cholesky(x, upper=upper),
           differentiable=False),
    # of a symmetric function of the parameters, since only one triangle is read
    Op("derivatives of cholesky", [S(regular(2, 2))], lambda x: np.linalg.cholesky(x @ x.T),
       call=lambda m, x: m.linalg.cholesky(x @ x.mT), emulated=False),
    of_complex("cholesky of complex", PARTS, lambda x: np.linalg.cholesky(x @ x.conj().T).conj().T,
               lambda m, x: m.linalg.cholesky(x @ x.mH, upper=True)),
    values_of("linalg.cholesky_ex", [S(np.diag([1.0, 4.0]))], lambda x: (np.diag([1.0, 2.0]), np.asarray(0)),
              lambda m, x: m.linalg.cholesky_ex(x)),
    values_of("linalg.cholesky_ex", [S(np.stack([np.diag([4.0, -1.0]), np.eye(2)]))], lambda x: np.array([2, 0]),
              lambda m, x: m.linalg.cholesky_ex(x).info),
    internal("qr_factors", [S(regular(3, 2), "reduced"), S(regular(2, 2), "reduced")],
           lambda x, mode: tuple(np.linalg.qr(x, mode))),
    values_of("linalg.qr", [S(regular(3, 2))], lambda x: tuple(np.linalg.qr(x, "complete")),
           lambda m, x: m.linalg.qr(x, "complete")),
    public("qr", [S(regular(3, 2)), S(regular(2, 3)), S(regular(2, 2, 2))], lambda x: tuple(np.linalg.qr(x))),
    values_of("linalg.qr", [S(regular(3, 2))], lambda x: np.linalg.qr(x, "r"), lambda m, x: m.linalg.qr(x, "r").R),
    of_complex("qr of complex", [S(regular(2, 2), rnd(2, 2))], lambda x: tuple(np.linalg.qr(x)),
           lambda m, x: tuple(m.linalg.qr(x))),
    public("geqrf", [S(regular(3, 2)), S(regular(2, 2, 3))], each(lambda x: scipy.linalg.lapack.dgeqrf(x)[0]),
           call=lambda m, x: m.geqrf(x)[0], differentiable=False),
    internal("geqrf", [S(regular(3, 2))], lambda x: scipy.linalg.lapack.dgeqrf(x)[:2], differentiable=False),
    internal("lu_packed", [S(regular(2, 2)), S(regular(2, 2)[::-1].copy()), S(regular(3, 2)), S(regular(2, 3))],
           _compact_lu),
    internal("permutation_matrix", [S(np.array([2, 3, 3], np.int32), 3, dtypes.float64)],
             lambda p, n, dtype: np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), differentiable=False),
    public("lu", [S(regular(3, 3))], lambda x: _compact_lu(x)[:2]),
    values_of("lu_unpack", [S(LU_OF_3, PIVOTS_OF_3)],
              lambda lu, p: (scipy.linalg.lu(MATRIX_OF_3)[0], np.tril(lu, -1) + np.eye(3), np.triu(lu)),
              lambda m, lu, p: m.lu_unpack(lu, p)),
    Op("linalg.lu", [S(regular(2, 2)), S(regular(2, 3)), S(regular(3, 2))], lambda x: scipy.linalg.lu(x)[1:],
       call=lambda m, x: tuple(m.linalg.lu(x))[1:], emulated=False),
    of_complex("lu of complex", PARTS, lambda x: scipy.linalg.lu(x)[1:], lambda m, x: tuple(m.linalg.lu(x))[1:]),
    internal("ldl_packed", [S(symmetric(2, 2), False), S(symmetric(3, 3), False)], _ldl_pieces, differentiable=False),
    Op("linalg.ldl_solve", [S(symmetric(3, 3), rnd(3, 1))], np.linalg.solve, emulated=False, second=False,
           differentiable=False,
       call=lambda m, a, b: m.linalg.ldl_solve(*m.linalg.ldl_factor(a), b)),
    Op("ldl_solve_packed", [S(rnd(2, 1))], None, emulated=False,
       call=lambda m, b: m.linalg.ldl_solve(m.tensor(LD_OF_2), m.tensor(LD_PIVOTS_OF_2), b)),
]  # fmt: skip

EIGENVALUES = [
    values_of("linalg.eigh", [S(regular(2, 2)), S(regular(3, 2, 2))], lambda x: tuple(np.linalg.eigh(x, "U")),
              lambda m, x: m.linalg.eigh(x, "U")),
    values_of("linalg.eigvalsh", [S(regular(2, 2))], lambda x: np.linalg.eigvalsh(x, "U"),
           lambda m, x: m.linalg.eigvalsh(x, "U")),
    Op("eigh_factors", [S(regular(2, 2))], lambda x: tuple(map(np.abs, np.linalg.eigh(x + x.T))),
       call=lambda m, x: tuple(map(m.abs, m.linalg.eigh(x + x.mT))), emulated=False),
    Op("eigenvalues_of_hermitian", [S(regular(2, 2))], lambda x: np.linalg.eigvalsh(x + x.T),
       call=lambda m, x: m.linalg.eigvalsh(x + x.mT), emulated=False),
    of_complex("eigh of complex", PARTS, lambda x: tuple(map(np.abs, np.linalg.eigh(x + x.conj().T))),
               lambda m, x: tuple(map(m.abs, m.linalg.eigh(x + x.mH)))),
    Op("eig_any", [S(regular(2, 2)), S(np.array([[0.3, -2.0], [1.0, 0.5]]))],
       lambda x: tuple(map(np.abs, np.linalg.eig(x))), call=lambda m, x: tuple(map(m.abs, m.linalg.eig(x))),
       emulated=False),
    Op("eigvals_any", [S(np.array([[0.3, -2.0], [1.0, 0.5]]))], lambda x: np.abs(np.linalg.eigvals(x)),
       call=lambda m, x: m.abs(m.linalg.eigvals(x)), emulated=False),
    of_complex("eig of complex", PARTS, lambda x: tuple(map(np.abs, np.linalg.eig(x))),
           lambda m, x: tuple(map(m.abs, m.linalg.eig(x)))),
]  # fmt: skip

SINGULAR_VALUES = [
    internal("svd_factors", [S(regular(2, 2), False), S(regular(3, 2), False), S(regular(2, 3), False)],
             lambda x, full: tuple(np.linalg.svd(x, full))),
    values_of("linalg.svd", [S(regular(3, 2))], lambda x: tuple(np.linalg.svd(x)), lambda m, x: m.linalg.svd(x)),
    internal("singular_values", [S(regular(2, 2)), S(regular(2, 3)), S(regular(3, 2, 2))], np.linalg.svdvals),
    internal("singular_values", [S(np.eye(2))], np.linalg.svdvals, differentiable=False),
    public("svd", [S(regular(3, 2)), S(regular(2, 2))],
           lambda x: (np.linalg.svd(x, False)[0], np.linalg.svdvals(x), np.linalg.svd(x, False)[2].T)),
    of_complex("svd of complex", [S(regular(2, 2), rnd(2, 2)), S(rnd(3, 2), rnd(3, 2))],
               lambda x: tuple(map(np.abs, np.linalg.svd(x, False))),
               lambda m, x: tuple(map(m.abs, m.linalg.svd(x, False)))),
    Op("svd_lowrank", [S(np.outer(rnd(4), rnd(3)))], lambda x: x,
       call=lambda m, x: (lambda r: (r[0] * r[1]) @ r[2].mT)(m.svd_lowrank(x, q=1)), emulated=False,
       differentiable=False),
    Op("pca_lowrank", [S(np.outer(rnd(4), rnd(3)))], lambda x: x - x.mean(0),
       call=lambda m, x: (lambda r: (r[0] * r[1]) @ r[2].mT)(m.pca_lowrank(x, q=1)), emulated=False,
       differentiable=False),
]  # fmt: skip

ROWS = [*PRODUCTS, *SYSTEMS, *INVERSES, *DETERMINANTS, *FUNCTIONS, *NORMS, *DECOMPOSITIONS, *EIGENVALUES,
       *SINGULAR_VALUES]
