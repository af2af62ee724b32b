"""Pictures of what a model finds: beside the rules, by group of users and targets, by K, and as it learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.evaluation.figures import grouped_bars
from pipelines.evaluation.report import Band, ModelReport, Report, cutoff_of
from pipelines.evaluation.report_page.look import Look, lined
from pipelines.evaluation.report_page.stored import Curves
from pipelines.words import counted

GROUPS = {"": "all targets", "again/": "bought again", "new/": "new to\nthe user"}
SHELVES = {"shelf_new/": "new shelf", "shelf_again/": "again shelf"}


def model_colours(report: Report, look: Look) -> list[str]:
    """One colour of the series for each model, greys for the rules."""
    trained = sum(model.path is not None for model in report.models)
    rules = len(report.models) - trained
    return [*(look.of(n) for n in range(trained)), *(look.rules[n % len(look.rules)] for n in range(rules))]


def groups_figure(report: Report, look: Look) -> Figure:
    """Draw recall in the list, all targets, again and new, and on the shelves; by cutoff where there is one group."""
    cutoff = cutoff_of(report.metric)
    if not report.groups:
        names = {f"recall@{n}": f"recall@{n}" for n in report.cutoffs}
        return _metrics_figure(report, [names], [None], look)
    in_list = {f"{group}recall@{cutoff}": text for group, text in GROUPS.items()}
    on_shelf = {f"{shelf}recall@{cutoff}": text for shelf, text in SHELVES.items()}
    return _metrics_figure(report, [in_list, on_shelf], ["in one list", "in a list of their own"], look)


def _metrics_figure(
    report: Report, panels: Sequence[dict[str, str]], titles: Sequence[str | None], look: Look
) -> Figure:
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    ratios = [len(panel) for panel in panels]
    for axes, panel, title in zip(
        figure.subplots(1, len(panels), width_ratios=ratios, squeeze=False, sharey=True)[0], panels, titles, strict=True
    ):
        shown = {name: text for name, text in panel.items() if name in report.models[0].metrics}
        heights = [[model.metrics.get(name, np.nan) for name in shown] for model in report.models]
        bounds = [[model.intervals.get(name, (np.nan, np.nan)) for name in shown] for model in report.models]
        errors = [
            [(value - low, high - value) for value, (low, high) in zip(values, pairs, strict=True)]
            for values, pairs in zip(heights, bounds, strict=True)
        ]
        labels = [model.label for model in report.models]
        grouped_bars(axes, labels, list(shown.values()), heights, model_colours(report, look), errors, look.ink)
        if title:
            axes.set_title(title)
        lined(axes)
    figure.axes[0].set_ylabel(f"recall@{cutoff_of(report.metric)}" if report.groups else "recall")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8.5)
    return figure


def bands_figure(report: Report, which: str, look: Look) -> Figure:
    """Draw a metric by band, `which` being "history" (of users) or "popularity" (of targets)."""
    history = which == "history"
    metric = report.metric if history else f"recall@{cutoff_of(report.metric)}"
    bands = [model.by_history if history else model.by_popularity for model in report.models]
    figure = Figure(figsize=(8.2, 3.9), layout="constrained")
    axes = lined(figure.subplots())
    names = [f"{band.name}\n{band.size:,}" for band in bands[0]]
    heights = [[band.metrics[metric] for band in each] for each in bands]
    grouped_bars(axes, [model.label for model in report.models], names, heights, model_colours(report, look))
    axes.set_xlabel("behaviours in the history, and users" if history else "popularity of the target, and targets")
    axes.set_ylabel(metric)
    figure.legend(loc="outside right upper", fontsize=8.5)
    return figure


def by_interests_figure(report: Report, look: Look) -> Figure:
    """Draw the headline metric by how many interests a user has."""
    bands: list[Band] = report.models[0].by_interests
    figure = Figure(figsize=(5.4, 3.9), layout="constrained")
    axes = lined(figure.subplots())
    heights = [band.metrics[report.metric] for band in bands]
    bars = axes.bar(range(len(bands)), heights, 0.6, color=look.of(0))
    axes.bar_label(bars, [f"{height:.3f}" for height in heights], padding=2, fontsize=8.5)
    axes.set_xticks(range(len(bands)), [f"{band.name}\n{counted(band.size, 'user')}" for band in bands])
    axes.set_xlabel("interests of the user")
    axes.set_ylabel(report.metric)
    return figure


def by_k_figure(models: Sequence[ModelReport], metric: str, own: str, look: Look) -> Figure:
    """Draw a metric by K, a point with its interval for each evaluated model; the reported one is filled."""
    figure = Figure(figsize=(5.4, 3.9), layout="constrained")
    axes = lined(figure.subplots())
    counts = sorted({len(model.interest_share) for model in models})
    for place, count in enumerate(counts):
        same = [model for model in models if len(model.interest_share) == count]
        for number, model in enumerate(same):
            x = place + 0.12 * (number - (len(same) - 1) / 2)
            value, (low, high) = model.metrics[metric], model.intervals[metric]
            face = look.of(0) if model.name == own else look.card
            axes.errorbar(x, value, [[value - low], [high - value]], fmt="o", color=look.of(0), mfc=face,
                          capsize=3, markersize=7)  # fmt: skip
    axes.set_xticks(range(len(counts)), [f"K = {count}" for count in counts])
    axes.set_xlim(-0.6, len(counts) - 0.4)
    axes.set_ylabel(metric)
    return figure


def learning_figure(curves: Curves, metric: str, look: Look) -> Figure:
    """Draw the training loss and the validation metric by epoch; the best validation is marked."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curve(left, *curves.points("train/loss"), look.of(1))
    left.set_ylabel("training loss")
    epochs, values = curves.points(f"validation/{metric}")
    _curve(right, epochs, values, look.of(0))
    if values:
        best = int(np.argmax(values))
        right.plot(epochs[best], values[best], "o", color=look.of(0), markersize=10, mfc="none", mew=1.6)
    right.set_ylabel(f"validation {metric}")
    return figure


def routing_figure(curves: Curves, names: dict[str, str], look: Look) -> Figure:
    """Draw what the routing does by epoch: names of metrics and what to call them."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (name, text) in enumerate(names.items()):
        epochs, values = curves.points(name)
        if values:
            _curve(axes, epochs, values, look.of(number))
            axes.lines[-1].set_label(text)
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside right upper", fontsize=8.5)
    return figure


def _curve(axes: Axes, epochs: Sequence[float], values: Sequence[float], colour: str) -> None:
    axes.plot(epochs, values, "o-", color=colour, markersize=3.5, linewidth=1.8)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    lined(axes)
