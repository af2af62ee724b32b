"""A command of a home with a Ray that stays goes on in a process that has imported everything: a fork of its template.

    the command     loads its configuration, asks the template of `mind up` for a fork with its own words, environment
                    and files, and stands for that process: passes signals on, ends as it ends
    the fork        runs the same command from its start; if the command is killed it is killed too

A command of a small log takes two to three seconds to import PyTorch, Arrow and MLflow, and less to compute.
Imports neither Ray nor anything heavy: who finds no template has lost nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.cluster import worker_start

SCRIPT = "mind"  # only the command itself: not a test or a notebook that calls its functions
HANDED = "MIND_HANDED_OVER"  # environment of a fork, which goes on by itself: when the command began
READ_AT_IMPORT = (  # variables that what is imported already has read, and Python at its start
    *("OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "LD_", "MALLOC_", "ARROW_", "TORCH", "PYTORCH_", "NPY_", "CUDA_"),
    *("MLFLOW_", "PYTHON", "MPL", "SQLALCHEMY", "LANG", "LC_", "TZ", "SSL_"),
)
NOT_COUNTED = ("PYTHONPATH",)  # mind up gives its processes its own; where the code lies counts
ENDED = 143  # exit code, as after SIGTERM
OPEN_FILES = ("/dev/", "/proc/")  # in a word: a file that only this process has open
ANSWER_S = 5.0  # for a fork to be made; then the command goes on by itself
PASSED_ON = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
)


_began: list[float] = []  # of a fork: when the command that stands for it began


def hand_over(home: Path, output: int = 1) -> None:
    """Go on in a fork of the template that stays for a home; returns where there is none that fits.

    output : the file that is the standard output of the command.
    """
    if (began := os.environ.pop(HANDED, None)) is not None:
        with suppress(ValueError):
            _began.append(float(began))
        return
    if Path(sys.argv[0]).name != SCRIPT or any(map(_is_only_here, sys.argv)) or not _all_open((0, output, 2)):
        return
    from pipelines.cluster.standing import record_of, standing_ray

    try:
        if not record_of(home).is_file():
            return
    except OSError:  # of somebody else
        return
    found = standing_ray(home)
    if found is None or found.template is None or found.imported != imported_digest(os.environ):
        return
    _go_on_in(found.template, output)


def handed_over() -> bool:
    """Say whether this process is a fork that stands at the beginning of its command."""
    return HANDED in os.environ


def _is_only_here(word: str) -> bool:
    """Say whether a word names what this process alone has open, or what can be read only once."""
    try:
        mode = os.stat(word).st_mode
    except (OSError, ValueError):
        mode = None
    plain = mode is None or stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return not plain or any(place in word for place in OPEN_FILES)


def _all_open(files: Sequence[int]) -> bool:
    try:
        return all(os.fstat(file) for file in files)
    except OSError:
        return False


def command_began() -> float:
    """Say when the command of this process was started, in seconds of the epoch."""
    import psutil

    return _began[0] if _began else psutil.Process().create_time()


def imported_digest(environment: Mapping[str, str]) -> str:
    """Digest of what must be alike: the user, the Python, the packages, this code's place and some variables.

    >>> imported_digest({"TERM": "x"}) == imported_digest({})
    True
    >>> imported_digest({"OMP_NUM_THREADS": "1"}) == imported_digest({})
    False
    """
    packages = Path(sysconfig.get_path("purelib"))
    read = {name: value for name, value in environment.items() if name.startswith(READ_AT_IMPORT)}
    kept = sorted((name, value) for name, value in read.items() if name not in NOT_COUNTED)
    user = [os.geteuid(), os.getegid(), sorted(os.getgroups())]
    place = [*user, sys.executable, str(packages), packages.stat().st_mtime_ns, str(Path(__file__).parent)]
    return hashlib.sha256(json.dumps([place, kept]).encode()).hexdigest()


def _go_on_in(template: str, output: int) -> None:
    """Have the fork made and stand for it; returns if nobody answers. A signal meanwhile waits until it can be passed.

    A command that is stopped (Ctrl-Z) stops with its fork, which is of no terminal, and goes on with it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*PASSED_ON, signal.SIGTSTP])
    try:
        environment = {**os.environ, HANDED: str(command_began())}
        forked = worker_start.ask(
            template,
            sys.argv,
            environment,
            command=True,
            blocked=before,
            files=(0, output, 2),
            seconds=ANSWER_S,
        )
        if forked is None:
            return
        _, process = forked

        def stop(*_: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

        signal.signal(signal.SIGTSTP, stop)
        code = worker_start.stand_for(*forked, passed_on=PASSED_ON, unblocked=before)
        if code is None:
            sys.stderr.write("mind: the process of mind up has gone, and this command with it; give it again\n")
        os._exit(ENDED if code is None else code)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
