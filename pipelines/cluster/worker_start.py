"""What Ray's node runs in place of its own setup_worker.py: have the worker forked, or become it.

Ray's own script imports all of Ray to set an environment, in an interpreter of its own before the worker's: half a
second of a core for each worker. This one is run as a script and imports the standard library alone. Where there is
a template (pipelines.cluster.template) it asks that for the worker and stands for it from then on: what Ray does to
this process happens to the worker, and the other way round. Whatever it cannot do (another language, a container,
another Python) it leaves to Ray's.
"""

from __future__ import annotations

import array
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

ORIGINAL = "MIND_SETUP_WORKER"  # environment: the path of Ray's own script
LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
TEMPLATE = "MIND_WORKER_TEMPLATE"  # environment: the socket of a template
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PLAIN = {"env_vars", "py_executable"}  # of a runtime environment: what is understood here


def command(arguments: list[str], environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Find what to execute: the worker itself in its environment, or Ray's own script.

    Examples
    --------
    >>> context = '{"env_vars": {"A": "1"}, "py_executable": "%s"}' % sys.executable
    >>> asked = ["worker.py", "-x", "--language=PYTHON", "--serialized-runtime-env-context", context]
    >>> words, changed = command(asked, {})
    >>> words[1:], changed
    (['worker.py', '-x'], {'A': '1'})
    """
    rest, told = [], {"--serialized-runtime-env-context": "{}", "--language": ""}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in told:
            told[name] = value if equals else next(words, "")
        else:
            rest.append(word)
    context = json.loads(told["--serialized-runtime-env-context"] or "{}")
    wanted = {name: value for name, value in context.items() if value}
    variables = wanted.get("env_vars", {})
    plain = set(wanted) <= PLAIN and wanted.get("py_executable", sys.executable) == sys.executable
    if not plain or told["--language"] != "PYTHON" or any("$" in value for value in variables.values()):
        return [sys.executable, environment[ORIGINAL], *arguments], environment
    return [sys.executable, *rest], {**environment, **variables}


def ask(
    place: str,
    words: list[str],
    environment: dict[str, str],
    *,
    command: bool = False,
    blocked: Iterable[int] | None = None,
    files: Sequence[int] = (0, 1, 2),
    seconds: float | None = None,
) -> tuple[socket.socket, int] | None:
    """Have a worker forked: the connection that says how it ends, and its process number; None: nobody answers.

    Parameters
    ----------
    command : it is no worker of Ray's, but a command of the user's.
    blocked : signals that are blocked in it; None: those of this process.
    files : its standard input, output and error.  seconds : to wait for an answer; None: for ever.
    """
    if blocked is None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        asked = {
            "words": words,
            "command": command,
            "environment": environment,
            "folder": os.getcwd(),
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
            "cores": sorted(os.sched_getaffinity(0)),
            "umask": _umask(),
            "blocked": list(map(int, blocked)),
            "ignored": [int(each) for each in PASSED_ON if signal.getsignal(each) is signal.SIG_IGN],
            "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
        }
        body = json.dumps(asked).encode()
        template = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        template.settimeout(seconds)
        template.connect(place)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
        template.sendmsg([struct.pack("!I", len(body))], rights)
        template.sendall(body)
        number = template.recv(4)
        template.settimeout(None)
    except OSError:
        return None
    return (template, struct.unpack("!i", number)[0]) if len(number) == 4 else None


def _umask() -> int:
    current = os.umask(0o077)  # it can only be read by being set
    os.umask(current)
    return current


def stand_for(
    template: socket.socket,
    worker: int,
    passed_on: Iterable[int] = PASSED_ON,
    unblocked: Iterable[int] | None = None,
) -> int | None:
    """Pass on to the worker what is sent to this process, and return how it has ended; None: its template has gone.

    unblocked : the mask of signals once they can be passed on; None: as it is.
    """
    with suppress(OSError):  # Ray's node has said so of this process: when memory is short, its workers go first
        Path(f"/proc/{worker}/oom_score_adj").write_text(Path("/proc/self/oom_score_adj").read_text())
        Path("/proc/self/oom_score_adj").write_text("0")
    for number in passed_on:
        if signal.getsignal(number) is signal.SIG_IGN:
            continue  # as with nohup: it stays here, and is ignored
        signal.signal(number, lambda received, _: _send(worker, received))
    if unblocked is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    try:
        code = template.recv(4)
    except OSError:
        code = b""
    if len(code) < 4:  # nobody would bury the worker
        _send(worker, signal.SIGKILL)
        return None
    (ended,) = struct.unpack("!i", code)
    return int(ended if ended >= 0 else 128 - ended)


def _send(worker: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(worker, number)


def main() -> None:
    """Start the worker that the words of this process ask for."""
    words, environment = command(sys.argv[1:], dict(os.environ))
    place = environment.pop(TEMPLATE, None)
    plain = not words[1].startswith("-") and words[1] != environment.get(ORIGINAL)  # an option is for an interpreter
    if place is not None and plain:
        forked = ask(place, words[1:], environment)
        if forked is not None:
            code = stand_for(*forked)
            os._exit(1 if code is None else code)
    os.execve(words[0], words, environment)


if __name__ == "__main__":
    main()
