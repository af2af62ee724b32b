"""A picture of what varied lists cost: what is found against categories and coverage, a point for each policy."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.evaluation.figures import COLOURS
from pipelines.evaluation.variety import PriceReport, PriceRow
from pipelines.words import counted

MARKS = {"best": ("o", COLOURS[0]), "quota": ("s", COLOURS[2]), "round_robin": ("^", COLOURS[3])}
GREEDY = COLOURS[1]


def variety_figure(price: PriceReport, model: str) -> Figure:
    """Recall against categories, NDCG against coverage; a line joins the lambdas of greedy, the best match first."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = [row for row in price.rows if row.category_diversity is not None]
    pairs = [row.category_diversity or 0.0 for row in shown]
    _panel(left, shown, [100 * each for each in pairs], [row.recall for row in shown])
    left.set_xlabel(f"pairs of a list from two categories ({price.category}), %", fontsize=9)
    left.set_ylabel(f"recall@{price.n}", fontsize=9)
    _panel(right, shown, [100 * row.coverage for row in shown], [row.ndcg for row in shown])
    right.set_xlabel("items that are in any list, % of the catalogue", fontsize=9)
    right.set_ylabel(f"ndcg@{price.n}", fontsize=9)
    left.legend(frameon=False, fontsize=9, loc="best")
    title = f"{model}: what varied lists cost ({counted(price.users, 'user')}, lists of {price.n})\n"
    figure.suptitle(title, fontsize=9, color="#555555")
    return figure


def _panel(axes: Axes, rows: list[PriceRow], across: list[float], up: list[float]) -> None:
    line = [place for place, row in enumerate(rows) if row.policy in ("best", "greedy")]
    axes.plot([across[i] for i in line], [up[i] for i in line], "-o", color=GREEDY, markersize=4, label="greedy by λ")
    for place, row in enumerate(rows):
        if row.policy == "greedy":
            axes.annotate(
                row.label, (across[place], up[place]), (3, 8), textcoords="offset points", fontsize=8, color="#555555"
            )
        else:
            mark, colour = MARKS[row.policy]
            axes.plot(across[place], up[place], mark, color=colour, markersize=8, label=row.label)
    axes.set_ylim(bottom=0, top=max([*up, 1e-6]) * 1.12)
    axes.margins(x=0.12)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
