"""The files of a public data set, below the folder that it was unpacked into."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.config.redact import redact
from pipelines.config.schema import TableSource
from pipelines.errors import UserError
from pipelines.log.sources import find_files, fragments
from pipelines.log.text_files import open_bytes
from pipelines.storage.filesystems import open_filesystem

Lines = Iterator[str]
LAST = "  split: {protocol: leave_one_out} # each user's last event is the test, the one before the validation"


class Files:
    """The files of a folder and below it, by their path within it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder.rstrip("/") or "/"
        _, where = open_filesystem(self.folder)
        self.filesystem, infos = find_files(self.folder)
        self.names = [str(info.path)[len(where) :].lstrip("/") for info in infos if info.size]

    def all(self, *endings: str) -> list[str]:
        """List the files whose path ends so, in the order of the endings."""
        return [self.path(name) for ending in endings for name in self.names if f"/{name}".endswith(ending)]

    def one(self, *names: str) -> str | None:
        """Find the only file of the first name that is there.

        Raises
        ------
        UserError
            If several folders have it.
        """
        for name in names:
            found = self.all(f"/{name}")
            if len(found) > 1:
                raise UserError(
                    f"{redact(self.folder)}: several files {name} ({', '.join(found)}); give the folder of one"
                )
            if found:
                return found[0]
        return None

    def path(self, name: str) -> str:
        """Write a file's path as the user wrote the folder's."""
        return f"{self.folder.rstrip('/')}/{name}" if name else self.folder

    def text(self, path: str, size: int = -1) -> bytes:
        """Read the beginning of a file, decompressed."""
        (piece,) = fragments(TableSource(path=path, format="jsonl"), [])
        with open_bytes(self.filesystem, piece.path, path) as raw:
            return bytes(raw.read() if size < 0 else raw.read(size))

    def none(self, wanted: str) -> UserError:
        """Make the error of a folder that lacks what it should hold."""
        there = ", ".join(self.names[:8]) or "nothing"
        more = f" and {len(self.names) - 8} more" if len(self.names) > 8 else ""
        return UserError(f"{redact(self.folder)}: must hold {wanted}; there is {there}{more}")
