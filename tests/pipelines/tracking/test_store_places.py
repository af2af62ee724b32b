"""Homes in odd places, homes that were moved, and stores that cannot be used: one line with the right way out."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tracking.registry import model_by_alias
from pipelines.tracking.run import open_run
from pipelines.tracking.store import database_of, is_file, store_of


def home_of(conf: Path, empty_store: Path, home: Path) -> Config:
    home.mkdir(parents=True)
    shutil.copy(empty_store, home / "mlflow.db")
    return load_config(conf, [f"home={str(home)!r}"])


@pytest.mark.parametrize("name", ["a%20b", "was? #é 5%"])
def test_a_home_of_any_name_has_its_database_in_it(conf: Path, empty_store: Path, tmp_path: Path, name: str) -> None:
    config = home_of(conf, empty_store, tmp_path / name)
    (tmp_path / "note.txt").write_text("x")
    with open_run(config, "train", "run") as run:
        run.log_artifact(tmp_path / "note.txt")
    uri = store_of(config)
    assert is_file(uri)
    assert database_of(uri) == config.home_path / "mlflow.db"
    assert list(config.home_path.glob("mlartifacts/*/*/artifacts/note.txt"))
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} <= {name, "home"}


def test_a_home_that_was_moved_keeps_its_runs_and_models_and_writes_here(
    conf: Path, empty_store: Path, tmp_path: Path
) -> None:
    before = home_of(conf, empty_store, tmp_path / "old")
    (tmp_path / "note.txt").write_text("x")
    model = before.home_path / "models" / "m"
    model.mkdir(parents=True)
    with open_run(before, "train", "run") as run:
        run.log_artifact(tmp_path / "note.txt")
        run.log_tags({"mind.model": str(model)})
    client = mlflow.MlflowClient(store_of(before), store_of(before))
    client.create_registered_model("shop")
    version = client.create_model_version("shop", f"{before.home_path.as_uri()}/mlartifacts/x", run_id=run.run_id)
    client.set_model_version_tag("shop", version.version, "mind.model", str(model))
    client.set_registered_model_alias("shop", "champion", version.version)

    shutil.move(tmp_path / "old", tmp_path / "new")
    after = load_config(conf, [f"home={tmp_path}/new"])
    found = model_by_alias(store_of(after), "shop", "champion")
    assert found is not None
    assert found.folder == tmp_path / "new" / "models" / "m"
    assert found.model_uri == f"{(tmp_path / 'new').as_uri()}/mlartifacts/x"
    location = mlflow.MlflowClient(store_of(after)).get_run(run.run_id).info.artifact_uri
    assert location == f"{after.home_path.as_uri()}/mlartifacts/tiny/{run.run_id}/artifacts"
    with open_run(after, "evaluate", "next") as following:
        following.log_artifact(tmp_path / "note.txt")
    assert not (tmp_path / "old").exists()
    assert len(list((tmp_path / "new").glob("mlartifacts/**/note.txt"))) == 2


def test_a_copy_of_a_home_leaves_the_first_alone(conf: Path, empty_store: Path, tmp_path: Path) -> None:
    first = home_of(conf, empty_store, tmp_path / "first")
    with open_run(first, "train", "run"):
        pass
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = load_config(conf, [f"home={tmp_path}/second"])
    with open_run(second, "train", "next"):
        pass
    assert len(mlflow.MlflowClient(store_of(first)).search_runs(["1"])) == 1
    assert len(list((tmp_path / "second").rglob("config.yaml"))) == 2


def test_a_deleted_experiment_is_named_with_the_way_to_bring_it_back(
    conf: Path, empty_store: Path, tmp_path: Path
) -> None:
    config = home_of(conf, empty_store, tmp_path / "h")
    with open_run(config, "train", "run"):
        pass
    client = mlflow.MlflowClient(store_of(config))
    experiment = client.get_experiment_by_name(config.name)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(UserError) as refused:
        open_run(config, "train", "again")
    assert f"was deleted in {store_of(config)}: bring it back" in str(refused.value)
    assert f"mlflow experiments restore --experiment-id {experiment.experiment_id})" in str(refused.value)
    client.restore_experiment(experiment.experiment_id)
    with open_run(config, "train", "again"):
        pass


@pytest.mark.parametrize(
    ("schema", "said"),
    [("0123456789ab", "newer than"), ("451aebb31d03", "older than")],  # the second is MLflow's first migration
)
def test_a_store_of_another_schema_says_which_way_to_go(
    conf: Path, empty_store: Path, tmp_path: Path, schema: str, said: str
) -> None:
    config = home_of(conf, empty_store, tmp_path / "h")
    with closing(sqlite3.connect(config.home_path / "mlflow.db")) as store, store:
        store.execute("UPDATE alembic_version SET version_num = ?", (schema,))
    with pytest.raises(UserError) as refused:
        open_run(config, "train", "run")
    assert said in str(refused.value)
    way_out = "pip install --upgrade mlflow" if said == "newer than" else "mlflow db upgrade sqlite:///"
    assert way_out in str(refused.value)
