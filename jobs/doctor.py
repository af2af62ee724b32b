"""What this machine and this installation are, without starting anything: `mind doctor`, to paste into an issue."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.config.redact import redact
from pipelines.errors import UserError

PACKAGES = ("mind-retrieval", "ray", "torch", "mlflow", "optuna", "pyarrow", "pandas", "numpy", "pydantic", "typer")
OPTIONAL = ("polars", "faiss-cpu", "onnx", "onnxruntime")
VARIABLES = ("MIND_HOME", "MIND_CACHE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_TMPDIR",
             "RAY_AUTH_MODE", "AWS_ENDPOINT_URL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")  # fmt: skip
TIMEOUT_S = 3.0
LITTLE_MEMORY, LITTLE_DISK, LITTLE_SHARED = 4 * 2**30, 5 * 2**30, 2**30  # below, a line says so
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Reach:
    """Something that mind talks to. reached : null where it is not asked for. told : where it is, or why not."""

    reached: bool | None
    told: str


@dataclass(frozen=True)
class Diagnosis:
    """What `mind doctor` found.

    python, system : versions.
    packages : versions by name, null for a required one that is missing.
    cores, memory, memory_free : of this machine, within the limits of its container; bytes.
    home, home_free : where datasets and models go, and bytes left there.
    temporary, temporary_free, shared_memory_free : of Ray's own files, and of its object store.
    gpus : a line each.
    ray, mlflow : whether they answer.
    environment : variables that change what mind does, without secrets.
    problems : what is likely to be in the way, a line each.
    """

    python: str
    system: str
    packages: dict[str, str | None]
    cores: int
    memory: int
    memory_free: int
    home: str
    home_free: int | None
    temporary: str
    temporary_free: int | None
    shared_memory_free: int | None
    gpus: list[str]
    ray: Reach
    mlflow: Reach
    environment: dict[str, str]
    problems: list[str]


def diagnose(home: Path | None, store: str | None, environment: Mapping[str, str] = os.environ) -> Diagnosis:
    """Look at this machine; nothing is started, and no more than TIMEOUT_S is waited for each address.

    Parameters
    ----------
    home : folder of datasets and models; None: it cannot be told, which is a problem.
    store : URI of the MLflow store.
    """
    import psutil

    memory = psutil.virtual_memory()
    limit = _container_limit()
    total = min(memory.total, limit or memory.total)
    temporary = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    found = {
        "packages": _versions(),
        "home_free": None if home is None else _free(home),
        "temporary_free": _free(Path(temporary)),
        "shared_memory_free": _free(Path("/dev/shm")),
        "ray": _ray(environment),
        "mlflow": _mlflow(store),
    }
    return Diagnosis(
        python=f"{platform.python_version()} ({sys.executable})",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=total,
        memory_free=min(memory.available, total),
        home="unknown" if home is None else str(home),
        temporary=temporary,
        gpus=_gpus(),
        environment={name: redact(environment[name]) for name in VARIABLES if name in environment},
        problems=list(_problems(total, found)),
        **found,  # type: ignore[arg-type]
    )


def as_lines(found: Diagnosis) -> list[str]:
    """Write a diagnosis as lines of text."""
    packages = ", ".join(f"{name} {number or 'missing'}" for name, number in found.packages.items())
    lines = {
        "python": found.python,
        "system": found.system,
        "packages": packages,
        "cores": str(found.cores),
        "memory": f"{_gib(found.memory)}, {_gib(found.memory_free)} free",
        "home": f"{found.home}, {_gib(found.home_free)} free",
        "temporary": f"{found.temporary}, {_gib(found.temporary_free)} free",
        "/dev/shm": f"{_gib(found.shared_memory_free)} free",
        "GPU": "; ".join(found.gpus) or "none",
        "Ray": found.ray.told,
        "MLflow": found.mlflow.told,
        **found.environment,
    }
    width = max(map(len, lines)) + 1
    told = [f"problem: {line}" for line in found.problems] or ["no problem found"]
    return [*(f"{name:<{width}} {text}" for name, text in lines.items()), *told]


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in (*PACKAGES, *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name in PACKAGES:
                found[name] = None
    return found


def _container_limit() -> int | None:
    """Read the memory limit of this control group; None without one."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def _free(path: Path) -> int | None:
    """Count the bytes left on the disk of a folder that may not be there yet."""
    for place in (path, *path.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def _gpus(run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> list[str]:
    """Ask the driver; PyTorch alone would say so after seconds, and only of what it was built for."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _ray(environment: Mapping[str, str]) -> Reach:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if address := environment.get(name):
            return _answers(address, name, default_port=8265 if "://" in address else 6379)
    return Reach(None, "no cluster is named (RAY_ADDRESS): a local Ray is started by each command")


def _mlflow(store: str | None) -> Reach:
    if store is None:
        return Reach(False, "no store can be told: set MLFLOW_TRACKING_URI")
    if store.startswith("sqlite:///"):
        file = Path(store.removeprefix("sqlite:///"))
        there = f"{file.stat().st_size / 2**20:.1f} MiB" if file.is_file() else "made by the first run"
        return Reach(True, f"database {file}, {there}")
    if store.startswith(("http://", "https://")):
        return _answers(store, "store", default_port=443 if store.startswith("https") else 80)
    return Reach(None, f"store {redact(store)}")


def _answers(address: str, name: str, default_port: int) -> Reach:
    """Say whether anybody listens at an address."""
    shown = f"{name}={redact(address)}"
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or default_port
        if not host or host == "auto":
            return Reach(None, f"{shown}: found by Ray itself")
        with socket.create_connection((host, port), timeout=TIMEOUT_S):
            return Reach(True, f"{shown}: answers")
    except (OSError, ValueError) as error:
        return Reach(False, f"{shown}: does not answer ({error})")


def _problems(memory: int, found: Mapping[str, object]) -> list[str]:
    packages, ray, mlflow = found["packages"], found["ray"], found["mlflow"]
    assert isinstance(packages, dict)
    assert isinstance(ray, Reach)
    assert isinstance(mlflow, Reach)
    lines = [f"{name} is not installed: pip install mind-retrieval" for name, told in packages.items() if told is None]
    if sys.version_info[:2] < OLDEST_PYTHON:
        lines.append(f"Python {platform.python_version()}: mind needs {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    if memory < LITTLE_MEMORY:
        lines.append(f"{_gib(memory)} of memory: Ray and a training need about {_gib(LITTLE_MEMORY)}")
    for name, least, what in (
        ("home_free", LITTLE_DISK, "the home's disk"),
        ("temporary_free", LITTLE_DISK, "Ray's temporary folder (RAY_TMPDIR)"),
        ("shared_memory_free", LITTLE_SHARED, "/dev/shm, where Ray's object store is (docker: --shm-size)"),
    ):
        free = found[name]
        if isinstance(free, int) and free < least:
            lines.append(f"{_gib(free)} left of {what}; {_gib(least)} are good to have")
    lines += [f"{kind}: {each.told}" for kind, each in (("Ray", ray), ("MLflow", mlflow)) if each.reached is False]
    return lines


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def home_of(given: str | None) -> Path | None:
    """Find the home that commands without a configuration mean; None where what names it is wrong."""
    from jobs.options import home_folder_of

    try:
        return home_folder_of(given)
    except UserError:
        return None
