"""Workers are forked from a process that has imported what they need, and live and die as if Ray had started them."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest import mock

import psutil
import pytest

from pipelines.cluster import template, worker_start
from pipelines.cluster.template import OF_DATA, OF_RAY, OF_TRAINING, Template
from pipelines.cluster.worker_start import TEMPLATE

WAIT_S = 30.0


@pytest.fixture
def workers() -> Iterator[Template]:
    before = os.environ.get(TEMPLATE)
    started = template.started(["json.tool"])
    yield started
    started.end()
    if before is not None:
        os.environ[TEMPLATE] = before


def start(worker: Path, *words: str, variables: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start what Ray's node would start."""
    context = json.dumps({"env_vars": variables or {}})
    arguments = [str(worker), *words, "--language=PYTHON", f"--serialized-runtime-env-context={context}"]
    command = [sys.executable, worker_start.__file__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy())


def script(folder: Path, body: str) -> Path:
    file = folder / "worker.py"
    file.write_text(f"import os, sys, time\n{body}\n")
    return file


def until(true: object) -> None:
    end = time.monotonic() + WAIT_S
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_worker_is_a_fork_with_its_own_words_environment_and_files(workers: Template, tmp_path: Path) -> None:
    told = "sys.argv[1:], os.environ['A'], os.environ['HOME'], __name__, os.getpgrp() == os.getpid(), os.getppid()"
    worker = script(tmp_path, f"print({told})\nprint('no', file=sys.stderr)\nsys.exit(7)")
    started = start(worker, "-x", variables={"A": "b c"})
    out, error = started.communicate(timeout=WAIT_S)
    assert out == f"['-x'] b c {os.environ['HOME']} __main__ True {workers.process.pid}\n"
    assert (error, started.returncode) == ("no\n", 7)


def test_a_worker_has_what_has_been_imported(workers: Template, tmp_path: Path) -> None:
    worker = script(tmp_path, "print('json.tool' in sys.modules, 'ray' in sys.modules)")
    until(lambda: start(worker).communicate(timeout=WAIT_S)[0] == "True False\n")


def test_a_worker_is_what_an_interpreter_of_its_own_would_be(
    workers: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["resource.getrlimit(resource.RLIMIT_NOFILE)", "os.getcwd()", "os.nice(0)", "sys.argv", "__name__",
            "open('/proc/self/oom_score_adj').read()", "[m for m in sys.modules if m.startswith('pipelines')]",
            "sorted(os.environ)", "sys.path[0]", "os.umask(0)", "os.sched_getaffinity(0)"]  # fmt: skip
    worker = script(
        tmp_path, f"import atexit, resource\natexit.register(print, 'last')\ntime.sleep(0.3)\nprint({', '.join(told)})"
    )
    monkeypatch.chdir(tmp_path)
    before, cores = resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
        mask = os.umask(0o027)
        os.sched_setaffinity(0, [min(cores)])
        forked = start(worker, "a").communicate(timeout=WAIT_S)
        monkeypatch.delenv(TEMPLATE)
        assert forked == start(worker, "a").communicate(timeout=WAIT_S)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.umask(mask)
        os.sched_setaffinity(0, cores)


def test_the_worker_goes_first_when_memory_is_short(workers: Template, tmp_path: Path) -> None:
    started, worker = running(tmp_path, adjust=700)
    said = [Path(f"/proc/{pid}/oom_score_adj") for pid in (worker.pid, started.pid)]
    until(lambda: said[0].read_text().strip() == "700")
    until(lambda: said[1].read_text().strip() == "0")
    started.kill()


def test_options_for_an_interpreter_and_folders_that_are_gone_are_left_to_one(
    workers: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = script(tmp_path, "print(os.getpid(), sys.flags.no_user_site)")
    with_option = start(Path("-s"), str(worker))
    assert with_option.communicate(timeout=WAIT_S)[0] == f"{with_option.pid} 1\n"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    started = start(worker)
    assert started.communicate(timeout=WAIT_S)[0].split()[0] == str(started.pid)


def test_a_machine_that_forks_no_more_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda *_, **__: -1)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(template.selectors, "DefaultSelector", lambda: mock.Mock())
    server = template.Server(listening)
    monkeypatch.setattr(os, "fork", mock.Mock(side_effect=BlockingIOError(11, "no more processes")))
    monkeypatch.setattr(template, "received", lambda _: template.Request([], {}, "", 0, [], {}, []))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        asker.connect(str(tmp_path / "s"))
        server._fork()
        assert asker.recv(4) == b""
    assert server.workers == {}
    listening.close()


def test_many_at_once_are_told_apart(workers: Template, tmp_path: Path) -> None:
    worker = script(tmp_path, "time.sleep(0.1)\nprint(sys.argv[1])\nsys.exit(int(sys.argv[1]))")
    started = [start(worker, str(number)) for number in range(8)]
    ends = [(each.communicate(timeout=WAIT_S)[0], each.returncode) for each in started]
    assert ends == [(f"{number}\n", number) for number in range(8)]


def test_a_crash_says_what_it_was(workers: Template, tmp_path: Path) -> None:
    started = start(script(tmp_path, "raise RuntimeError('so it is')"))
    _, error = started.communicate(timeout=WAIT_S)
    assert "RuntimeError: so it is" in error
    assert started.returncode == 1
    killed = start(script(tmp_path, "os.kill(os.getpid(), 9)"))
    killed.communicate(timeout=WAIT_S)
    assert killed.returncode == 128 + signal.SIGKILL


def running(folder: Path, adjust: int | None = None) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A worker that waits, as what stands for it and as itself."""
    mark = folder / "pid"
    body = "\n".join(("import signal", "def stop(*_): sys.exit(3)", "signal.signal(signal.SIGTERM, stop)",
                      f"open({str(mark)!r}, 'w').write(str(os.getpid()))", "time.sleep(60)"))  # fmt: skip
    started = start(script(folder, body))
    if adjust is not None:  # as Ray's node does, as soon as the process is there
        Path(f"/proc/{started.pid}/oom_score_adj").write_text(str(adjust))
    until(lambda: mark.exists() and mark.read_text())
    return started, psutil.Process(int(mark.read_text()))


def test_what_is_sent_to_the_stand_in_reaches_the_worker(workers: Template, tmp_path: Path) -> None:
    started, worker = running(tmp_path)
    started.terminate()
    assert started.wait(WAIT_S) == 3, "as the worker has answered the signal"
    assert not worker.is_running()


@pytest.mark.parametrize("whom", ["stand-in", "template"])
def test_nothing_is_left_of_a_worker_whose_stand_in_or_template_is_killed(
    whom: str, workers: Template, tmp_path: Path
) -> None:
    started, worker = running(tmp_path)
    (started if whom == "stand-in" else workers.process).kill()
    started.wait(WAIT_S)
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_without_an_answer_a_worker_starts_by_itself(workers: Template, tmp_path: Path) -> None:
    workers.process.kill()
    workers.process.wait()
    started = start(script(tmp_path, "print(os.getpid())"))
    out, _ = started.communicate(timeout=WAIT_S)
    assert int(out) == started.pid


@pytest.mark.parametrize("sent", [b"", b"\0\0", struct.pack("!I", 2**31), struct.pack("!I", 5) + b"no{}s", b"GET /"])
def test_a_request_that_is_none_is_not_answered_and_the_next_one_is(
    sent: bytes, workers: Template, tmp_path: Path
) -> None:
    place = str(workers.folder / template.SOCKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        asker.connect(place)
        asker.sendall(sent)
        asker.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert asker.recv(4) == b""
    out, _ = start(script(tmp_path, "print('next')")).communicate(timeout=WAIT_S)
    assert out == "next\n"
    assert workers.process.poll() is None


def test_it_ends_with_its_owner_and_leaves_nothing(workers: Template) -> None:
    assert oct(workers.folder.stat().st_mode & 0o777) == "0o700"
    workers.end()
    assert workers.process.returncode == 0
    assert not workers.folder.exists()
    assert TEMPLATE not in os.environ


def test_neither_ray_nor_ours_is_imported_before_a_fork() -> None:
    names = [name for name in (*OF_RAY, *OF_TRAINING, *OF_DATA) if name != "colorama"]  # MkDocs brings it, `make docs`
    check = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\n"
    check += "print(sorted({n.split('.')[0] for n in sys.modules} & {'ray', 'pipelines', 'mind_core', 'mlflow'}))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", "and all of them are installed"
