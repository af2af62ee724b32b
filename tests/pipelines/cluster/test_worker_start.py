"""Ray's workers are started as Ray's own script would, in less time; whatever is not understood is left to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import worker_start
from pipelines.cluster.worker_start import ORIGINAL, TEMPLATE, command

WORKER = ["worker.py", "--node-id=1", "--language=PYTHON"]


def given(**context: Any) -> list[str]:
    return [*WORKER, f"--serialized-runtime-env-context={json.dumps(context)}"]


@pytest.mark.parametrize("arguments", [WORKER, given(), given(env_vars={"A": "b c"}, command_prefix=[], java_jars=[])])
def test_a_plain_worker_is_started_here(arguments: list[str]) -> None:
    words, environment = command(arguments, {"HOME": "/root", ORIGINAL: "ray.py"})
    assert words == [sys.executable, "worker.py", "--node-id=1"]
    assert environment["HOME"] == "/root"
    assert environment.get("A", "b c") == "b c"


@pytest.mark.parametrize(
    "arguments",
    [
        ["worker.py", "--language=JAVA"],
        ["worker.py"],
        given(command_prefix=["podman"]),
        given(py_executable="/other/python"),
        given(override_worker_entrypoint="x.py"),
        given(env_vars={"PATH": "${PATH}:/x"}),
        given(what_a_later_ray_has={"x": 1}),
    ],
)
def test_anything_else_is_left_to_rays_own_script(arguments: list[str]) -> None:
    environment = {ORIGINAL: "ray.py"}
    assert command(arguments, environment) == ([sys.executable, "ray.py", *arguments], environment)


def test_it_is_light_and_becomes_the_worker(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import os, sys\nprint(sys.argv[1:], os.environ['A'], os.getpid(), 'ray' in sys.modules)")
    arguments = [str(worker), "-x", *given(env_vars={"A": "1"})[1:]]
    alone = {name: value for name, value in os.environ.items() if name != TEMPLATE}
    started = subprocess.Popen(
        [sys.executable, worker_start.__file__, *arguments], stdout=subprocess.PIPE, text=True, env=alone
    )
    out, _ = started.communicate(timeout=30)
    assert out == f"['-x', '--node-id=1'] 1 {started.pid} False\n"
