"""Who works on a thing in an object store, which has no locks: an object that its holder writes anew every few seconds.

Nobody compares clocks: who finds the object watches whether it changes. If it does not, its holder is dead.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import UserError
from pipelines.progress import console
from pipelines.storage.home_files import push, remove, renew

BEAT_S = 5.0
DEAD_S = 20.0  # without a beat
SETTLE_S = 1.0  # for two who claim at once: the one whose object is there after that long has it


@contextmanager
def leased(file: Path, busy: str) -> Iterator[None]:
    """Hold the lease at a mirrored `file`, which gets ``.lease`` appended, until the block ends.

    Should the holder be cut off for so long that another takes over, it is interrupted as by Ctrl-C.

    Raises
    ------
    UserError
        `busy`, if another process holds it.
    """
    file = file.with_name(f"{file.name}.lease")
    me = uuid.uuid4().hex
    _claim(file, me, busy)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(file, me, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        if _holder(file) == me:
            remove(file)


def _claim(file: Path, me: str, busy: str) -> None:
    while True:
        seen = _read(file)
        if seen is not None:
            _require_dead(file, seen, busy)
        _write(file, me, 0)
        time.sleep(SETTLE_S)
        if _holder(file) == me:
            return


def _require_dead(file: Path, seen: str, busy: str) -> None:
    """Watch until the lease is given back or has not changed for too long."""
    console.print(f"Waiting up to {DEAD_S:.0f} s: does the last to work here still live?")
    until = time.monotonic() + DEAD_S
    while time.monotonic() < until:
        time.sleep(BEAT_S / 5)
        now = _read(file)
        if now is None:
            return
        if now != seen:
            raise UserError(busy)


def _beat(file: Path, me: str, ended: threading.Event) -> None:
    beats = 0
    while not ended.wait(BEAT_S):
        beats += 1
        try:
            if _holder(file) not in (me, None):
                console.print(f"{file.name}: another process has taken over while this one was cut off")
                os.kill(os.getpid(), signal.SIGINT)
                return
            if not ended.is_set():
                _write(file, me, beats)
        except UserError:  # the store does not answer: the next beat tries again
            continue


def _holder(file: Path) -> str | None:
    text = _read(file)
    return None if text is None else text.split()[0]


def _read(file: Path) -> str | None:
    renew(file)
    return file.read_text("utf-8") if file.is_file() else None


def _write(file: Path, me: str, beats: int) -> None:
    file.write_text(f"{me} {beats}", "utf-8")
    push(file)
