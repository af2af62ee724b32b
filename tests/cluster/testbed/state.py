"""What is known of a bed: its nodes, addresses and secrets, in one file of its folder that only its owner reads."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

DEFAULT_FOLDER = Path(os.environ.get("MIND_TESTBED", "/tmp/mind-testbed"))
FILE = "state.json"
Role = Literal["service", "head", "worker"]


class BedError(Exception):
    """What the user of the bed can mend; one line, or a line and the end of a log."""


@dataclass
class Node:
    """One host of the bed.

    Isolated, it is a set of Linux namespaces with a /tmp of its own; otherwise a group of processes on 127.0.0.1 that
    are told a folder of their own by TMPDIR. HOME lies in it.
    """

    name: str
    role: Role
    ip: str
    folder: str  # on the machine; nothing of it is seen by other nodes
    isolated: bool

    @property
    def tmp(self) -> str:
        """As the node's processes know it."""
        return "/tmp" if self.isolated else str(self.tmp_here)

    @property
    def tmp_here(self) -> Path:
        """As the machine knows it."""
        return Path(self.folder, "tmp")

    @property
    def home(self) -> str:
        return f"{self.tmp}/home"

    @property
    def log(self) -> Path:
        """The log of its first process and its daemon."""
        return Path(self.folder) / "log"


@dataclass
class State:
    """The state of one bed.

    Parameters
    ----------
    subnet
        The first three numbers of the nodes' addresses; None: no namespaces, all on 127.0.0.1.
    cpus
        Of a worker, unless it is told otherwise.
    ports
        By service: postgres, s3, mlflow, ray, dashboard.
    secrets
        token (Ray), key and secret (S3), password (PostgreSQL).
    workers_made
        Ever: a lost worker's name and address do not come back, as on a real cluster.
    """

    folder: Path
    subnet: str | None
    cpus: int
    ports: dict[str, int]
    secrets: dict[str, str]
    nodes: dict[str, Node] = field(default_factory=dict)
    workers_made: int = 0

    def save(self) -> None:
        """Write the file, whole or not at all."""
        values = asdict(self) | {"folder": str(self.folder)}
        part = self.folder / (FILE + ".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps(values, indent=1))
        part.replace(self.folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> State | None:
        """What `save` wrote; None if nothing is there."""
        try:
            values = json.loads((folder / FILE).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        nodes = {name: Node(**node) for name, node in values.pop("nodes").items()}
        return cls(**values | {"folder": folder, "nodes": nodes})

    def url(self, service: str) -> str:
        """Return the URL of a service that speaks HTTP: s3, mlflow or dashboard."""
        host = self.nodes["head" if service == "dashboard" else service].ip
        return f"http://{host}:{self.ports[service]}"

    @property
    def ray_address(self) -> str:
        return f"{self.nodes['head'].ip}:{self.ports['ray']}"
