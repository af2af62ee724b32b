"""A command that is told to stop lets everything go, also while Ray runs in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STOPPED = """
import os, signal, threading, time
from pipelines.cluster.session import ray_session
from pipelines.config.schema import RayConfig
with ray_session(RayConfig(num_cpus=1)):
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    try:
        time.sleep(60)
    finally:
        print("let go", flush=True)
"""


@pytest.mark.ray
def test_sigterm_is_an_exception_while_ray_runs(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "RAY_AUTH_TOKEN_PATH": str(token)}
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "let go"
    assert "SIGTERM received" not in done.stderr
