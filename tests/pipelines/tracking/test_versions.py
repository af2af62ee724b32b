import subprocess
from pathlib import Path

import pytest

from pipelines.tracking import versions

ROOT = Path(versions.__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a clone")
def test_git_state_names_the_commit_of_this_code() -> None:
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    state = versions.git_state()
    assert state is not None
    assert state[0] == head.stdout.strip()


def test_code_inside_somebody_elses_clone_has_no_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "versions.py"))
    assert versions.git_state() is None


def test_versions_name_what_shapes_a_result() -> None:
    assert versions.versions().keys() == {"python", "mind", "torch", "ray", "mlflow"}
