"""Figures of an evaluation: metric by band, and for some users what their interests attend to and retrieve.

The last two are figures 5 and 6 of Li et al. 2019. All are Matplotlib figures; nothing is shown or saved here.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pyarrow as pa
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from torch import Tensor

from mind_core.inference import MINDRetriever
from mind_core.search import search
from mind_core.sequences import Histories, full_histories
from mind_core.special_rows import FIRST_ITEM
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.telling_feature import telling_feature
from pipelines.dataset.tensors import feature_specs, to_sequences
from pipelines.evaluation.report import Report
from pipelines.models.artifact import SavedModel

matplotlib.rcParams["text.parse_math"] = False  # a "$" in a product's name is not mathematics
COLOURS = ("#1b6ca8", "#e08e45", "#5b8c5a", "#9a5b9a")
GREYS = ("#6b6b6b", "#8f8f8f", "#b0b0b0", "#cfcfcf")  # of the baselines
OTHERS = "#e4e4e4"
SHOWN_USERS = 3
SHOWN_BEHAVIOURS = 20  # the newest
SHOWN_CATEGORIES = 5  # of an interest
RETRIEVED = 50  # items of an interest, for the categories
BAR_LETTERS = 130  # that fit beside each other into the whole width of a bar


@dataclass(frozen=True)
class ShownUsers:
    """A few users with several interests.

    names : raw ids.  vectors : (B, K, d).  own : (B, K).  weights : (B, K, L) coupling coefficients.
    """

    names: list[str]
    histories: Histories
    vectors: Tensor
    own: Tensor
    weights: Tensor


def shown_users(model: SavedModel, table: pa.Table, dataset: Dataset) -> ShownUsers | None:
    """Users spread over `table` (rows of a split) whose history is long enough for all interests; None without any."""
    retriever = model.retriever
    if not isinstance(retriever, MINDRetriever) or model.card.config.interests == 1:
        return None
    lengths = torch.tensor(table["items"].combine_chunks().value_lengths().to_numpy())
    rich = (lengths >= min(2**model.card.config.interests, retriever.view.max_history)).nonzero().squeeze(1)
    chosen = rich[:: max(1, len(rich) // SHOWN_USERS)][:SHOWN_USERS]
    if not len(chosen):
        return None
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    histories = full_histories(sequences, chosen, retriever.view)
    ids = dataset.vocabulary("users")["id"].take(table["user"].take(pa.array(chosen.numpy())))
    return ShownUsers([str(user) for user in ids.to_pylist()], histories, *retriever.route(histories))


def bands_figure(report: Report) -> Figure:
    """Bars by history length and by popularity of the target, one colour per model, greys for the baselines."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    cutoff = report.metric.split("@")[1]
    trained = sum(model.path is not None for model in report.models)
    colours = [COLOURS[number % len(COLOURS)] for number in range(trained)] + list(GREYS)
    for axes, metric, title, unit, groups in (
        (left, report.metric, "behaviours in the history", "users", [m.by_history for m in report.models]),
        (right, f"recall@{cutoff}", "popularity of the target", "targets", [m.by_popularity for m in report.models]),
    ):
        heights = [[band.metrics[metric] for band in bands] for bands in groups]
        names = [f"{band.name}\n{band.size:,}" for band in groups[0]]
        grouped_bars(axes, [model.label for model in report.models], names, heights, colours)
        axes.tick_params(labelsize=9)
        axes.set_title(f"{metric} by {title}", fontsize=11)
        axes.set_xlabel(f"{title}, and how many {unit}", fontsize=9)
        axes.set_ylabel(metric, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=9)
    figure.suptitle(f"{report.models[0].name}: {report.protocol}\n", fontsize=9, color="#555555")
    return figure


def grouped_bars(
    axes: Axes,
    labels: Sequence[str],
    names: Sequence[str],
    heights: Sequence[Sequence[float]],
    colours: Sequence[str],
    errors: Sequence[Sequence[tuple[float, float]]] | None = None,
    ink: str = "black",
) -> None:
    """Draw bars side by side: `labels` are the models, a colour each, `names` the groups on the axis.

    heights : by model, then by group.  errors : of each height, how far the interval goes below and above.
    """
    width = 0.8 / len(labels)
    for number, label in enumerate(labels):
        place = np.arange(len(names)) + (number - (len(labels) - 1) / 2) * width
        axes.bar(place, heights[number], width * 0.92, label=label, color=colours[number])
        if errors is not None:
            spread = np.array(errors[number]).T
            axes.errorbar(place, heights[number], spread, fmt="none", ecolor=ink, elinewidth=1, capsize=2)
    axes.set_xticks(np.arange(len(names)), names)


def coupling_figure(model: SavedModel, users: ShownUsers, shades: str | Colormap = "Blues") -> Figure:
    """Coupling coefficients: interests down, behaviours across, grouped by the interest they go to (Fig. 5)."""
    names = model.item_names()
    count = len(users.names)
    figure = Figure(figsize=(12, 3.3 * count), layout="constrained")
    for row, axes in enumerate(figure.subplots(count, 1, squeeze=False)[:, 0]):
        length, kept = int(users.histories.mask[row].sum()), int(users.own[row].sum())
        shown = slice(max(0, length - SHOWN_BEHAVIOURS), length)
        weights, items = users.weights[row, :kept, shown], users.histories.items[row, shown]
        order = torch.sort(weights.argmax(0), stable=True).indices
        image = axes.imshow(weights[:, order].numpy(), cmap=shades, vmin=0, vmax=1, aspect="auto")
        labels = [textwrap.shorten(names[i], 26, placeholder="…") for i in items[order].tolist()]
        axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(kept), [f"interest {j + 1}" for j in range(kept)], fontsize=9)
        axes.set_title(f"User {users.names[row]}: the newest {len(labels)} behaviours", fontsize=10, loc="left")
        bar = figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01)
        bar.set_label("coupling coefficient", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    return figure


def retrieved_figure(model: SavedModel, users: ShownUsers, dataset: Dataset, others: str = OTHERS) -> Figure | None:
    """Categories of the items that each interest retrieves (Fig. 6); None without a feature that has categories."""
    feature = telling_feature(model.card.item_features)
    if feature is None:
        return None
    names = category_names(dataset, feature)
    values = dataset.items()[f"feature_{feature}"].to_pylist()
    count = len(users.names)
    figure = Figure(figsize=(12, 2.5 * count), layout="constrained")
    for row, axes in enumerate(figure.subplots(count, 1, squeeze=False)[:, 0]):
        kept = int(users.own[row].sum())
        alone = users.vectors[row, :kept].unsqueeze(1)  # (kept, 1, d): each interest as if it were a user
        own = torch.ones(kept, 1, dtype=torch.bool)
        items, _, _ = search(model.retriever.catalogue, alone, own, RETRIEVED)
        for interest in range(kept):
            found = [i - FIRST_ITEM for i in items[interest].tolist() if i >= FIRST_ITEM]
            counts = Counter(value for item in found for value in _as_list(values[item]))
            _stack(axes, interest, counts, names, others)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        axes.tick_params(labelsize=8)
        axes.set_yticks(range(kept), [f"interest {j + 1}" for j in range(kept)], fontsize=9)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        title = f"User {users.names[row]}: {feature} of the {RETRIEVED} best items of each interest"
        axes.set_title(title, fontsize=10, loc="left")
    return figure


def category_names(dataset: Dataset, feature: str) -> dict[int, str]:
    """What to print for a feature's value index."""
    vocabulary = dataset.vocabulary(f"item_features/{feature}")
    names = dict(zip(vocabulary["index"].to_pylist(), map(str, vocabulary["value"].to_pylist()), strict=True))
    return {**names, 1: "rare", 2: "missing"}


def _stack(axes: Axes, interest: int, counts: Counter[int], names: dict[int, str], others: str) -> None:
    """One bar of full width: the most frequent categories, each with its name, then the others."""
    total, left = sum(counts.values()), 0.0
    base, edge = COLOURS[interest % len(COLOURS)], matplotlib.rcParams["axes.facecolor"]
    for place, (value, number) in enumerate(counts.most_common(SHOWN_CATEGORIES)):
        share = number / total
        axes.barh(interest, share, left=left, color=base, alpha=0.7 - 0.12 * place, edgecolor=edge)
        letters = int(share * BAR_LETTERS)
        if letters >= 5:
            name = names.get(value, str(value))
            name = name if len(name) <= letters else name[: letters - 1] + "…"
            axes.text(left + share / 2, interest, name, ha="center", va="center", fontsize=7.5)
        left += share
    axes.barh(interest, 1 - left, left=left, color=others, edgecolor=edge)


def _as_list(value: object) -> list[int]:
    return value if isinstance(value, list) else [value]  # type: ignore[list-item]
