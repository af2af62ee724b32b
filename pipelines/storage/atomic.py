"""A file that is there whole or not at all, whoever is killed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.storage.home_files import push

TORN = "*.writing-*"  # names of files whose writer was killed


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a name to write to; what was written takes the place of `path` when the block ends without an exception.

    The name is nobody else's: two processes on two nodes may well have the same number. A link to the file that had the
    name `path` keeps its own content. Of a home at a URI, the file is there too when the block has ended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)  # another node may have made it
    aside = path.with_name(f"{path.name}.writing-{uuid.uuid4().hex[:12]}")
    try:
        yield aside
        aside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a write that is refused says no name
        raise
    push(path)
