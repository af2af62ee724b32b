"""What MLflow did not take of a run, kept in the home until a later command delivers it.

<home>/unsent/<store>/<run id>/<time>-<number>/item.json     what to tell, as pipelines.tracking.delivery takes it
<home>/unsent/<store>/<run id>/<time>-<number>/files/        the files that belong to it
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config.names import file_name
from pipelines.storage.digests import key_digest

Item = dict[str, Any]

MAX_DIGEST_LENGTH = 36  # of a dataset's digest in an item; MLflow's limit


@dataclass(frozen=True)
class Outbox:
    """Of one run; it may be used from several processes at a time.

    folder : absent without anything to deliver.
    """

    folder: Path

    @property
    def run_id(self) -> str:
        """The run that the folder is named after."""
        return self.folder.name

    def keep(self, item: Item, files: Path | None = None) -> None:
        """Keep an item, whole or not at all, and a copy of a file or a folder that belongs to it."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        aside = self.folder / f".{name}"
        try:
            aside.mkdir(parents=True)
            if files is not None and files.is_dir():
                shutil.copytree(files, aside / "files")
            elif files is not None:
                (aside / "files").mkdir()
                shutil.copy(files, aside / "files" / files.name)
                item = item | {"one": True}
            (aside / "item.json").write_text(json.dumps(item, default=_plain), "utf-8")
            aside.rename(self.folder / name)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            self.close()
            raise

    def waiting(self) -> list[tuple[Path, Item]]:
        """List the items, oldest first, with the folder of each."""
        if not self.folder.is_dir():
            return []
        found = []
        for each in sorted(self.folder.iterdir()):
            # another process may have delivered it by now
            with suppress(FileNotFoundError, NotADirectoryError):
                if not each.name.startswith("."):
                    found.append((each, json.loads((each / "item.json").read_text("utf-8"))))
        return found

    def delivered(self, kept: Path) -> None:
        """Forget an item."""
        shutil.rmtree(kept, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder if nothing is left in it."""
        for each in (self.folder, *list(self.folder.parents)[:2]):
            try:
                each.rmdir()
            except OSError:
                return


def outbox_of(home: Path, uri: str, run_id: str) -> Outbox:
    """Return the outbox of a run of the store at `uri`, which may hold a password: only its digest is shown."""
    return Outbox(_of_store(home, uri) / file_name(run_id))


def outboxes(home: Path, uri: str) -> Iterator[Outbox]:
    """Yield those of all runs of a store."""
    place = _of_store(home, uri)
    for name in sorted(os.listdir(place)) if place.is_dir() else []:
        yield Outbox(place / name)


def _of_store(home: Path, uri: str) -> Path:
    return home / "unsent" / key_digest(uri, 4)


def _plain(value: Any) -> Any:
    """Numbers of NumPy and torch are numbers; whatever else is text."""
    return value.item() if hasattr(value, "item") else str(value)
