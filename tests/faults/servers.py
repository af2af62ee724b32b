"""What a command talks to, as processes that can be broken: MLflow's server, PostgreSQL under it, and S3."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import psycopg

from tests.cluster.testbed.services import postgres_programs
from tests.faults.commands import REPOSITORY

START_S = 180.0
DATABASE_OWNER = "postgres"
KEY = {"AWS_ACCESS_KEY_ID": "faults", "AWS_SECRET_ACCESS_KEY": "faults-secret", "AWS_DEFAULT_REGION": "eu-west-1",
       "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip


class Server:
    """A process and its children, on a port of 127.0.0.1.

    answers : says whether it can be used.
    """

    def __init__(
        self, command: list[str], environment: Mapping[str, str], log: Path, answers: Callable[[], bool]
    ) -> None:
        self.command, self.environment, self.log, self.answers = command, environment, log, answers
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it can be used."""
        with self.log.open("ab") as said:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=said, stderr=said, start_new_session=True
            )
        until = time.monotonic() + START_S
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, f"{self.command[0]} does not answer"
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        """Send a signal to all of it."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


def mlflow_server(folder: Path, store: str) -> tuple[Server, str]:
    """Make an MLflow server over a store, with artifacts in `folder`; it and its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    program = Path(sys.executable).with_name("mlflow")
    command = [str(program), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    environment = {"MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                   "MLFLOW_DISABLE_TELEMETRY": "true"}  # fmt: skip
    return Server(command, environment, folder / "mlflow.log", lambda: status(f"{address}/health") == 200), address


def postgres(folder: Path) -> tuple[Server, str]:
    """Make a PostgreSQL with an empty database; it and its address for SQLAlchemy."""
    programs = postgres_programs()
    assert programs is not None
    port, data = free_port(), folder / "pg"
    data.mkdir()
    become: list[str] = []
    if os.geteuid() == 0:
        for each in (folder, *folder.parents):  # its account passes through
            if each.stat().st_mode & 0o111 != 0o111 and each != Path("/"):
                each.chmod(each.stat().st_mode | 0o111)
        shutil.chown(data, DATABASE_OWNER, DATABASE_OWNER)
        become = ["setpriv", f"--reuid={DATABASE_OWNER}", f"--regid={DATABASE_OWNER}", "--init-groups"]
    made = [*become, str(programs / "initdb"), "-D", str(data / "db"), "-U", DATABASE_OWNER, "-A", "trust", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, cwd="/")
    command = [*become, str(programs / "postgres"), "-D", str(data / "db"), "--listen_addresses=127.0.0.1",
               f"--port={port}", "--unix_socket_directories="]  # fmt: skip
    place = f"//{DATABASE_OWNER}@127.0.0.1:{port}/postgres"
    server = Server(command, {}, folder / "postgres.log", lambda: _connects(f"postgresql:{place}"))
    return server, f"postgresql+psycopg:{place}"


def s3(folder: Path) -> tuple[Server, dict[str, str]]:
    """Make an S3 server that keeps all in its memory; it and the environment of its clients."""
    port = free_port()
    command = [sys.executable, str(REPOSITORY / "tests" / "signed_s3.py"), "127.0.0.1", str(port)]
    environment = KEY | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    return Server(command, KEY, folder / "s3.log", lambda: _listens(port)), environment


RELAY = """
import asyncio, sys
async def pump(source, sink):
    try:
        while data := await source.read(2**16):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()
async def serve(reader, writer):
    there, here = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(pump(reader, here), pump(there, writer))
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""


def relay(folder: Path, target: int) -> tuple[Server, int]:
    """Make a port that leads to another one; it and its number. Killed, it refuses connections, and loses no data."""
    port = free_port()
    command = [sys.executable, "-c", RELAY, str(port), str(target)]
    return Server(command, {}, folder / "relay.log", lambda: _listens(port)), port


def free_port() -> int:
    """Find a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _connects(uri: str) -> bool:
    with suppress(psycopg.OperationalError):  # nobody there, or still starting
        psycopg.connect(uri, connect_timeout=2).close()
        return True
    return False


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return True
    return False


def status(url: str) -> int:
    """Return the status of a page; 0 where nobody answers."""
    with suppress(OSError), build_opener(ProxyHandler({})).open(url, timeout=5) as answer:
        return int(answer.status)
    return 0
