"""Small plots as inline SVG: bars, stacked or not, and curves. Where things lie is computed here, drawn by templates.

Colours are the page's CSS classes, so that a dark page has dark plots; a mark says its numbers when pointed at. No
other file, no script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.quality.render import render

LEFT, RIGHT, TOP, BOTTOM = 52, 16, 12, 40  # margins, in user units (pixels where nothing is scaled)
LETTER = 6.2  # width of one at the size of the axis labels
Y_TICKS = 4


@dataclass(frozen=True)
class Series:
    """Heights of one colour. css : class of the page, s1, s2, ..."""

    name: str
    css: str
    values: Sequence[float]


@dataclass(frozen=True)
class Stack:
    """What stands on one place of the axis. rectangles : x, y, width, height, css.  said : by the tooltip."""

    rectangles: list[tuple[float, float, float, float, str]]
    said: str


@dataclass(frozen=True)
class Frame:
    """All of a plot but its marks. lines : of the grid, y and text.  ticks : x and text.  axis : its name."""

    width: int
    height: int
    lines: list[tuple[float, str]]
    ticks: list[tuple[float, str]]
    axis: str
    left: int = LEFT
    top: int = TOP

    @property
    def right(self) -> int:
        return self.width - RIGHT

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


def bars(
    series: Sequence[Series],
    names: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    axis: str,
    width: int = 520,
    height: int = 230,
) -> Markup:
    """Draw bars side by side without space between bins, the series stacked.

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
    top, lines = _grid(max(totals, default=0), height)
    step = (width - LEFT - RIGHT) / max(1, count)
    space = 1 if step > 4 else 0
    stacks = []
    for place, name in enumerate(names):
        if not totals[place]:
            continue
        base, said, rectangles = float(height - BOTTOM), [name], []
        for each in series:
            if value := each.values[place]:
                tall = value / top * (height - TOP - BOTTOM)
                base -= tall
                rectangles.append((LEFT + place * step, base, step - space, tall, each.css))
                said.append(f"{each.name}: {value:,.0f}" if each.name else f"{value:,.0f}")
        stacks.append(Stack(rectangles, "\n".join(said)))
    at = _apart([(LEFT + place * step, text) for place, text in ticks], width)
    return render("bars.svg.j2", frame=Frame(width, height, lines, at, axis), stacks=stacks)


def curve(points: Sequence[tuple[float, float]], axis: str, width: int = 520, height: int = 230) -> Markup:
    """Draw a curve from (0, 0) to (1, 1) of shares, with the diagonal of equal shares."""
    wide, tall = width - LEFT - RIGHT, height - TOP - BOTTOM
    _, lines = _grid(1, height, percent=True)
    spots = [
        (LEFT + x * wide, height - BOTTOM - y * tall, f"{x:.1%} of the items have {y:.1%} of the events")
        for x, y in points
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in spots)
    ticks = _apart([(LEFT + share * wide, f"{share:.0%}") for share in (0, 0.2, 0.4, 0.6, 0.8, 1)], width)
    return render("curve.svg.j2", frame=Frame(width, height, lines, ticks, axis), path=path, spots=spots)


def short(number: float) -> str:
    """Write a count in a few letters.

    >>> [short(n) for n in (0, 950, 1500, 20_000, 3_400_000)]
    ['0', '950', '1.5k', '20k', '3.4M']
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + letter
    return f"{number:g}"


def _grid(highest: float, height: int, percent: bool = False) -> tuple[float, list[tuple[float, str]]]:
    """Choose the value at the top, and lines at round values: y and text."""
    step = 10 ** math.floor(math.log10(highest / Y_TICKS)) if highest else 1.0
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if factor * step * Y_TICKS >= highest)
    if not percent and step < 1:
        step = 1.0
    top = step * max(1, math.ceil(highest / step - 1e-9))
    lines = []
    for number in range(round(top / step) + 1):
        y = height - BOTTOM - number * step / top * (height - TOP - BOTTOM)
        lines.append((y, f"{number * step:.0%}" if percent else short(number * step)))
    return top, lines


def _apart(ticks: Sequence[tuple[float, str]], width: int) -> list[tuple[float, str]]:
    """Drop the ticks, x and text, that would overlap the one before or leave the plot."""
    kept, free = [], -math.inf
    for x, text in ticks:
        half = len(text) * LETTER / 2
        if x - half >= free and x + half <= width:
            free = x + half + LETTER
            kept.append((x, text))
    return kept
