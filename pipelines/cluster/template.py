"""A process that has imported what Ray's workers import, and becomes a worker by forking: in the time of a fork.

    owner     `started` starts it beside a Ray of this machine, `Template.end` ends it; if the owner dies it ends itself
    worker_start    what Ray's node runs for a worker: hands words, environment and files over here, waits for the
                    worker's exit code, passes signals on
    hand_over       a command of the user's, which does the same, where the Ray of `mind up` stays

A worker that begins with an interpreter of its own imports torch, Arrow, pandas and what Ray needs: 1 to 2 seconds of a
core, for each of the four processes of a small training. Nothing of Ray is imported here, which reads a worker's
environment when it is imported, and nothing of this product goes on into a worker: a Ray that stays sees the code as
it is.
Whoever asks while an import goes on waits for that one, and has what has been imported by then. Without an answer
`worker_start` starts the worker by itself.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import io
import json
import os
import resource
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cluster.worker_start import TEMPLATE

# what Ray itself imports in every worker; not Ray, whose core reads a worker's environment when it is imported
OF_RAY = (
    *("numpy", "yaml", "msgpack", "psutil", "jsonschema", "requests", "click", "packaging.version", "filelock", "tqdm"),
    *("google.protobuf.message", "google.protobuf.json_format", "grpc", "grpc.aio", "aiohttp", "pydantic", "uvloop"),
    *("colorama", "wcwidth", "rich.console", "rich.table", "sqlite3"),
)
OF_DATA = ("pyarrow", "pyarrow.compute", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.fs", "fsspec", "pandas")
OF_TRAINING = (
    *("torch", "torch.export", "torch.distributed", "torch.utils.data", *OF_DATA, "safetensors.torch"),
    "torch._dynamo",  # a second: every optimiser imports it
)
HARMLESS_THREADS = {"jemalloc_bg_thd"}  # jemalloc itself sees to forks
OF_COMMANDS = (  # of the user, and not in a worker
    *("typer", "rich.progress", "jinja2", "scipy.sparse", "mlflow", "mlflow.store.tracking.sqlalchemy_store"),
    *("mlflow.tracking", "matplotlib.figure", "threadpoolctl"),
)
# MLflow imports them if they are there, to know their frames too: some start threads, and a process with threads does
# not fork
KEPT_OUT = ("polars", "tensorflow", "pyspark", "datasets")
SOCKET = "socket"
REQUEST_S = 5.0  # for a request to arrive in whole
LARGEST_REQUEST = 2**24


@dataclass(frozen=True)
class Template:
    """The process and the folder of its socket."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def place(self) -> str:
        """Where it is asked."""
        return str(self.folder / SOCKET)

    def end(self) -> None:
        """End it; workers that it has forked end with their Ray."""
        if os.environ.get(TEMPLATE) == self.place:
            del os.environ[TEMPLATE]
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def started(modules: Sequence[str]) -> Template:
    """Start the process; what Ray's node starts from here on in this environment asks it."""
    folder = Path(tempfile.mkdtemp(prefix="mind-workers-", dir="/tmp"))  # short, and ours alone
    place = str(folder / SOCKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:  # from now on: who asks early waits
        listening.bind(place)
        listening.listen(64)
        process = _process(listening, modules)
    os.environ[TEMPLATE] = place
    return Template(process, folder)


def _process(listening: socket.socket, modules: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(listening.fileno()), *modules],
        pass_fds=[listening.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the command, which ends its Ray
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
    )


@dataclass(frozen=True)
class Request:
    """What is asked for: the words of a worker, or of a command of the user's, and how its process is to look."""

    words: list[str]
    command: bool
    environment: dict[str, str]
    folder: str
    niceness: int
    cores: list[int]
    umask: int
    blocked: list[int]
    ignored: list[int]
    limits: dict[str, tuple[int, int]]
    files: list[int]


class Server:
    """Forks a worker for each request, and tells the asker its number, then its exit code."""

    def __init__(self, listening: socket.socket):
        self.listening = listening
        self.folder = Path(listening.getsockname()).parent
        self.events = selectors.DefaultSelector()
        self.events.register(self.listening, selectors.EVENT_READ)
        self.events.register(0, selectors.EVENT_READ)  # the owner holds the other end
        self.asleep, awake = os.pipe()
        os.set_blocking(awake, False)
        self.events.register(self.asleep, selectors.EVENT_READ)
        signal.set_wakeup_fd(awake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.workers: dict[int, socket.socket] = {}

    def serve(self, wait: float | None) -> None:
        """Answer what has been asked; wait for that so long, None: for ever."""
        while ready := self.events.select(wait):
            for key, _ in ready:
                if key.fileobj is self.listening:
                    self._fork()
                elif key.fileobj == 0:
                    shutil.rmtree(self.folder, ignore_errors=True)
                    os._exit(0)
                elif key.fileobj == self.asleep:
                    os.read(self.asleep, 4096)
                    self._bury()
                elif self.workers.get(key.data) is key.fileobj:  # the asker has gone: Ray has killed what it knows
                    self._kill(key.data)

    def _fork(self) -> None:
        try:
            asker, _ = self.listening.accept()
        except OSError:
            return
        asker.settimeout(REQUEST_S)
        try:
            asked = received(asker)
        except Exception:  # whatever it is, it is no worker of ours; one would start by itself
            asker.close()
            return
        try:
            worker = os.fork() if only_thread() else -1
        except OSError:  # too many processes, too little memory: of this worker, not of those that run
            worker = -1
        if worker == 0:
            self.events.close()
            signal.set_wakeup_fd(-1)
            for held in (self.listening, asker, *self.workers.values()):
                held.close()
            become(asked)
        for file in asked.files:
            os.close(file)
        if worker < 0:
            asker.close()
            return
        asker.setblocking(False)
        self.workers[worker] = asker
        self.events.register(asker, selectors.EVENT_READ, worker)
        with suppress(OSError):
            asker.send(struct.pack("!i", worker))

    def _bury(self) -> None:
        while self.workers:
            try:
                worker, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if worker == 0:
                return
            asker = self.workers.pop(worker, None)
            if asker is not None:
                with suppress(OSError):
                    asker.send(struct.pack("!i", os.waitstatus_to_exitcode(status)))
                self.events.unregister(asker)
                asker.close()

    def _kill(self, worker: int) -> None:
        asker = self.workers.pop(worker)
        self.events.unregister(asker)
        asker.close()
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def only_thread() -> bool:
    """Say whether no thread would be lost in a fork."""
    tasks = Path("/proc/self/task")
    names = set()
    for task in tasks.iterdir():
        with suppress(OSError):  # it has ended meanwhile
            names |= {(task / "comm").read_text().strip()} if int(task.name) != os.getpid() else set()
    return names <= HARMLESS_THREADS


def received(asker: socket.socket) -> Request:
    """Read a request: 4 bytes of its length with three open files, then JSON."""
    with_files, size = array.array("i"), socket.CMSG_LEN(3 * 4)
    head, ancillary, _, _ = asker.recvmsg(4, size)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            with_files.frombytes(data[: len(data) - len(data) % 4])
    try:
        (length,) = struct.unpack("!I", head)
        if length > LARGEST_REQUEST or len(with_files) != 3:
            raise ValueError(f"a request of {length} bytes with {len(with_files)} files")
        body = b""
        while len(body) < length:
            more = asker.recv(length - len(body))
            if not more:
                raise EOFError
            body += more
        asked = json.loads(body)
        asked["limits"] = {name: (int(soft), int(hard)) for name, (soft, hard) in asked["limits"].items()}
        return Request(**asked, files=list(with_files))
    except BaseException:
        for file in with_files:
            os.close(file)
        raise


def become(asked: Request) -> None:
    """Run a worker or a command in this process, which is a fork; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)  # Ray's node ends a worker's whole group after it
        for number, file in enumerate(asked.files):
            os.dup2(file, number)
            os.close(file)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, asked.blocked)
        for name, limit in asked.limits.items():
            with suppress(OSError, ValueError):
                resource.setrlimit(getattr(resource, name), limit)
        for number in asked.ignored:
            signal.signal(number, signal.SIG_IGN)
        with suppress(OSError):  # only root goes below the niceness of `mind up`
            os.setpriority(os.PRIO_PROCESS, 0, asked.niceness)
        with suppress(OSError):  # a core that is not there any more
            os.sched_setaffinity(0, asked.cores)
        os.umask(asked.umask)
        os.chdir(asked.folder)
        os.environ.clear()
        os.environ.update(asked.environment)
        _catch_up(asked)
        for ours in [name for name in sys.modules if name.partition(".")[0] == "pipelines"]:
            del sys.modules[ours]  # the product is found as the environment says
        for name in KEPT_OUT:
            del sys.modules[name]
        sys.argv = asked.words
        sys.path[0] = str(Path(asked.words[0]).parent)
        runpy.run_path(asked.words[0], run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        ended: Any = threading
        for last in (ended._shutdown, atexit._run_exitfuncs):
            with suppress(BaseException):
                last()
        if asked.command:
            from pipelines.stopping import end_at_once

            end_at_once(code)
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):
                stream.flush()
        os._exit(code)


def _catch_up(asked: Request) -> None:
    """Do what Python and libraries do at their start, for what was started before the request was known."""
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    torch: Any = sys.modules.get("torch")
    threads = asked.environment.get("OMP_NUM_THREADS", "")
    tempfile.tempdir = None  # it was looked for in another environment
    if asked.command:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=stream is sys.stderr or os.isatty(stream.fileno()))
        if torch is not None:
            torch.set_num_threads(min(torch.get_num_threads(), len(asked.cores)))
        if (controls := sys.modules.get("threadpoolctl")) is not None:  # NumPy's, of which the template has one
            given = asked.environment.get("OPENBLAS_NUM_THREADS", threads)
            controls.threadpool_limits(int(given) if given.isdigit() else len(asked.cores), "blas")
    elif torch is not None:  # Ray gives a worker that nobody has asked for more one thread, when its first task begins
        torch.set_num_threads(int(threads) if threads.isdigit() and int(threads) else 1)


def main() -> None:
    """Import, and serve between two imports and for ever after."""
    server = Server(socket.socket(fileno=int(sys.argv[1])))
    for name in KEPT_OUT:
        sys.modules[name] = None  # type: ignore[assignment]  # an ImportError for who asks
    for module in (*OF_RAY, *sys.argv[2:]):
        with suppress(Exception):  # whoever needs it says so
            importlib.import_module(module)
        server.serve(0)
    gc.collect()
    gc.freeze()  # a collection in a worker touches, and so copies, nothing of this
    while True:
        server.serve(None)


if __name__ == "__main__":
    main()
