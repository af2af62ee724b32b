"""The report of a campaign as one page that needs no other file, no MLflow and no script.

The conclusion first, then every point, the figures, what stopping saved, and the campaign's settings. What comes from
settings and failures is escaped.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import yaml
from matplotlib.figure import Figure

from pipelines.progress import duration
from pipelines.quality.style import STYLE
from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.load import plain
from pipelines.tuning.report.conclusion import conclusion
from pipelines.tuning.report.results import Comparison, Row, compare, leaderboard, savings, winner
from pipelines.tuning.wording import number, text_of

OWN_STYLE = """
figure > img { width: 100%; height: auto; border-radius: 6px; background: #fff; margin-bottom: 6px; }
.conclusion, .wide-table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.conclusion { padding: 14px 18px 14px 36px; margin: 18px 0; } .conclusion li:first-child { font-weight: 600; }
.wide-table { overflow-x: auto; } .wide-table table { border: 0; } tr.winner td { background: #e08e4526; }
.wide-table th { white-space: nowrap; } .status { min-width: 190px; }
.wide-table + .plots { margin-top: 12px; }
.plots { grid-auto-flow: dense; } pre { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 14px 18px; overflow-x: auto; font-size: 13px; }
"""
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
    """Of the section after the search: what a line is called, then its cells."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]


def campaign_html(
    records: Sequence[TrialRecord],
    metric: str,
    campaign: Campaign,
    figures: Mapping[str, Figure],
    *,
    after: Sequence[str] = (),
    table: Table | None = None,
) -> str:
    """The report as HTML.

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
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in conclusion(records, metric, campaign))
    settings = yaml.safe_dump(plain(campaign, only_given=True), sort_keys=False)
    body = [
        f"<header><h1>{escape(campaign.campaign)}</h1><p>Tuning campaign on <code>{escape(campaign.base)}</code>, "
        f"by {escape(metric)} of the validation split</p></header>",
        f'<ul class="conclusion">{said}</ul>',
        _headline(rows, records),
        _after(after, table),
        f'<section class="plots">{"".join(_figure(name, figure) for name, figure in figures.items())}</section>',
        "<h2>Points</h2>", _points(rows, first, metric, campaign),
        "<h2>Settings of the campaign</h2>", f"<pre>{escape(settings)}</pre>",
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(campaign.campaign)}: tuning</title><style>{STYLE}{OWN_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _headline(rows: Sequence[Row], records: Sequence[TrialRecord]) -> str:
    spent = savings(records)
    finished, stopped, failed = (sum(getattr(row, how) for row in rows) for how in ("finished", "stopped", "failed"))
    cards = [
        (f"{len(rows):,}", "points"),
        (f"{finished + stopped + failed:,}", f"trainings: {finished} finished, {stopped} stopped, {failed} failed"),
        (number(spent.epochs), "epochs"),
        (duration(spent.seconds), "of training"),
        (f"≤ {duration(spent.saved_seconds)}", f"saved by stopping early, {spent.share:.0%}; "
                                               f"{number(spent.saved_epochs)} epochs"),
    ]  # fmt: skip
    shown = "".join(f"<div><b>{escape(large)}</b><span>{escape(text)}</span></div>" for large, text in cards)
    return f'<section class="headline">{shown}</section>'


def _after(sentences: Sequence[str], table: Table | None) -> str:
    if not sentences and table is None:
        return ""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    if table is None:
        return f"<h2>After the search</h2>{said}"
    head = "".join(f"<th{_css(place > 0)}>{escape(text)}</th>" for place, text in enumerate(table.head))
    lines = "".join(
        "<tr>" + "".join(f"<td{_css(place > 0)}>{escape(text)}</td>" for place, text in enumerate(line)) + "</tr>"
        for line in table.lines
    )
    return f'<h2>After the search</h2>{said}<div class="wide-table"><table><tr>{head}</tr>{lines}</table></div>'


def _figure(name: str, figure: Figure) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=PIXELS)
    data, title = base64.b64encode(picture.getvalue()).decode(), escape(TITLES[name])
    css = ' class="wide"' if figure.get_figwidth() >= WIDE else ""
    return (
        f"<figure{css}><figcaption><h3>{title}</h3></figcaption>"
        f'<img alt="{title}" src="data:image/png;base64,{data}"></figure>'
    )


def _points(rows: Sequence[Row], first: Row | None, metric: str, campaign: Campaign) -> str:
    """The leaderboard."""
    settings, compared = list(campaign.space), {} if first is None else compare(rows, first)
    repeated = any(row.deviation is not None for row in rows)
    head = ["rank", "point", *settings, metric]
    head += (["±"] if repeated else []) + ["best epoch", "epochs", "time", "trainings", "lookups", "multiply-adds"]
    head += ["winner minus it"] if compared else []
    lines = []
    for row in rows:
        cells = [str(row.rank), str(row.point)]
        cells += [text_of(row.values[name]) if name in row.values else "–" for name in settings]
        cells += [_digits(row.metric)]
        cells += ["" if row.deviation is None else _digits(row.deviation)] if repeated else []
        cells += [_said(row.best_epoch), _said(row.epochs), "" if math.isnan(row.seconds) else duration(row.seconds)]
        last = [_said(row.lookups), _said(row.multiply_adds)]
        last += [_interval(compared.get(row.point))] if compared else []
        won = first is not None and row.point == first.point
        css = ' class="winner"' if won else ""
        lines.append(f'<tr{css}>{_cells(cells)}<td class="status">{_status(row, won)}</td>{_cells(last)}</tr>')
    titles = "".join(f"<th{_css(text != 'trainings')}>{escape(text)}</th>" for text in head)
    return f'<div class="wide-table"><table><tr>{titles}</tr>{"".join(lines)}</table></div>'


def _status(row: Row, won: bool) -> str:
    """How its trainings ended; the winner and failures stand out."""
    badges = ['<b class="badge ok">WINNER</b>'] if won else []
    ends = ((row.finished, "finished"), (row.stopped, "stopped early"), (row.failed, "failed"))
    badges.append(escape(", ".join(f"{count} {end}" for count, end in ends if count)))
    if row.reason is not None:
        badges.append(f'<b class="badge alarm">FAILED</b> {escape(row.reason)}')
    return " ".join(badges)


def _interval(found: Comparison | None) -> str:
    if found is None:
        return ""
    same = "" if found.told_apart else ": not told apart"
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]{same}"


def _cells(texts: Sequence[str]) -> str:
    return "".join(f'<td class="n">{escape(text)}</td>' for text in texts)


def _css(numbers: bool) -> str:
    return ' class="n"' if numbers else ""


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _said(value: float) -> str:
    return "" if math.isnan(value) else number(value)
