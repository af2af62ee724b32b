"""Pictures of what several interests are: how much each is used, how far they are apart, how decided the routing is."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from pipelines.evaluation.interests import RANGES
from pipelines.evaluation.report import ModelReport
from pipelines.evaluation.report_page.look import Look, lined, percent
from pipelines.words import counted

SPREAD = {
    "cosine": "cosine between two interests\n(mean over a user's pairs)",
    "entropy": "entropy of the couplings\n(0 = one interest each, 1 = even)",
    "overlap": "items that two interests'\nown lists share",
}


def usage_figure(model: ModelReport, look: Look) -> Figure:
    """Draw each interest's share of the places and of the hits."""
    figure = Figure(figsize=(5.4, 3.7), layout="constrained")
    axes = lined(figure.subplots())
    places = np.arange(len(model.interest_share))
    shares = (("places in lists", model.interest_share, look.rules[2]), ("hits", model.hit_share, look.of(0)))
    for side, (label, share, colour) in zip((-0.2, 0.2), shares, strict=True):
        bars = axes.bar(places + side, share, 0.38, label=label, color=colour)
        axes.bar_label(bars, [percent(each) for each in share], padding=2, fontsize=8)
    axes.set_xticks(places, [f"interest {place + 1}" for place in places])
    axes.yaxis.set_major_formatter(percent)
    axes.set_ylim(0, 1.25 * max(*model.interest_share, *model.hit_share, 1e-9))
    axes.legend(fontsize=8.5, loc="upper center", ncols=2)
    return figure


def used_figure(model: ModelReport, look: Look) -> Figure:
    """Draw how many of a user's interests are in the list, by how many the user has: bars of full width."""
    rows = [(n, counts) for n, counts in enumerate(model.lists.used_by_interests, 1) if sum(counts)]
    figure = Figure(figsize=(5.4, 1.5 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, counts) in enumerate(rows):
        left, total = 0.0, sum(counts)
        for number, count in enumerate(counts):
            share = count / total
            label = f"{number + 1}" if place == len(rows) - 1 else None
            axes.barh(place, share, left=left, color=look.of(number), label=label, edgecolor=look.card)
            if share > 0.07:
                axes.text(left + share / 2, place, percent(share), ha="center", va="center", color=look.on, fontsize=8)
            left += share
    axes.set_yticks(range(len(rows)), [f"of {n}\n{counted(sum(counts), 'user')}" for n, counts in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent)
    axes.tick_params(length=0, labelsize=8.5)
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.legend(title="in the list", loc="outside right upper", fontsize=8.5, title_fontsize=8.5)
    return figure


def spread_figure(model: ModelReport, look: Look) -> Figure:
    """Draw how many users have which cosine, entropy and overlap; a line at the mean."""
    found = model.interests
    assert found is not None
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    for number, (axes, (name, text)) in enumerate(zip(figure.subplots(1, 3), SPREAD.items(), strict=True)):
        counts, (low, high) = np.array(found.histograms[name]), RANGES[name]
        edges = np.linspace(low, high, len(counts) + 1)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=look.of(number))
        mean = getattr(found, name)
        if mean is not None:
            axes.axvline(mean, color=look.ink, linewidth=1.2, linestyle="--")
            left = mean > (low + high) / 2
            axes.annotate(f"mean {mean:.2f}", (mean, 0.98), xycoords=("data", "axes fraction"), va="top",
                          ha="right" if left else "left", xytext=(-4 if left else 4, 0),
                          textcoords="offset points", fontsize=8.5)  # fmt: skip
        axes.set_xlim(low, high)
        axes.set_xticks(np.linspace(low, high, 5))
        axes.set_ylim(0, 1.15 * max(1, counts.max()))
        axes.set_xlabel(text)
        lined(axes)
    figure.axes[0].set_ylabel("users")
    return figure
