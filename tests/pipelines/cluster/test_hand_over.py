"""A command goes on in a fork of the template that stays, looks like itself from outside, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipelines.cluster import worker_start
from pipelines.cluster.hand_over import HANDED, SCRIPT, hand_over
from pipelines.cluster.standing import Standing, record_of, write_record
from pipelines.cluster.template import OF_COMMANDS, OF_RAY, OF_TRAINING

WAIT_S = 30.0
ROOT = Path(__file__).parents[3]  # not sys.path, which MLflow lengthens by the code of each model that a test loads
BEGIN = """
import os, signal, sys, time
from pathlib import Path
from pipelines.cluster.hand_over import hand_over
hand_over(Path(sys.argv[1]))
"""


KEEP = """
import os, sys
from pathlib import Path
import psutil
from pipelines.cluster import template
from pipelines.cluster.hand_over import imported_digest
from pipelines.cluster.standing import Standing, write_record
workers = template.started(["json.tool"])
began = psutil.Process().create_time()
write_record(Path(sys.argv[1]), Standing(
    host=os.uname().nodename, address="127.0.0.1:1", pid=os.getpid(), began=began, cpus=2, token=None, ray="2.60.0",
    environment="", template=workers.place, imported=imported_digest(os.environ)))
print("kept", flush=True)
sys.stdin.read()
workers.end()
"""


def _has_imported_all(place: str, folder: Path) -> bool:
    script = folder / "ready.py"
    script.write_text("import sys\nsys.exit('json.tool' in sys.modules)")
    asked = worker_start.ask(place, [str(script)], dict(os.environ))
    return asked is not None and struct.unpack("!i", asked[0].recv(4))[0] == 1


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Standing]:
    """A home whose Ray would stay, kept by a process of its own, as by `mind up`, with a template beside it."""
    keeper = start([sys.executable, "-c", KEEP, str(tmp_path)])
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "kept\n"
    found = Standing(**json.loads(record_of(tmp_path).read_text()))
    place = found.template
    assert place is not None
    until(lambda: _has_imported_all(place, tmp_path))  # a busy machine takes longer than a command waits for an answer
    yield found
    keeper.communicate("", timeout=WAIT_S)


def command(home: Path, body: str, name: str = SCRIPT) -> list[str]:
    """Write the script of a command, and say how it is started."""
    file = home / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(BEGIN + body)
    return [sys.executable, str(file), str(home)]


def environment(**more: str) -> dict[str, str]:
    """What the keeper and its commands have alike."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", **more}


def start(words: list[str], **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        **more,  # type: ignore[call-overload]
    )


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_is_the_same_command_in_another_process(standing: Standing, tmp_path: Path) -> None:
    told = f"os.getpid(), sys.argv[1:], sys.stdin.read(), os.getcwd(), {HANDED!r} in os.environ"
    words = command(tmp_path, f"print({told})\nprint('no', file=sys.stderr)\nsys.exit(7)")
    started = start([*words, "--top", "ü 3"], cwd=tmp_path)
    out, error = started.communicate("given", timeout=WAIT_S)
    process, _, rest = out.partition(" ")
    assert int(process) != started.pid
    assert rest == f"{[str(tmp_path), '--top', 'ü 3']} given {tmp_path} False\n"
    assert (error, started.returncode) == ("no\n", 7)


def test_it_has_what_has_been_imported_and_knows_when_the_command_began(standing: Standing, tmp_path: Path) -> None:
    body = "from pipelines.cluster.hand_over import command_began\nprint('json.tool' in sys.modules, command_began())"
    words = command(tmp_path, body)

    def imported() -> bool:
        before = time.time()
        has, began = start(words).communicate(timeout=WAIT_S)[0].split()
        assert abs(float(began) - before) < 1.0, "as the clock's ticks of Linux say"
        return has == "True"

    until(imported)


def by_itself(words: list[str]) -> bool:
    """Say whether a command that prints its process is that process."""
    started = start(words)
    out, error = started.communicate(timeout=WAIT_S)
    assert started.returncode == 0, error
    return out.split()[0] == str(started.pid)


PRINT = "print(os.getpid())"


def test_where_something_does_not_fit_a_command_goes_on_by_itself(
    standing: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command(tmp_path, PRINT)
    assert not by_itself(words)
    assert by_itself(command(tmp_path, PRINT, "another.py")), "a function of it that a script calls"
    assert by_itself([*words, "/dev/fd/3"]), "a file that the fork has not open"
    for changed in (replace(standing, imported="another Python"), replace(standing, template=None)):
        write_record(tmp_path, changed)
        assert by_itself(words)
    write_record(tmp_path, replace(standing, template=str(tmp_path / "none")))
    assert by_itself(words), "nobody answers"
    write_record(tmp_path, standing)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert by_itself(words)
    (tmp_path / "up" / "ray.json").unlink()
    assert by_itself(words)


def test_what_only_the_command_has_open_stays_with_it(standing: Standing, tmp_path: Path) -> None:
    words = command(tmp_path, "Path(sys.argv[1], 'said').write_text(str(os.getpid()))")
    for closed in ("<&-", ">&-", "2>&-"):
        started = start(["bash", "-c", f'exec "$0" "$@" {closed}', *words])
        started.communicate(timeout=WAIT_S)
        assert started.returncode == 0
        assert (tmp_path / "said").read_text() == str(started.pid)
    os.mkfifo(tmp_path / "pipe")
    for only_here in (str(tmp_path / "pipe"), "/dev/stdin"):
        started = start([*words, only_here])
        started.communicate("", timeout=WAIT_S)
        assert (tmp_path / "said").read_text() == str(started.pid)


def test_the_output_may_be_another_file_than_the_first(standing: Standing, tmp_path: Path) -> None:
    """As with --json, where the first one is the standard error meanwhile."""
    begin = "kept = os.dup(1); os.dup2(2, 1)\nhand_over(Path(sys.argv[1]), kept)"
    file = tmp_path / "bin" / SCRIPT
    command(tmp_path, "")
    file.write_text(BEGIN.replace("hand_over(Path(sys.argv[1]))", begin) + "os.write(kept, str(os.getpid()).encode())")
    started = start([sys.executable, str(file), str(tmp_path)])
    out, error = started.communicate(timeout=WAIT_S)
    assert int(out) != started.pid
    assert error == ""


def test_it_has_the_folder_for_temporary_files_and_the_threads_that_its_environment_says(
    standing: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    started = start(command(tmp_path, "import tempfile\nprint(os.getpid(), tempfile.gettempdir())"))
    process, folder = started.communicate(timeout=WAIT_S)[0].split()
    assert (int(process) != started.pid, folder) == (True, str(tmp_path / "other"))


def test_a_template_that_does_not_answer_is_not_waited_for(standing: Standing, tmp_path: Path) -> None:
    told = start(command(tmp_path, "print(os.getpid(), os.getppid())"))
    fork, template_pid = map(int, told.communicate(timeout=WAIT_S)[0].split())
    assert fork != told.pid
    template_process = psutil.Process(template_pid)
    template_process.suspend()
    try:
        started = start(command(tmp_path, "Path(sys.argv[1], 'said').write_text(str(os.getpid()))"))
        assert started.wait(WAIT_S) == 0
        assert (tmp_path / "said").read_text() == str(started.pid)
    finally:
        template_process.resume()


def test_a_test_or_notebook_is_never_handed_over(standing: Standing, tmp_path: Path) -> None:
    hand_over(tmp_path)


SLEEP = """
def said(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(9)
for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(each, said)
try:
    print(os.getpid(), flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("SIGINT", flush=True)
    sys.exit(9)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_reach_it(standing: Standing, tmp_path: Path, number: signal.Signals) -> None:
    started = start(command(tmp_path, SLEEP))
    assert started.stdout is not None
    assert int(started.stdout.readline()) != started.pid
    started.send_signal(number)
    assert started.communicate(timeout=WAIT_S)[0] == f"{number.name}\n"
    assert started.returncode == 9


def test_what_is_ignored_here_does_not_reach_it(standing: Standing, tmp_path: Path) -> None:
    """As with nohup, and Ctrl-C for what a shell script has started in the background."""
    started = start(command(tmp_path, SLEEP), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert started.stdout is not None
    started.stdout.readline()
    started.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert started.poll() is None
    started.terminate()
    assert started.communicate(timeout=WAIT_S)[0] == "SIGTERM\n"


def test_a_command_that_is_killed_takes_its_fork_along_and_the_other_way_round(
    standing: Standing, tmp_path: Path
) -> None:
    words = command(tmp_path, SLEEP)
    for kill_fork in (False, True):
        started = start(words)
        assert started.stdout is not None
        fork = psutil.Process(int(started.stdout.readline()))
        (fork if kill_fork else started).kill()
        assert started.wait(WAIT_S) == (128 + signal.SIGKILL if kill_fork else -signal.SIGKILL)
        until(lambda fork=fork: not fork.is_running())  # type: ignore[misc]
        started.communicate()


def test_mind_down_ends_it_with_a_line(standing: Standing, tmp_path: Path) -> None:
    started = start(command(tmp_path, SLEEP))
    assert started.stdout is not None
    fork = psutil.Process(int(started.stdout.readline()))
    assert fork.pid != started.pid
    fork.parent().kill()  # type: ignore[union-attr]
    said = "mind: the process of mind up has gone, and this command with it; give it again\n"
    assert started.communicate(timeout=WAIT_S) == ("", said)
    assert started.returncode == 143
    until(lambda: not fork.is_running())


def test_a_command_that_is_stopped_stops_its_fork_and_goes_on_with_it(standing: Standing, tmp_path: Path) -> None:
    started = start(command(tmp_path, SLEEP))
    assert started.stdout is not None
    both = [psutil.Process(int(started.stdout.readline())), psutil.Process(started.pid)]
    started.send_signal(signal.SIGTSTP)
    until(lambda: all(each.status() == psutil.STATUS_STOPPED for each in both))
    started.send_signal(signal.SIGCONT)
    until(lambda: all(each.status() == psutil.STATUS_SLEEPING for each in both))
    started.terminate()
    assert started.communicate(timeout=WAIT_S)[0] == "SIGTERM\n"


def test_a_terminal_is_one_for_it_too(standing: Standing, tmp_path: Path) -> None:
    words = command(tmp_path, "print(os.getpid(), sys.stdout.isatty(), os.get_terminal_size().columns, end='\\n')")
    ours, theirs = pty.openpty()
    started = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(COLUMNS=""))
    assert started.wait(WAIT_S) == 0
    process, is_one, columns = os.read(ours, 1000).decode().split()
    assert (int(process) != started.pid, is_one, columns) == (True, "True", "0")
    os.close(ours)
    os.close(theirs)


def test_what_a_template_has_imported_leaves_it_alone_in_its_process() -> None:
    """A process with more threads than its own does not fork."""
    code = "\n".join(
        [
            "import importlib, sys",
            "from pipelines.cluster import template",
            "for name in template.KEPT_OUT: sys.modules[name] = None",
            f"for name in {[*OF_RAY, *OF_TRAINING, *OF_COMMANDS]}: importlib.import_module(name)",
            "assert template.only_thread()",
            "print('ray' in sys.modules)",
        ]
    )
    one_thread = environment(OPENBLAS_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", code], env=one_thread, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
