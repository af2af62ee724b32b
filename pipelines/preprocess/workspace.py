"""The unfinished dataset: a folder beside the finished one that a killed command leaves and the next one goes on with.

    .NAME.work-HASH/key.json            what the work is for: settings and files; HASH is of it
    .NAME.work-HASH/STAGE/KEY.json      written by a task after all else that it wrote: that task is done
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
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.cluster.nodes import on_every_node
from pipelines.cluster.ray_data import Json, each, run_records
from pipelines.config.home_location import origin, shown
from pipelines.dataset.dataset import MARK, Layout
from pipelines.storage.atomic import TORN
from pipelines.storage.digests import key_digest
from pipelines.storage.generations import current, make_current, new_generation, unfinished_generations
from pipelines.storage.home_files import exists, fetch, forget, listed, names, remove, renew, renew_files
from pipelines.storage.locks import exclusive
from pipelines.storage.publish import require_own, swap
from pipelines.storage.tables import write_text

KEY = "key.json"  # without it a work folder is rubbish
PLACE = "place.json"
RECORDS = "*/[0-9]*.json"
ENGINE = "engine.txt"  # what Ray Data has said of its operators so far


@dataclass(frozen=True)
class Workspace:
    """The folder, what it is work on, and whether an earlier process began it."""

    root: Path
    target: Path
    resumed: bool
    folder: Path  # of what will take the target's place

    def recorded(self, stage: str) -> dict[str, Json]:
        """Read what the tasks of a pass that are done have recorded, by key."""
        return {file.stem: read_json(file) for file in listed(self.root / stage, "[0-9]*.json")}

    def execute(self, stage: str, dataset: Any, what: str, total: int | None) -> dict[str, Json]:
        """Run a dataset of records, each on disk under `stage` as soon as its task is done: what was done, by key.

        Parameters
        ----------
        dataset : of pipelines.cluster.ray_data; its tasks go through `recording`.
        what, total : of the progress bar.
        """
        return run_records(dataset, what, total, self.report)

    def run(self, stage: str, task: Callable[..., Json], arguments: Sequence[tuple[Any, ...]], what: str) -> list[Json]:
        """Run ``task(*arguments)`` for each tuple; results in order. Those that are on record are not run again.

        Parameters
        ----------
        stage : names the folder of the results.
        task : returns what JSON can hold; runs on any node.
        what : the operator's name, and the description of the progress bar.
        """
        keys = [key_of(number) for number in range(len(arguments))]
        done = self.recorded(stage)
        missing = {key: given for key, given in zip(keys, arguments, strict=True) if key not in done}
        if missing:
            dataset = each(recording(task, self.root / stage), missing, what)
            done |= self.execute(stage, dataset, what, len(missing))
        return [done[key] for key in keys]

    def report(self, text: str) -> None:
        """Keep Ray Data's statistics of a pass; `publish` puts them into the dataset."""
        file = self.root / ENGINE
        before = fetch(file).read_text(encoding="utf-8") if exists(file) else ""
        write_text(f"{before}{text}\n", file)

    def has_results(self) -> bool:
        """Say whether any task is done."""
        return bool(listed(self.root, RECORDS))

    def publish(self) -> None:
        """Put `folder` in the place of the target, which stays readable until then, and end the work."""
        if exists(self.root / ENGINE):
            write_text(fetch(self.root / ENGINE).read_text(encoding="utf-8"), Layout(self.folder).engine)
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


def key_of(*numbers: int) -> str:
    """Name a piece of work, by its number, or by its piece and block."""
    return "-".join(f"{number:05d}" for number in numbers)


def recording(task: Callable[..., Json], folder: Path) -> Callable[..., Json]:
    """Make of a task one that gets its key first and, after all else that it wrote, records its result in `folder`."""
    return partial(_recorded, task, folder)


def _recorded(task: Callable[..., Json], folder: Path, key: str, *arguments: Any) -> Json:
    result = task(*arguments)
    write_json(result, folder / f"{key}.json")
    return result


def write_json(value: Any, file: Path) -> None:
    """Write in one step: aside, then renamed."""
    write_text(json.dumps(value, ensure_ascii=False), file)


def read_json(file: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(fetch(file).read_text(encoding="utf-8"))


@contextmanager
def claimed(target: Path) -> Iterator[None]:
    """Claim the folder `target` for this process alone; and whole, whatever the process before was killed at.

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
    """Open the work on a claimed folder, ended by `Workspace.publish`.

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
