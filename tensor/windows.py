"""Window functions: weights that fade a stretch of signal out at its ends.

Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform" (1978).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from ..runtime import dtypes
from . import creation


def _made(
    name: str,
    formula: Callable[[numpy.ndarray, int], numpy.ndarray],
    M: int,
    sym: bool,
    dtype: Any,
    device: Any,
    requires_grad: bool,
) -> Any:
    """`formula(k, last)` for k = 0 ... M - 1; a periodic window is a symmetric one of M + 1 without its last."""
    dtype = dtypes.of(dtype) if dtype is not None else dtypes.get_default_dtype()
    if not dtype.is_floating_point:
        raise RuntimeError(f"{name} expects floating point dtypes, got {dtype!r}")
    if M < 0:
        raise RuntimeError(f"{name} requires non-negative window length, got M={M}")
    last = M - 1 if sym else M
    k = numpy.arange(M, dtype=numpy.float64)
    values = numpy.ones(M) if M <= 1 else formula(k, last)
    return creation.tensor(values, dtype=dtype, device=device, requires_grad=requires_grad)


def _cosines(weights: Sequence[float]) -> Callable:
    """sum_j (-1)^j weights_j cos(2 pi j k / last)."""
    return lambda k, last: sum(
        (-1) ** j * a * numpy.cos(2 * math.pi * j * k / last) for j, a in enumerate(weights)
    )


# -- torch.signal.windows --------------------------------------------------------------------------------------------


def general_cosine(
    M: int, *, a: Any, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    **layout: Any,
) -> Any:  # fmt: skip
    """The weighted sum of cosines sum_j (-1)^j a_j cos(2 pi j k / (M - 1)); `sym` False makes it periodic."""
    return _made("general_cosine", _cosines(tuple(a)), M, sym, dtype, device, requires_grad)


def general_hamming(
    M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, **layout: Any,
) -> Any:  # fmt: skip
    """alpha - (1 - alpha) cos(2 pi k / (M - 1))."""
    return _made("general_hamming", _cosines((alpha, 1 - alpha)), M, sym, dtype, device, requires_grad)


def _of_cosines(name: str, weights: tuple[float, ...]) -> Any:
    def window(
        M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False, **layout: Any
    ) -> Any:
        return _made(name, _cosines(weights), M, sym, dtype, device, requires_grad)

    window.__name__ = window.__qualname__ = name
    window.__doc__ = f"The `general_cosine` window with the weights {weights}."
    return window


hann = _of_cosines("hann", (0.5, 0.5))
hamming = _of_cosines("hamming", (0.54, 0.46))
blackman = _of_cosines("blackman", (0.42, 0.5, 0.08))
nuttall = _of_cosines("nuttall", (0.3635819, 0.4891775, 0.1365995, 0.0106411))


def bartlett(
    M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False, **layout: Any
) -> Any:
    """The triangle 1 - |2 k / (M - 1) - 1|."""
    return _made("bartlett", lambda k, last: 1 - abs(2 * k / last - 1), M, sym, dtype, device, requires_grad)


def cosine(
    M: int, *, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False, **layout: Any
) -> Any:
    """Half a sine: sin(pi (k + 1/2) / M)."""
    formula = lambda k, last: numpy.sin(math.pi * (k + 0.5) / (last + 1))  # noqa: E731
    return _made("cosine", formula, M, sym, dtype, device, requires_grad)


def exponential(
    M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, **layout: Any,
) -> Any:  # fmt: skip
    """exp(-|k - center| / tau); center is the middle unless given, which only a periodic window allows."""
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")

    def formula(k: numpy.ndarray, last: int) -> numpy.ndarray:
        return numpy.exp(-abs(k - (last / 2 if center is None else center)) / tau)

    return _made("exponential", formula, M, sym, dtype, device, requires_grad)


def gaussian(
    M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    **layout: Any,
) -> Any:  # fmt: skip
    """exp(-((k - middle) / std)^2 / 2)."""
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    formula = lambda k, last: numpy.exp(-0.5 * ((k - last / 2) / std) ** 2)  # noqa: E731
    return _made("gaussian", formula, M, sym, dtype, device, requires_grad)


def kaiser(
    M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    **layout: Any,
) -> Any:  # fmt: skip
    """I0(beta sqrt(1 - (2 k / (M - 1) - 1)^2)) / I0(beta), with the modified Bessel function I0."""
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")

    def formula(k: numpy.ndarray, last: int) -> numpy.ndarray:
        return numpy.i0(beta * numpy.sqrt(numpy.maximum(0, 1 - (2 * k / last - 1) ** 2))) / numpy.i0(beta)

    return _made("kaiser", formula, M, sym, dtype, device, requires_grad)


# -- the older names in torch ----------------------------------------------------------------------------------------


def _periodic_first(window: Any, **defaults: float) -> Any:
    names = tuple(defaults)

    def older(window_length: int, periodic: bool = True, *values: float, **options: Any) -> Any:
        given = defaults | dict(zip(names, values, strict=False)) | {n: options.pop(n) for n in names if n in options}
        return window(window_length, sym=not periodic, **given, **options)

    older.__name__ = older.__qualname__ = f"{window.__name__}_window"
    older.__doc__ = f"`signal.windows.{window.__name__}`, periodic unless asked otherwise."
    return older


hann_window, blackman_window, bartlett_window = map(_periodic_first, (hann, blackman, bartlett))
kaiser_window = _periodic_first(kaiser, beta=12.0)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, **options: Any
) -> Any:
    """alpha - beta cos(2 pi k / n), periodic unless asked otherwise."""
    return general_cosine(window_length, a=(alpha, beta), sym=not periodic, **options)
