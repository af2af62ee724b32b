"""Figures of an evaluation: metric by band, and for some users what their interests attend to and retrieve.

The last two are figures 5 and 6 of Li et al. 2019. All are Matplotlib figures; nothing is shown or saved here.
"""

from __future__ import annotations

import textwrap

import numpy as np
import pyarrow as pa
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mind_core.features import FIRST_ITEM
from mind_core.inference import MINDRetriever, recommend
from mind_core.sequences import full_histories
from pipelines.arrays import feature_specs, to_sequences
from pipelines.artifact import SavedModel
from pipelines.dataset import Dataset
from pipelines.report import Report

COLOURS = ("#1b6ca8", "#e08e45", "#5b8c5a", "#9a5b9a", "#8a8a8a")
OTHERS = "#dddddd"
SHOWN_USERS = 3
SHOWN_BEHAVIOURS = 16  # the newest
RETRIEVED = 40  # items a user, for the categories


def bands_figure(report: Report) -> Figure:
    """Bars by history length and by popularity of the target, one colour per model."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    cutoff = report.metric.split("@")[1]
    for axes, metric, title, groups in (
        (left, report.metric, "by behaviours in the history", [m.by_history for m in report.models]),
        (right, f"recall@{cutoff}", "by popularity of the target", [m.by_popularity for m in report.models]),
    ):
        width = 0.8 / len(groups)
        for number, (model, bands) in enumerate(zip(report.models, groups, strict=True)):
            place = np.arange(len(bands)) + (number - (len(groups) - 1) / 2) * width
            heights = [band.metrics[metric] for band in bands]
            axes.bar(place, heights, width * 0.92, label=model.label, color=_colour(number, len(groups)))
        axes.set_xticks(np.arange(len(groups[0])), [f"{band.name}\n{band.size:,}" for band in groups[0]])
        axes.set_title(f"{metric} {title}", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    figure.suptitle(f"{report.models[0].name}: {report.protocol}", fontsize=9, color="#555555")
    return figure


def coupling_figure(model: SavedModel, table: pa.Table, dataset: Dataset) -> Figure | None:
    """Coupling coefficients of a few users: interests down, behaviours across (Fig. 5); None without such users.

    table : rows of a split.
    """
    chosen = _users_with_interests(table, model)
    if not len(chosen):
        return None
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    retriever = model.retriever
    assert isinstance(retriever, MINDRetriever), "popularity has no routing"
    histories = full_histories(sequences, chosen, retriever.max_history)
    _, own, weights = retriever.route(histories)
    names = item_names(model)
    figure = Figure(figsize=(11, 3.1 * len(chosen)), layout="constrained")
    users = dataset.vocabulary("users")["id"]
    for axes, row in zip(np.atleast_1d(figure.subplots(len(chosen), 1)), range(len(chosen)), strict=True):
        length = int(histories.mask[row].sum())
        shown = slice(max(0, length - SHOWN_BEHAVIOURS), length)
        kept = int(own[row].sum())
        image = axes.imshow(weights[row, :kept, shown].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        labels = [textwrap.shorten(names[i], 24, placeholder="…") for i in histories.items[row, shown].tolist()]
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=7)
        axes.set_yticks(range(kept), [f"interest {j + 1}" for j in range(kept)], fontsize=8)
        user = users[int(table["user"][int(chosen[row])].as_py())].as_py()
        axes.set_title(f"user {user}: newest {len(labels)} behaviours, oldest first", fontsize=9, loc="left")
        figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01, label="coupling" if row == 0 else None)
    return figure


def retrieved_figure(model: SavedModel, table: pa.Table, dataset: Dataset) -> Figure | None:
    """Categories of the items that each interest of a few users retrieves (Fig. 6); None without categories."""
    feature = next((f for f in model.card.item_features if f.kind in ("categorical", "multi")), None)
    chosen = _users_with_interests(table, model)
    if feature is None or not len(chosen):
        return None
    sequences = to_sequences(table, feature_specs(model.card.profile_features))
    items, _, interest = recommend(model.retriever, sequences, chosen, RETRIEVED, exclude_seen=model.card.exclude_seen)
    names = category_names(dataset, feature.name)
    values = dataset.items()[f"feature_{feature.name}"].to_pylist()
    figure = Figure(figsize=(11, 2.6 * len(chosen)), layout="constrained")
    users = dataset.vocabulary("users")["id"]
    for axes, row in zip(np.atleast_1d(figure.subplots(len(chosen), 1)), range(len(chosen)), strict=True):
        found = [
            (int(j), value)
            for item, j in zip(items[row].tolist(), interest[row].tolist(), strict=True)
            if item >= FIRST_ITEM
            for value in _as_list(values[item - FIRST_ITEM])
        ]
        _stack(axes, found, names)
        user = users[int(table["user"][int(chosen[row])].as_py())].as_py()
        axes.set_title(f"user {user}: {feature.name} of the top {RETRIEVED} items, by interest", fontsize=9, loc="left")
    return figure


def item_names(model: SavedModel) -> dict[int, str]:
    """What to print for an item index: its first show_ column, else its id."""
    columns = [name for name in model.items.column_names if name.startswith("show_")]
    ids = model.items["id"].to_pylist()
    shown = model.items[columns[0]].to_pylist() if columns else ids
    names = {FIRST_ITEM + i: str(n if n is not None else ids[i]) for i, n in enumerate(shown)}
    return {**names, 0: "", 1: "unknown item"}


def category_names(dataset: Dataset, feature: str) -> dict[int, str]:
    """What to print for a feature's value index."""
    vocabulary = dataset.vocabulary(f"item_features/{feature}")
    names = dict(zip(vocabulary["index"].to_pylist(), map(str, vocabulary["value"].to_pylist()), strict=True))
    return {**names, 1: "rare", 2: "missing"}


def _stack(axes: Axes, found: list[tuple[int, int]], names: dict[int, str]) -> None:
    """Horizontal bars, one an interest, stacked by category; the rarest categories are one."""
    counts: dict[int, int] = {}
    for _, value in found:
        counts[value] = counts.get(value, 0) + 1
    main = sorted(counts, key=lambda value: -counts[value])[: len(COLOURS) - 1]
    interests = sorted({j for j, _ in found})
    left = np.zeros(len(interests))
    groups = [(names.get(value, str(value)), {value}) for value in main]
    for colour, (name, values) in zip(
        (*COLOURS[:-1], OTHERS), [*groups, ("others", set(counts) - set(main))], strict=False
    ):
        inside = [sum(1 for j, value in found if j == i and value in values) for i in interests]
        label = textwrap.shorten(name, 28, placeholder="…")
        axes.barh(range(len(interests)), inside, left=left, color=colour, label=label)
        left += inside
    axes.set_yticks(range(len(interests)), [f"interest {i + 1}" for i in interests], fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _users_with_interests(table: pa.Table, model: SavedModel) -> torch.Tensor:
    """Rows of the first few users whose history is long enough for several interests, spread over the table."""
    lengths = torch.tensor(table["items"].combine_chunks().value_lengths().to_numpy())
    rich = (lengths >= 2 ** min(3, model.card.config.interests)).nonzero().squeeze(1)
    step = max(1, len(rich) // SHOWN_USERS)
    users: torch.Tensor = rich[::step][:SHOWN_USERS]
    return users


def _as_list(value: object) -> list[int]:
    return value if isinstance(value, list) else [value]  # type: ignore[list-item]


def _colour(number: int, models: int) -> str:
    return COLOURS[-1] if number == models - 1 else COLOURS[number % (len(COLOURS) - 1)]
