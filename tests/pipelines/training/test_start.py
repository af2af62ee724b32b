"""What `mind train` does before it trains: mistakes first, nothing heavy for them, no Ray for what only counts."""

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
import pipelines.training.start, pipelines.retrieval.recommend, pipelines.cluster.keeper, pipelines.tracking.run
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


@pytest.mark.parametrize(
    "settings", [{"model": {"encoder": "popularity", "interests": 1}}, {"ray": {"address": "head:6379"}}]
)
def test_what_only_counts_starts_no_ray_and_a_cluster_is_joined_where_it_was(
    tmp_path: Path,
    configured: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    config = Config.model_validate(configured(tmp_path / "log.csv").model_dump(exclude_unset=True) | settings)
    monkeypatch.setattr(start.Dataset, "open", lambda _: SimpleNamespace(require_learnable=lambda: None))
    monkeypatch.setitem(sys.modules, "pipelines.cluster.session", None)
    told = SimpleNamespace(train=lambda config, timeline: (config, timeline))
    monkeypatch.setitem(sys.modules, "pipelines.training.train", told)
    found: Any = start.train(config)
    assert found[0] == config
