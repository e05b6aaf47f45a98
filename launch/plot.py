"""Figures as a picture: one SVG file that needs no library."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


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
