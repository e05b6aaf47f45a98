"""Rows for Fourier transforms, and for windows.

Complex signals are given as real and imaginary parts, so that the checks of derivatives reach them.
"""

from __future__ import annotations

import numpy as np
import scipy.signal

from .ops import rnd
from .table import Op
from .table import Sample as S


def _shown(x):
    return np.stack([x.real, x.imag], -1) if np.iscomplexobj(x) else x


def _parts(m, x):
    return m.view_as_real(x) if x.is_complex() else x


def of_real(name, samples):
    """A row for a transform of real signals."""

    def expected(x, n=None, dim=-1, norm=None):
        return _shown(getattr(np.fft, name)(x, n, dim, norm))

    def call(m, x, *args):
        return _parts(m, getattr(m.fft, name)(x, *args))

    return Op(f"fft.{name}", samples, expected, call=call, emulated=False)


def of_complex(name, samples):
    """A row for a transform of complex signals."""

    def expected(re, im, n=None, dim=-1, norm=None):
        return _shown(getattr(np.fft, name)(re + 1j * im, n, dim, norm))

    def call(m, re, im, *args):
        return _parts(m, getattr(m.fft, name)(m.complex(re, im), *args))

    return Op(f"fft.{name} of complex", samples, expected, call=call, emulated=False)


def _mirrored_scaled(x, dim, n, factor):
    k = np.arange(x.shape[dim])
    return x * np.where((k > 0) & (2 * k != n), factor, 1)


def by_sum(x, sign):
    """The definition."""
    k = np.arange(len(x))
    return np.exp(sign * 2j * np.pi * np.outer(k, k) / len(x)) @ x


BOTH = (-2, -1)
ONE = [S(rnd(4)), S(rnd(5)), S(rnd(2, 3), 4, 1, "ortho"), S(rnd(2, 3), 2, -1, "forward"), S(rnd(3, 2), None, 0)]
ONE_COMPLEX = [S(rnd(3), rnd(3)), S(rnd(4), rnd(4), 3), S(rnd(2, 2), rnd(2, 2), 3, 0, "ortho"),
               S(rnd(3), rnd(3), 4, -1, "forward")]  # fmt: skip
TWO = [S(rnd(2, 3), None, BOTH), S(rnd(2, 3), (3, 2), BOTH, "ortho"), S(rnd(2, 2, 2), None, (0, 2), "forward")]
TWO_COMPLEX = [S(rnd(2, 2), rnd(2, 2), None, BOTH), S(rnd(2, 2), rnd(2, 2), (3, 2), BOTH, "ortho")]

TRANSFORMS = [
    *(of_real(name, ONE) for name in ("fft", "ifft", "rfft", "ihfft", "irfft", "hfft")),
    *(of_complex(name, ONE_COMPLEX) for name in ("fft", "ifft", "irfft", "hfft")),
    *(of_real(name, TWO) for name in ("fftn", "ifftn", "rfftn", "irfftn", "fft2", "ifft2", "rfft2", "irfft2")),
    *(of_complex(name, TWO_COMPLEX) for name in ("fftn", "ifftn", "irfftn")),
    Op("fft.hfft2", [S(rnd(2, 3), rnd(2, 3))], lambda re, im: np.fft.irfft2(re - 1j * im, norm="forward"),
       emulated=False,
       call=lambda m, re, im: m.fft.hfft2(m.complex(re, im))),
    Op("fft.ihfft2", [S(rnd(2, 3))], lambda x: _shown(np.fft.rfft2(x, norm="forward").conj()), emulated=False,
       call=lambda m, x: _parts(m, m.fft.ihfft2(x))),
    Op("fft_c2c", [S(rnd(5), rnd(5))], lambda re, im: _shown(by_sum(re + 1j * im, -1)), emulated=False,
       call=lambda m, re, im: _parts(m, m.fft.fft(m.complex(re, im)))),
    Op("fft_r2c", [S(rnd(5)), S(rnd(4))], lambda x: _shown(by_sum(x, -1)[: len(x) // 2 + 1]), emulated=False,
       call=lambda m, x: _parts(m, m.fft.rfft(x))),
    Op("fft_c2r", [S(rnd(5)), S(rnd(4))],
       lambda x: by_sum(np.concatenate([x, x[-2:0:-1]]), 1).real / (2 * len(x) - 2), emulated=False,
       call=lambda m, x: m.fft.irfft(x)),
    Op("scale_mirrored", [S(rnd(3), 0, 4, 2.0), S(rnd(3), 0, 5, 2.0), S(rnd(2, 2), 1, 2, 0.5)],
       _mirrored_scaled,
       internal=True),
    Op("fft.fftshift", [S(rnd(5)), S(rnd(2, 3)), S(rnd(2, 3), 1)], np.fft.fftshift,
       call=lambda m, *a: m.fft.fftshift(*a)),
    Op("fft.ifftshift", [S(rnd(5)), S(rnd(2, 3), (0, 1))], np.fft.ifftshift, call=lambda m, *a: m.fft.ifftshift(*a)),
    Op("fft.fftfreq", [S(5, 0.1), S(4)], np.fft.fftfreq, differentiable=False,
       call=lambda m, *a: m.fft.fftfreq(*a, dtype=m.float64)),
    Op("fft.rfftfreq", [S(5, 0.1), S(4)], np.fft.rfftfreq, differentiable=False,
       call=lambda m, *a: m.fft.rfftfreq(*a, dtype=m.float64)),
]  # fmt: skip


def _stft(x, window, n, hop):
    """Frame by frame."""
    padded = np.pad(x, n // 2, "reflect")
    starts = range(0, len(padded) - n + 1, hop)
    return _shown(np.stack([np.fft.rfft(padded[i : i + n] * window) for i in starts], -1))


SHORT_TIME = [
    Op("stft", [S(rnd(8), np.hanning(5)[:4] + 0.1, 4, 2)], _stft, emulated=False,
       call=lambda m, x, w, n, hop: m.view_as_real(m.stft(x, n, hop, window=w, return_complex=True))),
    # whatever the window, the signal comes back
    Op("istft", [S(rnd(8), np.hanning(6)[1:5] + 0.1, 4, 2), S(rnd(2, 8), np.ones(4), 4, 4)], lambda x, w, n, hop: x,
       emulated=False,
       call=lambda m, x, w, n, hop: m.istft(
           m.stft(x, n, hop, window=w, return_complex=True), n, hop, window=w, length=8)),
    Op("istft", [S(rnd(3, 3), rnd(3, 3))], None, emulated=False,
       call=lambda m, re, im: m.istft(m.complex(re, im), 4, 2, window=m.hann_window(4, dtype=m.float64) + 0.1)),
]  # fmt: skip


def window(name, reference, samples):
    """A row for a window, symmetric and periodic."""
    both = [S(*s.args, **s.kwargs, sym=sym) for s in samples for sym in (True, False)]
    return Op(f"signal.windows.{name}", both, lambda *a, **k: reference(*a, **k), differentiable=False,
              call=lambda m, *a, **k: getattr(m.signal.windows, name)(*a, **k, dtype=m.float64))  # fmt: skip


def older(name, *extra):
    """A row for `torch.<name>_window`, periodic unless asked otherwise."""
    reference = getattr(scipy.signal.windows, name)
    return Op(f"{name}_window", [S(6, *((True,) if extra else ()), *extra), S(5, False, *extra), S(1)],
              lambda n, periodic=True, *a: reference(n, *(a or extra or ((12.0,) if name == "kaiser" else ())),
              sym=not periodic),
              differentiable=False, call=lambda m, *a: getattr(m, f"{name}_window")(*a, dtype=m.float64))  # fmt: skip


LENGTHS = [S(6), S(5), S(1), S(0)]
WINDOWS = [
    *(window(name, getattr(scipy.signal.windows, name), LENGTHS)
      for name in ("hann", "hamming", "blackman", "bartlett", "cosine", "nuttall")),
    window("general_cosine", lambda n, a, sym: scipy.signal.windows.general_cosine(n, a, sym),
           [S(6, a=[0.5, 0.3, 0.2])]),
    window("general_hamming", lambda n, alpha, sym: scipy.signal.windows.general_hamming(n, alpha, sym),
           [S(6, alpha=0.6)]),
    window("gaussian", lambda n, std, sym: scipy.signal.windows.gaussian(n, std, sym), [S(6, std=1.5), S(5, std=0.7)]),
    window("kaiser", lambda n, beta, sym: scipy.signal.windows.kaiser(n, beta, sym), [S(6, beta=8.0), S(5, beta=0.0)]),
    window("exponential", lambda n, tau, sym: scipy.signal.windows.exponential(n, None, tau, sym), [S(6, tau=2.0)]),
    older("hann"), older("blackman"), older("bartlett"), older("kaiser", 5.0),
    Op("hamming_window", [S(6), S(5, False), S(6, True, 0.6, 0.4)], differentiable=False,
       reference=lambda n, periodic=True, a=0.54, b=0.46: scipy.signal.windows.general_cosine(n, [a, b], not periodic),
       call=lambda m, *a: m.hamming_window(*a, dtype=m.float64)),
]  # fmt: skip

ROWS = [*TRANSFORMS, *SHORT_TIME, *WINDOWS]
