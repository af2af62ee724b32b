"""Who works on a thing in an object store, which has no locks: who wants it writes a claim and looks for others'.

A store shows an object once its upload is complete, to all who list after that (S3, GCS and MinIO promise it). Of two
who claim at once, the one whose upload ends last sees the other's claim and steps back, however slow an upload is: no
time has to pass. If both see each other both step back, and try again. Nobody compares clocks: who finds a claim
watches whether it changes. If it does not, who made it is dead.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import UserError
from pipelines.progress import console
from pipelines.storage.home_files import names, push, remove, renew

BEAT_S = 5.0
DEAD_S = 20.0  # without a beat
BACK_S = 2.0  # at most, before those who stepped back try again
CLAIM = ".lease-"


@contextmanager
def leased(file: Path, busy: str) -> Iterator[None]:
    """Hold the lease of a mirrored `file`, by an object beside it, until the block ends.

    Should the holder be cut off for so long that another takes over, it is interrupted as by Ctrl-C.

    Raises
    ------
    UserError
        `busy`, if another process holds it.
    """
    mine = file.with_name(f"{file.name}{CLAIM}{uuid.uuid4().hex}")
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(mine, ended), daemon=True)
    try:
        _claim(mine, busy)
        beating.start()
        yield
    finally:
        ended.set()
        if beating.ident is not None:
            beating.join()
        remove(mine)


def _claim(mine: Path, busy: str) -> None:
    while True:
        for other in _claims(mine):
            _require_dead(other, busy)
        _write(mine, 0)
        if _claims(mine) == {mine}:
            return
        remove(mine)
        time.sleep(random.uniform(0, BACK_S))


def _require_dead(claim: Path, busy: str) -> None:
    """Watch until a claim is given back or has not changed for too long."""
    console.print(f"Waiting up to {DEAD_S:.0f} s: does the last to work here still live?")
    until, seen = time.monotonic() + DEAD_S, _read(claim)
    while time.monotonic() < until:
        now = _read(claim)
        if now is None:
            return
        if now != seen:
            raise UserError(busy)
        time.sleep(BEAT_S / 5)
    remove(claim)


def _beat(mine: Path, ended: threading.Event) -> None:
    beats, beside = 0, set[Path]()
    while not ended.wait(BEAT_S):
        beats += 1
        try:
            there = _claims(mine)
            # a claim that stands beside this one is of one who steps back at once, or who took this one for dead
            if mine not in there or there & beside:
                console.print(f"{mine.name.partition(CLAIM)[0]}: another process took over while this one was cut off")
                os.kill(os.getpid(), signal.SIGINT)
                return
            beside = there - {mine}
            if not ended.is_set():
                _write(mine, beats)
        except UserError:  # the store does not answer: the next beat tries again
            continue


def _claims(mine: Path) -> set[Path]:
    """List the claims to what `mine` is a claim to, itself among them if it is there."""
    head = mine.name.partition(CLAIM)[0] + CLAIM
    return {mine.with_name(name) for name in names(mine.parent) if name.startswith(head)}


def _read(claim: Path) -> str | None:
    renew(claim)
    return claim.read_text("utf-8") if claim.is_file() else None


def _write(claim: Path, beats: int) -> None:
    claim.parent.mkdir(parents=True, exist_ok=True)
    claim.write_text(str(beats), "utf-8")
    push(claim)
