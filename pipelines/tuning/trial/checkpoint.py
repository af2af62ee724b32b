"""What an unfinished trial goes on from: a checkpoint of the training and all reports up to it.

<folder>/step-<n>.<attempt>/               every rank writes its part
<folder>/step-<n>.<attempt>/reports.json   written last: the newest with it counts, older ones are removed
"""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.storage.home_files import fetch, listed, names, remove
from pipelines.storage.tables import write_text
from pipelines.tuning.ledger import Report

REPORTS_FILE = "reports.json"


def place_of(folder: Path, step: int, attempt: str) -> Path:
    """Choose the place to write a checkpoint to; the ranks of an attempt share it."""
    place = folder / f"step-{step:09d}.{attempt}"
    place.mkdir(parents=True, exist_ok=True)
    return place


def publish(written: Path, reports: list[Report], last: bool) -> None:
    """Make it the checkpoint to go on from, once every rank has written its part."""
    write_text(json.dumps({"reports": reports, "last": last}), written / REPORTS_FILE)
    for name in names(written.parent):
        if name != written.name and name.partition(".")[0] <= written.name.partition(".")[0]:
            remove(written.parent / name)


def newest(folder: Path) -> Path | None:
    """Find the checkpoint to go on from."""
    return max((file.parent for file in listed(folder, f"step-*/{REPORTS_FILE}")), default=None)


def reports_of(checkpoint: Path) -> tuple[list[Report], bool]:
    """Read all reports up to a checkpoint, and whether the trial ended there."""
    saved = json.loads(fetch(checkpoint / REPORTS_FILE).read_text("utf-8"))
    return saved["reports"], saved["last"]
