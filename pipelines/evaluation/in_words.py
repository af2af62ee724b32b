"""An evaluation as a model card and a run's description tell it."""

from __future__ import annotations

from pipelines.evaluation.report import Report
from pipelines.models.card_text import Outcome


def for_card(report: Report, place: int = 0) -> Outcome:
    """Say what a report found of one of its models, by its place; differences are those of the first."""
    model, cutoff = report.models[place], report.metric.split("@")[1]
    bands = [
        (f"{report.metric} by behaviours in the history", "users",
         [(band.name, band.size, band.metrics[report.metric]) for band in model.by_history]),
        (f"recall@{cutoff} by popularity of the target", "targets",
         [(band.name, band.size, band.metrics[f"recall@{cutoff}"]) for band in model.by_popularity]),
    ]  # fmt: skip
    return Outcome(report.protocol, model.metrics, model.intervals, bands, differences(report) if place == 0 else [])


def differences(report: Report) -> list[str]:
    """Write the headline's difference to each other model and rule, a line each."""
    lines = []
    for found in report.headlines:
        interval = f"95 % between {found.low:+.4f} and {found.high:+.4f}"
        told = "" if found.told else ": not told apart"
        lines.append(f"{report.metric} {found.mean:+.4f} against {found.against}, {interval}{told}")
    return lines


def headline(report: Report, place: int = 0) -> str:
    """Write the headline metric of a model with its interval."""
    low, high = report.models[place].intervals[report.metric]
    return f"{report.metric} {report.models[place].metrics[report.metric]:.4f}, 95 % between {low:.4f} and {high:.4f}"
