"""Small plots as inline SVG: bars, stacked or not, and curves. Colours are the page's CSS classes, so that a dark page
has dark plots; a mark says its numbers when pointed at. No other file, no script. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 52, 16, 12, 40  # margins, in user units (pixels where nothing is scaled)
LETTER = 6.2  # width of one at the size of the axis labels
Y_TICKS = 4


@dataclass(frozen=True)
class Series:
    """Heights of one colour. css : class of the page, s1, s2, ..."""

    name: str
    css: str
    values: Sequence[float]


def bars(
    series: Sequence[Series],
    names: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    axis: str,
    width: int = 520,
    height: int = 230,
) -> str:
    """Bars side by side without space between bins, the series stacked.

    Parameters
    ----------
    series : each with one value per bar.
    names : of the bars, for the tooltips.
    ticks : place (0: left edge of the first bar, 1: of the second, ...) and text; those that would overlap are left
        out.
    axis : what the bars stand on.
    """
    count = len(names)
    totals = [sum(each.values[place] for each in series) for place in range(count)]
    top, lines = _grid(max(totals, default=0), width, height)
    step = (width - LEFT - RIGHT) / max(1, count)
    space = 1 if step > 4 else 0
    marks = []
    for place, name in enumerate(names):
        if not totals[place]:
            continue
        base, said = float(height - BOTTOM), [name]
        marks.append("<g>")
        for each in series:
            value = each.values[place]
            if value:
                tall = value / top * (height - TOP - BOTTOM)
                base -= tall
                marks.append(_rect(LEFT + place * step, base, step - space, tall, each.css))
                said.append(f"{each.name}: {value:,.0f}" if each.name else f"{value:,.0f}")
        marks.append(f"<title>{escape(chr(10).join(said))}</title></g>")
    at = [(LEFT + place * step, text) for place, text in ticks]
    return _svg(lines + "".join(marks) + _axis(at, axis, width, height), axis, width, height)


def curve(points: Sequence[tuple[float, float]], axis: str, width: int = 520, height: int = 230) -> str:
    """A curve from (0, 0) to (1, 1) of shares, with the diagonal of equal shares."""
    wide, tall = width - LEFT - RIGHT, height - TOP - BOTTOM
    _, lines = _grid(1, width, height, percent=True)
    at = [(LEFT + x * wide, height - BOTTOM - y * tall) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    area = f"{LEFT},{height - BOTTOM} {path} {width - RIGHT},{height - BOTTOM}"
    marks = f'<polygon class="s1 area" points="{area}"/><polyline class="line" points="{path}"/>'
    marks += f'<line class="equal" x1="{LEFT}" y1="{height - BOTTOM}" x2="{width - RIGHT}" y2="{TOP}"/>'
    for (x, y), (share, of_events) in zip(at, points, strict=True):
        said = f"{share:.1%} of the items have {of_events:.1%} of the events"
        marks += f'<circle class="spot" cx="{x:.1f}" cy="{y:.1f}" r="6"><title>{said}</title></circle>'
    ticks = [(LEFT + share * wide, f"{share:.0%}") for share in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    return _svg(lines + marks + _axis(ticks, axis, width, height), axis, width, height)


def short(number: float) -> str:
    """A count in a few letters.

    >>> [short(n) for n in (0, 950, 1500, 20_000, 3_400_000)]
    ['0', '950', '1.5k', '20k', '3.4M']
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + letter
    return f"{number:g}"


def _grid(highest: float, width: int, height: int, percent: bool = False) -> tuple[float, str]:
    """The value at the top, and lines at round values."""
    step = 10 ** math.floor(math.log10(highest / Y_TICKS)) if highest else 1.0
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if factor * step * Y_TICKS >= highest)
    if not percent and step < 1:
        step = 1.0
    top = step * max(1, math.ceil(highest / step - 1e-9))
    parts = []
    for number in range(round(top / step) + 1):
        y = height - BOTTOM - number * step / top * (height - TOP - BOTTOM)
        text = f"{number * step:.0%}" if percent else short(number * step)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{width - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return top, "".join(parts)


def _axis(ticks: Sequence[tuple[float, str]], name: str, width: int, height: int) -> str:
    parts, free = [], -math.inf
    for x, text in ticks:
        half = len(text) * LETTER / 2
        if x - half < free or x + half > width:
            continue
        free = x + half + LETTER
        parts.append(
            f'<line class="tick" x1="{x:.1f}" y1="{height - BOTTOM}" x2="{x:.1f}" y2="{height - BOTTOM + 4}"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 17}" text-anchor="middle">{escape(text)}</text>')
    middle = (LEFT + width - RIGHT) / 2
    return (
        "".join(parts) + f'<text class="axis" x="{middle}" y="{height - 5}" text-anchor="middle">{escape(name)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, css: str) -> str:
    return f'<rect class="{css}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>'


def _svg(content: str, label: str, width: int, height: int) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{content}</svg>'
