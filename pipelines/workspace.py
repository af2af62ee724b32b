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

from pipelines.errors import UserError
from pipelines.locks import exclusive
from pipelines.part_files import write_text
from pipelines.session import run_tasks

Json = dict[str, Any]


@dataclass(frozen=True)
class Workspace:
    """The folder, and whether it holds work of an earlier process."""

    root: Path
    resumed: bool

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
def workspace(target: Path, key: Json) -> Iterator[Workspace]:
    """The work on the folder `target`, alone.

    Work of the same `key` is gone on with. A user's mistake removes it, as the next attempt will be another one;
    whatever else ends the block leaves it.

    Raises
    ------
    UserError
        If another process is at work on the same folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own: tasks that outlive a killed driver for a moment write to nobody else's folder
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
    root = target.with_name(f".{target.name}.work-{digest}")
    busy = f"{target}: another mind preprocess is writing this dataset; wait for it to end"
    with exclusive(target.with_name(f".{target.name}.lock"), busy):
        recall(target)
        record = root / "key.json"
        resumed = record.is_file() and read_json(record) == key
        for other in target.parent.glob(f".{target.name}.work-*"):
            if not resumed or other != root:
                shutil.rmtree(other, ignore_errors=True)
        if not resumed:
            root.mkdir()
            write_json(key, record)
        try:
            yield Workspace(root, resumed)
        except UserError:
            shutil.rmtree(root, ignore_errors=True)
            raise
        shutil.rmtree(root, ignore_errors=True)


def swap(folder: Path, target: Path) -> None:
    """Put `folder` in the place of `target`, which stays readable until then."""
    for torn in folder.rglob("*.writing-*"):  # of tasks that were killed
        torn.unlink()
    replaced = target.with_name(f".{target.name}.replaced")
    if target.exists():
        target.rename(replaced)
    folder.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def recall(target: Path) -> None:
    """Mend what a `swap` killed between its steps has left."""
    replaced = target.with_name(f".{target.name}.replaced")
    if replaced.exists() and not target.exists():  # the only copy
        replaced.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
