"""A stage as a job on the bed, sent by the user's own command from outside the cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.testbed import Testbed
from tests.cluster.testbed.services import http_get

REPOSITORY = Path(__file__).parents[2]
MIND = (sys.executable, "-m", "jobs.cli")
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Submitted:
    """One job."""

    bed: Testbed
    id: str

    def status(self) -> str:
        """Ray's word for it."""
        return str(json.loads(self._get(""))["status"])

    def is_over(self) -> bool:
        """Well or not."""
        return self.status() in ENDED

    def log(self) -> str:
        """What its driver has printed so far."""
        return str(json.loads(self._get("/logs"))["logs"])

    def _get(self, what: str) -> bytes:
        state = self.bed.state
        status, body = http_get(f"{state.url('dashboard')}/api/jobs/{self.id}{what}", state.secrets["token"])
        assert status == 200, body.decode()
        return body

    def succeed(self, within_s: float = 240) -> str:
        """Its log, once it has ended well."""
        deadline = time.monotonic() + within_s
        while (status := self.status()) not in ENDED:
            assert time.monotonic() < deadline, f"{self.id}: {status} after {within_s} s:\n{self.log()}"
            time.sleep(0.5)
        assert status == "SUCCEEDED", f"{self.id}: {status}:\n{self.log()}"
        return self.log()


def submit(bed: Testbed, stage: str, conf: Path, *options: str) -> Submitted:
    """``mind submit``, with the driver on the head: workers come and go."""
    job = f"{stage}-{uuid.uuid4().hex[:8]}"
    asked = ["--detach", "--submission-id", job, "--entrypoint-num-cpus", "0"]
    mind("submit", *asked, stage, str(conf), *options, env=bed.env())
    return Submitted(bed, job)


def mind(*words: str, env: Mapping[str, str]) -> str:
    """``mind WORDS`` here, with `env` and nothing else of a cluster in the environment; what it printed."""
    own = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([*MIND, *words], cwd=REPOSITORY, env=own | dict(env), capture_output=True, text=True)
    assert done.returncode == 0, f"mind {' '.join(words)}: exit code {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
