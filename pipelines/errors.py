"""What is told in a single line, with exit code 2 and no traceback: a user's mistake, and what a machine ran out of."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator


class UserError(Exception):
    """A mistake of the user's (file, column, key, value) with the way out in its text."""

    def _render_traceback_(self) -> list[str]:
        """Be one line in a notebook too: IPython shows this in place of a traceback."""
        return [f"mind: error: {self}"]


CALMER = "lower optim.learning_rate or optim.table_learning_rate, or set optim.warmup_steps"  # of a diverging training


class DivergedError(UserError):
    """A training whose loss or weights are no longer finite: nothing can be learned from there on."""


AGAIN = "run the same command again (a campaign: mind tune --resume NAME): it goes on where it stopped"
FREE = f"free some, or take a home on another disk (--home, MIND_HOME), then {AGAIN}"
ALLOW = "make it writable, or take another home (--home, MIND_HOME)"
DISK = {  # what was refused, how libraries that keep no errno say it, and the way out
    errno.ENOSPC: ("no space is left on the disk", r"No space left on device|\b(os )?error 28\b|disk is full", FREE),
    errno.EDQUOT: ("the disk quota is used up", r"Disk quota exceeded|\(os error 122\)", FREE),
    errno.EROFS: ("the file system is read-only", r"Read-only file system|\(os error 30\)|readonly database", ALLOW),
    errno.EACCES: ("this user may not write or read it", r"\(os error 13\)", ALLOW),
    errno.EPERM: ("this user may not write or read it", r"\(os error 1\)", ALLOW),
    errno.EMFILE: ("too many files are open", r"Too many open files", "raise the limit: ulimit -n 65536"),
}
OUT_OF_MEMORY = re.compile(
    r"low on memory|\bOOM\b|out of memory|memory pressure|can't allocate memory|Unable to allocate", re.IGNORECASE
)
LESS = (
    "less: train.workers, train.batch_size, model.max_history or model.dim lower, train.input: stream; of a campaign, "
    "resources.concurrent lower"
)


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says; the name of its type if it says nothing.

    >>> first_line(ValueError(" no such  column\\n  at 0x7f")), first_line(KeyboardInterrupt())
    ('no such column', 'KeyboardInterrupt')
    """
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())


def user_error(error: BaseException | None) -> UserError | None:
    """Find the UserError that `error` is or, raised in a Ray worker, carries as its cause."""
    for each in _chain(error):
        # Ray's own wrapper is an instance of UserError as well, but its text is the whole remote traceback.
        if isinstance(each, UserError) and not isinstance(getattr(each, "cause", None), BaseException):
            return each
    return None


def machine_error(error: BaseException | None, about: str | None = None) -> UserError | None:
    """Tell in one line what disk or memory refused, if that is what lies under `error`; `about`: the path, if known."""
    for each in _chain(error):
        if (found := _disk_error(each, about) or _memory_error(each)) is not None:
            return found
    return None


def disk_error(error: BaseException | None) -> UserError | None:
    """Tell in one line what a disk refused, if that lies under `error`: no fault of what was being done."""
    return next((found for each in _chain(error) if (found := _disk_error(each, None)) is not None), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what it came from, in other processes too, the outermost first."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [getattr(each, "cause", None), each.__cause__, getattr(each, "controller_failure", None)]
        failures = getattr(each, "worker_failures", None)  # of Ray Train, by rank
        waiting += list(failures.values()) if isinstance(failures, dict) else []


def _disk_error(error: BaseException, about: str | None) -> UserError | None:
    text = str(error)
    for number, (what, said, way_out) in DISK.items():
        is_it = isinstance(error, OSError) and error.errno == number
        if number in (errno.EACCES, errno.EPERM) and is_it:
            is_it = getattr(error, "filename", None) is not None  # else of a socket, or a signal
        if is_it or re.search(said, text):
            return UserError(f"{about or _path_in(error)}: {what}; {way_out}")
    return None


def _path_in(error: BaseException) -> str:
    """Find the path that an error of a disk is about."""
    name = getattr(error, "filename", None)
    if isinstance(name, str | bytes):
        return name.decode(errors="replace") if isinstance(name, bytes) else name
    found = re.findall(r"['\"](/[^'\"\n]+)['\"]|(?<![\w/])(/[^\s'\":,;()]+)", str(error))
    paths = [quoted or plain for quoted, plain in found]
    # a text with the trace of another process names its code too, and one that was cut ends in dots
    return next((path for path in paths if not path.endswith((".py", "..."))), "a file")


def _memory_error(error: BaseException) -> UserError | None:
    text = str(error)
    of_ray = type(error).__name__ in ("OutOfMemoryError", "ActorDiedError", "RayActorError", "WorkerCrashedError")
    if not isinstance(error, MemoryError) and not (
        (of_ray or isinstance(error, RuntimeError | OSError)) and OUT_OF_MEMORY.search(text)
    ):
        return None
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        return None
    node = re.search(r"was ([\d.]+) ?GB used / ([\d.]+) ?GB limit", text) or re.search(
        r"was ([\d.]+)GB / ([\d.]+)GB", text
    )
    used = re.search(r"memory used=([\d.]+) ?GB", text)
    who = re.search(r"(?:class_name: |actor name=|task name=|name=)([\w.:<>]+)", text)
    asked = re.search(r"allocate ([\d.]+ (?:[KMGTP]i?B|bytes))|tried to allocate ([\d.]+ \w+)", text)
    if node is not None:
        told = f"{node[1]} of {node[2]} GB were in use" + (f", {used[1]} GB by it" if used else "")
        what = f"Ray ended {who[1] if who else 'a worker'} as memory ran out ({told})"
    elif of_ray and type(error).__name__ != "OutOfMemoryError":
        what = f"{who[1] if who else 'a worker'} died, perhaps for memory"
    else:
        what = "memory ran out" + (f" ({asked[1] or asked[2]} were asked for)" if asked else "")
    return UserError(f"{what}; ask for {LESS}; then {AGAIN}")
