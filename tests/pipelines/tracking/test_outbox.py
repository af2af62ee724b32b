"""A store that goes away: nothing is waited for, nothing is lost, and the next command delivers it."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import mlflow
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import BAD_REQUEST as BAD
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST
from mlflow.types import ColSpec, Schema

from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.tracking import delivery
from pipelines.tracking.client import store_client
from pipelines.tracking.outbox import Outbox, outbox_of
from pipelines.tracking.run import Tracker, known_run, open_run
from pipelines.tracking.store import database_of, own_database
from tests.pipelines.tracking.test_run import SERVED, artifacts, stored

REAL = delivery.told


@pytest.fixture
def config(conf: Path, empty_store: Path) -> Config:
    (conf.parent / "home").mkdir()
    shutil.copy(empty_store, conf.parent / "home" / "mlflow.db")
    return load_config(conf)


class Server:
    """A store that is away as long as it is told to be."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0

    def told(self, *arguments: Any) -> str | None:
        self.asked += 1
        if self.away:
            raise ConnectionError("nobody answers")
        return REAL(*arguments)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(delivery, "told", server.told)
    return server


def everything(run: Tracker, folder: Path) -> None:
    """Tell a run one of each kind."""
    (folder / "model").mkdir()
    (folder / "model" / "factor").write_text("3")
    (folder / "served.py").write_text(SERVED)
    (folder / "note.txt").write_text("note")
    figure = Figure()
    figure.subplots().plot([1, 2])
    run.log_metrics({"ndcg@20": 0.5, "loss": float("nan")}, step=7)
    run.log_tags({"mind.x": "y"})
    run.log_dataset("tiny", "f" * 64, "log.csv", "training", {"users": 3})
    run.log_table({"item": ["a"], "score": [1.0]}, "top.json")
    run.log_figure(figure, "plots/line.png")
    run.log_text("hello", "hello.txt")
    run.log_artifact(folder / "note.txt", "notes")
    run.log_artifact(folder / "model", "whole")
    signature = ModelSignature(Schema([ColSpec("double")]), Schema([ColSpec("double")]))
    run.log_model("times", folder / "model", folder / "served.py", signature, [1.0, 2.0], step=7)


def assert_everything(run: Tracker) -> None:
    found = stored(run)
    assert found.info.status == "FINISHED"
    assert found.data.metrics["ndcg_at_20"] == 0.5
    assert found.data.tags["mind.x"] == "y"
    assert found.data.tags["mind.dataset"] == "f" * 64
    assert found.inputs.dataset_inputs[0].dataset.digest == "f" * 36
    assert found.data.tags["mind.model_uri"].startswith("models:/")
    files = {"config.yaml", "top.json", "plots/line.png", "hello.txt", "notes/note.txt", "whole/factor"}
    assert artifacts(run).keys() == files
    (model,) = mlflow.MlflowClient(run.uri).search_logged_models([found.info.experiment_id])
    assert model.status == "READY"


def left(config: Config) -> list[Path]:
    return list((config.home_path / "unsent").rglob("*")) if (config.home_path / "unsent").exists() else []


def test_a_run_is_whole_though_the_store_was_away_till_after_its_end(
    config: Config, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run(config, "train", "run") as run:
        server.away = True
        before = server.asked
        everything(run, tmp_path)
    assert server.asked - before == 2, "once, and once more at the end"
    assert run.lost == 0
    assert stored(run).info.status == "RUNNING"
    assert "are kept in" in capsys.readouterr().err
    server.away = False
    with open_run(config, "evaluate", "next"):
        assert_everything(run)
    assert left(config) == []
    assert "delivered 11 records" in capsys.readouterr().err


def test_a_store_that_is_back_before_the_end_has_everything_then(
    config: Config, server: Server, tmp_path: Path
) -> None:
    with open_run(config, "train", "run") as run:
        server.away = True
        everything(run, tmp_path)
        server.away = False
    assert_everything(run)
    assert left(config) == []


def test_what_another_process_kept_comes_before_the_end(config: Config, server: Server) -> None:
    with open_run(config, "train", "run") as run:
        server.away = True
        known = known_run(config, run.run_id)
        assert known is not None
        known.log_metrics({"loss": 1.0}, step=1)
        server.away = False
    assert stored(run).data.metrics["loss"] == 1.0
    assert stored(run).info.status == "FINISHED"


def test_what_the_store_will_never_take_does_not_block_the_rest(config: Config, server: Server) -> None:
    with open_run(config, "train", "gone") as gone:
        server.away = True
        gone.log_metrics({"loss": 1.0}, step=1)
    run = Tracker(gone.uri, "0" * 32, outbox_of(config.home_path, gone.uri, "0" * 32))
    run.log_tags({"x": "y"})
    server.away = False
    with open_run(config, "train", "next"):
        pass
    assert stored(gone).info.status == "FINISHED"
    assert left(config) == []


@pytest.mark.parametrize(
    ("said", "code", "pointless"),
    [
        ("(psycopg.errors.ReadOnlySqlTransaction) cannot execute INSERT in a read-only transaction", BAD, False),
        ("(raised as a result of autoflush)\n(sqlite3.OperationalError) database or disk is full", BAD, False),
        ("(psycopg.errors.AdminShutdown) terminating connection due to administrator command", BAD, False),
        ("(sqlite3.IntegrityError) NOT NULL constraint failed: metrics.key", BAD, True),
        ("Run 'abc' not found", RESOURCE_DOES_NOT_EXIST, True),
        ("a server error", INTERNAL_ERROR, False),
    ],
)
def test_what_a_database_refuses_for_now_is_kept(said: str, code: int, pointless: bool) -> None:
    assert delivery.is_pointless(MlflowException(said, error_code=code)) is pointless


def test_a_home_that_takes_nothing_loses_it_and_goes_on(
    config: Config, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    with open_run(config, "train", "run") as run:
        server.away = True
        monkeypatch.setattr(Outbox, "keep", full)
        run.log_metrics({"loss": 1.0}, step=1)
    assert run.lost == 2


def test_who_posts_does_not_wait_for_a_slow_store(
    config: Config, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), threading.Event()
    told = delivery.told

    def slow(*arguments: Any) -> str | None:
        asked.set()
        assert answers.wait(30)
        return told(*arguments)

    with open_run(config, "train", "run") as run:
        poster = pickle.loads(pickle.dumps(run))
        monkeypatch.setattr(delivery, "told", slow)
        began = time.monotonic()
        for step in range(5):
            poster.post_metrics({"loss": float(step)}, step)
        assert time.monotonic() - began < 5
        assert asked.wait(30)
        assert run.outbox is not None
        assert len(run.outbox.waiting()) == 5
        answers.set()
        for _ in range(300):
            if not run.outbox.folder.exists():
                break
            time.sleep(0.1)
    assert run.history("loss") == {step: float(step) for step in range(5)}
    assert (poster.lost, run.lost, run.kept) == (0, 0, 0)


def test_a_store_that_is_slow_is_told_little_and_the_next_command_delivers(
    config: Config, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, calls = delivery.told, list[str]()

    def slow(client: Any, uri: str, run_id: str, item: dict[str, Any], files: Path | None = None) -> str | None:
        calls.append(item["kind"])
        time.sleep(0.3)
        return told(client, uri, run_id, item, files)

    with open_run(config, "train", "run") as run:
        monkeypatch.setattr("pipelines.tracking.run.SLOW_S", 0.2)
        monkeypatch.setattr("pipelines.tracking.run.PATIENCE_S", 0.5)
        monkeypatch.setattr(delivery, "told", slow)
        for step in range(10):
            run.log_metrics({"loss": float(step)}, step)
        assert calls == ["metrics"], "the second waits, and the rest with it"
    assert len(calls) < 5
    assert "did not take" in capsys.readouterr().err
    monkeypatch.setattr(delivery, "told", told)
    with open_run(config, "evaluate", "next"):
        pass
    assert Tracker(run.uri, run.run_id).history("loss") == {step: float(step) for step in range(10)}
    assert stored(run).info.status == "FINISHED"
    assert run.outbox is not None
    assert not run.outbox.folder.exists()


def test_a_post_that_the_home_does_not_take_goes_to_the_store(
    config: Config, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(config, "train", "run") as run:
        monkeypatch.setattr(Outbox, "keep", MagicMock(side_effect=OSError(28, "no space left")))
        run.post_metrics({"loss": 1.0}, step=1)
    assert run.history("loss") == {1: 1.0}


def test_what_could_not_be_kept_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.html").write_text("x")
    outbox = Outbox(tmp_path / "unsent" / "store" / "run")
    monkeypatch.setattr("pipelines.tracking.outbox.shutil.copy", MagicMock(side_effect=OSError(28, "no space left")))
    with pytest.raises(OSError, match="no space"):
        outbox.keep({"kind": "file"}, tmp_path / "page.html")
    assert not (tmp_path / "unsent").exists()


def test_the_run_of_a_process_that_was_killed_is_ended_by_the_next_command(config: Config, conf: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from pipelines.config.load import load_config
from pipelines.tracking.run import open_run
run = open_run(load_config(Path({str(conf)!r})), "export", "killed")
print(run.run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert killed.returncode == -9, killed.stderr
    with open_run(config, "train", "alive") as alive, open_run(config, "train", "next"):
        client = mlflow.MlflowClient(alive.uri)
        assert client.get_run(killed.stdout.strip()).info.status == "KILLED"
        assert stored(alive).info.status == "RUNNING"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_run_that_was_told_to_stop_is_killed_not_failed(config: Config, error: type[BaseException]) -> None:
    run = open_run(config, "train", "run")
    with pytest.raises(error), run:
        raise error
    assert stored(run).info.status == "KILLED"


ITEMS = st.dictionaries(
    st.text(max_size=8), st.none() | st.text(max_size=20) | st.integers() | st.floats(allow_nan=False), max_size=4
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(ITEMS, max_size=5))
def test_items_come_out_in_order_as_they_went_in(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    box = Outbox(tmp_path / "box" / os.urandom(4).hex())
    for item in items:
        box.keep(item)
    assert [item for _, item in box.waiting()] == items
    for kept, _ in box.waiting():
        box.delivered(kept)
    box.close()
    assert not box.folder.exists()


def test_a_table_as_an_example_survives_the_outbox() -> None:
    from pipelines.tracking.delivery import model_item

    example = pd.DataFrame({"history": [[1, 2, 3]]})
    signature = ModelSignature(Schema([ColSpec("double")]))
    item = model_item("x", Path("a"), Path("b"), signature, example, ["torch"], 0)
    pd.testing.assert_frame_equal(pd.DataFrame(**item["table"]), example)
    assert ModelSignature.from_dict(item["signature"]) == signature


def test_a_database_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is killed while MLflow makes its tables leaves nothing that the next one stumbles over."""
    uri, real = own_database(tmp_path), mlflow.MlflowClient
    seen = []

    def killed(tracking_uri: str, **more: str) -> mlflow.MlflowClient:
        seen.append(database_of(tracking_uri))
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow, "MlflowClient", killed)
    with pytest.raises(KeyboardInterrupt):
        store_client(uri)
    assert seen[0] != database_of(uri)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(mlflow, "MlflowClient", real)
    assert [each.name for each in store_client(uri).search_experiments()] == ["Default"]
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]
