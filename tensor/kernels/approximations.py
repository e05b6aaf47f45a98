"""Functions of one number that LLVM vectorizes, for kernels; `math.exp` and the like are calls, one number at a time.

Each takes float32 or float64 and computes in that precision; NaN, infinities, overflow and subnormal results are as in
NumPy, except that the sign of a zero may be lost. The bounds stated are in units in the last place, tested against
a higher precision in tests/test_approximations.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy
from numba import types
from numba.extending import intrinsic, overload

# No "reassoc", which kernels have: it would cancel the steps that keep the digits, (x + shift) - shift.
# Inlined by force: a call that is left in a loop prevents its vectorization.
_exact = functools.partial(numba.njit, nogil=True, error_model="numpy", fastmath={"contract"}, forceinline=True)


class _Format(NamedTuple):
    """A floating format: how its bits lie, and how many terms a series needs in it."""

    real: Any
    whole: Any  # the integer of the same size
    digits: int  # stored bits of the significand
    bias: int  # of the exponent
    log2_high: float  # log(2) in two parts, the first so short that its products with exponents are exact
    log2_low: float
    exp_range: tuple[float, float]  # exp() is 0 below and infinite above
    log_terms: int
    erf_terms: int


_SINGLE = _Format(numpy.float32, numpy.int32, 23, 127, 0.693359375, -2.1219444005469057e-4, (-104.0, 89.0), 5, 9)
_DOUBLE = _Format(
    numpy.float64, numpy.int64, 52, 1023, 0.6931471803691238, 1.9082149292705877e-10, (-746.0, 710.0), 11, 13
)


_SAME_SIZE = {
    types.float32: types.int32,
    types.float64: types.int64,
    types.int32: types.float32,
    types.int64: types.float64,
}


@intrinsic
def _bits(typing_context, x):  # type: ignore[no-untyped-def]
    """The bits of a floating number as an integer, or the other way."""
    result = _SAME_SIZE[x]

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(result))

    return result(x), generate


def _both(make: Callable[[_Format], Callable], of: tuple = (types.float32, types.float64)) -> Callable:
    """One function for kernels from the two that `make` compiles, chosen by the type of the argument."""
    variants = dict(zip(of, (make(_SINGLE), make(_DOUBLE)), strict=True))

    def function(x: float) -> float:
        raise NotImplementedError("for compiled code only")

    @overload(function, jit_options={"forceinline": True})
    def _choose(x):  # type: ignore[no-untyped-def]
        variant = variants.get(x)
        return None if variant is None else lambda x: variant(x)

    # its name in this module, by which Numba tells what a cached kernel was made from
    function.__name__ = function.__qualname__ = make.__name__.removeprefix("_")
    return function


def _rank(form: _Format) -> Callable:
    """An integer for each number, in their order, NaN above all: LLVM vectorizes the search for the largest integer,
    and not that for the largest number."""
    whole = form.whole
    last = whole(whole(0).itemsize * 8 - 1)
    magnitude, infinite = whole(numpy.iinfo(whole).max), form.real(numpy.inf).view(whole)

    @_exact
    def rank(x):  # type: ignore[no-untyped-def]
        bits = _bits(x)
        ordered = whole(bits ^ whole(whole(bits >> last) & magnitude))
        return magnitude if whole(bits & magnitude) > infinite else ordered

    return rank


def _ranked(form: _Format) -> Callable:
    """The number of a rank."""
    whole = form.whole
    last, magnitude = whole(whole(0).itemsize * 8 - 1), whole(numpy.iinfo(whole).max)

    @_exact
    def ranked(rank):  # type: ignore[no-untyped-def]
        return _bits(whole(rank ^ whole(whole(rank >> last) & magnitude)))

    return ranked


rank = _both(_rank)
ranked = _both(_ranked, of=(types.int32, types.int64))


def _polynomial(form: _Format, coefficients: list[float]) -> Callable:
    """sum(coefficients[i] * x**i), by Horner's rule."""
    if len(coefficients) > 14:  # LLVM does not unroll longer loops, which prevents vectorization
        even, odd = _polynomial(form, coefficients[::2]), _polynomial(form, coefficients[1::2])

        @_exact
        def halves(x):  # type: ignore[no-untyped-def]
            return even(x * x) + x * odd(x * x)

        return halves

    *rest, last = map(form.real, coefficients)
    falling = tuple(reversed(rest))

    @_exact
    def polynomial(x):  # type: ignore[no-untyped-def]
        total = last
        for c in falling:
            total = total * x + c
        return total

    return polynomial


def _split(form: _Format) -> Callable:
    """x as (n, r), with x = n log(2) + r and |r| <= log(2) / 2, for |x| below 2**(digits - 2)."""
    real, whole = form.real, form.whole
    shift = real(1.5 * 2**form.digits)  # added, it leaves the rounded number in the lowest bits
    shift_bits = shift.view(whole)
    per_log2 = real(1 / math.log(2))
    high, low = real(form.log2_high), real(form.log2_low)

    @_exact
    def split(x):  # type: ignore[no-untyped-def]
        shifted = x * per_log2 + shift
        n = shifted - shift
        return whole(_bits(shifted) - shift_bits), x - n * high - n * low

    return split


def _power_of_two(form: _Format) -> Callable:
    """2.0**n for the exponents of normal numbers."""
    whole, digits, bias = form.whole, form.digits, form.bias

    @_exact
    def power_of_two(n):  # type: ignore[no-untyped-def]
        return _bits(whole(whole(n + bias) << digits))

    return power_of_two


# exp(r) = 1 + r + r*r * sum(_EXP[i] * r**i) for |r| <= log(2) / 2: from the Chebyshev series, made with 60 digits for
# this file; relative error 1e-8 and 1.7e-17.
_EXP = {
    numpy.float32: (
        0.5000000013543257, 0.1666657664354715, 0.041666464167313115, 0.00836323538462817, 0.0013933733216281662,
    ),
    numpy.float64: (
        0.5000000000000001, 0.1666666666666667, 0.04166666666662382, 0.008333333333326082, 0.0013888888917368964,
        0.00019841269875003973, 2.4801521055364205e-05, 2.7557255168123062e-06, 2.76202026313159e-07,
        2.5105313423078524e-08,
    ),
}  # fmt: skip


def _exp(form: _Format) -> Callable:
    split, power_of_two = _split(form), _power_of_two(form)
    series = _polynomial(form, [1, 1, *_EXP[form.real]])
    whole = form.whole  # of two int32 Numba makes an int64, which halves the speed
    least, most = map(form.real, form.exp_range)

    @_exact
    def exp(x):  # type: ignore[no-untyped-def]
        x = least if x < least else most if x > most else x  # of NaN: NaN
        n, r = split(x)
        half = whole(n >> 1)  # in two steps, as 2.0**n may be subnormal or overflow where the result does not
        return series(r) * power_of_two(half) * power_of_two(whole(n - half))

    return exp


exp = _both(_exp)  # 1 ulp


def _exp_falling(form: _Format) -> Callable:
    """exp(x) for x <= 0, in half the time; what would be subnormal is 0."""
    split, real, whole, digits = _split(form), form.real, form.whole, form.digits
    series = _polynomial(form, [1, 1, *_EXP[form.real]])
    least = real(math.log(numpy.finfo(real).tiny) + 0.01)
    zero = real(0)

    @_exact
    def exp_falling(x):  # type: ignore[no-untyped-def]
        n, r = split(x)
        value = _bits(whole(_bits(series(r)) + whole(n << digits)))  # times 2.0**n
        return zero if x < least else value

    return exp_falling


exp_falling = _both(_exp_falling)  # 1 ulp


def _expm1(form: _Format) -> Callable:
    real = form.real
    split, power_of_two = _split(form), _power_of_two(form)
    series = _polynomial(form, [1, *_EXP[form.real]])
    whole, least, most = form.whole, real(-40), real(form.exp_range[1])  # exp(x) - 1 is -1 below
    half, two = real(0.5), real(2)

    @_exact
    def expm1(x):  # type: ignore[no-untyped-def]
        x = least if x < least else most if x > most else x
        n, r = split(x)
        power = power_of_two(whole(n - 1))  # half of it, as 2.0**n may overflow where the result does not
        return two * (power * (r * series(r)) + (power - half))

    return expm1


expm1 = _both(_expm1)  # 3 ulp


def _tanh(form: _Format) -> Callable:
    real = form.real
    split, power_of_two = _split(form), _power_of_two(form)
    series = _polynomial(form, [1, *_EXP[form.real]])
    most = real(10 if real is numpy.float32 else 20)  # tanh is 1 above
    one, two = real(1), real(2)

    @_exact
    def tanh(x):  # type: ignore[no-untyped-def]
        x = -most if x < -most else most if x > most else x
        n, r = split(x * two)
        power = power_of_two(n)
        expm1 = power * (r * series(r)) + (power - one)  # exp(2x) - 1, accurate near 0
        return expm1 / (expm1 + two)

    return tanh


tanh = _both(_tanh)  # 3 ulp


def _sigmoid(form: _Format) -> Callable:
    exp_falling = _exp_falling(form)
    one = form.real(1)

    @_exact
    def sigmoid(x):  # type: ignore[no-untyped-def]
        e = exp_falling(-abs(x))
        return (e if x < 0 else one) / (one + e)

    return sigmoid


sigmoid = _both(_sigmoid)  # 3 ulp; 0 where it would be subnormal


def _log(form: _Format) -> Callable:
    real, whole, digits = form.real, form.whole, form.digits
    # log((1 + s) / (1 - s)) = 2s (1 + s**2/3 + s**4/5 ...)
    series = _polynomial(form, [2 / (2 * n + 3) for n in range(form.log_terms)])
    root_bits = real(math.sqrt(0.5)).view(whole)
    least_normal, lift, lifted = numpy.finfo(real).tiny, real(2.0 ** (digits + 2)), whole(digits + 2)
    high, low = real(form.log2_high), real(form.log2_low)
    half, one, two, infinity, nan = real(0.5), real(1), real(2), real(math.inf), real(math.nan)

    @_exact
    def log(x):  # type: ignore[no-untyped-def]
        subnormal = x < least_normal
        bits = _bits(x * lift if subnormal else x)
        n = whole(whole(bits - root_bits) >> digits)  # x = 2**n m with sqrt(1/2) <= m < sqrt(2)
        m = _bits(whole(bits - whole(n << digits)))
        k = real(whole(n - lifted) if subnormal else n)
        f = m - one
        s = f / (two + f)
        square, near = s * s, half * f * f
        result = k * high - ((near - (s * (near + square * series(square)) + k * low)) - f)
        result = result if x > 0 else -infinity if x == 0 else nan
        return result if x < infinity else x + x if x > 0 else nan

    return log


log = _both(_log)  # 1 ulp


def _log1p(form: _Format) -> Callable:
    log = _log(form)
    zero, one, infinity = form.real(0), form.real(1), form.real(math.inf)

    @_exact
    def log1p(x):  # type: ignore[no-untyped-def]
        u = one + x
        lost = x - (u - one)  # what rounding took from x
        return log(u) + (lost / u if u > zero and u < infinity else zero)

    return log1p


log1p = _both(_log1p)  # 2 ulp

# exp(x*x) erfc(x) = t * sum(_ERFCX[i] * u**i) with t = 2 / (2 + x), u = (15t - 8) / 7: from the Chebyshev series for
# 0 <= x <= 28, made with 60 digits for this file; relative error 1e-8 and 1.4e-16.
_ERFCX = {
    numpy.float32: (
        0.5343229414676818, 0.3382788806584911, 0.12464225399693142, 0.012374170831727191,
        -0.008898715326616203, -0.0018388236361173208, 0.0011185213906641654, 0.00016413790554475774,
        -0.0001800261216597599, -4.376993437687265e-06, 2.1040647422612884e-05,
    ),
    numpy.float64: (
        0.5343229401326932, 0.3382789281077768, 0.12464235007161971, 0.012373178041200856,
        -0.008899834273394145, -0.0018328807504320332, 0.0011232723668640877, 0.00014901183515351487,
        -0.0001890613458088337, 1.4081903424485074e-05, 2.8690822521863097e-05, -1.0796839241117583e-05,
        -1.8786054881015276e-06, 2.7913187430849813e-06, -7.112187078467807e-07, -2.8482893371341687e-07,
        2.8404347289102317e-07, -7.572683827519567e-08, -3.1259951582535724e-08, 3.9067313457048694e-08,
        -9.72161981100478e-09, -7.4205306110284385e-09, 4.266104726300175e-09, 5.607564684898426e-10,
        -5.466991125925021e-10,
    ),
}  # fmt: skip


def _scaled_erfc(form: _Format) -> Callable:
    """exp(x*x) erfc(x) for x >= 0."""
    real = form.real
    series = _polynomial(form, list(_ERFCX[form.real]))
    two, factor, offset = real(2), real(15 / 7), real(8 / 7)

    @_exact
    def scaled_erfc(x):  # type: ignore[no-untyped-def]
        t = two / (two + x)
        return t * series(t * factor - offset)

    return scaled_erfc


def _erf(form: _Format) -> Callable:
    real = form.real
    exp_falling, scaled_erfc = _exp_falling(form), _scaled_erfc(form)
    near_zero = _polynomial(
        form, [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(form.erf_terms)]
    )
    limit, one = real(0.5), real(1)

    @_exact
    def erf(x):  # type: ignore[no-untyped-def]
        a = abs(x)
        near, tail = x * near_zero(a * a), one - exp_falling(-a * a) * scaled_erfc(a)
        return near if a < limit else -tail if x < 0 else tail

    return erf


erf = _both(_erf)  # 4 ulp


def _normal(form: _Format) -> Callable:
    real = form.real
    exp_falling, scaled_erfc = _exp_falling(form), _scaled_erfc(form)
    root, half, one, peak = map(real, (math.sqrt(0.5), 0.5, 1, 1 / math.sqrt(2 * math.pi)))

    @_exact
    def normal(x):  # type: ignore[no-untyped-def]
        e = exp_falling(-half * x * x)
        tail = half * e * scaled_erfc(abs(x) * root)
        return tail if x < 0 else one - tail, e * peak

    return normal


# The distribution function and the density of the normal distribution at x: 8 ulp up to |x| = 2, and x * x / 2 more
# ulp beyond, as x * x is rounded. What would be subnormal is 0.
normal = _both(_normal)
