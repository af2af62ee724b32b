"""The campaign on the terminal while it runs: a live table, or a line a trial where output goes to a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.live import Live
from rich.table import Table

from pipelines.progress import console, duration
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.wording import values_text
from pipelines.words import counted

SHOWN = 8  # of the best trials


class LiveTable:
    """Shows what it is told of the trials.

    Parameters
    ----------
    metric : such as ``ndcg@20``.
    planned : trials in all.
    """

    def __init__(self, name: str, metric: str, records: list[TrialRecord], planned: int):
        self.name, self.metric, self.planned = name, metric, planned
        self.records = {record.number: record for record in records}
        self.before = sum(record.ended for record in records)
        self.began = time.monotonic()
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> LiveTable:
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if console.is_terminal:
            self._live.stop()

    def started(self, record: TrialRecord) -> None:
        self.records[record.number] = record

    def reported(self, record: TrialRecord) -> None:
        self.records[record.number] = record

    def ended(self, record: TrialRecord) -> None:
        self.records[record.number] = record
        console.print(f"  {self.line(record)}  [{self.head()}]", markup=False, highlight=False)

    def line(self, record: TrialRecord) -> str:
        """Write a trial in one line."""
        best = record.best(self.metric)
        found = (
            ""
            if best is None
            else f"  {self.metric} {best[f'validation/{self.metric}']:.4f} at epoch {best['epoch']:g}"
        )
        epochs = record.reports[-1]["epoch"] if record.reports else 0
        reason = f": {record.reason}" if record.reason else ""
        return (f"trial {record.number:>3} {record.status} after {epochs:g} of {counted(record.epochs, 'epoch')}"
                f"{found}  {values_text(record.values)}{reason}")  # fmt: skip

    def head(self) -> str:
        """Write the counts and the time that is left."""
        done = [record for record in self.records.values() if record.ended]
        counts = [f"{len(done)}/{counted(self.planned, 'trial')}"]
        for status in ("stopped", "failed", "running"):
            if number := sum(record.status == status for record in self.records.values()):
                counts.append(f"{number} {status}")
        new = len(done) - self.before
        if new:
            left = (time.monotonic() - self.began) / new * max(0, self.planned - len(done))
            counts.append(f"ETA {duration(left)}")
        return ", ".join(counts)

    def table(self) -> Table:
        """Make a table of the running trials and the best so far."""
        table = Table(title=f"{self.name}: {self.head()}", title_justify="left")
        for column in ("trial", "status", "epoch", self.metric, "settings"):
            table.add_column(column, justify="right" if column in ("trial", "epoch", self.metric) else "left")
        ranked = sorted(
            (record for record in self.records.values() if record.reports and record.status != "failed"),
            key=lambda record: -_value(record, self.metric),
        )
        for group in ([r for r in self.records.values() if r.status == "running"], ranked[:SHOWN]):
            for record in group:
                epoch = f"{record.reports[-1]['epoch']:g}/{record.epochs}" if record.reports else f"0/{record.epochs}"
                value = f"{_value(record, self.metric):.4f}" if record.reports else ""
                table.add_row(str(record.number), record.status, epoch, value, values_text(record.values))
            table.add_section()
        return table


def _value(record: TrialRecord, metric: str) -> float:
    best = record.best(metric)
    return float("-inf") if best is None else best[f"validation/{metric}"]
