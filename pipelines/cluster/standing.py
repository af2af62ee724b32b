"""A Ray on this machine that stays after a command: `mind up` starts it, every command of the home joins it.

<home>/up/ray.json    where it is, as the process that keeps it has written it; readable by its owner alone
<home>/up/ray.lock    held by the command that is using it: a second one at the same time starts a Ray of its own
<home>/up/ray.log     what the keeping process said

Imports no Ray: who finds none here has lost nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

import psutil

from pipelines.errors import UserError
from pipelines.progress import console
from pipelines.storage.locks import exclusive

SECONDS = 2.0  # two readings of when a process began may differ by
PASSED_ON = ("AWS_", "GOOGLE_", "MIND_", "MLFLOW_TRACKING_")  # variables that workers read
OF_THE_COMMAND = ("MIND_HOME", "MIND_SETUP_WORKER", "MIND_WORKER_TEMPLATE")  # but these


@dataclass(frozen=True)
class Standing:
    """A Ray that stays.

    address : of its GCS.  pid, began : the process that keeps it.  cpus : what it was started with.
    token : that it asks for; None: the user's own.
    ray : the version.  environment : digest of the variables that its workers have.
    template : where a process that has imported everything is asked for a fork (pipelines.cluster.hand_over), None:
        nowhere.  imported : digest of what it has imported.
    """

    host: str
    address: str
    pid: int
    began: float
    cpus: int
    token: str | None
    ray: str
    environment: str
    template: str | None = None
    imported: str = ""

    def alive(self) -> bool:
        """Say whether the process that keeps it is there."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.began) < SECONDS
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        return False


def record_of(home: Path) -> Path:
    """Name the file that says where a home's Ray is."""
    return home / "up" / "ray.json"


def standing_ray(home: Path) -> Standing | None:
    """Find the Ray that stays for a home; what is left of one that has gone is removed, and a line says so."""
    file = record_of(home)
    try:
        told = json.loads(file.read_text("utf-8"))
        # another release may say less, or more
        found = Standing(**{each.name: told[each.name] for each in fields(Standing) if each.name in told})
    except (FileNotFoundError, PermissionError):
        return None
    except (OSError, ValueError, TypeError, KeyError):
        console.print(f"{file}: cannot be read; it is put aside (mind up starts a new Ray)", soft_wrap=True)
        file.unlink(missing_ok=True)
        return None
    if found.host != socket.gethostname():
        return None
    if not found.alive():
        console.print(f"The Ray of mind up has gone ({file} was left); mind up starts it again", soft_wrap=True)
        file.unlink(missing_ok=True)
        return None
    return found


def write_record(home: Path, standing: Standing) -> None:
    """Say where a home's Ray is, whole or not at all, to its owner alone: who reads the token may run anything."""
    file = record_of(home)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = file.with_name(f".{file.name}-{os.getpid()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(json.dumps(asdict(standing)))
    aside.rename(file)


@contextmanager
def standing_to_use(home: Path | None, cpus: int, exactly: bool = False) -> Iterator[Standing | None]:
    """Have the Ray that stays to oneself until the block ends; None without one, or if it is no use: a line says why.

    Parameters
    ----------
    cpus : that are needed; `exactly`: no more either.
    """
    found = None if home is None else standing_ray(home)
    if found is None or home is None:
        yield None
        return
    with ExitStack() as held:
        why = _unfit(found, cpus, exactly)
        if why is None:
            try:
                held.enter_context(exclusive(record_of(home).with_name("ray.lock"), "in use"))
            except UserError:
                why = "another command is using it"
        if why is not None:
            console.print(f"The Ray of mind up is left alone: {why}; this command starts its own", soft_wrap=True)
        yield found if why is None else None


def _unfit(found: Standing, cpus: int, exactly: bool) -> str | None:
    if found.ray != version("ray"):
        return f"it is Ray {found.ray}, not {version('ray')} (mind down, mind up)"
    if found.cpus < cpus or (exactly and found.cpus != cpus):
        return f"it has {found.cpus} CPUs, not {cpus} (mind down, mind up --cpus {cpus})"
    if found.environment != environment_digest(os.environ):
        return f"its workers have another environment ({'*, '.join(PASSED_ON)}*) than this command (mind down, mind up)"
    return None


def environment_digest(environment: Mapping[str, str]) -> str:
    """Digest of the variables that a worker reads: those of `mind up`, not those of the command that joins.

    >>> environment_digest({"AWS_REGION": "a", "TERM": "x"}) == environment_digest({"AWS_REGION": "a"})
    True
    >>> environment_digest({"AWS_REGION": "b"}) == environment_digest({"AWS_REGION": "a"})
    False
    """
    read = {name: value for name, value in environment.items() if name.startswith(PASSED_ON)}
    kept = sorted((name, value) for name, value in read.items() if name not in OF_THE_COMMAND)
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()
