"""Which of its versions a mirrored folder stands for: an object store cannot put a folder in the place of another.

    <folder>/<generation>/...   all its files, under a name that nobody else uses
    <folder>/current.json       {"generation": ...}, replaced in one step: from then on that one counts

A process that has opened a generation goes on reading it, whatever is published meanwhile; the one before is therefore
kept. A local folder is its own only generation.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

from pipelines.config.home_location import origin
from pipelines.storage.atomic import whole
from pipelines.storage.home_files import forget, names, remove, renew

POINTER = "current.json"
KEPT = 2  # the current one, and the one before it


def current(folder: Path) -> Path:
    """Find where the files of `folder` are: the generation that counts, or itself."""
    found = _generation(folder)
    if found is None:
        return folder
    for other in folder.glob("g-*"):  # this node's copies of what nobody opens any more
        if other.name not in _kept(folder):
            forget(other)
    return folder / found


def new_generation() -> str:
    """Make a name that nobody else uses."""
    return f"g-{uuid.uuid4().hex[:12]}"


def unfinished_generations(folder: Path) -> list[str]:
    """Name what lies in a mirrored folder that has no generation yet, from work that was begun."""
    return [] if origin(folder) is None else [name for name in names(folder) if re.fullmatch("g-[0-9a-f]{12}", name)]


def make_current(folder: Path, generation: str) -> None:
    """Let `generation` count from now on, and remove those that are older than the one before."""
    before = [name for name in _kept(folder) if name != generation]
    with whole(folder / POINTER) as aside:
        aside.write_text(json.dumps({"generation": generation, "before": before[: KEPT - 1]}) + "\n", "utf-8")
    for name in names(folder):
        if name.startswith("g-") and name not in _kept(folder):
            remove(folder / name)


def _generation(folder: Path) -> str | None:
    kept = _kept(folder)
    return kept[0] if kept else None


def _kept(folder: Path) -> list[str]:
    """Names of the generations that may be in use, the newest first."""
    if origin(folder) is None:
        return []
    pointer = renew(folder / POINTER)
    if not pointer.is_file():
        return []
    values = json.loads(pointer.read_text("utf-8"))
    return [values["generation"], *values["before"]]
