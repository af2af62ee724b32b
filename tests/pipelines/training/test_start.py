"""What `mind train` does before it trains: mistakes first, and nothing heavy for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.training import start


def test_what_is_told_first_imports_nothing_heavy() -> None:
    code = """
import sys
import pipelines.training.start, pipelines.retrieval.recommend, pipelines.tracking.run
print([name for name in ("ray", "torch", "mlflow", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=None)
    assert done.stdout == "[]\n"


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pipelines.training.train", "pipelines.cluster.session"):
        monkeypatch.setitem(sys.modules, module, None)  # its import is an error


@pytest.mark.usefixtures("nothing_starts")
def test_a_dataset_that_is_not_there_is_told_before_anything_starts(
    tmp_path: Path, configured: Callable[..., Config]
) -> None:
    with pytest.raises(UserError, match="no dataset"):
        start.train(configured(tmp_path / "log.csv"))


@pytest.mark.usefixtures("nothing_starts")
def test_so_is_one_that_nothing_can_be_learned_from(
    tmp_path: Path, configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path) -> Any:
        split = SimpleNamespace(users=1, events=1)
        manifest = SimpleNamespace(splits={"train": split, "validation": split})
        return SimpleNamespace(manifest=manifest, require_learnable=lambda: Dataset.require_learnable(opened(path)))

    monkeypatch.setattr(start.Dataset, "open", opened)
    with pytest.raises(UserError, match="no train user has a second event to predict"):
        start.train(configured(tmp_path / "log.csv"))
