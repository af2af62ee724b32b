"""What `make` does on a machine that lacks something: a stranger's first command."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDS = '#!/bin/sh\necho "$@" >> called\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make` reads, and a Python that writes down what it is asked for."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    script(tmp_path / "python", RECORDS)
    return tmp_path


def script(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def set_up(checkout: Path) -> list[str]:
    """Ask for the environment; the lines that Python was called with."""
    command = ["make", f"PYTHON={checkout / 'python'}", "TORCH_INDEX=", ".venv/.installed"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(command, cwd=checkout, env=environment, capture_output=True, timeout=60)
    return (checkout / "called").read_text().splitlines()


def test_an_environment_without_pip_is_made_anew(checkout: Path) -> None:
    # given what Debian's python3 leaves behind where python3-venv is not installed
    script(checkout / ".venv/bin/python", "#!/bin/sh\nexit 1\n")
    assert "-m venv .venv" in set_up(checkout)


def test_an_environment_with_pip_is_kept(checkout: Path) -> None:
    script(checkout / ".venv/bin/python", RECORDS)
    called = set_up(checkout)
    assert "-m venv .venv" not in called
    assert any(line.startswith("-m pip install") for line in called)
