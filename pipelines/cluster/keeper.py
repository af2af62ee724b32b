"""`mind up` and `mind down`: start the Ray that stays for a home, in a process of its own that keeps it, and end it.

python -m pipelines.cluster.keeper HOME CPUS     the process that keeps it
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from pipelines.cluster.address import cores
from pipelines.cluster.hand_over import imported_digest
from pipelines.cluster.standing import Standing, environment_digest, record_of, standing_ray, write_record
from pipelines.errors import UserError
from pipelines.storage.locks import exclusive

POLL_S = 0.1
LEAVE_S = 20.0  # for a Ray to end by itself


def up(home: Path, cpus: int | None = None) -> tuple[Standing, bool]:
    """Start the Ray that stays, or find it; and whether it was started now.

    Parameters
    ----------
    cpus : None: one for each core, and at least two.

    Raises
    ------
    UserError
        If it does not start, or another `mind up` of this home is at it.
    """
    folder = record_of(home).parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with exclusive(folder / "starting.lock", f"{home}: another mind up is starting Ray; wait for it to end"):
        if (found := standing_ray(home)) is not None:
            return found, False
        log = folder / "ray.log"
        with log.open("wb") as said:
            keeper = subprocess.Popen(
                [sys.executable, "-m", __name__, str(home), str(cpus or max(2, cores()))],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        try:
            while not record_of(home).exists():
                if keeper.poll() is not None:
                    lines = log.read_text("utf-8", "replace").strip().splitlines() or [f"exit code {keeper.returncode}"]
                    raise UserError(f"mind up: Ray does not start: {lines[-1].removeprefix('mind: error: ')} ({log})")
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            keeper.terminate()
            raise
        found = standing_ray(home)
        if found is None:
            raise UserError(f"mind up: Ray has ended again ({log})")
        return found, True


def down(home: Path) -> bool:
    """End the Ray that stays for a home, with whatever uses it; False without one."""
    found = standing_ray(home)
    if found is None:
        return False
    with suppress(psutil.NoSuchProcess):
        keeper = psutil.Process(found.pid)
        processes = [keeper, *keeper.children(recursive=True)]
        keeper.terminate()
        _, left = psutil.wait_procs(processes, timeout=LEAVE_S)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    record_of(home).unlink(missing_ok=True)
    return True


def keep(home: Path, cpus: int) -> None:
    """Start Ray, say where it is, and keep it until SIGTERM."""
    digest, imported = environment_digest(os.environ), imported_digest(os.environ)
    from pipelines.cluster.environment import set_up_local

    set_up_local()
    import ray

    from pipelines.cluster.local_start import start_here
    from pipelines.cluster.template import OF_COMMANDS, OF_TRAINING

    preload = [*OF_TRAINING, *OF_COMMANDS]
    workers = start_here(
        preload, num_cpus=cpus, include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False
    )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    context = ray.get_runtime_context()
    me = psutil.Process()
    standing = Standing(
        host=socket.gethostname(),
        address=context.gcs_address,
        pid=me.pid,
        began=me.create_time(),
        cpus=cpus,
        token=os.environ.get("RAY_AUTH_TOKEN"),
        ray=ray.__version__,
        environment=digest,
        template=workers.place,
        imported=imported,
    )
    write_record(home, standing)
    try:
        while not ended.wait(1.0):
            pass
    finally:
        record_of(home).unlink(missing_ok=True)
        ray.shutdown()
        workers.end()


if __name__ == "__main__":
    try:
        keep(Path(sys.argv[1]), int(sys.argv[2]))
    except UserError as error:
        sys.exit(f"mind: error: {error}")
