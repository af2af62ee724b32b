"""Publish a folder all at once: built aside, renamed when whole, gone when anything fails. It takes the place of
nothing but an older one of the same name.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipelines.config.home_location import origin, shown
from pipelines.errors import UserError
from pipelines.storage.generations import current
from pipelines.storage.home_files import names, push_folder, renew


@dataclass(frozen=True)
class Mark:
    """The JSON file at the top of a published folder, which says whose it is.

    name_of : reads from its content the name that the folder has.
    """

    file: str
    name_of: Callable[[Any], str] = itemgetter("name")

    def is_on(self, folder: Path) -> bool:
        """Say whether `folder` was published under the name that it has."""
        file = renew(current(folder) / self.file)
        try:
            return bool(self.name_of(json.loads(file.read_text("utf-8"))) == folder.name)
        except (OSError, ValueError, LookupError, TypeError):
            return False


def require_own(target: Path, mark: Mark, unfinished: Collection[str] = ()) -> None:
    """Refuse to write to a folder of somebody else's.

    Parameters
    ----------
    target : may be absent or empty.
    unfinished : names of what a writer that was killed may have left in a folder without a mark.

    Raises
    ------
    UserError
        If something is there that `mark` does not say to be `target`.
    """
    if target.is_file():
        raise UserError(f"{shown(target)}: is a file; move it away, or take another name")
    others = [name for name in names(target) if name not in unfinished]
    if others and not mark.is_on(target):
        raise UserError(f"{shown(target)}: holds {others[0]}, and no {mark.file} that says it is {target.name}; it is "
                        "left as it is: move it away, or take another name")  # fmt: skip


def require_publishable(target: Path, mark: Mark) -> None:
    """Refuse before the work what `published` would refuse after it; a UserError as there.

    An object store's folder is looked at only then: it may hold a part of what a writer that was killed has pushed.
    """
    if origin(target) is None:
        require_own(target, mark)


@contextmanager
def published(target: Path, mark: Mark) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place if the block ends without an exception.

    The block must write the mark. An older `target` stays readable until then. What killed processes of this host left
    beside it is removed.

    Raises
    ------
    UserError
        If `target` is a folder of somebody else's; before the block, where that can be seen.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    for stale in target.parent.glob(f".{target.name}.partial-{host}-*"):
        if _alive(int(stale.name.removesuffix(".replaced").rpartition("-")[2])):
            continue
        if (
            stale.name.endswith(".replaced") and not target.exists()
        ):  # killed between the two renames below: this is the only copy
            stale.rename(target)
        else:
            shutil.rmtree(stale, ignore_errors=True)
    require_publishable(target, mark)
    aside = target.with_name(f".{target.name}.partial-{host}-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        if origin(target) is not None:  # an object store takes one file after the other, the mark last
            require_own(target, mark, os.listdir(aside))
        swap(aside, target, target.with_name(f"{aside.name}.replaced"))
        push_folder(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def swap(folder: Path, target: Path, replaced: Path) -> None:
    """Put `folder` in the place of `target`; killed in between, it leaves the older one at `replaced`."""
    if target.exists():
        target.rename(replaced)
    folder.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
