"""A user's recommendations to look at: what they did lately, then the list by the interest that found each item."""

from __future__ import annotations

import pyarrow as pa
import torch
from rich.markup import escape
from rich.table import Table

from mind_core.inference import MINDRetriever
from mind_core.sequences import Sequences, full_histories
from pipelines.evaluation.figures import item_names
from pipelines.models.artifact import SavedModel
from pipelines.progress import output

RECENT = 5  # behaviours printed
LEADING = 4  # behaviours that head an interest
LONGEST = 40  # letters of a cell


def show_lists(
    model: SavedModel, sequences: Sequences, lists: pa.Table, users: list[str], targets: list[list[int]]
) -> None:
    """Print the lists of a few users.

    Parameters
    ----------
    sequences : what the lists were inferred from; row u is `users[u]`.
    lists : as `SavedModel.recommend` gives them.
    targets : held-out items of each user, perhaps none; they are marked where the list has them.
    """
    names = {index: escape(name) for index, name in item_names(model).items()}  # a title may hold [brackets]
    indices = model.encode_items(lists["id"].combine_chunks()).to_pylist()
    rows = [{**entry, "index": index} for entry, index in zip(lists.to_pylist(), indices, strict=True)]
    for user, (name, held_out) in enumerate(zip(users, targets, strict=True)):
        history = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
        recent = ", ".join(names[item] for item in reversed(history[-RECENT:]))
        output.print(
            f"\n[bold]User {escape(name)}[/bold]: {len(history):,} behaviours, lately {recent}", highlight=False
        )
        mine = [row for row in rows if row["user"] == user]
        headings = _headings(model, sequences, user, names)
        for interest in sorted({row["interest"] for row in mine}):
            output.print(f"\n[bold cyan]{headings[interest]}[/bold cyan]" if headings else "", highlight=False)
            output.print(_table([row for row in mine if row["interest"] == interest], mine, set(held_out)))
        if held_out:
            hits = sum(row["index"] in held_out for row in mine)
            output.print(f"[green]✓[/green] held out from the model: {hits} of {len(held_out)} are in the list")


def _table(rows: list[dict[str, object]], of: list[dict[str, object]], held_out: set[int]) -> Table:
    """One interest's items; columns are as wide as the whole list `of` needs, so that a user's tables line up."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("rank", justify="right", width=4)
    table.add_column("", width=1)
    table.add_column("score", justify="right", width=6)
    shown = [name for name in rows[0] if name.startswith("show_")]
    for name in [*shown, "id"]:
        title = name.removeprefix("show_")
        widest = max(len(title), *(len(_text(row[name])) for row in of))
        table.add_column(title, width=min(widest, LONGEST), no_wrap=True, overflow="ellipsis")
    for row in rows:
        mark = "[green]✓[/green]" if row["index"] in held_out else ""
        table.add_row(str(row["rank"]), mark, f"{row['score']:.3f}", *(_text(row[name]) for name in [*shown, "id"]))
    return table


def _text(value: object) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return "" if value is None else escape(str(value))


def _headings(model: SavedModel, sequences: Sequences, user: int, names: dict[int, str]) -> list[str]:
    """Say what each own interest is about: the behaviours that went to it, the weightiest names first.

    A behaviour belongs to the interest with its largest coupling coefficient; an interest that none belongs to can
    still find items, as every behaviour gives it a little.
    """
    retriever = model.retriever
    if not isinstance(retriever, MINDRetriever) or model.card.config.interests == 1:
        return []
    histories = full_histories(sequences, torch.tensor([user]), retriever.view)
    _, own, weights = retriever.route(histories)
    length = int(histories.mask[0].sum())
    weights, items = weights[0, :, :length], histories.items[0, :length].tolist()
    owner = weights.argmax(0)
    headings = []
    for interest in range(int(own.sum())):
        places = (owner == interest).nonzero().squeeze(1).tolist()
        weight_of: dict[str, float] = {}
        for place in places or range(length):
            name = names[items[place]]
            weight_of[name] = weight_of.get(name, 0.0) + float(weights[interest, place])
        first = ", ".join(sorted(weight_of, key=lambda name: -weight_of[name])[:LEADING])
        amount = f"{len(places)} of the newest {length} behaviours" if places else "a little of everything"
        headings.append(f"Interest {interest + 1} — {amount}: {first}")
    return headings
