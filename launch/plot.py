"""Figures as a picture: one SVG file that needs no library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import NamedTuple

_WIDTH = 1200  # of pictures with a time axis
_LEFT = 150
_ROW = 16


class Span(NamedTuple):
    """A box on a time axis, in ms."""

    begin: float
    end: float
    name: str
    kind: str


def bars(title: str, values: Mapping[str, float], line: float = 1.0) -> str:
    """A horizontal bar for each value, as SVG; those that reach the dashed line have another colour.

    Args:
        title: what the values are.
        values: positive numbers by what stands in front of their bars.
        line: where the dashed line is.
    """
    left, unit, pitch = 110, 560 / max(2.0 * line, *values.values()), 26
    height = pitch * len(values) + 50
    rows = []
    for i, (name, value) in enumerate(values.items()):
        y = 36 + pitch * i
        color = "#2a9d8f" if value >= line else "#e76f51"
        rows.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{value * unit:.1f}" height="18" rx="2" fill="{color}"/>'
            f'<text x="{left + value * unit + 6:.1f}" y="{y + 13}">{value:.2f}</text>'
        )
    svg = 'xmlns="http://www.w3.org/2000/svg" width="740" font-family="sans-serif" font-size="13"'
    x, end = left + line * unit, height - 12
    parts = [
        f'<svg {svg} height="{height}">',
        f'<rect width="740" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>',
        *rows,
        f'<line x1="{x}" y1="30" x2="{x}" y2="{end}" stroke="#264653" stroke-dasharray="4 3"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def lanes(title: str, spans: Mapping[str, list[Span]], end: float, colors: Mapping[str, str]) -> str:
    """Boxes on a common time axis as SVG: a lane for each key, in which boxes lie below those that they are within.

    Args:
        title: what is shown.
        spans: the boxes of each lane.
        end: where the axis ends, which begins at 0, in ms.
        colors: of each kind of box.
    """
    unit = (_WIDTH - _LEFT - 10) / end
    top = 70
    parts = []
    for name, members in spans.items():
        boxes = list(_nested(members))
        height = _ROW * (1 + max((depth for depth, _ in boxes), default=0))
        parts.append(f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end">{escape(name)}</text>')
        parts += [_box(span, _LEFT + span.begin * unit, top + _ROW * depth, unit, colors) for depth, span in boxes]
        top += height + 8
    parts += [_tick(at, _LEFT + at * unit, top) for at in _ticks(end)]
    legend = "".join(
        f'<rect x="{_LEFT + 130 * i}" y="30" width="12" height="12" fill="{color}"/>'
        f'<text x="{_LEFT + 130 * i + 17}" y="40">{escape(kind)}</text>'
        for i, (kind, color) in enumerate(colors.items())
    )
    size = f'width="{_WIDTH}" height="{top + 10}" viewBox="0 0 {_WIDTH} {top + 10}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
            f'<rect width="{_WIDTH}" height="{top + 10}" fill="white"/>',
            f'<text x="10" y="20" font-size="13" font-weight="bold">{escape(title)}</text>',
            legend,
            *parts,
            "</svg>\n",
        ]
    )


def _nested(spans: list[Span]) -> Iterator[tuple[int, Span]]:
    """Each box with the number of those that it is within."""
    around: list[float] = []
    for span in sorted(spans, key=lambda span: (span.begin, -span.end)):
        while around and around[-1] <= span.begin:
            around.pop()
        yield len(around), span
        around.append(span.end)


def _box(span: Span, x: float, y: int, unit: float, colors: Mapping[str, str]) -> str:
    """A box with its name, as far as there is room; a pointer above it sees it in full."""
    width = max((span.end - span.begin) * unit, 0.5)
    room = int(width / 6.5)
    name = span.name if len(span.name) <= room else span.name[: room - 1] + "\u2026" if room > 3 else ""
    label = f'<text x="{x + 2:.1f}" y="{y + 11}">{escape(name)}</text>' if name else ""
    color = colors.get(span.kind, "#cccccc")
    box = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}" fill="{color}"/>'
    return f"<g><title>{escape(span.name)}: {span.end - span.begin:.3f} ms</title>{box}{label}</g>"


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to `end`, 5 to 13 of them."""
    step = next(
        step for power in range(-6, 9) for step in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if end / step < 12
    )
    return [step * i for i in range(int(end / step) + 1)]


def _tick(at: float, x: float, bottom: int) -> str:
    return (
        f'<line x1="{x:.1f}" y1="62" x2="{x:.1f}" y2="{bottom - 4}" stroke="#264653" stroke-opacity="0.25"/>'
        f'<text x="{x:.1f}" y="58" text-anchor="middle" fill="#264653">{at:g} ms</text>'
    )
