"""The short-time Fourier transform: spectra of overlapping stretches of a signal."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.variable import box
from ...runtime import arrays, dtypes
from . import arithmetic as ar
from . import complex as cx
from . import fourier, indexing, scattering, shaping


def _window_of(window: Any, win_length: int, n_fft: int, like: Any, name: str) -> Any:
    """The window, ones by default, with zeros around it up to n_fft."""
    if not 0 < win_length <= n_fft:
        raise RuntimeError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={win_length}, n_fft={n_fft}")
    if window is None:
        real = numpy.empty(0, like.array.dtype).real.dtype
        window = box(arrays.module_of(like.array).ones(win_length, real))
    if window.array.shape != (win_length,):
        shape = list(window.array.shape)
        raise RuntimeError(f"{name}: expected a 1D window tensor of size equal to win_length={win_length}, got {shape}")
    before = (n_fft - win_length) // 2
    return shaping.pad_constant(window, ((before, n_fft - win_length - before),)) if win_length < n_fft else window


def _padded(signal: Any, width: int, mode: str) -> Any:
    """The signal continued at both ends."""
    if mode == "constant":
        return shaping.pad_constant(signal, ((0, 0), (width, width)))
    if mode not in ("reflect", "replicate", "circular"):
        raise RuntimeError(f"stft: pad_mode must be 'reflect', 'constant', 'replicate' or 'circular', got {mode!r}")
    n = signal.array.shape[-1]
    if width >= n and mode == "reflect":
        raise RuntimeError(
            f"stft: Padding size should be less than the corresponding input dimension, but got: padding ({width}, "
            f"{width}) at dimension 2 of input of length {n}"
        )
    how: Any = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    places = numpy.pad(numpy.arange(n), width, how)
    return indexing.index_select(signal, -1, _on_device_of(signal, places))


def _on_device_of(like: Any, places: numpy.ndarray) -> Any:
    return box(arrays.module_of(like.array).asarray(places))


def _frame_places(count: int, length: int, hop: int) -> numpy.ndarray:
    """Where the elements of each frame lie in the signal: [count, length]."""
    return hop * numpy.arange(count)[:, None] + numpy.arange(length)


def stft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Any:
    """The short-time Fourier transform: X[w, m] = sum_k window[k] input[m hop + k] exp(-2 pi i w k / n_fft).

    Args:
        input: signals, [length] or [batch, length], real or complex.
        n_fft: length of a frame.
        hop_length: from frame to frame, default n_fft // 4.
        win_length: of the window, default n_fft; the window stands in the middle of the frame.
        window: [win_length], default ones.
        center: whether frame m is centred at m * hop_length; the signal is continued by `pad_mode` at its ends.
        pad_mode: "reflect", "constant", "replicate" or "circular".
        normalized: divide by sqrt(n_fft).
        onesided: only the n_fft // 2 + 1 non-negative frequencies; default for real input and window.
        return_complex: must be given: False for the real and imaginary parts in a last dim of 2.
        align_to_window: with center=False, whether the first frame starts where the window does.

    Returns:
        [..., frequencies, frames].

    Example:
        >>> import paceline as torch
        >>> torch.stft(torch.ones(8), 4, return_complex=True).shape
        paceline.Size([3, 9])
    """
    name = "stft"
    if input.array.ndim not in (1, 2):
        raise RuntimeError(f"stft: expected a 1D or 2D tensor, got {input.array.ndim}D")
    if input.array.dtype.kind not in "fc":
        found = dtypes.of(input.array.dtype).name
        raise RuntimeError(f"stft: expected a floating point or complex tensor, got {found}")
    hop = n_fft // 4 if hop_length is None else hop_length
    if hop <= 0:
        raise RuntimeError(f"stft: expected hop_length > 0, but got hop_length={hop}")
    is_complex = "c" in (input.array.dtype.kind, window.array.dtype.kind if window is not None else "f")
    if return_complex is None and not is_complex:
        raise RuntimeError("stft requires the return_complex parameter be given for real inputs; give True")
    weights = _window_of(window, n_fft if win_length is None else win_length, n_fft, input, name)
    signal = shaping.unsqueeze(input, 0) if input.array.ndim == 1 else input
    if center:
        if align_to_window is not None:
            raise RuntimeError("stft: align_to_window should only be set when center = false")
        signal = _padded(signal, n_fft // 2, pad_mode)
    elif align_to_window:
        gap = (n_fft - (n_fft if win_length is None else win_length)) // 2
        signal = shaping.pad_constant(signal, ((0, 0), (gap, gap)))
    length = signal.array.shape[-1]
    if not 0 < n_fft <= length:
        raise RuntimeError(f"stft: expected 0 < n_fft <= {length}, but got n_fft={n_fft}")
    places = _frame_places(1 + (length - n_fft) // hop, n_fft, hop)
    frames = indexing.getitem(signal, (slice(None), _on_device_of(signal, places)))
    frames = ar.mul(frames, weights)
    norm = "ortho" if normalized else "backward"
    half = not is_complex if onesided is None else onesided
    spectra = (fourier.rfft if half else fourier.fft)(frames, norm=norm)
    spectra = shaping.transpose(spectra, 1, 2)
    spectra = shaping.squeeze(spectra, 0) if input.array.ndim == 1 else spectra
    return spectra if return_complex or return_complex is None else cx.view_as_real(spectra)


def istft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Any:
    """The signal whose `stft` is nearest to the input: overlapping frames added, over the sum of squared windows.

    Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984).

    Args:
        input: complex [frequencies, frames] or [batch, frequencies, frames], with the arguments given to `stft`.
        length: of the signal, which is cut or padded with zeros to it.
        return_complex: a complex signal, which needs onesided=False.

    Example:
        >>> import paceline as torch
        >>> spectra = torch.stft(torch.ones(8), 4, return_complex=True)
        >>> torch.istft(spectra, 4)
        tensor([1., 1., 1., 1., 1., 1., 1., 1.])
    """
    if input.array.dtype.kind != "c":
        raise RuntimeError(
            "istft requires a complex-valued input tensor matching the output from stft with return_complex=True."
        )
    if input.array.ndim not in (2, 3) or not input.array.size:
        raise RuntimeError(
            f"istft: expected a tensor of 2 or 3 dimensions with elements, but got shape {list(input.array.shape)}"
        )
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    frequencies, count = input.array.shape[-2:]
    half = frequencies != n_fft if onesided is None else onesided
    expected = n_fft // 2 + 1 if half else n_fft
    if frequencies != expected:
        raise RuntimeError(
            f"istft: expected {expected} frequencies for n_fft={n_fft}, onesided={half}, got {frequencies}"
        )
    if not 0 < hop <= width:
        raise RuntimeError(f"istft: expected 0 < hop_length <= win_length, got {hop} and {width}")
    if return_complex and half:
        raise RuntimeError("istft: complex output needs onesided=False, since half a spectrum is that of a real signal")
    weights = _window_of(window, width, n_fft, input, "istft")
    spectra = shaping.transpose(shaping.unsqueeze(input, 0) if input.array.ndim == 2 else input, 1, 2)
    norm = "ortho" if normalized else "backward"
    # for a real signal the second half of a full spectrum says nothing new: irfft leaves it out
    frames = fourier.ifft(spectra, norm=norm) if return_complex else fourier.irfft(spectra, n_fft, norm=norm)
    signal = _overlapped(ar.mul(frames, weights), hop)
    envelope = _overlapped(shaping.expand(ar.mul(weights, weights), (1, count, n_fft)), hop)
    start = n_fft // 2 if center else 0
    total = n_fft + hop * (count - 1)
    end = start + length if length is not None else total - n_fft // 2 if center else total
    kept = min(end, total) - start
    signal, envelope = shaping.narrow(signal, 1, start, kept), shaping.narrow(envelope, 1, start, kept)
    smallest = abs(envelope.array).min()
    if smallest < 1e-11:
        raise RuntimeError(f"istft: window overlap add min: {float(smallest)}: the window and hop_length leave gaps")
    signal = ar.true_divide(signal, envelope)
    if end > total:
        signal = shaping.pad_constant(signal, ((0, 0), (0, end - total)))
    return shaping.squeeze(signal, 0) if input.array.ndim == 2 else signal


def _overlapped(frames: Any, hop: int) -> Any:
    """Frames [batch, count, length] added up where they lie in the signal."""
    batch, count, length = frames.array.shape
    places = _frame_places(count, length, hop).reshape(-1)
    flat = shaping.reshape(frames, (batch, count * length))
    xp = arrays.module_of(frames.array)
    silence = box(xp.zeros((batch, length + hop * (count - 1)), frames.array.dtype))
    return scattering.index_add(silence, 1, _on_device_of(frames, places), flat)
