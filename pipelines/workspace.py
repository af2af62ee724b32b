"""The unfinished dataset: a folder beside the finished one that a killed job leaves and the next one goes on with.

    .NAME.work-HASH/key.json            what the work is for: settings and files; HASH is of it
    .NAME.work-HASH/STAGE/NNNNN.json    written by a task after all else that it wrote: that task is done

A task writes its files under names of its own, aside and then renamed, so it may be killed and run again at any time.
No result lies in the driver's memory alone: killing the driver loses at most the tasks under way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.locks import exclusive
from pipelines.part_files import write_text
from pipelines.publish import swap
from pipelines.session import run_tasks
from pipelines.whole import TORN

Json = dict[str, Any]
KEY = "key.json"  # without it a work folder is rubbish


@dataclass(frozen=True)
class Workspace:
    """The folder, what it is work on, and whether an earlier process began it."""

    root: Path
    target: Path
    resumed: bool

    @property
    def folder(self) -> Path:
        """Of what will take the target's place."""
        return self.root / "dataset"

    def run(self, stage: str, task: Callable[..., Json], arguments: Sequence[tuple[Any, ...]], what: str) -> list[Json]:
        """Results of ``task(*arguments)``, one per tuple, in order; those that are on record are not run again.

        Parameters
        ----------
        stage : names the folder of the results.
        task : returns what JSON can hold; runs on any node.
        what : description of the progress bar.
        """
        folder = self.root / stage
        folder.mkdir(exist_ok=True)
        files = [folder / f"{number:05d}.json" for number in range(len(arguments))]
        missing = [number for number, file in enumerate(files) if not file.exists()]
        work = [(task, files[number], *arguments[number]) for number in missing]
        fresh = dict(zip(missing, run_tasks(_recorded, work, what), strict=True)) if missing else {}
        return [fresh[number] if number in fresh else read_json(file) for number, file in enumerate(files)]

    def has_results(self) -> bool:
        """Whether any task is done."""
        return any(self.root.glob("*/[0-9]*.json"))

    def publish(self) -> None:
        """Put `folder` in the place of the target, which stays readable until then, and end the work."""
        for torn in self.folder.rglob(TORN):  # of tasks that were killed
            torn.unlink(missing_ok=True)
        (self.root / KEY).unlink()  # from here on there is nothing to go on with
        swap(self.folder, self.target, _replaced(self.target))
        discard(self.root)


def _recorded(task: Callable[..., Json], file: Path, *arguments: Any) -> Json:
    """Task: run another one and record its result."""
    result = task(*arguments)
    write_json(result, file)
    return result


def write_json(value: Any, file: Path) -> None:
    """Write in one step: aside, then renamed."""
    write_text(json.dumps(value, ensure_ascii=False), file)


def read_json(file: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(file.read_text(encoding="utf-8"))


@contextmanager
def claimed(target: Path) -> Iterator[None]:
    """The folder `target` for this process alone; and whole, whatever the process before was killed at.

    Raises
    ------
    UserError
        If another process is at work on it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{target}: another mind preprocess is writing this dataset; wait for it to end"
    with exclusive(target.with_name(f".{target.name}.lock"), busy):
        recall(target)
        yield


@contextmanager
def workspace(target: Path, key: Json) -> Iterator[Workspace]:
    """The work on a claimed folder, ended by `Workspace.publish`.

    Work of the same `key` is gone on with; that of others is removed. Whatever else ends the block leaves what was
    done: a time-out, a limit that can be raised, a kill.
    """
    # a name of its own: tasks that outlive a killed driver for a moment write to nobody else's folder
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
    root = target.with_name(f".{target.name}.work-{digest}")
    resumed = (root / KEY).is_file() and read_json(root / KEY) == key
    for other in _unfinished(target):
        if not resumed or other != root:
            discard(other)
    if not resumed:
        root.mkdir()
        write_json(key, root / KEY)
    work = Workspace(root, target, resumed)
    try:
        yield work
    finally:
        if not work.has_results():
            discard(root)


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _unfinished(target: Path) -> list[Path]:
    return list(target.parent.glob(f".{target.name}.work-*"))


def discard(root: Path) -> None:
    """Remove a work folder; half removed, it is none."""
    (root / KEY).unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)


def recall(target: Path) -> None:
    """Mend what a `publish` killed between its steps has left."""
    replaced = _replaced(target)
    if replaced.exists() and not target.exists():  # the only copy
        replaced.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    for root in _unfinished(target):
        if not (root / KEY).exists():
            discard(root)
