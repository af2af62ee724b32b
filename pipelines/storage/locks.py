"""A lock on a file name that vanishes with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from pipelines.config.home_location import origin
from pipelines.errors import UserError
from pipelines.progress import console
from pipelines.storage.lease import leased


@contextmanager
def exclusive(file: Path, busy: str) -> Iterator[None]:
    """Hold `file`, made if needed and removed afterwards, until the block ends.

    Notes
    -----
    An flock. On NFS Linux turns it into a lock of the server, so that it holds between machines too, unless the share
    is mounted with ``nolock`` or ``local_lock``; where a file system has no locks, a line on the console says so. In a
    home at a URI, a lease as well (pipelines.storage.lease).

    Raises
    ------
    UserError
        `busy`, if another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with file.open("w") as held:  # for writing: NFS locks nothing else exclusively
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(busy) from None
            except OSError as error:
                console.print(f"{file}: cannot be locked ({error.strerror}): see to it that nobody else works there")
            if not _same(held.fileno(), file):  # its last holder removed it between the two lines above
                continue
            try:
                with nullcontext() if origin(file) is None else leased(file, busy):
                    yield
            finally:
                with suppress(FileNotFoundError):
                    file.unlink()
            return


def _same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
