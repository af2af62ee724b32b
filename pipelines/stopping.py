"""SIGTERM and Ctrl-C, and that they came: below Ray they turn into whatever exception Ray's core makes of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

UNWRITTEN = 120  # exit code, as Python's own
AGAIN_S = 0.1  # until a signal that was swallowed is sent once more

_came: list[int] = []


def heed_sigterm() -> None:
    """End by SystemExit on SIGTERM, so that whoever holds something lets it go; only in the main thread.

    A signal's exception rises wherever the main thread is. Where that is a callback (of the garbage collector, of the
    import system), Python prints it and goes on: it is sent once more then.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
        if not getattr(sys.unraisablehook, "sends_again", False):
            sys.unraisablehook = _sending_again(sys.unraisablehook)


def _end(number: int, _: object) -> None:
    _came.append(number)
    raise SystemExit(number)


def _sending_again(shown: Callable[[Any], object]) -> Callable[[Any], None]:
    def hook(unraisable: Any) -> None:
        error = unraisable.exc_value
        code = exit_code(error) if isinstance(error, SystemExit | KeyboardInterrupt) else None
        if code is None:
            shown(unraisable)
            return
        again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), code - 128))
        again.daemon = True
        again.start()

    hook.sends_again = True  # type: ignore[attr-defined]
    return hook


def exit_code(error: BaseException) -> int | None:
    """Tell the exit code of a command that was told to stop and ended by `error`; None: it was not told to.

    >>> exit_code(KeyboardInterrupt()), exit_code(SystemExit(15)), exit_code(ValueError())
    (130, 143, None)
    """
    if _came or (isinstance(error, SystemExit) and error.code == signal.SIGTERM):
        return 128 + signal.SIGTERM
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def end_at_once(code: int) -> NoReturn:
    """End the process at once, with all that was said: taking apart what is left takes Python 1.3 s.

    Output that cannot be written is an error; a reader that has gone (`| head`) is told of by the exit code alone.
    """
    try:
        with suppress(ValueError, AttributeError):  # it is closed, or was at the start
            sys.stdout.flush()
    except OSError as error:
        code = code or UNWRITTEN
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.write(f"mind: error: the output cannot be written ({error.strerror})\n")
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os._exit(code)
