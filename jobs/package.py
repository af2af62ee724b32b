"""What of the working tree goes along with a job: the code, and CONF with the files it refers to. Never data.

A package's files stand where they do here, so that the same command line works in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.errors import UserError

CODE = Path(__file__).parents[1]
PACKAGES = ("mind", "mind_core", "pipelines", "jobs")
ELSEWHERE = "submitted"  # folder of configuration files from outside the working directory
CACHES = ("__pycache__",)
LIMIT_BYTES = 20 * 2**20  # the head keeps every package in memory; the code is 1 MiB
NAMED = 3  # files in the message about the limit


def code_files(root: Path = CODE) -> dict[str, Path]:
    """Find the code at `root`, by its place in the package; hidden files and caches are left out."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*")):
            place = file.relative_to(root)
            if file.is_file() and not any(part.startswith(".") or part in CACHES for part in place.parts):
                found[place.as_posix()] = file
    if (root / "pyproject.toml").is_file():  # not beside installed packages
        found["pyproject.toml"] = root / "pyproject.toml"
    return found


def conf_places(confs: Sequence[Path], here: Path) -> list[str]:
    """Say where configuration files stand in the package.

    Parameters
    ----------
    confs : paths that refer to each other relative to where they lie.
    here : the working directory.

    Returns
    -------
    list of str
        As they stand in `here`; if one lies outside, all go below one folder, the way between them kept.
    """
    files = [Path(os.path.abspath(here / conf)) for conf in confs]
    if all(file.is_relative_to(here) for file in files):
        return [file.relative_to(here).as_posix() for file in files]
    above = Path(os.path.commonpath([file.parent for file in files]))
    return [f"{ELSEWHERE}/{file.relative_to(above).as_posix()}" for file in files]


def require_small(files: Mapping[str, Path], limit_bytes: int = LIMIT_BYTES) -> None:
    """Refuse a package over the limit, naming its largest files."""
    sizes = {place: file.stat().st_size for place, file in files.items()}
    total = sum(sizes.values())
    if total > limit_bytes:
        largest = sorted(sizes, key=lambda place: sizes[place], reverse=True)[:NAMED]
        culprits = [place for place in largest if sizes[place] > total / 20] or largest
        named = ", ".join(f"{place} {_mib(sizes[place])}" for place in culprits)
        raise UserError(f"the working tree is too large to send, {_mib(total)} of at most {_mib(limit_bytes)}; "
                        f"largest: {named}; keep data out of {', '.join(PACKAGES)}: nodes read it from s3://, gs:// or "
                        "a shared mount")  # fmt: skip


def write_package(files: Mapping[str, Path], folder: Path) -> None:
    """Copy the files to their places in `folder`."""
    for place, file in files.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
