"""Is there room for a model of these settings? Asked before anything is built, in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

from pipelines.config.numbers import show_bytes
from pipelines.errors import UserError

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def require_room(what: str, parts: Mapping[str, int], have: int | None = None) -> None:
    """Refuse what cannot fit this machine, whatever else runs on it.

    Parameters
    ----------
    what : begins the message, as the model's folder.
    parts : bytes, by what takes them and the settings that decide it.
    have : bytes; None: this machine's memory, or its container's.

    Raises
    ------
    UserError
        With the bytes of all, and those of the largest part.
    """
    needed, limit = sum(parts.values()), memory_of_machine() if have is None else have
    if needed > limit:
        largest = max(parts, key=lambda name: parts[name])
        raise UserError(
            f"{what}: would take {show_bytes(needed)}, and there are {show_bytes(limit)}; most of it, "
            f"{show_bytes(parts[largest])}, is for the {largest}: lower what is in brackets"
        )


def memory_of_machine() -> int:
    """Return the bytes of memory of this machine, or of the container that it runs in."""
    limits = [int(psutil.virtual_memory().total)]
    for file in map(Path, CGROUP_LIMITS):
        text = file.read_text().strip() if file.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)
