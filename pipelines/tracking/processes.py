"""Which process a run belongs to, and whether that one is gone."""

from __future__ import annotations

import re
import socket

import psutil

SECONDS = 2.0  # two readings of when a process began may differ by


def this_process() -> str:
    """Name this process so that no other one has the name: host, number and when it began."""
    me = psutil.Process()
    return f"{socket.gethostname()} {me.pid} {me.create_time():.0f}"


def is_dead(name: str | None) -> bool:
    """Say whether a process that was named so has ended; of another machine's nobody knows.

    >>> is_dead(this_process()), is_dead(None), is_dead("another-host 1 0")
    (False, False, False)
    """
    found = re.fullmatch(r"(\S+) (\d+) (\d+)", name or "")
    if found is None or found[1] != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(found[2]))
        another = abs(process.create_time() - int(found[3])) > SECONDS
        return bool(another or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
