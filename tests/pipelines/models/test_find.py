"""Which model a command means, and what it says when there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.models import serving
from pipelines.models.artifact import load_card, load_model
from pipelines.models.find import find_model
from pipelines.models.runs import run_stem
from pipelines.tracking.run import open_run
from pipelines.training.train import SERVING
from tests.pipelines.planted import UNTRAINED, configure, reseal, save_untrained

pytestmark = pytest.mark.ray


@pytest.fixture
def config(planted_home: Path, planted_log: Path, tmp_path: Path) -> Config:
    """The planted data set in a home folder of its own, with one untrained model."""
    (tmp_path / "datasets").symlink_to(planted_home / "datasets")
    config = configure(tmp_path, planted_log)
    save_untrained(config)
    return config


def find(config: Config, given: str | None = None) -> Path:
    return find_model(config, Dataset.open(config.dataset_path), given)


def with_fingerprint(folder: Path, fingerprint: str) -> None:
    reseal(folder, dataset_fingerprint=fingerprint)


def test_a_model_is_found_by_folder_name_preset_and_by_default(config: Config) -> None:
    folder = config.home_path / "models" / UNTRAINED
    for given in (str(folder), UNTRAINED, "default", None):
        assert find(config, given) == folder


def test_the_newest_model_of_this_dataset_and_preset_is_meant(config: Config) -> None:
    # given an older one, a newer one, one of another campaign, and the very newest of another dataset
    newer = save_untrained(config, "planted-default-0123456789-2")
    other = save_untrained(config, "planted-default-more-0123456789")
    foreign = save_untrained(config, "planted-default-aaaaaaaaaa")
    with_fingerprint(foreign, "f" * 64)
    for age, folder in enumerate((newer, other, foreign)):
        os.utime(folder / "config.json", (2e9 + age, 2e9 + age))
    assert find(config) == newer


def test_a_model_of_the_commands_own_settings_comes_before_a_newer_one_of_others(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    # given two models of this command's settings and a newer one of others
    stem = run_stem(config, Dataset.open(config.dataset_path))
    first, second = (save_untrained(config, name) for name in (stem, f"{stem}-2"))
    newest = config.home_path / "models" / UNTRAINED
    for age, folder in enumerate((first, second, newest)):
        os.utime(folder / "config.json", (2e9 + age, 2e9 + age))
    # then the newest of its own is meant, without a word
    assert find(config) == find(config, "default") == second
    assert capsys.readouterr().err == ""
    # and other settings take the newest of all, and say so
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 1})})
    assert find(other) == newest
    assert f"Taking {UNTRAINED}, the newest model of preset default; its settings are not " in printed(capsys)
    assert find(config.model_copy(update={"preset": "paper"}), "default") == newest
    assert printed(capsys) == f"Taking {UNTRAINED}, the newest model of preset default"


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_model_of_another_dataset_is_refused(config: Config) -> None:
    folder = config.home_path / "models" / UNTRAINED
    with_fingerprint(folder, "f" * 64)
    for given in (None, str(folder)):
        with pytest.raises(UserError, match=r"trained on another dataset .*f{12}.*mind train CONF") as error:
            find(config, given)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("youtube_dnn", "planted: no model of preset youtube_dnn yet; make one with: mind train CONF --preset youtube"),
        (
            "no/such/folder",
            "no/such/folder: no model: must be a folder, a models:/ URI, .*, or one of context",
        ),
        ("models:/m-0123", "models:/m-0123: cannot be fetched from sqlite:"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_the_way_out(config: Config, given: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        find(config, given)
    assert "\n" not in str(error.value)


def test_an_mlflow_model_is_downloaded(config: Config) -> None:
    folder = config.home_path / "models" / UNTRAINED
    saved = load_model(folder)
    with open_run(config, "train", "somebody's") as run:
        uri = run.log_model("retriever", folder, SERVING, serving.signature(saved), serving.example(saved))
    assert uri is not None
    found = find(config, uri)
    assert found.is_relative_to(config.home_path / "downloads")
    assert load_card(found) == load_card(folder)
