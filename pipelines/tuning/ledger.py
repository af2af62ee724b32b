"""The ledger of a campaign: one JSON file a trial, replaced in one step. It outlives every process.

<home>/campaigns/<name>/campaign.json         settings, dataset, MLflow parent run
<home>/campaigns/<name>/trials/<number>.json  a TrialRecord, written when its point is drawn and when it ends
<home>/campaigns/<name>/checkpoints/<number>/ of a trial that has not ended: to go on from
<home>/campaigns/<name>/lock                  held by the process that runs it
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.storage.atomic import whole
from pipelines.storage.home_files import remove, renew_files

Report = dict[str, float]
Status = Literal["waiting", "running", "finished", "stopped", "failed"]
ENDED: tuple[Status, ...] = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class TrialRecord:
    """One training of one point.

    number : from 1, in the order of drawing.
    point : which distinct `values`, from 1; trials of a point differ in `seed` only.
    seed : train.seed.
    values : setting -> value; settings of the space whose `when` does not hold are left out.
    epochs : at most, as the trial's settings say.
    status : ``finished`` by itself (all epochs, or train.patience), ``stopped`` by the scheduler, or ``failed``.
    reason : of a failure, one line.
    reports : one a validation, oldest first: ``step``, ``epoch``, ``seconds`` (of training and validating up to there),
        ``validation/<metric>``, ``train/loss``, ``serving/lookups``, ``serving/multiply_adds``, ``routing/...``.
    """

    number: int
    point: int
    seed: int
    values: dict[str, Any]
    epochs: int
    finalist: bool = False
    status: Status = "waiting"
    reason: str | None = None
    reports: tuple[Report, ...] = field(default=())

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def best(self, metric: str) -> Report | None:
        """Find the first report with the highest ``validation/<metric>``; None before the first."""
        return max(self.reports, key=lambda report: report[f"validation/{metric}"], default=None)


class Ledger:
    """The trials of the campaign in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials = folder / "trials"
        self.trials.mkdir(parents=True, exist_ok=True)
        renew_files(self.trials, "*.json")

    def read(self) -> list[TrialRecord]:
        """Read all trials, by number."""
        return sorted(map(_read, self.trials.glob("*.json")), key=lambda record: record.number)

    def write(self, record: TrialRecord) -> None:
        """Add or replace a trial."""
        with whole(self.trials / f"{record.number:05d}.json") as aside:
            aside.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")

    def reset_failed(self) -> None:
        """Let failed trials wait for another start, with what they had reported before."""
        for record in self.read():
            if record.status == "failed":
                self.write(replace(record, status="waiting", reason=None))

    def checkpoint(self, number: int) -> Path:
        """Return the folder of what an unfinished trial goes on from."""
        return self.folder / "checkpoints" / f"{number:05d}"

    def forget(self, number: int) -> None:
        """Remove what a trial that has ended would have gone on from."""
        remove(self.checkpoint(number))


def _read(file: Path) -> TrialRecord:
    values = json.loads(file.read_text("utf-8"))
    return TrialRecord(**values | {"reports": tuple(values["reports"])})
