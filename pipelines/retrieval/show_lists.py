"""A user's recommendations to look at: what they did lately, then the list by the interest that found each item."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch
from rich.markup import escape
from rich.table import Table

from mind_core.inference import MINDRetriever
from mind_core.sequences import Sequences, full_histories
from mind_core.special_rows import UNKNOWN
from pipelines.log.ids import as_array
from pipelines.models.artifact import SavedModel
from pipelines.progress import WIDE, output
from pipelines.words import counted

RECENT = 5  # behaviours printed
LEADING = 4  # behaviours that head an interest
LONGEST = 40  # letters of a cell on a terminal; elsewhere nothing is cut
NARROWEST = 6  # to which a cell gives way
GAP = 2  # letters between cells


def show_lists(
    model: SavedModel,
    sequences: Sequences,
    lists: pa.Table,
    users: list[str],
    targets: list[list[int]],
    shelves: bool = False,
    why: bool = False,
) -> None:
    """Print the lists of a few users.

    Parameters
    ----------
    sequences : what the lists were inferred from; row u is `users[u]`.
    lists : as `SavedModel.recommend_shelves` gives them.
    targets : held-out items of each user, perhaps none; they are marked where the list has them.
    shelves : items of the history and others are lists of their own, each ranked from 1.
    why : `lists` have the columns of `with_reasons`; each interest says what it comes from.
    """
    names = {index: escape(name) for index, name in model.item_names().items()}  # a title may hold [brackets]
    indices = model.encode_items(lists["id"].combine_chunks()).to_pylist()
    rows = [{**entry, "index": index} for entry, index in zip(lists.to_pylist(), indices, strict=True)]
    name_of_id = _names_of(model, lists, names) if why else {}
    for user, (name, held_out) in enumerate(zip(users, targets, strict=True)):
        history = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
        lately = ", lately " + ", ".join(names[item] for item in reversed(history[-RECENT:])) if history else ""
        output.print(
            f"\n[bold]User {escape(name)}[/bold]: {counted(len(history), 'behaviour')}{lately}", highlight=False
        )
        mine = [row for row in rows if row["user"] == user]
        headings = _headings(model, sequences, user, names)
        for shelf, theirs in _shelves(mine, shelves):
            if shelf is not None:
                output.print(f"\n[bold]{shelf}[/bold]", highlight=False)
            for interest in sorted({row["interest"] for row in theirs}):
                output.print(f"\n[bold cyan]{headings[interest]}[/bold cyan]" if headings else "", highlight=False)
                found = [row for row in theirs if row["interest"] == interest]
                if why and found[0]["share"] is not None:
                    output.print(_reason(found[0], name_of_id), highlight=False)
                output.print(_table(found, mine, set(held_out)))
        if held_out:
            hits = sum(row["index"] in held_out for row in mine)
            output.print(f"[green]✓[/green] held out from the model: {hits} of {len(held_out)} are in the list")


def _names_of(model: SavedModel, lists: pa.Table, names: dict[int, str]) -> dict[Any, str]:
    """Names of the items that are reasons, by raw id."""
    ids = as_array(lists["because"]).flatten().unique()
    return {None: names[UNKNOWN]} | {
        item: names[index] for item, index in zip(ids.to_pylist(), model.encode_items(ids).to_pylist(), strict=True)
    }


def _reason(row: dict[str, Any], names: dict[Any, str]) -> str:
    """Say what the interest that found an item comes from."""
    most = [f"{names[item]} ({weight:.2f})" for item, weight in zip(row["because"], row["coupling"], strict=True)]
    return f"[dim]{row['share']:.0%} of the history; most of it from {', '.join(most)}[/dim]"


def _shelves(rows: list[dict[str, Any]], apart: bool) -> list[tuple[str | None, list[dict[str, Any]]]]:
    """Put a user's rows under their headings: one list without any, or those seen before and the new ones."""
    if not apart:
        return [(None, rows)]
    again, new = [row for row in rows if row["again"]], [row for row in rows if not row["again"]]
    return [(heading, theirs) for heading, theirs in (("Again", again), ("New", new)) if theirs]


def _table(rows: list[dict[str, Any]], of: list[dict[str, Any]], held_out: set[int]) -> Table:
    """One interest's items; columns are as wide as the whole list `of` needs, so that a user's tables line up."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    known = any(row["again"] for row in of)  # where seen items are filtered, a column of "new" says nothing
    remembered = any(row.get("remembered") for row in of)
    narrow = {
        "rank": 4,
        "": 1,
        "score": 6,
        **({"again": 5} if known else {}),
        **({"memory": 6} if remembered else {}),
    }
    for title, width in narrow.items():
        table.add_column(title, justify="right", width=width)
    shown = [name for name in rows[0] if name.startswith("show_")]
    widest = {}
    for name in ["id", *shown]:
        title = name.removeprefix("show_")
        widest[name] = min(longest(), max(len(title), *(len(cell(row[name])) for row in of)))
    gaps = GAP * (len(narrow) + len(shown))
    room = output.width - sum(narrow.values()) - gaps - widest["id"]
    widths = {**fitting({name: widest[name] for name in shown}, room), "id": widest["id"]}
    for name, width in widths.items():
        table.add_column(name.removeprefix("show_"), width=width, no_wrap=True, overflow="ellipsis")
    for row in rows:
        mark = "[green]✓[/green]" if row["index"] in held_out else ""
        before = [f"{row['again']}×" if row["again"] else "new"] if known else []
        before += [f"{row['remembered']:+.3f}" if row["remembered"] else ""] if remembered else []
        table.add_row(str(row["rank"]), mark, f"{row['score']:.3f}", *before, *(cell(row[name]) for name in widths))
    return table


def fitting(widths: dict[str, int], room: int) -> dict[str, int]:
    """Take letters from the widest until all fit into `room`, but leave each NARROWEST.

    >>> fitting({"title": 30, "brand": 8}, 24)
    {'title': 16, 'brand': 8}
    """
    widths = dict(widths)
    while sum(widths.values()) > room and (widest := max(widths, key=lambda name: widths[name])):
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return widths


def longest() -> int:
    """Return how many letters a cell may have."""
    return LONGEST if output.is_terminal or output.is_jupyter else WIDE


def cell(value: object) -> str:
    """Write a value into a cell of a table."""
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
