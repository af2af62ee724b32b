"""An environment of its own for each peer, made once below the cache folder: a peer's requirements are not ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Options, say

# torch first and alone, so that the peer's own requirement cannot pull a different build of it
RECHUB = ("torch==2.13.0", "torch-rechub==0.9.0")


def rechub_python(options: Options) -> Path:
    """The Python that has torch-rechub.

    Raises
    ------
    SystemExit
        If the environment cannot be made; the last line of pip says why.
    """
    root = options.cache / "rechub"
    python, done = root / "bin" / "python", root / ".installed"
    wanted = "\n".join(RECHUB)
    if done.is_file() and done.read_text() == wanted:
        return python
    say(f"  making an environment for {RECHUB[-1]} in {root}")
    root.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", "--clear", str(root))
    index = ["--index-url", options.torch_index] if options.torch_index else []
    for number, requirement in enumerate(RECHUB):
        _run(str(python), "-m", "pip", "install", "--quiet", *([] if number else index), requirement)
    done.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "failed").splitlines()
        raise SystemExit(f"{' '.join(command)}: {said[-1]}")
