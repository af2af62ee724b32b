"""The table in README.md, between two markers, and what it lacks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.contestants import CONTESTANTS, DEFAULT
from benchmarks.quality.summary import Table, spread
from pipelines.evaluation.show_report import figure

BEGIN, END = "<!-- bench-quality -->", "<!-- /bench-quality -->"
FIRST, SECOND = "recall@20", "ndcg@20"
TITLES = {
    "beauty": "Beauty",
    "ml-1m": "ML-1M",
    "tmall": "Tmall",
    "complete-journey": "Complete Journey",
    "online-retail": "Online Retail",
}


def missing(tables: Sequence[Table]) -> list[str]:
    """Say what a run lacks to be a complete one: who is nowhere, then what is left of each data set; nothing if it is.

    A contestant that has no place on a data set lacks nothing there.
    """
    found, lacks = {table.name: table for table in tables}, dict[str, list[str]]()
    for name in TITLES:
        table = found.get(name, Table(name, "", False, {}))
        known = table.outcomes.keys() | (table.left_out.keys() - set(table.failed))
        lacks[name] = [each.label for each in CONTESTANTS if each.name not in known]
    nowhere = [each.label for each in CONTESTANTS if all(each.label in labels for labels in lacks.values())]
    lines = [f"{', '.join(nowhere)} on any set"] if nowhere else []
    for name, labels in lacks.items():
        if here := [label for label in labels if label not in nowhere]:
            whole = name not in found
            lines.append(f"{'all' if whole else ', '.join(here)} on {TITLES[name]}")
    return lines


def markdown(tables: Sequence[Table], seeds: int) -> str:
    """Lay the tables out as one: contestants down, data sets across.

    A cell is recall@20 / NDCG@20 ± its standard deviation over the seeds; the best NDCG@20 of a data set is bold, and
    an arrow says that the paired interval of its difference to `default` lies above or below zero.
    """
    names = [each.name for each in CONTESTANTS if any(each.name in table.outcomes for table in tables)]
    labels = {each.name: each.label for each in CONTESTANTS}
    heads = ["recall@20 / NDCG@20", *(TITLES[table.name] for table in tables), "minutes", "GB"]
    lines = [_row(heads), "|---" * len(heads) + "|"]
    columns = [_column(table, seeds) for table in tables]
    for name in names:
        found = [table.outcomes[name] for table in tables if name in table.outcomes]
        costs = [f"{sum(each.minutes for each in found):.1f}", f"{max(each.gigabytes for each in found):.1f}"]
        cells = [column.get(name, "–") for column in columns]
        lines.append(_row([labels[name], *cells, *costs]))
    note = (
        f"Full ranking, all test users, mean of {seeds} seeds (¹ ²: of one, of two); ± is the standard deviation of "
        "NDCG@20 over them. ▲ ▼: NDCG@20 above or below `default`'s, 95 % of resampled users. Minutes to fit, all sets "
        "of the row together, on one or two threads, and the most memory. `make bench-quality`; "
        "[docs/results.md](docs/results.md) says who is who."
    )
    if lacks := missing(tables):
        note += f" Not run yet: {'; '.join(lacks)}."
    return "\n".join([*lines, "", note])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _column(table: Table, seeds: int) -> dict[str, str]:
    """Write a data set's cells, by contestant."""
    against = table.differences(SECOND)
    values = {name: found.means(SECOND) for name, found in table.outcomes.items()}
    best = max(values, key=lambda name: statistics.mean(values[name])) if values else None
    cells, seeded = {}, {each.name for each in CONTESTANTS if each.seeded}
    for name, found in table.outcomes.items():
        second = figure(statistics.mean(values[name]))
        apart = spread(values[name])
        text = f"{figure(statistics.mean(found.means(FIRST)))} / " + (f"**{second}**" if name == best else second)
        text += "" if apart is None or apart == 0 else f" ±{figure(apart)}"
        if name in seeded and len(found.runs) < seeds:
            text += "⁰¹²³⁴⁵⁶⁷⁸⁹"[min(len(found.runs), 9)]
        if name != DEFAULT and name in against and against[name].told:
            text += " ▲" if against[name].mean > 0 else " ▼"
        cells[name] = text
    return cells


def write_readme(path: Path, table: str) -> None:
    """Put the table between the markers.

    Raises
    ------
    SystemExit
        If the file does not have each marker once, in order.
    """
    text = path.read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"{path}: must have {BEGIN} and after it {END}, once each")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")
