"""What an unfinished trial goes on from: a checkpoint of the training and all reports up to it, published together.

<folder>/step-<n>/            the newest whole one counts, older ones are removed
<folder>/step-<n>.<attempt>   being written
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipelines.tuning.ledger import Report


def aside(folder: Path, step: int, attempt: str) -> Path:
    """The place to write a checkpoint to; the ranks of an attempt share it."""
    place = folder / f"step-{step:09d}.{attempt}"
    place.mkdir(parents=True, exist_ok=True)
    return place


def publish(written: Path, reports: list[Report], last: bool) -> None:
    """Make it the checkpoint to go on from, once every rank has written its part."""
    (written / "reports.json").write_text(json.dumps({"reports": reports, "last": last}), "utf-8")
    place = written.with_suffix("")
    if place.exists():  # a repeated attempt got to the same step
        shutil.rmtree(place)
    written.rename(place)
    for other in _whole(place.parent):
        if other.name < place.name:
            shutil.rmtree(other)


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from."""
    return max(_whole(folder), key=lambda place: place.name, default=None)


def reports_of(checkpoint: Path) -> tuple[list[Report], bool]:
    """All reports up to a checkpoint, and whether the trial ended there."""
    saved = json.loads((checkpoint / "reports.json").read_text("utf-8"))
    return saved["reports"], saved["last"]


def _whole(folder: Path) -> list[Path]:
    return [place for place in folder.glob("step-*") if place.suffix == ""]
