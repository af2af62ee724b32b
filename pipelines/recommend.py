"""`mind recommend`: top-N lists, for a few users to look at, or for all to use.

A few users need no Ray. For all, workers write one Parquet part per slice of users, so nothing is held in memory.
"""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import torch
from rich.table import Table

from mind_core.inference import MINDRetriever
from mind_core.sequences import Sequences, full_histories
from pipelines.arrays import feature_specs, to_sequences
from pipelines.artifact import SavedModel, load_model
from pipelines.config import Config
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.figures import item_names
from pipelines.models import find_model
from pipelines.progress import output
from pipelines.publish import published
from pipelines.session import ray_session
from pipelines.splits import SPLITS
from pipelines.user_slices import over_slices, slices_of

RECENT = 5  # behaviours printed
LEADING = 3  # behaviours that head an interest


def recommend(
    config: Config,
    users: list[str] | None = None,
    out: Path | None = None,
    model: str | None = None,
    latest: bool = False,
) -> Path | None:
    """Recommend `config.evaluate.top_n` items to each user.

    Parameters
    ----------
    users : raw ids as text, printed one by one; None: all users, written to a file.
    out : file to write (.parquet, .csv, .jsonl); without it, and for all users, a folder of Parquet parts in the home
        folder.
    model : as `find_model` takes it.
    latest : infer from everything that is known of a user, the held-out items too: what production wants. Otherwise
        those are left out, and marked where they are found again.

    Returns
    -------
    What was written, if anything.

    Raises
    ------
    UserError
        For a user that the dataset does not know.
    """
    dataset = Dataset.open(config.dataset_path)
    folder = find_model(config, dataset, model)
    if users is None:
        return _everyone(config, dataset, folder, out, latest)
    saved = load_model(folder)
    wanted = _indices(dataset, users)
    rows = _rows(dataset, wanted)
    if out is not None:
        lists = _lists([saved], rows, config.evaluate.top_n, saved.card.exclude_seen, latest, dataset)
        _write(lists, out)
        output.print(f"{lists.num_rows:,} recommendations: {out}", soft_wrap=True)
        return out
    for row in range(len(users)):
        _show(config, saved, rows.slice(row, 1), users[row], latest)
    return None


def _indices(dataset: Dataset, users: list[str]) -> list[int]:
    """User indices of raw ids given as text."""
    ids = dataset.vocabulary("users")["id"].combine_chunks()
    text = ids.cast(pa.string())
    places = pc.index_in(pa.array(users, pa.string()), value_set=text).to_pylist()
    for user, place in zip(users, places, strict=True):
        if place is None:
            near = difflib.get_close_matches(user, text.slice(0, 100_000).to_pylist(), 3, 0.5) or text[:3].to_pylist()
            raise UserError(f"--user {user}: {dataset.path} has no such user; some that it has: {', '.join(near)}")
    return [int(place) for place in places]


def _rows(dataset: Dataset, users: list[int]) -> pa.Table:
    """Each user's row: of the test split, else validation, else train, in the order of `users`."""
    found: dict[int, pa.Table] = {}
    for split in reversed(SPLITS):
        missing = [user for user in users if user not in found]
        if missing:
            files = pyarrow.dataset.dataset(dataset.split_files(split))
            table = files.to_table(filter=pc.field("user").isin(pa.array(missing, pa.int64())))
            found |= {int(user): table.slice(row, 1) for row, user in enumerate(table["user"].to_pylist())}
    return pa.concat_tables([found[user] for user in users]).combine_chunks()


def _lists(
    models: list[SavedModel], table: pa.Table, n: int, exclude_seen: bool, latest: bool, dataset: Dataset
) -> pa.Table:
    """Top-n lists of the rows of a split, with raw user ids: user, rank, id, score, interest, show_<column>."""
    known = _with_targets(table) if latest else table
    sequences = to_sequences(known, feature_specs(models[0].card.profile_features))
    lists = models[0].recommend(sequences, n, exclude_seen=exclude_seen)
    ids = dataset.vocabulary("users")["id"].take(table["user"].take(lists["user"]))
    return lists.set_column(0, "user", ids)


def _with_targets(table: pa.Table) -> pa.Table:
    """The rows with their held-out items at the end of the history."""
    histories, targets = table["items"].combine_chunks(), table["targets"].combine_chunks()
    lengths = torch.tensor(histories.value_lengths().to_numpy()), torch.tensor(targets.value_lengths().to_numpy())
    owner = torch.cat([torch.repeat_interleave(torch.arange(len(table)), size) for size in lengths])
    order = torch.sort(owner, stable=True).indices
    values = pa.concat_arrays([histories.flatten(), targets.flatten()]).take(pa.array(order.numpy()))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (lengths[0] + lengths[1]).cumsum(0)])
    joined = pa.ListArray.from_arrays(pa.array(offsets.int().numpy()), values)
    return table.set_column(table.schema.get_field_index("items"), "items", joined)


def _everyone(config: Config, dataset: Dataset, model: Path, out: Path | None, latest: bool) -> Path:
    known = np.zeros(dataset.manifest.users, dtype=bool)
    slices = [part for split in reversed(SPLITS) for part in slices_of(dataset, split, known)]
    exclude_seen = load_model(model).card.exclude_seen
    target = config.home_path / "recommendations" / model.name
    arguments = (config.evaluate.top_n, exclude_seen, latest, dataset)
    total = 0
    with published(target) as folder, ray_session(config.ray, workers=config.train.workers):
        for number, lists in enumerate(over_slices(_lists, [model], slices, arguments, config, "Recommending")):
            pq.write_table(lists, folder / f"part-{number:05d}.parquet")
            total += lists.num_rows
    if out is not None:
        _write(pyarrow.dataset.dataset(target).to_table(), out)
        shutil.rmtree(target)
        target = out
    output.print(f"{total:,} recommendations for {int(known.sum()):,} users: {target}", soft_wrap=True)
    return target


def _write(table: pa.Table, out: Path) -> None:
    """Write aside, then rename."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.partial")
    if out.suffix == ".parquet":
        pq.write_table(table, aside)
    elif out.suffix == ".csv":
        pa.csv.write_csv(table, aside)
    else:
        table.to_pandas().to_json(aside, orient="records", lines=True, force_ascii=False)
    aside.rename(out)


def _show(config: Config, model: SavedModel, row: pa.Table, user: str, latest: bool) -> None:
    """Print one user: what they did lately, then the list grouped by the interest that found each item."""
    known = _with_targets(row) if latest else row
    sequences = to_sequences(known, feature_specs(model.card.profile_features))
    lists = model.recommend(sequences, config.evaluate.top_n, exclude_seen=model.card.exclude_seen)
    names = item_names(model)
    history = known["items"][0].as_py()
    held_out = set() if latest else set(row["targets"][0].as_py())
    recent = ", ".join(names[item] for item in reversed(history[-RECENT:]))
    output.print(f"\n[bold]User {user}[/bold], {len(history)} behaviours; the newest: {recent}")
    leading = _leading(model, sequences, names)
    shown = [name for name in lists.column_names if name.startswith("show_")]
    table = Table("", "rank", "item", *(name.removeprefix("show_") for name in shown), "score", "")
    encoded = model.encode_items(lists["id"].combine_chunks()).to_pylist()
    rows = lists.to_pylist()
    for interest in sorted({entry["interest"] for entry in rows}):
        inside = [(entry, index) for entry, index in zip(rows, encoded, strict=True) if entry["interest"] == interest]
        heading = [f"interest {interest + 1}", leading[interest] if leading else ""]
        for place, (entry, index) in enumerate(inside):
            cells = [str(entry[name] if entry[name] is not None else "") for name in shown]
            mark = "✓" if index in held_out else ""
            last = place == len(inside) - 1
            first = heading[place] if place < len(heading) else ""
            score = f"{entry['score']:.3f}"
            table.add_row(first, str(entry["rank"]), str(entry["id"]), *cells, score, mark, end_section=last)
    output.print(table)
    if held_out:
        hits = sum(index in held_out for index in encoded)
        output.print(f"✓ held out from the model, and found again: {hits} of {len(held_out)}")


def _leading(model: SavedModel, sequences: Sequences, names: dict[int, str]) -> list[str]:
    """For each interest, the behaviours that it draws on most, weighed as the capsule weighs them."""
    retriever = model.retriever
    if not isinstance(retriever, MINDRetriever) or model.card.config.interests == 1:
        return []
    histories = full_histories(sequences, torch.tensor([0]), retriever.max_history)
    _, own, weights = retriever.route(histories)
    heads = []
    for interest in range(int(own.sum())):
        weight = weights[0, interest, : histories.items.shape[1]] * histories.mask[0]
        best: list[str] = []
        for place in weight.argsort(descending=True).tolist():
            name = names[int(histories.items[0, place])]
            if name not in best:
                best.append(name)
            if len(best) == LEADING:
                break
        heads.append("from " + ", ".join(best))
    return heads
