"""SIGTERM, and that it came: below Ray it turns into whatever exception Ray's core makes of it."""

from __future__ import annotations

import signal
import threading

_came: list[int] = []


def heed_sigterm() -> None:
    """End by SystemExit on SIGTERM, so that whoever holds something lets it go; only in the main thread."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: object) -> None:
    _came.append(number)
    raise SystemExit(number)


def exit_code(error: BaseException) -> int | None:
    """Tell the exit code of a command that was told to stop and ended by `error`; None: it was not told to.

    >>> exit_code(KeyboardInterrupt()), exit_code(SystemExit(15)), exit_code(ValueError())
    (130, 143, None)
    """
    if _came or (isinstance(error, SystemExit) and error.code == signal.SIGTERM):
        return 128 + signal.SIGTERM
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else None
