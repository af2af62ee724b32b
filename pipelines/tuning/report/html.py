"""The report of a campaign as one page that needs no other file, no MLflow and no script.

The conclusion first, then what stopping saved, the figures, every point, and the campaign's settings:
templates/campaign.html.j2, of what is said here.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from pipelines.progress import duration
from pipelines.quality.render import render
from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.load import plain
from pipelines.tuning.report.conclusion import conclusion
from pipelines.tuning.report.results import Comparison, Row, compare, leaderboard, savings, winner
from pipelines.tuning.wording import epochs_text, number, text_of

TEMPLATES = Path(__file__).parent / "templates"
PIXELS = 150  # per inch
WIDE = 8.0  # inches from which on a figure takes the whole width
TITLES = {
    "heat_map": "Two settings together",
    "against_k": "How many interests?",
    "parallel": "Every point",
    "importance": "Which settings matter?",
    "curves": "Every training",
    "cost": "What does quality cost?",
}


@dataclass(frozen=True)
class Table:
    """A table of the section after the search: what a line is called, then its cells."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it. data : a PNG in base 64.  wide : whether it takes the whole width."""

    title: str
    data: str
    wide: bool


@dataclass(frozen=True)
class Line:
    """A point of the leaderboard: cells, how its trainings ended, more cells. reason : of a failure."""

    before: list[str]
    ends: str
    reason: str | None
    after: list[str]
    won: bool


def campaign_html(
    records: Sequence[TrialRecord],
    metric: str,
    campaign: Campaign,
    figures: Mapping[str, Figure],
    *,
    after: Sequence[str] = (),
    table: Table | None = None,
) -> str:
    """Write the report as HTML.

    Parameters
    ----------
    records : of the ledger.
    metric : that the campaign went by, such as ``ndcg@20``.
    figures : of `campaign_figures`.
    after : sentences on what followed the search, such as the test of the retrained winner.
    table : to stand below them.
    """
    rows = leaderboard(records, metric, campaign)
    first = winner(rows, campaign.finish)
    compared = {} if first is None else compare(rows, first)
    return render(
        "campaign.html.j2",
        TEMPLATES,
        campaign=campaign,
        metric=metric,
        conclusion=conclusion(records, metric, campaign),
        cards=_headline(rows, records),
        after=after,
        table=table,
        pictures=[_picture(name, figure) for name, figure in figures.items()],
        head=_head(rows, metric, campaign, bool(compared)),
        points=[_line(row, rows, campaign, first, compared) for row in rows],
        settings=yaml.safe_dump(plain(campaign, only_given=True), sort_keys=False),
    )


def _headline(rows: Sequence[Row], records: Sequence[TrialRecord]) -> list[tuple[str, str]]:
    """Return the figures at the top, each with what it counts."""
    spent = savings(records)
    finished, stopped, failed = (sum(getattr(row, how) for row in rows) for how in ("finished", "stopped", "failed"))
    return [
        (f"{len(rows):,}", "point" if len(rows) == 1 else "points"),
        (f"{finished + stopped + failed:,}", f"trainings: {finished} finished, {stopped} stopped, {failed} failed"),
        (number(spent.epochs), "epoch" if spent.epochs == 1 else "epochs"),
        (duration(spent.seconds), "of training"),
        (f"≤ {duration(spent.saved_seconds)}", f"saved by stopping early, {spent.saved_share:.0%}; "
                                               f"{epochs_text(spent.saved_epochs)}"),
    ]  # fmt: skip


def _picture(name: str, figure: Figure) -> Picture:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=PIXELS)
    return Picture(TITLES[name], base64.b64encode(picture.getvalue()).decode(), figure.get_figwidth() >= WIDE)


def _repeated(rows: Sequence[Row]) -> bool:
    """Say whether any point was trained more than once."""
    return any(row.deviation is not None for row in rows)


def _head(rows: Sequence[Row], metric: str, campaign: Campaign, compared: bool) -> list[str]:
    """Say what the columns of the leaderboard are called."""
    head = ["rank", "point", *campaign.space, metric]
    head += (["±"] if _repeated(rows) else []) + ["best epoch", "epochs", "time", "trainings", "lookups"]
    return [*head, "multiply-adds", *(["winner minus it"] if compared else [])]


def _line(
    row: Row, rows: Sequence[Row], campaign: Campaign, first: Row | None, compared: Mapping[int, Comparison]
) -> Line:
    """Write a line of the leaderboard."""
    before = [str(row.rank), str(row.point)]
    before += [text_of(row.values[name]) if name in row.values else "–" for name in campaign.space]
    before += [_digits(row.metric)]
    before += ["" if row.deviation is None else _digits(row.deviation)] if _repeated(rows) else []
    before += [_said(row.best_epoch), _said(row.epochs), "" if math.isnan(row.seconds) else duration(row.seconds)]
    after = [_said(row.lookups), _said(row.multiply_adds)]
    after += [_interval(compared.get(row.point))] if compared else []
    counts = ((row.finished, "finished"), (row.stopped, "stopped early"), (row.failed, "failed"))
    ends = ", ".join(f"{count} {end}" for count, end in counts if count)
    return Line(before, ends, row.reason, after, won=first is not None and row.point == first.point)


def _interval(found: Comparison | None) -> str:
    if found is None:
        return ""
    same = "" if found.told_apart else ": not told apart"
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]{same}"


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _said(value: float) -> str:
    return "" if math.isnan(value) else number(value)
