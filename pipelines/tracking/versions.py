"""What the code is: versions and git state, as recorded with every run."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTIONS = {"mind": "mind-retrieval", "torch": "torch", "ray": "ray", "mlflow": "mlflow"}


def versions() -> dict[str, str]:
    """Find the versions of Python and of the packages that shape a result; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name, distribution in DISTRIBUTIONS.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:  # mind run from a folder that was copied to a cluster
            continue
    return found


def git_state() -> tuple[str, bool] | None:
    """Return the commit of this code and whether tracked files differ from it"""
    folder = Path(__file__).parent
    # An environment inside somebody else's repository is no clone of ours: this file must be tracked.
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else (commit, bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
