"""How pictures look, in the light and in the dark: the colours of the page, given to Matplotlib."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

PIXELS, PRINTED_PIXELS = 130, 200  # per inch: on the page, and in a file of its own
LETTERS = 15  # of a caption in an inch


@dataclass(frozen=True)
class Look:
    """Colours.

    deep : a strong one.  on : of text on a series.  series : of interests, or of models.  rules : of the baselines.
    """

    card: str
    deep: str
    on: str
    ink: str
    soft: str
    line: str
    cloud: str
    series: tuple[str, ...]
    rules: tuple[str, ...]

    def of(self, number: int) -> str:
        """Return the colour of interest or model `number`, from 0."""
        return self.series[number % len(self.series)]

    @property
    def shades(self) -> Colormap:
        """Colours from that of the page, 0, to a strong one, 1."""
        return LinearSegmentedColormap.from_list("shades", [self.card, self.series[0], self.deep])

    @property
    def settings(self) -> Any:
        """What Matplotlib takes for everything that is not given a colour."""
        inks = dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), self.ink)
        softs = dict.fromkeys(("xtick.color", "ytick.color"), self.soft)
        return {
            **inks,
            **softs,
            "axes.edgecolor": self.soft,
            "axes.facecolor": self.card,
            "figure.facecolor": self.card,
            "grid.color": self.line,
            "legend.frameon": False,
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
        }


LIGHT = Look(
    card="#ffffff", deep="#0b2f4d", on="#ffffff", ink="#1d2430", soft="#667085", line="#e3e7ed", cloud="#d5d9e0",
    series=("#1b6ca8", "#e08e45", "#5b8c5a", "#9a5b9a", "#b8504b", "#3f9694", "#8c6d31", "#6b6bb5"),
    rules=("#5d6673", "#8a929e", "#aeb5bf", "#cdd2d9"),
)  # fmt: skip
DARK = Look(
    card="#1b2129", deep="#d6ebfb", on="#12161c", ink="#e6e9ee", soft="#98a2b3", line="#2d3541", cloud="#3b4450",
    series=("#4f9fdb", "#eda35e", "#7fb37d", "#c187c1", "#e07b77", "#6cc7c5", "#c3a15a", "#9c9ce0"),
    rules=("#c3c9d2", "#98a2b3", "#727c8b", "#525b69"),
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure with what is said of it. draw : in the colours of a look.  wide : takes the whole width of the page."""

    name: str
    title: str
    caption: str
    draw: Callable[[Look], Figure]
    wide: bool = False

    def embedded(self, look: Look) -> str:
        """Draw it for the page, which has its title and caption as text: a PNG in base 64."""
        with matplotlib.rc_context(look.settings):
            return base64.b64encode(_png(self.draw(look), PIXELS)).decode()

    def alone(self) -> bytes:
        """Draw it for a file of its own, with title and caption: a PNG."""
        with matplotlib.rc_context(LIGHT.settings):
            figure = self.draw(LIGHT)
            letters = int(figure.get_figwidth() * LETTERS)
            figure.suptitle(self.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
            said = "\n".join(textwrap.wrap(self.caption, letters))
            figure.supxlabel(said, x=0.01, ha="left", fontsize=9, color=LIGHT.soft)
            return _png(figure, PRINTED_PIXELS)


def _png(figure: Figure, pixels: int) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=pixels)
    return file.getvalue()


def lined(axes: Axes, axis: str = "y") -> Axes:
    """Give a plot its grid."""
    axes.grid(axis=axis, linewidth=0.7)  # type: ignore[arg-type]
    axes.tick_params(length=0, labelsize=8.5)
    return axes


def percent(share: float, _: object = None) -> str:
    """Write a share as a tick.

    >>> percent(0.25)
    '25 %'
    """
    return f"{100 * share:.0f} %"
