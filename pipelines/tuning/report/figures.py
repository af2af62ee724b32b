"""Figures of a campaign: how the metric depends on the settings, on cost and on time.

All are Matplotlib figures, or None where there is nothing to compare; nothing is shown or saved here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from pipelines.evaluation.figures import COLOURS, OTHERS
from pipelines.tuning.config import Campaign, Domain
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.report.importance import Importance, importance
from pipelines.tuning.report.results import (
    INTERESTS,
    Cost,
    Row,
    by_value,
    heat_map,
    key_of,
    leaderboard,
    pareto,
    values_of,
    winner,
)
from pipelines.tuning.wording import epochs_text, number, text_of
from pipelines.words import counted

BLUE, ORANGE, GREY, RED = COLOURS[0], COLOURS[1], COLOURS[-1], "#b3261e"
BLUES = LinearSegmentedColormap.from_list("blues", ["#e3eef7", BLUE, "#0b2f4d"])
DEPTH = "model.iterations"
CELLS = 16  # values of a setting that a heat map has room for
NUMBERED_CELLS = 12  # across, that have room for four digits
LETTERS = 20  # of a value on an axis
UNUSED = -0.12  # place below an axis for points that the setting does not matter to
COST_WORDS: dict[Cost, str] = {"lookups": "lookups a user", "multiply_adds": "multiply-adds a user"}


def campaign_figures(records: Sequence[TrialRecord], metric: str, campaign: Campaign) -> dict[str, Figure]:
    """Draw all figures that have something to show, by name."""
    rows = leaderboard(records, metric, campaign)
    first = winner(rows, campaign.finish)
    pair = heat_axes(rows, campaign)
    costs: tuple[Cost, ...] = ("lookups", "multiply_adds")
    drawn = {
        "heat_map": heat_map_figure(rows, *pair, metric, first) if pair else None,
        "against_k": against_k_figure(rows, metric, first),
        "importance": importance_figure(importance(records, metric), metric),
        "cost": next((figure for cost in costs if (figure := pareto_figure(rows, metric, first, cost))), None),
        "parallel": parallel_figure(rows, campaign, metric, first),
        "curves": curves_figure(records, metric, first),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def heat_axes(rows: Sequence[Row], campaign: Campaign) -> tuple[str, str] | None:
    """Choose the two settings of the heat map: interests and routing depth, else the first two with few values."""
    few = [
        name
        for name, domain in campaign.space.items()
        if domain.kind in ("grid", "choice", "integer") and 1 < len(values_of(rows, name)) <= CELLS
    ]
    order = sorted(few, key=lambda name: (name != INTERESTS, name != DEPTH))
    return (order[0], order[1]) if len(order) > 1 else None


def heat_map_figure(rows: Sequence[Row], x: str, y: str, metric: str, first: Row | None = None) -> Figure | None:
    """Draw the best point of each pair of values; the winner's cells outlined, points stopped early hatched."""
    found = heat_map(rows, x, y)
    lines, columns = found.metrics.shape
    if lines < 2 or columns < 2:
        return None
    figure = Figure(figsize=(min(11.0, 3.4 + 0.95 * columns), 1.9 + 0.55 * lines), layout="constrained")
    axes = figure.subplots()
    norm = _norm(found.metrics)
    image = axes.imshow(found.metrics, cmap=BLUES, norm=norm, aspect="auto", origin="lower")
    axes.set_facecolor("#f4f4f4")
    for line, column in zip(*np.nonzero(found.points), strict=True):
        value, corner = found.metrics[line, column], (column - 0.5, line - 0.5)
        shade = float(norm(value))
        if found.cut_short[line, column]:
            stripes = "white" if shade > 0.45 else BLUES(shade + 0.25)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor=stripes, linewidth=0))
        if columns <= NUMBERED_CELLS:
            box = {"boxstyle": "round,pad=0.15", "facecolor": BLUES(shade), "edgecolor": "none"}
            colour = "white" if shade > 0.45 else "#1d2430"
            axes.text(column, line, f"{value:.4f}", ha="center", va="center", fontsize=9, color=colour, bbox=box)
    if first is not None:
        _outline(axes, found.points == first.point)
    axes.set_xticks(range(columns), [_short(value) for value in found.x_values])
    axes.set_yticks(range(lines), [_short(value) for value in found.y_values])
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{metric} by {x} and {y}", fontsize=11, loc="left")
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    keys: list[Any] = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5, label="winner")]
    if found.cut_short.any():
        keys.append(Patch(facecolor=BLUE, hatch="////", edgecolor="white", label="stopped early"))
    if first is not None:
        figure.legend(handles=keys, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return figure


def parallel_figure(rows: Sequence[Row], campaign: Campaign, metric: str, first: Row | None = None) -> Figure | None:
    """Draw one line a point across the settings to its metric, coloured by the metric, the winner on top."""
    scored = [row for row in rows if row.scored]
    settings = [name for name in campaign.space if len(values_of(rows, name)) > 1]
    if len(scored) < 2 or not settings:
        return None
    figure = Figure(figsize=(max(7.0, min(14.0, 2.0 * len(settings) + 2.4)), 4.8), layout="constrained")
    axes = figure.subplots()
    places = np.array([_places(scored, name, campaign.space[name]) for name in settings])  # (settings, points)
    metrics = np.array([row.metric for row in scored])
    low, high = float(metrics.min()), float(metrics.max())
    span = high - low or 1.0
    norm = _norm(metrics)
    stack = np.vstack([places, (metrics - low) / span])
    alpha = 0.85 if len(scored) <= 80 else 0.45
    for place in np.argsort(metrics):
        row, top = scored[place], first is not None and scored[place].point == first.point
        colour = ORANGE if top else BLUES(norm(row.metric))
        width, order = (3.0, 5) if top else (1.2, 2)
        style = "--" if row.cut_short and not top else "-"
        axes.plot(stack[:, place], color=colour, linewidth=width, zorder=order, alpha=1 if top else alpha, ls=style)
    for column, name in enumerate(settings):
        _axis(axes, column, _ticks(scored, name, campaign.space[name]), bool((places[column] < 0).any()))
    _axis(axes, len(settings), [(share, f"{low + share * span:.4f}") for share in np.linspace(0, 1, 5)], False)
    names = [name.replace(".", ".\n", 1) for name in settings]
    axes.set_xticks(range(len(names) + 1), [*names, metric])
    axes.tick_params(axis="x", labelsize=9, length=0, pad=2)
    axes.set_yticks([])
    axes.set_xlim(-0.6, len(names) + 0.55)
    axes.set_ylim(-0.17 if (places < 0).any() else -0.05, 1.05)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{counted(len(scored), 'point')} by their settings and {metric}", fontsize=11, loc="left")
    keys = [Line2D([], [], color=BLUES(0.8), label="a point, darker: better")]
    if first is not None:
        keys.insert(0, Line2D([], [], color=ORANGE, linewidth=3, label="winner"))
    if any(row.cut_short for row in scored):
        keys.append(Line2D([], [], color=BLUES(0.3), ls="--", label="stopped early"))
    figure.legend(handles=keys, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    return figure


def against_k_figure(
    rows: Sequence[Row], metric: str, first: Row | None = None, setting: str = INTERESTS
) -> Figure | None:
    """Draw the best point of each value with its deviation over seeds, and every point beside it."""
    groups = by_value(rows, setting)
    if len(groups) < 2:
        return None
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for place, group in enumerate(groups):
        own = [row for row in rows if row.scored and setting in row.values]
        own = [row for row in own if key_of(row.values[setting]) == key_of(group.value)]
        own.sort(key=lambda row: row.point)  # not by rank: the spread means nothing
        across = place + np.linspace(-0.22, 0.22, len(own)) if len(own) > 1 else np.array([float(place)])
        for spot, row in zip(across, own, strict=True):
            face = "none" if row.cut_short else GREY
            axes.plot(spot, row.metric, "o", markersize=4.5, color=GREY, markerfacecolor=face, alpha=0.7, zorder=2)
    axes.errorbar(
        range(len(groups)),
        [group.best.metric for group in groups],
        yerr=[group.best.deviation or 0 for group in groups],
        color=BLUE,
        marker="o",
        markersize=7,
        capsize=5,
        zorder=4,
    )
    if first is not None and setting in first.values:
        place = [key_of(group.value) for group in groups].index(key_of(first.values[setting]))
        axes.plot(place, first.metric, "o", markersize=13, markerfacecolor="none", color=ORANGE, mew=2.5, zorder=5)
    axes.set_xticks(range(len(groups)), [_short(group.value) for group in groups])
    axes.set_xlabel(setting, fontsize=9)
    _plain(axes, metric, f"{metric} against {setting}")
    bars = any(group.best.deviation is not None for group in groups)
    keys = [
        Line2D([], [], color=BLUE, marker="o", label="best point" + (" (± deviation over seeds)" if bars else "")),
        Line2D([], [], color=GREY, marker="o", ls="", label="every point"),
    ]
    if any(row.cut_short for row in rows):
        keys.append(Line2D([], [], color=GREY, marker="o", ls="", markerfacecolor="none", label="stopped early"))
    if first is not None and setting in first.values:
        keys.append(Line2D([], [], color=ORANGE, marker="o", ls="", markerfacecolor="none", mew=2, label="winner"))
    figure.legend(handles=keys, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return figure


def importance_figure(told: Importance, metric: str) -> Figure | None:
    """Draw a bar a setting."""
    if not told.shares:
        return None
    names, shares = list(told.shares), list(told.shares.values())
    figure = Figure(figsize=(7, 1.3 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, shares, color=BLUE, height=0.62)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(shares))
    axes.set_xticks([])
    axes.tick_params(labelsize=9, length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    title = f"What moves {metric}: share of its variance, after {epochs_text(told.epoch)}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def curves_figure(records: Sequence[TrialRecord], metric: str, first: Row | None = None) -> Figure | None:
    """Draw the metric against the epoch of every trial: the winner's bold, stopped ones grey up to a dot."""
    shown = [record for record in records if record.ended and record.reports]
    if not shown:
        return None
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots()
    many = len(shown) > 80
    look: dict[str, Any]
    seen: dict[str, Line2D] = {}
    for record in shown:
        epochs = [report["epoch"] for report in record.reports]
        values = [report[f"validation/{metric}"] for report in record.reports]
        won = first is not None and record.point == first.point and record.status != "failed"
        if won:
            kind, look = "winner", {"color": ORANGE, "linewidth": 2.8, "zorder": 5}
        elif record.status == "finished":
            kind, look = "finished", {"color": BLUE, "linewidth": 1.2, "alpha": 0.35 if many else 0.6, "zorder": 3}
        elif record.status == "stopped":
            kind, look = "stopped early", {"color": GREY, "linewidth": 0.9, "alpha": 0.5 if many else 0.8, "zorder": 2}
        else:
            kind, look = "failed", {"color": RED, "linewidth": 0.9, "ls": ":", "zorder": 2}
        end = {"stopped": "o", "failed": "x"}.get(record.status)
        alone = "o" if len(epochs) == 1 else None  # a line of one place cannot be seen
        (line,) = axes.plot(epochs, values, marker=end or alone, markevery=[-1], markersize=4, label=kind, **look)
        seen.setdefault(kind, line)
    axes.set_xlabel("epoch", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes, metric, f"{metric} on the validation users against the epoch, {counted(len(shown), 'training')}")
    order = [kind for kind in ("winner", "finished", "stopped early", "failed") if kind in seen]
    figure.legend([seen[kind] for kind in order], order, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    return figure


def pareto_figure(rows: Sequence[Row], metric: str, first: Row | None = None, cost: Cost = "lookups") -> Figure | None:
    """Draw the metric against what serving a user costs; a line through the points that nothing beats in both."""
    shown = [row for row in rows if row.scored and not math.isnan(row.cost(cost))]
    if len({row.cost(cost) for row in shown}) < 2:
        return None
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for row in shown:
        face = "none" if row.cut_short else GREY
        axes.plot(row.cost(cost), row.metric, "o", markersize=5, color=GREY, markerfacecolor=face, alpha=0.7, zorder=2)
    front = pareto(rows, cost)
    costs, metrics = [row.cost(cost) for row in front], [row.metric for row in front]
    axes.step(costs, metrics, where="post", color=BLUE, linewidth=1.5, zorder=3)
    axes.plot(costs, metrics, "o", color=BLUE, markersize=7, zorder=4)
    keys = [
        Line2D([], [], color=BLUE, marker="o", label="nothing is both cheaper and better"),
        Line2D([], [], color=GREY, marker="o", ls="", label="the other points"),
    ]
    if any(row.cut_short for row in shown):
        keys.append(Line2D([], [], color=GREY, marker="o", ls="", markerfacecolor="none", label="stopped early"))
    if first is not None and not math.isnan(first.cost(cost)):
        axes.plot(first.cost(cost), first.metric, "o", ms=13, markerfacecolor="none", color=ORANGE, mew=2.5, zorder=5)
        keys.append(Line2D([], [], color=ORANGE, marker="o", ls="", markerfacecolor="none", mew=2, label="winner"))
    axes.set_xlabel(COST_WORDS[cost], fontsize=9)
    if max(costs_all := [row.cost(cost) for row in shown]) > 20 * max(min(costs_all), 1e-9):
        axes.set_xscale("log")
    _plain(axes, metric, f"{metric} against {COST_WORDS[cost]}")
    figure.legend(handles=keys, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return figure


def _plain(axes: Axes, ylabel: str, title: str) -> None:
    axes.set_ylabel(ylabel, fontsize=9)
    axes.set_title(title, fontsize=11, loc="left")
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=OTHERS, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)


def _norm(metrics: Any) -> Normalize:
    """Colours by the better nine tenths, so that one that failed to learn does not take them all."""
    known = metrics[np.isfinite(metrics)]
    low, high = (float(np.quantile(known, 0.1)), float(known.max())) if known.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1, clip=True)


def _outline(axes: Axes, cells: Any) -> None:
    """Round a connected block of cells, as a whole."""
    lines, columns = np.nonzero(cells)
    if len(lines):
        corner = (columns.min() - 0.5, lines.min() - 0.5)
        wide, tall = columns.max() - columns.min() + 1, lines.max() - lines.min() + 1
        box = Rectangle(corner, wide, tall, fill=False, edgecolor=ORANGE, linewidth=2.8, zorder=6, clip_on=False)
        axes.add_patch(box)


def _by_steps(domain: Domain, values: Sequence[Any]) -> bool:
    """Say whether a setting's values stand on its axis one after the other, evenly, instead of to scale."""
    return domain.kind in ("grid", "choice") or len(values) <= 6


def _places(rows: Sequence[Row], setting: str, domain: Domain) -> list[float]:
    """Height from 0 to 1 of every row on a setting's axis; UNUSED where the setting does not matter."""
    values = values_of(rows, setting)
    steps = {key_of(value): place / (len(values) - 1) for place, value in enumerate(values)}
    if _by_steps(domain, values):
        return [steps[key_of(row.values[setting])] if setting in row.values else UNUSED for row in rows]
    return [_scaled(row.values[setting], values, domain) if setting in row.values else UNUSED for row in rows]


def _scaled(value: float, values: Sequence[float], domain: Domain) -> float:
    low, high = values[0], values[-1]
    if _logarithmic(domain):
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _logarithmic(domain: Domain) -> bool:
    return domain.kind == "log_uniform" or domain.log


def _ticks(rows: Sequence[Row], setting: str, domain: Domain) -> list[tuple[float, str]]:
    """Height and text."""
    values = values_of(rows, setting)
    if _by_steps(domain, values):
        skip = math.ceil(len(values) / 12)
        return [(n / (len(values) - 1), _short(v)) for n, v in enumerate(values) if n % skip == 0]
    low, high = values[0], values[-1]
    shares = np.linspace(0, 1, 5)
    if _logarithmic(domain):
        return [(share, number(math.exp(math.log(low) + share * math.log(high / low)))) for share in shares]
    return [(share, number(low + share * (high - low))) for share in shares]


def _axis(axes: Axes, column: int, ticks: Sequence[tuple[float, str]], unused: bool) -> None:
    axes.plot([column, column], [0, 1], color="#9aa3ae", linewidth=1, zorder=3)
    for height, text in [*ticks, *([(UNUSED, "not used")] if unused else [])]:
        axes.plot([column - 0.015, column + 0.015], [height, height], color="#9aa3ae", linewidth=1, zorder=3)
        box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        place, side = (column + 0.03, "left") if column else (column - 0.03, "right")  # where no line passes
        axes.text(place, height, text, fontsize=8, va="center", ha=side, color="#1d2430", zorder=7, bbox=box)


def _short(value: Any) -> str:
    text = text_of(value)
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
