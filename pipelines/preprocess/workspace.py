"""The unfinished dataset: a folder beside the finished one that a killed job leaves and the next one goes on with.

    .NAME.work-HASH/key.json            what the work is for: settings and files; HASH is of it
    .NAME.work-HASH/STAGE/NNNNN.json    written by a task after all else that it wrote: that task is done
    .NAME.work-HASH/place.json          where the new dataset's files go: here, or, at a URI, into a new generation

A task writes its files under names of its own, aside and then renamed, so it may be killed and run again at any time.
No result lies in the driver's memory alone: killing the driver loses at most the tasks under way.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cluster.nodes import on_every_node
from pipelines.cluster.session import run_tasks
from pipelines.config.home_location import origin, shown
from pipelines.dataset.dataset import MARK
from pipelines.storage.atomic import TORN
from pipelines.storage.digests import key_digest
from pipelines.storage.generations import current, make_current, new_generation, unfinished_generations
from pipelines.storage.home_files import fetch, forget, listed, names, remove, renew, renew_files
from pipelines.storage.locks import exclusive
from pipelines.storage.publish import require_own, swap
from pipelines.storage.tables import write_text

Json = dict[str, Any]
KEY = "key.json"  # without it a work folder is rubbish
PLACE = "place.json"
RECORDS = "*/[0-9]*.json"


@dataclass(frozen=True)
class Workspace:
    """The folder, what it is work on, and whether an earlier process began it."""

    root: Path
    target: Path
    resumed: bool
    folder: Path  # of what will take the target's place

    def run(self, stage: str, task: Callable[..., Json], arguments: Sequence[tuple[Any, ...]], what: str) -> list[Json]:
        """Results of ``task(*arguments)``, one per tuple, in order; those that are on record are not run again.

        Parameters
        ----------
        stage : names the folder of the results.
        task : returns what JSON can hold; runs on any node.
        what : description of the progress bar.
        """
        folder = self.root / stage
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{number:05d}.json" for number in range(len(arguments))]
        missing = [number for number, file in enumerate(files) if not file.exists()]
        work = [(task, files[number], *arguments[number]) for number in missing]
        fresh = dict(zip(missing, run_tasks(_recorded, work, what), strict=True)) if missing else {}
        return [fresh[number] if number in fresh else read_json(file) for number, file in enumerate(files)]

    def has_results(self) -> bool:
        """Whether any task is done."""
        return bool(listed(self.root, RECORDS))

    def publish(self) -> None:
        """Put `folder` in the place of the target, which stays readable until then, and end the work."""
        for torn in self.folder.rglob(TORN):  # of tasks that were killed
            torn.unlink(missing_ok=True)
        if origin(self.target) is None:
            (self.root / KEY).unlink()  # from here on there is nothing to go on with
            require_own(self.target, MARK)
            swap(self.folder, self.target, _replaced(self.target))
        else:
            make_current(self.target, self.folder.name)
            on_every_node(forget, self.root)
            on_every_node(forget, self.folder)  # an append has rewritten files that some node may have read before
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
    return json.loads(fetch(file).read_text(encoding="utf-8"))


@contextmanager
def claimed(target: Path) -> Iterator[None]:
    """The folder `target` for this process alone; and whole, whatever the process before was killed at.

    Raises
    ------
    UserError
        If another process is at work on it, or it is a folder of something else.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{shown(target)}: another mind preprocess is writing this dataset; wait for it to end"
    with exclusive(target.with_name(f".{target.name}.lock"), busy):
        recall(target)
        require_own(target, MARK, unfinished_generations(target))
        yield


@contextmanager
def workspace(target: Path, key: Json) -> Iterator[Workspace]:
    """The work on a claimed folder, ended by `Workspace.publish`.

    Work of the same `key` is gone on with; that of others is removed. Whatever else ends the block leaves what was
    done: a time-out, a limit that can be raised, a kill.
    """
    # a name of its own: tasks that outlive a killed driver for a moment write to nobody else's folder
    root = target.with_name(f".{target.name}.work-{key_digest(key, 4)}")
    renew_files(root, RECORDS, "*.json")
    resumed = (root / KEY).is_file() and read_json(root / KEY) == key
    for other in _unfinished(target):
        if not resumed or other != root:
            discard(other)
    if not resumed:
        root.mkdir()
        write_json(str(root / "dataset" if origin(target) is None else target / new_generation()), root / PLACE)
        write_json(key, root / KEY)
    work = Workspace(root, target, resumed, Path(read_json(root / PLACE)))
    try:
        yield work
    finally:
        if not work.has_results():
            discard(root)


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _unfinished(target: Path) -> list[Path]:
    return [target.parent / name for name in names(target.parent) if name.startswith(f".{target.name}.work-")]


def discard(root: Path) -> None:
    """Remove a work folder, and what it would have published; half removed, it is none."""
    remove(root / KEY)
    place = renew(root / PLACE)
    if origin(root) is not None and place.is_file():
        generation = Path(read_json(place))
        if current(generation.parent) != generation:
            remove(generation)
    remove(root)


def recall(target: Path) -> None:
    """Mend what a `publish` killed between its steps has left."""
    if origin(target) is not None:  # a generation counts or does not
        return
    replaced = _replaced(target)
    if replaced.exists() and not target.exists():  # the only copy
        replaced.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    for root in _unfinished(target):
        if not (root / KEY).exists():
            discard(root)
