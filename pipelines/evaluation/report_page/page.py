"""report.html: one page that needs no other file and no script, in the light and in the dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.evaluation.report import Difference, ModelReport, Report, cutoff_of
from pipelines.evaluation.report_page.look import DARK, LIGHT
from pipelines.evaluation.report_page.sections import FEW, Found, Section
from pipelines.evaluation.show_report import figure as digits
from pipelines.quality.render import render

TEMPLATES = Path(__file__).parent / "templates"
COLLAPSED = 0.9  # mean cosine of a user's interests above which they are one
WORDS = {"ok": "OK", "watch": "WARN"}


@dataclass(frozen=True)
class Drawn:
    """A picture on the page: PNGs in base 64."""

    name: str
    title: str
    caption: str
    light: str
    dark: str
    wide: bool


@dataclass(frozen=True)
class Part:
    """A section on the page."""

    title: str
    pictures: list[Drawn]
    absent: list[tuple[str, str]]


def page(found: Found, sections: Sequence[Section]) -> str:
    """Draw and write all."""
    parts = [
        Part(
            section.title,
            [
                Drawn(each.name, each.title, each.caption, each.embedded(LIGHT), each.embedded(DARK), each.wide)
                for each in section.pictures
            ],
            section.absent,
        )
        for section in sections
    ]
    report = found.report
    head, lines = _table(report)
    return render(
        "report.html.j2",
        TEMPLATES,
        report=report,
        model=found.first,
        verdict=findings(report),
        words=WORDS,
        cards=_cards(report),
        head=head,
        lines=lines,
        parts=parts,
    )


def findings(report: Report) -> list[tuple[str, str]]:
    """Say what should be looked at first: level (ok or watch) and a sentence each."""
    model = report.models[0]
    said = [
        (
            "ok" if found.low > 0 else "watch",
            f"{report.metric} {_beside(found)} {found.against}: "
            f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]",
        )
        for found in report.headlines
    ]
    if len(model.hit_share) > 1:
        idle = [f"{number}" for number, share in enumerate(model.hit_share, 1) if share < FEW]
        text = f"interests with less than {FEW:.0%} of the hits: {', '.join(idle) or 'none'}"
        said.append(("watch" if idle else "ok", text))
    if (worth := model.interests) is not None:
        text = f"cosine between a user's interests: {worth.cosine:.2f}"
        said.append(("watch" if worth.cosine > COLLAPSED else "ok", text))
        if worth.best_interest_recall > worth.recall:
            alone, together = worth.best_interest_recall, worth.recall
            text = f"the best interest alone, if known, finds more ({alone:.4f}) than all together ({together:.4f})"
            said.append(("watch", text))
    return said


def _beside(found: Difference) -> str:
    if not found.told:
        return "not told apart from"
    return "above" if found.mean > 0 else "below"


def _cards(report: Report) -> list[tuple[str, str]]:
    """Return the figures at the top, each with what it counts."""
    model, depth = report.models[0], report.models[0].lists.depth
    low, high = model.intervals[report.metric]
    cards = [(digits(model.metrics[report.metric]), f"{report.metric}, ±{digits((high - low) / 2)}")]
    name = f"shelf_new/recall@{cutoff_of(report.metric)}"
    if name in model.metrics:
        cards.append((digits(model.metrics[name]), f"recall@{cutoff_of(report.metric)} on the shelf of new items"))
    cards += [
        (f"{report.users:,}", "users"),
        (f"{report.targets:,}", "items to find"),
        (f"{len(model.interest_share)}", "interests at most"),
        (f"{model.metrics[f'coverage@{depth}']:.0%}", f"of the catalogue in lists of {depth}"),
    ]
    return cards


def _table(report: Report) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Head and lines of the table of all models at the headline's cutoff."""
    cutoff, depth = cutoff_of(report.metric), report.models[0].lists.depth
    names = [f"{group}recall@{cutoff}" for group in ("", "again/", "new/", "cold/")]
    names += [f"ndcg@{cutoff}", f"hit_rate@{cutoff}", f"coverage@{depth}", f"gini@{depth}"]
    names += [f"list/{kind}@{depth}" for kind in ("novelty", "diversity", "calibration")]
    shown = [name for name in names if any(name in model.metrics for model in report.models)]
    lines = [(model.label, [_cell(model, name) for name in shown]) for model in report.models]
    return [name.removeprefix("list/").replace("_", " ") for name in shown], lines


def _cell(model: ModelReport, name: str) -> str:
    if name not in model.metrics:
        return "–"
    low, high = model.intervals.get(name, (0.0, 0.0))
    spread = f" ±{digits((high - low) / 2)}" if name in model.intervals else ""
    return f"{digits(model.metrics[name])}{spread}"
