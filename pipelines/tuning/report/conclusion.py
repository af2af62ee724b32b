"""A campaign's ledger in a few plain sentences: the decision, its rivals, how sure it is, what it took."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.progress import duration
from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.report.importance import importance
from pipelines.tuning.report.results import INTERESTS, Row, best_report, by_value, compare, leaderboard, savings, winner
from pipelines.tuning.wording import epochs_text, text_of, values_text
from pipelines.words import counted

NAMED_SETTINGS = 3


def conclusion(records: Sequence[TrialRecord], metric: str, campaign: Campaign) -> list[str]:
    """Say what was found, in a few plain sentences, the decision first."""
    rows = leaderboard(records, metric, campaign)
    first = winner(rows, campaign.finish)
    if first is None:
        return [f"No training came to a validation: {counted(sum(row.failed for row in rows), 'training')} failed."]
    said = [_decision(rows, first, metric, campaign), *_rivals(rows, _Winner(first, records, metric))]
    if sum(row.scored for row in rows) > 1:
        said.append(_certainty(rows, first))
    told = importance(records, metric)
    if told.shares:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in list(told.shares.items())[:NAMED_SETTINGS])
        said.append(f"Of the metric's variance over the points, after {epochs_text(told.epoch)}: {shares}.")
    return [*said, *_effort(records, rows)]


def _decision(rows: Sequence[Row], first: Row, metric: str, campaign: Campaign) -> str:
    best = max((row.metric for row in rows if row.eligible), default=first.metric)
    seeds = (
        f", the mean of {counted(len(first.scores), 'seed')} (± {first.deviation:.4f})"
        if first.deviation is not None
        else ""
    )
    how = f"The best of {counted(len(rows), 'point')}"
    if campaign.finish.choose == "cheapest_within":
        how = f"The cheapest of {counted(len(rows), 'point')} within {campaign.finish.tolerance:.1%} of the best"
        seeds += f", where the best has {best:.4f}"
    early = ", though none of its trainings ran to its end" if first.cut_short else ""
    return (
        f"{how} is {values_text(first.values)}: {metric} {first.metric:.4f}{seeds}, after "
        f"{epochs_text(first.best_epoch)}{early}."
    )


def _rivals(rows: Sequence[Row], won: _Winner) -> list[str]:
    """Against the runner-up, better points that may not win, and the best of each number of interests."""
    said, first = [], won.row
    second = next((row for row in rows if row.eligible and row.point != first.point), None)
    if second is not None:
        name = "The runner-up" if second.metric <= first.metric else "The best"
        said.append(f"{name}, {values_text(second.values)}, has {second.metric:.4f}{won.beside(second)}.")
    above = [row for row in rows if row.cut_short and not row.eligible and row.metric > first.metric]
    if above:
        said.append(f"{counted(len(above), 'point')} stopped early had a better metric and could not win: point "
                    f"{', '.join(str(row.point) for row in above)}.")  # fmt: skip
    groups = by_value(rows, INTERESTS)
    if len(groups) > 1:
        each = (f"{text_of(g.value)} with {g.best.metric:.4f}{won.beside(g.best)}" for g in groups)
        said.append(f"The best point of each {INTERESTS}: {'; '.join(each)}.")
    return said


def _certainty(rows: Sequence[Row], first: Row) -> str:
    if len(first.scores) < 2:
        return "With one training each, these differences cannot be told from the noise between seeds."
    compared = compare(rows, first)
    if not compared:
        return "No other point was trained with several seeds, so the difference cannot be told from noise."
    same = [row for row in rows if row.point in compared and not compared[row.point].told_apart]
    others = counted(len(compared), "other point")
    if not same:
        return f"It can be told from all {others} with several seeds (95 % interval of the difference)."
    names = "; ".join(values_text(row.values) for row in same[:NAMED_SETTINGS])
    more = f" and {len(same) - NAMED_SETTINGS} more" if len(same) > NAMED_SETTINGS else ""
    return (
        f"Of {others} with several seeds, {len(same)} cannot be told from it (the 95 % interval of the difference "
        f"contains 0): {names}{more}."
    )


def _effort(records: Sequence[TrialRecord], rows: Sequence[Row]) -> list[str]:
    spent, failed = savings(records), sum(row.failed for row in rows)
    trials, stopped = counted(sum(row.trials for row in rows), "training"), sum(row.stopped for row in rows)
    said = f"{trials} took {epochs_text(spent.epochs)}, {duration(spent.seconds)}"
    if stopped:
        said += (
            f"; stopping {stopped} of them early saved at most {epochs_text(spent.saved_epochs)}, "
            f"{duration(spent.saved_seconds)} ({spent.saved_share:.0%})"
        )
    return [f"{said}.", *([f"{counted(failed, 'training')} failed."] if failed else [])]


class _Winner:
    """What others are held against: a point that was stopped, with the winner as it was by then."""

    def __init__(self, row: Row, records: Sequence[TrialRecord], metric: str) -> None:
        self.row, self.metric = row, metric
        self.records = [record for record in records if record.point == row.point]

    def after(self, epochs: float) -> float:
        """Its best so far after so many epochs, as the mean over its seeds."""
        found = [best_report(record, self.metric, epochs) for record in self.records]
        values = [report[f"validation/{self.metric}"] for report in found if report is not None]
        return sum(values) / len(values) if values else 0.0

    def beside(self, row: Row) -> str:
        """Say how a row's metric relates to it, in brackets."""
        if row.point == self.row.point:
            return ""
        value = self.after(row.epochs) if row.cut_short else self.row.metric
        said = [f"{100 * (row.metric / value - 1):+.1f} %"] if value else []
        if row.cut_short:
            said.append(f"stopped after {epochs_text(row.epochs)}" + (f", the winner had {value:.4f}" if value else ""))
        return f" ({', '.join(said)})" if said else ""
