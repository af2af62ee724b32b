"""Publish a folder all at once: built aside, renamed when whole, gone when anything fails."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.storage.home_files import push_folder


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place if the block ends without an exception.

    An older `target` stays readable until then. What killed processes of this host left beside it is removed.
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
    aside = target.with_name(f".{target.name}.partial-{host}-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
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
