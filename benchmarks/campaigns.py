"""Running `mind tune` as a user does, and reading what its ledger says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cli_runs import Generated, mind
from pipelines.tuning.ledger import Ledger, TrialRecord


@dataclass(frozen=True)
class Ran:
    """A campaign that is over.  seconds : of the whole command."""

    seconds: float
    records: list[TrialRecord]

    @property
    def training(self) -> float:
        """Seconds that its trials trained and validated, summed over them."""
        return sum(record.reports[-1]["seconds"] for record in self.records)


def write_campaign(made: Generated, file: Path, **sections: Any) -> Path:
    """A campaign's file over a generated data set."""
    values: Mapping[str, Any] = {"campaign": file.stem, "base": str(made.conf), **sections}
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def mind_tune(file: Path, home: Path) -> Ran:
    """Run the campaign of a file in a home that does not know it."""
    seconds = mind("tune", str(file), "--home", str(home))
    return Ran(seconds, records_of(home, file.stem))


def records_of(home: Path, campaign: str) -> list[TrialRecord]:
    """The ledger of a campaign in `home`."""
    return Ledger(home / "campaigns" / campaign).read()
