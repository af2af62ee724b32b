"""An environment of its own for each peer, made once below the cache folder: a peer's requirements are not ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Options, say

# torch first and alone, so that the peer's own requirement cannot pull a different build of it
TORCH = "torch==2.13.0"
RECHUB = (TORCH, "torch-rechub==0.9.0")
RECTOOLS = (TORCH, "rectools[torch]==0.19.0")  # wants NumPy 1; brings `implicit` as pm-implicit


class NotInstalled(SystemExit):
    """An environment that cannot be made; the text says why."""


def rechub_python(options: Options) -> Path:
    """Return the Python that has torch-rechub; `peer_python` says what it raises."""
    return peer_python(options.cache, "rechub", RECHUB, options.torch_index)


def rectools_python(options: Options) -> Path:
    """Return the Python that has RecTools with torch, and implicit; `peer_python` says what it raises."""
    return peer_python(options.cache, "rectools", RECTOOLS, options.torch_index)


def peer_python(cache: Path, name: str, requirements: tuple[str, ...], torch_index: str | None = None) -> Path:
    """Return the Python of the environment `name`, which is made where it is missing or has other requirements.

    Raises
    ------
    NotInstalled
        If the environment cannot be made; the last line of pip says why.
    """
    root = cache / name
    python, done = root / "bin" / "python", root / ".installed"
    wanted = "\n".join(requirements)
    if done.is_file() and done.read_text() == wanted:
        return python
    say(f"  making an environment for {requirements[-1]} in {root}")
    root.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", "--clear", str(root))
    index = ["--index-url", torch_index] if torch_index else []
    for number, requirement in enumerate(requirements):
        _run(str(python), "-m", "pip", "install", "--quiet", *([] if number else index), requirement)
    done.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "failed").splitlines()
        raise NotInstalled(f"{' '.join(command)}: {said[-1]}")
