"""Pictures of what the lists are made of: popularity, concentration, diversity and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.evaluation.report import POPULARITY_BANDS, ModelReport, Report
from pipelines.evaluation.report_page.accuracy import model_colours
from pipelines.evaluation.report_page.look import Look, lined, percent

DIVERSITY = {"diversity": "all pairs", "diversity_within": "one interest", "diversity_across": "two interests"}


def by_rank_figure(report: Report, usual: float, look: Look) -> Figure:
    """Draw the mean train events of the items at each rank; `usual` is that of an average train event's item."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for model, colour in zip(report.models, model_colours(report, look), strict=True):
        heights = [height if height > 0 else np.nan for height in model.lists.popularity_by_rank]
        wide = 2.6 if model.path is not None else 1.5
        axes.plot(range(1, len(heights) + 1), heights, color=colour, linewidth=wide, label=model.label)
    axes.axhline(usual, color=look.ink, linewidth=1, linestyle=":", label="an average train event")
    axes.set_yscale("log")
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks(lambda value, _: f"{value:,.0f}" if str(value)[0] in "125" else "")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlabel("rank in the list")
    axes.set_ylabel("train events of the item, mean")
    lined(axes)
    figure.legend(loc="outside right upper", fontsize=8.5)
    return figure


def places_figure(report: Report, catalogue: list[float], look: Look) -> Figure:
    """Draw how list places, targets and the catalogue fall into the bands of popularity: bars of full width.

    catalogue : share of the items in each band.
    """
    sizes = {band.name: band.size for band in report.models[0].by_popularity}
    targets = [sizes.get(name, 0) / report.targets for name in POPULARITY_BANDS]
    rows = [("items", catalogue), ("targets", targets)]
    rows += [(model.label, model.lists.band_share) for model in report.models]
    colours = [look.of(1), look.of(0), look.of(2), look.of(3), look.rules[2]]
    figure = Figure(figsize=(7.2, 1.3 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, shares) in enumerate(rows):
        left = 0.0
        for number, share in enumerate(shares):
            label = POPULARITY_BANDS[number] if place == 0 else None
            axes.barh(place, share, 0.72, left=left, color=colours[number], label=label, edgecolor=look.card)
            if share > 0.06:
                axes.text(left + share / 2, place, percent(share), ha="center", va="center", color=look.on, fontsize=8)
            left += share
    axes.axhline(1.5, color=look.soft, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent)
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8.5)
    return figure


def concentration_figure(report: Report, look: Look) -> Figure:
    """Draw Gini, coverage and novelty of each model's lists, a panel each."""
    depth = report.models[0].lists.depth
    panels = {f"gini@{depth}": "Gini of the places", f"coverage@{depth}": "share of the catalogue listed",
              f"list/novelty@{depth}": "novelty, bits"}  # fmt: skip
    figure = Figure(figsize=(10.5, 1.3 + 0.36 * len(report.models)), layout="constrained")
    for place, (axes, (name, text)) in enumerate(zip(figure.subplots(1, 3), panels.items(), strict=True)):
        names = [model.label if place == 0 else "" for model in report.models]
        values = [model.metrics.get(name, np.nan) for model in report.models]
        _said_bars(axes, names, values, model_colours(report, look))
        axes.set_title(text)
    return figure


def diversity_figure(report: Report, look: Look) -> Figure:
    """Draw the mean distance of two items of a list: by model, and of the first by whether one interest found both."""
    model, depth = report.models[0], report.models[0].lists.depth
    parts = {
        f"list/{name}@{depth}": text for name, text in DIVERSITY.items() if f"list/{name}@{depth}" in model.metrics
    }
    panels = [len(report.models), len(parts)] if len(parts) > 1 else [len(report.models)]
    figure = Figure(figsize=(7.2, 1.0 + 0.2 * len(panels) + 0.34 * sum(panels)), layout="constrained")
    upper, *lower = figure.subplots(len(panels), 1, height_ratios=panels, squeeze=False)[:, 0]
    values = [each.metrics.get(f"list/diversity@{depth}", np.nan) for each in report.models]
    _said_bars(upper, [each.label for each in report.models], values, model_colours(report, look))
    upper.set_title("two items of a list, mean distance (Jaccard)")
    for axes in lower:
        colours = [look.of(0), look.of(2), look.of(1)]
        _said_bars(axes, list(parts.values()), [model.metrics[name] for name in parts], colours[: len(parts)])
        axes.set_title(f"{model.label}: by who found them")
    for axes in (upper, *lower):
        axes.set_xlim(0, 1.12)  # nothing is further apart than 1
    return figure


def calibration_figure(report: Report, look: Look) -> Figure:
    """Draw the categories of the histories and of the model's lists, and how far off each model is."""
    model: ModelReport = report.models[0]
    shares = model.lists.categories
    figure = Figure(figsize=(10.5, 1.2 + 0.32 * max(len(shares), len(report.models))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    places = np.arange(len(shares))
    left.barh(places - 0.2, [each.history for each in shares], 0.38, color=look.rules[2], label="in the history")
    left.barh(
        places + 0.2, [each.shown for each in shares], 0.38, color=look.of(0), label=f"in the list: {model.label}"
    )
    left.set_yticks(places, [each.name if len(each.name) <= 30 else f"{each.name[:29]}…" for each in shares])
    left.invert_yaxis()
    left.xaxis.set_major_formatter(percent)
    left.legend(fontsize=8.5)
    lined(left, "x")
    name = f"list/calibration@{model.lists.depth}"
    off = [each.metrics.get(name, np.nan) for each in report.models]
    _said_bars(right, [each.label for each in report.models], off, model_colours(report, look))
    right.set_title("how far off (KL), mean of the users")
    return figure


def _said_bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> None:
    """Draw bars to the right from 0, the first above, each with its figure."""
    bars = axes.barh(range(len(names)), values, 0.7, color=colours)
    axes.bar_label(bars, ["–" if np.isnan(value) else f"{value:.3g}" for value in values], padding=3, fontsize=8.5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(float(np.nanmax(values)), 1e-9))
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines["bottom"].set_visible(False)
