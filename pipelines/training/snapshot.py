"""Ray Train's record of a run's checkpoints, which it writes in place: a kill in that moment leaves an empty file.

So the last whole one is kept beside it, and takes its place when a run goes on. Ray deletes a checkpoint only after the
record no longer names it, so that all that the kept one names are there. Object stores replace files in one step.
"""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.storage.atomic import whole

RECORD = "checkpoint_manager_snapshot.json"  # Ray Train's name for it
KEPT = "last-whole-snapshot.json"


def keep_record(folder: Path) -> None:
    """Keep the record of the run in `folder` as it is now."""
    text = _whole_text(folder / RECORD)
    if text is not None:
        with whole(folder / KEPT) as aside:
            aside.write_text(text, "utf-8")


def mend_record(folder: Path) -> None:
    """Put the kept record in the place of one that is torn; without any the run begins anew."""
    if not (folder / RECORD).is_file() or _whole_text(folder / RECORD) is not None:
        return
    text = _whole_text(folder / KEPT)
    if text is None:
        (folder / RECORD).unlink()
        return
    with whole(folder / RECORD) as aside:
        aside.write_text(text, "utf-8")


def _whole_text(file: Path) -> str | None:
    try:
        text = file.read_text("utf-8")
        json.loads(text)
    except (OSError, ValueError):
        return None
    return text
