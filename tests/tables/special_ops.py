"""Rows for special functions, complex tensors and further functions of two tensors.

References are integrals, series and the standard library, never the SciPy functions that the operations call.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from .ops import binary, bitwise, ints, mask, rnd, spread, unary
from .table import Op
from .table import Sample as S

# -- references --------------------------------------------------------------------------------------------------------

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(120)


def integral(f, low, high):
    """Gauss-Legendre quadrature of f(t) over the last dimension that `t` adds."""
    half = (high - low) / 2
    return half * (_WEIGHTS * f(low + half * (_NODES + 1))).sum(-1)


def each(function):
    """A function of Python numbers as one of arrays."""
    return np.vectorize(function, otypes=[float])


def zeta(s, q):
    """Euler and Maclaurin's summation."""
    s, q = np.broadcast_arrays(np.asarray(s, float), np.asarray(q, float))
    head = sum((q + k) ** -s for k in range(40))
    x = q + 40
    return (
        head + x ** (1 - s) / (s - 1) + x**-s / 2 + s * x ** (-s - 1) / 12 - s * (s + 1) * (s + 2) * x ** (-s - 3) / 720
    )


def digamma(x):
    tail = x + 40
    return (
        np.log(tail) - 1 / (2 * tail) - 1 / (12 * tail**2) + 1 / (120 * tail**4) - sum(1 / (x + k) for k in range(40))
    )


def polygamma(n, x):
    return digamma(x) if n == 0 else (-1) ** (n + 1) * math.factorial(n) * zeta(n + 1, x)


def gammainc(a, x):
    """The series of the lower incomplete gamma function."""
    return x**a * np.exp(-x) * sum(x**k / each(math.gamma)(a + k + 1) for k in range(60))


def mvlgamma(x, p):
    return p * (p - 1) / 4 * math.log(math.pi) + sum(each(math.lgamma)(x - i / 2) for i in range(p))


def bessel_j(n, x):
    return integral(lambda t: np.cos(n * t - x[..., None] * np.sin(t)), 0, math.pi) / math.pi


def bessel_y(n, x):
    first = integral(lambda t: np.sin(x[..., None] * np.sin(t) - n * t), 0, math.pi)
    decay = integral(lambda t: (np.exp(n * t) + (-1) ** n * np.exp(-n * t)) * np.exp(-x[..., None] * np.sinh(t)), 0, 6)
    return (first - decay) / math.pi


def bessel_i(n, x):
    return integral(lambda t: np.exp(x[..., None] * np.cos(t)) * np.cos(n * t), 0, math.pi) / math.pi


def bessel_k(n, x):
    return integral(lambda t: np.exp(-x[..., None] * np.cosh(t)) * np.cosh(n * t), 0, 6)


def spherical_j(n, x):
    """Poisson's integral."""
    scale = x**n / (2 ** (n + 1) * math.factorial(n))
    return scale * integral(lambda t: np.cos(x[..., None] * np.cos(t)) * np.sin(t) ** (2 * n + 1), 0, math.pi)


def airy(x):
    """The Maclaurin series."""
    f = g = 0.0
    rise, slope = np.ones_like(x), x.copy()
    for k in range(40):
        f, g = f + rise, g + slope
        rise = rise * x**3 / ((3 * k + 2) * (3 * k + 3))
        slope = slope * x**3 / ((3 * k + 3) * (3 * k + 4))
    return f * 3 ** (-2 / 3) / math.gamma(2 / 3) - g * 3 ** (-1 / 3) / math.gamma(1 / 3)


def series(evaluate):
    """A polynomial family through NumPy's series class."""
    return each(lambda x, n: evaluate(x, np.eye(1, int(n) + 1, int(n))[0]) if n >= 0 else 0.0)


def by_angle(function):
    """A Chebyshev family by its trigonometric form."""
    return each(lambda x, n: function(math.acos(x), int(n)) if n >= 0 else 0.0)


CHEBYSHEV = {
    "t": by_angle(lambda angle, n: math.cos(n * angle)),
    "u": by_angle(lambda angle, n: math.sin((n + 1) * angle) / math.sin(angle)),
    "v": by_angle(lambda angle, n: math.cos((n + 0.5) * angle) / math.cos(angle / 2)),
    "w": by_angle(lambda angle, n: math.sin((n + 0.5) * angle) / math.sin(angle / 2)),
}

# -- rows --------------------------------------------------------------------------------------------------------------


def special(name, samples, reference, **options):
    """A row for a function that only `special` has."""
    return Op(name, samples, reference, call=lambda m, *args: getattr(m.special, name)(*args), **options)


def special_unary(name, reference, low=-2.0, high=2.0, **options):
    plain = unary(name, reference, low, high)
    return special(name, plain.samples, reference, **options)


def polynomial(name, reference, low=-0.9, high=0.9):
    n = np.array([0, 1, 2, 5, -1])
    return special(
        name,
        [S(rnd(5, low=low, high=high), n), S(rnd(2, 1, low=low, high=high), n), S(rnd(3, low=low, high=high), 3)],
        reference,
    )


_GAUSS = NormalDist()
_SINGLE = S(np.array([0.5, 2.5], np.float32), np.array([0.7, 1.5], np.float32))
_ERFC = each(math.erfc)

SPECIAL = [
    unary("lgamma", each(math.lgamma), 0.3, 4.0, emulated=False),
    unary("lgamma", each(math.lgamma), -2.9, -2.1, emulated=False),
    unary("digamma", digamma, 0.3, 4.0, emulated=False),
    Op(
        "polygamma",
        [S(n, rnd(3, low=0.5, high=3.0)) for n in range(4)],
        polygamma,
        call=lambda m, n, x: m.polygamma(n, x),
        emulated=False,
    ),
    Op("polygamma", [S(rnd(3, low=0.5, high=3.0), 1)], lambda x, n: polygamma(n, x), emulated=False),
    Op("mvlgamma", [S(rnd(3, low=1.2, high=4.0), p) for p in (1, 2, 3)], mvlgamma, emulated=False),
    Op(
        "igamma",
        [S(np.array([1, 2, 3]), rnd(3, low=0.2)), S(np.array([[1], [4]]), rnd(3, low=0.2)), _SINGLE],
        lambda a, x: gammainc(a.astype(float), x),
        emulated=False,
    ),
    Op(
        "igammac",
        [S(np.array([1, 2, 3]), rnd(3, low=0.2)), S(np.array([[1], [4]]), rnd(3, low=0.2)), _SINGLE],
        lambda a, x: 1 - gammainc(a.astype(float), x),
        emulated=False,
    ),
    special("zeta", [S(np.array([2, 3, 4]), rnd(3, low=0.5)), S(2, rnd(2, low=0.5))], zeta, emulated=False),
    unary("erfinv", each(lambda x: _GAUSS.inv_cdf((x + 1) / 2) / math.sqrt(2)), -0.8, 0.8, emulated=False),
    special_unary("erfcx", lambda x: np.exp(x * x) * _ERFC(x), emulated=False),
    special_unary("ndtr", lambda x: _ERFC(-x / math.sqrt(2)) / 2, emulated=False),
    special_unary("ndtri", each(_GAUSS.inv_cdf), 0.2, 0.8, emulated=False),
    special_unary("log_ndtr", lambda x: np.log(_ERFC(-x / math.sqrt(2)) / 2), emulated=False),
    special_unary("entr", lambda x: -x * np.log(x), 0.2, emulated=False),
    unary("logit", lambda x: np.log(x / (1 - x)), 0.2, 0.8, emulated=False),
    Op(
        "logit",
        [S(np.array([0.01, 0.4, 0.99]), 0.1)],
        lambda x, eps: np.log(np.clip(x, eps, 1 - eps) / (1 - np.clip(x, eps, 1 - eps))),
        emulated=False,
    ),
    binary("xlogy", lambda x, y: x * np.log(y), low=0.3, emulated=False),
    special("xlog1py", binary("xlogy", None, low=0.3).samples, lambda x, y: x * np.log1p(y), emulated=False),
    special("bessel_j0", unary("", None).samples, lambda x: bessel_j(0, x), emulated=False),
    special("bessel_j1", unary("", None).samples, lambda x: bessel_j(1, x), emulated=False),
    special("bessel_y0", unary("", None, 0.8).samples, lambda x: bessel_y(0, x), emulated=False),
    special("bessel_y1", unary("", None, 0.8).samples, lambda x: bessel_y(1, x), emulated=False),
    unary("i0", lambda x: bessel_i(0, x), emulated=False),
    special_unary("modified_bessel_i1", lambda x: bessel_i(1, x), emulated=False, aliases=("modified_bessel_i",)),
    special_unary(
        "i0e", lambda x: np.exp(-np.abs(x)) * bessel_i(0, x), 0.2, emulated=False, aliases=("scaled_modified_bessel_i",)
    ),
    special_unary("i1e", lambda x: np.exp(-np.abs(x)) * bessel_i(1, x), 0.2, emulated=False),
    special_unary("modified_bessel_k0", lambda x: bessel_k(0, x), 0.8, emulated=False, aliases=("modified_bessel_k",)),
    special_unary("modified_bessel_k1", lambda x: bessel_k(1, x), 0.8, emulated=False),
    special_unary(
        "scaled_modified_bessel_k0",
        lambda x: np.exp(x) * bessel_k(0, x),
        0.8,
        emulated=False,
        aliases=("scaled_modified_bessel_k",),
    ),
    special_unary("scaled_modified_bessel_k1", lambda x: np.exp(x) * bessel_k(1, x), 0.8, emulated=False),
    special_unary("spherical_bessel_j0", lambda x: np.sinc(x / math.pi), emulated=False),
    Op("bessel_j", [S(rnd(3), n) for n in (2, 3)], lambda x, n: bessel_j(n, x), internal=True, emulated=False),
    Op("bessel_y", [S(rnd(3, low=0.8), 2)], lambda x, n: bessel_y(n, x), internal=True, emulated=False),
    Op(
        "spherical_bessel_j",
        [S(rnd(3), n) for n in (0, 1, 2, 3)],
        lambda x, n: spherical_j(n, x),
        internal=True,
        emulated=False,
    ),
    special_unary("airy_ai", airy, emulated=False),
    Op("airy", [S(rnd(3))], airy, internal=True, emulated=False),
    unary("sinc", np.sinc, emulated=False),
    Op("sinc", [S(np.zeros(2))], np.sinc, emulated=False),
    *(polynomial(f"chebyshev_polynomial_{kind}", reference) for kind, reference in CHEBYSHEV.items()),
    *(
        polynomial(f"shifted_chebyshev_polynomial_{kind}", lambda x, n, f=reference: f(2 * x - 1, n), 0.05)
        for kind, reference in CHEBYSHEV.items()
    ),
    polynomial("hermite_polynomial_h", series(np.polynomial.hermite.hermval)),
    polynomial("hermite_polynomial_he", series(np.polynomial.hermite_e.hermeval)),
    polynomial("laguerre_polynomial_l", series(np.polynomial.laguerre.lagval)),
    polynomial("legendre_polynomial_p", series(np.polynomial.legendre.legval)),
    Op(
        "orthogonal_polynomial",
        [S(rnd(2), np.array([3, 4]), "chebyshev_t", m) for m in (0, 1, 2)],
        lambda x, n, family, m: np.array(
            [np.polynomial.Chebyshev(np.eye(k + 1)[k]).deriv(m)(v) for v, k in zip(x, n, strict=True)]
        ),
        internal=True,
    ),
]

_NUMBERS = np.array([1.5, -2.0, 0.0, -0.0, np.inf, -np.inf, np.nan])


def _filled_diagonal(x, value):
    out = x.copy()
    np.fill_diagonal(out, value)
    return out


BINARY = [
    binary("logaddexp", np.logaddexp, numbers=()),
    binary("logaddexp2", np.logaddexp2, numbers=()),
    binary("hypot", np.hypot, numbers=()),
    Op("fmax", [S(spread(2, 3), spread(2, 3) + 0.13), S(spread(2, 1), spread(3) + 0.13)], np.fmax),
    Op("fmin", [S(spread(2, 3), spread(2, 3) + 0.13), S(spread(2, 1), spread(3) + 0.13)], np.fmin),
    Op("fmax", [S(_NUMBERS, _NUMBERS[::-1].copy())], np.fmax, differentiable=False),
    Op("fmin", [S(_NUMBERS, _NUMBERS[::-1].copy())], np.fmin, differentiable=False),
    Op("heaviside", [S(_NUMBERS[:6], rnd(6)), S(ints(4), ints(4))], np.heaviside, differentiable=False),
    binary("copysign", np.copysign, numbers=(-2.0,)),
    Op("copysign", [S(_NUMBERS[:6], -_NUMBERS[:6])], np.copysign, differentiable=False),
    Op("nextafter", [S(rnd(3), rnd(3)), S(rnd(2, 1), rnd(3))], np.nextafter),
    Op("frexp", [S(np.array([0.7, 3.0, -10.0, 1000.0])), S(rnd(2, 2, low=0.6, high=0.9))], np.frexp, second=False),
    binary("ldexp", lambda x, n: x * 2.0**n, numbers=(3,)),
    Op("__rdiv__", [S(rnd(3, low=0.5), 2.0)], lambda x, y: y / x),
    Op("__rlshift__", [S(ints(3, low=0), 3)], lambda x, y: y << x, differentiable=False),
    Op("__rrshift__", [S(ints(3, low=0), 30)], lambda x, y: y >> x, differentiable=False),
    bitwise("gcd", np.gcd, [S(ints(4), ints(4)), S(ints(2, 1), ints(3))]),
    bitwise("lcm", np.lcm, [S(ints(4), ints(4)), S(ints(2, 1), ints(3))]),
    bitwise("bitwise_left_shift", np.left_shift, [S(ints(3, low=0), ints(3, low=0, high=5)), S(ints(3), 2)]),
    bitwise("bitwise_right_shift", np.right_shift, [S(ints(3), ints(3, low=0, high=5)), S(ints(3), 1)]),
    Op("float_power", [S(rnd(3, low=0.3), rnd(3)), S(rnd(3), 2), S(2, rnd(3))], np.float_power),
    Op("float_power", [S(ints(3), 2)], np.float_power, call=lambda m, x, n: m.float_power(x, n), differentiable=False),
    binary("rsub", lambda a, b, alpha=1: b - alpha * a),
    Op("rsub", [S(rnd(2), rnd(2), alpha=3)], lambda a, b, alpha: b - alpha * a),
    Op("clamp_min", [S(spread(3), 0.1), S(spread(3), rnd(3, low=0.01, high=0.02))], np.maximum),
    Op("clamp_max", [S(spread(3), 0.1), S(spread(3), rnd(3, low=0.01, high=0.02))], np.minimum),
    Op("fill", [S(rnd(2, 3), 1.5), S(rnd(2), np.array(0.5))], np.full_like),
    Op(
        "fill_diagonal_",
        [S(rnd(3, 2), 1.5), S(rnd(2, 2, 2), 0.0)],
        _filled_diagonal,
        call=lambda m, x, v: x.clone().fill_diagonal_(v),
    ),
    Op(
        "apply_",
        [S(ints(2, 3))],
        lambda x: x * x + 1,
        call=lambda m, x: x.clone().apply_(lambda v: v * v + 1),
        differentiable=False,
        cpu_only=True,
    ),
    Op("overwrite", [S(rnd(2, 3), np.array(0.5))], np.full_like, internal=True),
]

UNARY = [
    unary("positive", np.positive),
    unary("__pos__", np.positive),
    unary("deg2rad", np.deg2rad),
    unary("rad2deg", np.rad2deg),
    *(
        Op(name, [S(_NUMBERS), S(ints(3))], reference, differentiable=False)
        for name, reference in (
            ("signbit", np.signbit),
            ("isposinf", np.isposinf),
            ("isneginf", np.isneginf),
            ("isreal", np.isreal),
        )
    ),
]


# -- complex numbers: as real functions of the two parts ---------------------------------------------------------------


def complex_row(name, reference, samples=None, **options):
    """A row for a function of one complex tensor, given and taken as real and imaginary parts."""

    def call(m, x, y):
        result = getattr(m, name)(m.complex(x, y))
        return m.view_as_real(result) if result.is_complex() else result

    def parts(x, y):
        result = reference(x + 1j * y)
        return np.stack([result.real, result.imag], -1) if np.iscomplexobj(result) else result

    return Op(name, samples or [S(rnd(2, 3), rnd(2, 3)), S(rnd(), rnd())], parts, call=call, **options)


def _direction(z):
    return z / np.abs(z)


COMPLEX = [
    complex_row("real", lambda z: z.real),
    complex_row("imag", lambda z: z.imag),
    complex_row("conj", np.conj),
    complex_row("conj_physical", np.conj),
    complex_row("abs", np.abs),
    complex_row("angle", np.angle),
    complex_row("sgn", _direction),
    complex_row("sqrt", np.sqrt),
    complex_row("exp", np.exp),
    complex_row("log", np.log),
    complex_row("tanh", np.tanh),
    complex_row("isreal", np.isreal, [S(rnd(3), np.array([0.0, 1.0, 0.0]))], differentiable=False),
    Op("conj_physical", [S(rnd(2, 3))], np.conj),
    Op(
        "sgn",
        [S(_NUMBERS[:6]), S(ints(3)), S(mask(3))],
        lambda x: np.sign(x) if x.dtype != bool else x,
        differentiable=False,
    ),
    Op("angle", [S(rnd(3))], np.angle, differentiable=False),
    Op(
        "view_as_real",
        [S(rnd(2), rnd(2))],
        lambda x, y: np.stack([x, y], -1),
        call=lambda m, x, y: m.view_as_real(m.complex(x, y)),
    ),
    Op(
        "view_as_complex",
        [S(rnd(3, 2))],
        lambda x: np.hypot(x[:, 0], x[:, 1]),
        call=lambda m, x: m.view_as_complex(x).abs(),
    ),
    Op(
        "complex",
        [S(rnd(2, 1), rnd(3))],
        lambda x, y: x * y + 0 * (x + y),
        call=lambda m, x, y: m.view_as_real(m.complex(x, y)).prod(-1),
    ),
    Op("compose", [S(rnd(2), rnd(2))], lambda x, y: np.hypot(x, y), call=lambda m, x, y: m.complex(x, y).abs()),
    Op(
        "polar",
        [S(rnd(2, low=0.5), rnd(2))],
        lambda r, a: np.stack([r * np.cos(a), r * np.sin(a)], -1),
        call=lambda m, r, a: m.view_as_real(m.polar(r, a)),
    ),
    Op(
        "mul",
        [S(rnd(2), rnd(2), rnd(2), rnd(2))],
        lambda a, b, c, d: np.stack([a * c - b * d, a * d + b * c], -1),
        call=lambda m, a, b, c, d: m.view_as_real(m.complex(a, b) * m.complex(c, d)),
    ),
    Op(
        "pow",
        [S(rnd(2, low=0.5), rnd(2, low=0.5))],
        lambda x, y: ((x + 1j * y) ** 3).imag,
        call=lambda m, x, y: (m.complex(x, y) ** 3).imag,
    ),
    Op(
        "logaddexp",
        [S(rnd(2), rnd(2))],
        lambda x, y: np.log(2 * np.exp(x + 1j * y)).real,
        call=lambda m, x, y: m.logaddexp(m.complex(x, y), m.complex(x, y)).real,
    ),
    Op("resolve_conj", [S(rnd(2))], np.copy),
    Op("resolve_neg", [S(rnd(2))], np.copy),
    *(Op(name, [S(rnd(2))], lambda x: False, differentiable=False) for name in ("is_conj", "is_neg")),
]

ROWS = SPECIAL + BINARY + UNARY + COMPLEX
