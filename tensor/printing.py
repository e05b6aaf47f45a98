"""How tensors print: as PyTorch's do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy

from ..runtime import dtypes
from ..runtime.arrays import to_host


@dataclass
class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_options = _Options()
_PROFILES: dict[str, dict[str, Any]] = {
    "default": {},
    "short": {"precision": 2, "edgeitems": 2},
    "full": {"threshold": math.inf},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Choose how tensors are printed.

    Args:
        precision: digits after the point (default 4).
        threshold: number of elements from which on only the edges are shown (1000).
        edgeitems: elements shown at each edge (3).
        linewidth: characters of a line (80).
        profile: "default", "short" or "full" sets all of these anew before the others are considered.
        sci_mode: scientific notation always or never; None decides by the values.
    """
    if profile is not None:
        if profile.lower() not in _PROFILES:
            raise ValueError(f"set_printoptions(): profile should be one of {', '.join(_PROFILES)}, got {profile!r}")
        vars(_options).update(vars(_Options(**_PROFILES[profile.lower()])))
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(_options, name, value)
    _options.sci_mode = sci_mode


class _Formatter:
    """One format for all elements of a tensor."""

    def __init__(self, values: numpy.ndarray) -> None:
        self.floating = values.dtype.kind == "f"
        self.whole = self.scientific = False
        if self.floating:
            finite = shown = values[numpy.isfinite(values) & (values != 0)]
            finite = finite.astype(numpy.float64)
            size = numpy.abs(finite)
            self.whole = bool((finite == numpy.ceil(finite)).all())
            if finite.size:
                low, high = float(size.min()), float(size.max())
                self.scientific = high / low > 1000.0 or high > 1.0e8 or (not self.whole and low < 1.0e-4)
            if _options.sci_mode is not None:
                self.scientific = _options.sci_mode
            values = shown  # 0, nan and inf are not padded for, as in PyTorch
        self.width = max((len(self.text(v)) for v in values.reshape(-1)), default=1)

    def text(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{_options.precision}e}"
        if self.whole and math.isfinite(value):
            return f"{value:.0f}."
        return f"{value:.{_options.precision}f}"

    def __call__(self, value: Any) -> str:
        return self.text(value).rjust(self.width)


class _ComplexFormatter:
    """Real and imaginary part, each in its own format."""

    def __init__(self, values: numpy.ndarray) -> None:
        self.real, self.imaginary = _Formatter(values.real), _Formatter(values.imag)

    @property
    def width(self) -> int:
        return self.real.width + self.imaginary.width + 1

    def __call__(self, value: Any) -> str:
        imaginary = self.imaginary.text(value.imag)
        return f"{self.real(value.real)}{'' if imaginary.startswith('-') else '+'}{imaginary}j"


def _shown(array: numpy.ndarray) -> numpy.ndarray:
    """The elements that will be printed of a large array."""
    edge = _options.edgeitems
    for axis, n in enumerate(array.shape):
        if n > 2 * edge:
            array = array.take([*range(edge), *range(n - edge, n)], axis)
    return array


def _lines(array: numpy.ndarray, format: Any, indent: int, summarize: bool) -> str:
    edge = _options.edgeitems
    cut = summarize and array.ndim and len(array) > 2 * edge
    if array.ndim == 0:
        return format(array[()])
    if array.ndim == 1:
        per_line = max(1, (_options.linewidth - indent) // (format.width + 2))
        items = [format(v) for v in (numpy.concatenate([array[:edge], array[-edge:]]) if cut else array)]
        if cut:
            items.insert(edge, " ...")
        rows = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(rows) + "]"
    parts = [*array[:edge], *array[-edge:]] if cut else [*array]
    texts = [_lines(part, format, indent + 1, summarize) for part in parts]
    if cut:
        texts.insert(edge, "...")
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(texts) + "]"


def tensor_text(tensor: Any) -> str:
    """The text of a tensor: its elements and whatever is not the default about it."""
    array, prefix = to_host(tensor.array), "tensor("
    suffixes = []
    if tensor.device.type != "cpu":
        suffixes.append(f"device='{tensor.device}'")
    default = (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_)
    if array.size == 0:
        body = "[]"
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        if tensor.dtype is not dtypes.get_default_dtype():
            suffixes.append(f"dtype={tensor.dtype!r}")
    else:
        if tensor.dtype not in default and tensor.dtype is not dtypes.of_scalar(0j):
            suffixes.append(f"dtype={tensor.dtype!r}")
        if tensor.dtype is dtypes.bfloat16:
            array = array.astype(numpy.float32)
        summarize = array.size > _options.threshold
        kind = _ComplexFormatter if array.dtype.kind == "c" else _Formatter
        body = _lines(array, kind(_shown(array) if summarize else array), len(prefix), summarize)
    if tensor.grad_fn is not None:
        suffixes.append(f"grad_fn={tensor.grad_fn!r}")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    text = prefix + body
    used = len(text.rsplit("\n", 1)[-1]) + 2
    for suffix in suffixes:
        fits = used + len(suffix) + 2 <= _options.linewidth
        text += f", {suffix}" if fits else f",\n{' ' * len(prefix)}{suffix}"
        used = (used if fits else len(prefix) - 2) + len(suffix) + 2
    return text + ")"
