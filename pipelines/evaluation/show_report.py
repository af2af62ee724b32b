"""A report to look at, on 80 columns: models down, figures across; report.json has everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipelines.config.home_location import shown
from pipelines.evaluation.report import Band, Difference, ModelReport, Report
from pipelines.evaluation.variety import PriceReport
from pipelines.models.doubts import below_popularity, never_asked
from pipelines.progress import output
from pipelines.words import counted

GROUPS = ("all", "again", "new")
SHELVES = ("new", "again")
LONG_LABEL = 20  # letters
ROOMY = 90  # columns of a terminal, from which on there are two blanks between numbers


def show_report(report: Report, folder: Path) -> None:
    """Print what was found, and the folder that holds the rest."""
    model, cutoff = report.models[0], report.metric.split("@")[1]
    output.print(f"[bold]{model.name}[/bold]: {report.protocol}")
    output.print("", _overall(report), "", sep="\n")
    if report.groups:
        again, new = report.groups["again"], report.groups["new"]
        _say(f"again: the {again.targets:,} targets that are in their user's history ({counted(again.users, 'user')}); "
             f"new: the other {new.targets:,} ({counted(new.users, 'user')}). "
             "All columns look at the same list.")  # fmt: skip
        output.print("", _shelves(report), "", sep="\n")
        _say("A shelf is a list of its own: ranked among the items outside the history, or among those in it.")
    output.print("", _differences(report), "", sep="\n")
    _say("± is half of the 95 % interval over resampled users. In brackets: not told apart.")
    notes = [f"{each.label}: {each.note}" for each in report.models if each.note is not None]
    _say("; ".join(notes))
    for line in report.baselines_left_out:
        _say(line)
    by_history = _bands(f"{report.metric} by behaviours in the history", report, report.metric, "users")
    by_popularity = _bands(f"recall@{cutoff} by popularity of the target", report, f"recall@{cutoff}", "targets")
    output.print("", by_history, "", by_popularity, "", sep="\n")
    output.print(_lists(report), "", sep="\n")
    _say(list_line(report))
    for line in [*interest_lines(model), *doubt_lines(report)]:
        _say(line)
    if report.price is not None:
        output.print("", _variety(report.price), "", sep="\n")
        for line in variety_lines(report.price):
            _say(line)
    if report.seen_targets:
        _say(f"{report.seen_targets:,} targets were already in the history and are not asked for "
             f"({counted(report.users_left_out, 'user')} had no other)")  # fmt: skip
    output.print(f"Report: {shown(folder)} (report.json, users.parquet, figures)", soft_wrap=True)


def interest_lines(model: ModelReport) -> list[str]:
    """Say what a model's interests are used for and worth; nothing for a single one."""
    if len(model.interest_share) < 2:
        return []
    average = np.average(np.arange(1, len(model.interest_share) + 1), weights=model.users_by_interests)
    lines = [
        f"Interests: {average:.1f} a user. Of the recommended items {_shares(model.interest_share)} come from each, of "
        f"the hits {_shares(model.hit_share)}"
    ]
    if (found := model.interests) is not None:
        lines.append(
            f"On {counted(found.users, 'user')} with several interests: cosine {figure(found.cosine)}, "
            f"lists of {found.depth} share {found.overlap:.0%} of their items, recall {figure(found.recall)} together "
            f"and {figure(found.best_interest_recall)} by the best one alone"
        )
        moved = {"whose history fits the window": found.moved_shorter, "whose window slides": found.moved_longer}
        told = [f"{share:.1%} for users {who}" for who, share in moved.items() if share is not None]
        if told:
            lines.append(f"Behaviours that one more event moves to another interest: {', '.join(told)}")
    return lines


def doubt_lines(report: Report) -> list[str]:
    """Say what looks wrong in the first model, and what to do about it."""
    model = report.models[0]
    lines = [never_asked(model.interest_share)]
    popularity = next((each for each in report.models[1:] if each.name == "popularity"), None)
    if popularity is not None and model.name != popularity.name:
        found, simple = (each.metrics[report.metric] for each in (model, popularity))
        lines.append(below_popularity(found, simple, report.metric, f"{counted(report.users, f'{report.split} user')}"))
    return [f"[yellow]Look again:[/yellow] {line}" for line in lines if line is not None]


def list_line(report: Report) -> str:
    """Say what the columns of the table of lists mean."""
    feature = report.models[0].lists.feature
    text = (
        "Lists: Gini of the places that items get, 0 = all as many; novelty in bits, -log2 of the share of the events"
    )
    if feature is None:
        return f"{text}. Without a categorical item feature nothing is known of their diversity"
    return (
        f"{text}; diversity: mean distance (Jaccard) of two items' {feature}, of all pairs, of pairs that one interest "
        "found and that two found; off: KL of the history's categories from the list's, 0 = in the same shares"
    )


def _lists(report: Report) -> Table:
    """Show what each model's lists are made of."""
    depth = report.models[0].lists.depth
    columns = {"novelty": "novelty", "diversity": "diver-\nsity", "diversity_within": "one\ninterest",
               "diversity_across": "two\ninterests", "calibration": "off"}  # fmt: skip
    known = {name for model in report.models for name in model.metrics}
    names = {f"list/{name}@{depth}": text for name, text in columns.items() if f"list/{name}@{depth}" in known}
    table = _table(f"lists of\n{depth}", "cover-\nage", "Gini", "head\nitems", *names.values())
    _keep_whole(table, 0, report)
    for model in report.models:
        coverage = [_of(model, f"coverage@{depth}"), _of(model, f"gini@{depth}"), f"{model.lists.band_share[0]:.0%}"]
        table.add_row(model.label, *coverage, *(_of(model, name) for name in names))
    return table


def _shares(parts: list[float]) -> str:
    return " / ".join(f"{100 * part:.0f} %" for part in parts)


def _overall(report: Report) -> Table:
    """Show every cutoff: recall and NDCG of all, again and new (seen items kept); the headline with its interval."""
    headline = report.metric.split("@")[0]
    if report.groups:
        columns = [(kind, group) for kind in ("recall", "ndcg") for group in GROUPS]
        columns += [(kind, "all") for kind in ("hit_rate", "mrr", "coverage") if kind != "mrr" or kind == headline]
    else:
        columns = [(kind, "all") for kind in ("hit_rate", "recall", "ndcg", "mrr", "coverage")]
    table = _table("N", "model", *(_heading(kind, group, bool(report.groups)) for kind, group in columns))
    table.columns[1].justify = "left"
    _keep_whole(table, 1, report)
    for n in report.cutoffs:
        for place, model in enumerate(report.models):
            names = [f"{kind}@{n}" if group == "all" else f"{group}/{kind}@{n}" for kind, group in columns]
            cells = [_with_interval(model, name) if name == report.metric else _of(model, name) for name in names]
            last = place == len(report.models) - 1
            table.add_row(str(n) if place == 0 else "", model.label, *cells, end_section=last)
    return table


def _heading(kind: str, group: str, grouped: bool) -> str:
    name = {"hit_rate": "hit\nrate", "coverage": "cover-\nage"}.get(kind, f"{kind}\n{group}" if grouped else kind)
    return name if group == "all" else f"\n{group}"


def _shelves(report: Report) -> Table:
    """Show the headline's cutoff on both shelves."""
    cutoff = report.metric.split("@")[1]
    names = [f"shelf_{shelf}/{kind}@{cutoff}" for shelf in SHELVES for kind in ("recall", "ndcg", "hit_rate")]
    headings = [(f"{shelf} shelf\nrecall@{cutoff}", f"\nndcg@{cutoff}", "hit\nrate") for shelf in SHELVES]
    table = _table("model", *headings[0], *headings[1])
    for model in report.models:
        table.add_row(model.label, *(_of(model, name) for name in names))
    return table


def _differences(report: Report) -> Table:
    """Show the model less each other one."""
    metrics = list(dict.fromkeys(found.metric for found in report.differences))
    table = _table("less", *(name.replace("/", "\n") for name in metrics), gap=1)
    _keep_whole(table, 0, report)
    by_name = {(found.against, found.metric): found for found in report.differences}
    for model in report.models[1:]:
        table.add_row(model.label, *(_apart(by_name[model.label, metric]) for metric in metrics))
    return table


def _bands(title: str, report: Report, metric: str, unit: str) -> Table:
    """Show a metric by band: of the users' histories, or of how popular the targets are."""
    groups: list[list[Band]] = [m.by_history if unit == "users" else m.by_popularity for m in report.models]
    table = _table(title, *(f"{band.name}\n{band.size:,} {unit}" for band in groups[0]))
    for model, bands in zip(report.models, groups, strict=True):
        table.add_row(model.label, *(figure(band.metrics[metric]) for band in bands))
    return table


def _variety(price: PriceReport) -> Table:
    """Show what each policy finds, and how varied its lists are."""
    headings = [
        f"recall\n@{price.n}",
        f"ndcg\n@{price.n}",
        "cover-\nage",
        "cate-\ngories",
        "pairs\ndiffer",
        "dis-\ntance",
    ]
    table = _table("list", *headings, "across\ninter.", "inter-\nests")
    table.columns[0].no_wrap = True
    for row in price.rows:
        shares = [row.recall, row.ndcg, row.coverage]
        measured = [row.category_diversity, row.intra_list, row.across_interests]
        table.add_row(
            row.label,
            *map(figure, shares),
            f"{row.categories:.2f}",
            *("–" if value is None else figure(value) for value in measured),
            f"{row.interests:.2f}",
        )
    return table


def variety_lines(price: PriceReport) -> list[str]:
    """Say what the columns of `_variety` are."""
    return [
        f"What varied lists cost, on {counted(price.users, 'user')}, lists of {price.n}; categories: {price.category}. "
        "To choose one: lists.policy and lists.diversity (λ), docs/lists.md",
        "pairs differ: share of a list's pairs from two categories; distance: 1 - cosine of a pair's item vectors; "
        "across: the same of pairs that two interests found; interests: how many found items of a list",
    ]


def _table(*headings: str, gap: int = 2) -> Table:
    """Begin a table: headings at the bottom of their row, `gap` blanks between the columns of numbers if they fit."""
    gap = gap if output.width >= ROOMY else 1
    table = Table(box=SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", vertical="bottom", overflow="fold")
    return table


def _keep_whole(table: Table, column: int, report: Report) -> None:
    """Let an interval go below its figure before a model's name is broken, unless the name is a long one."""
    table.columns[column].no_wrap = max(len(model.label) for model in report.models) <= LONG_LABEL


def figure(value: float) -> str:
    """Write four digits, without the zero before the point.

    >>> figure(0.08524), figure(-0.0001), figure(1.0)
    ('.0852', '-.0001', '1.0000')
    """
    return f"{value:.4f}".replace("0.", ".", 1) if abs(value) < 0.99995 else f"{value:.4f}"


def _of(model: ModelReport, name: str) -> str:
    return figure(model.metrics[name]) if name in model.metrics else "–"


def _with_interval(model: ModelReport, name: str) -> str:
    low, high = model.intervals[name]
    return f"{figure(model.metrics[name])} ±{figure((high - low) / 2)}"


def _apart(found: Difference) -> str:
    sign = "" if found.mean < 0 else "+"
    text = f"{sign}{figure(found.mean)} ±{figure((found.high - found.low) / 2)}"
    return text if found.told else f"({text})"


def _say(text: str) -> None:
    output.print(text, highlight=False)
