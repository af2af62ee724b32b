import json
import logging
import pickle
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from matplotlib.figure import Figure
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from pipelines.config.load import load_config, resolved
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tracking import dashboard
from pipelines.tracking import run as tracking
from pipelines.tracking.run import Tracker, metric_name, open_run
from pipelines.tracking.store import store_of

SERVED = """\
from pathlib import Path
import mlflow

class Times(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.factor = float((Path(context.artifacts["model"]) / "factor").read_text())

    def predict(self, context, model_input: list[float]) -> list[float]:
        return [self.factor * value for value in model_input]

mlflow.models.set_model(Times())
"""


@pytest.fixture
def conf(conf: Path, empty_store: Path) -> Path:
    """The configuration file of conftest.py, with a store in its home."""
    (conf.parent / "home").mkdir()
    shutil.copy(empty_store, conf.parent / "home" / "mlflow.db")
    return conf


@pytest.fixture
def config(conf: Path) -> Config:
    return load_config(conf)


def stored(run: Tracker) -> Any:
    return mlflow.MlflowClient(run.uri).get_run(run.run_id)


def artifacts(run: Tracker) -> dict[str, Path]:
    """The run's files by name, as they lie on disk."""
    root = Path(stored(run).info.artifact_uri.removeprefix("file://"))
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def test_run_records_settings_tags_and_parent(config: Config) -> None:
    with open_run(config, "train", "first") as parent, open_run(config, "evaluate", "second", parent=parent.run_id):
        pass
    run = stored(parent)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params["model.dim"] == "64"
    assert run.data.params["model.hidden"] == "[128]"
    assert run.data.params["data.events.path"] == "log.csv"
    assert run.data.tags["mind.stage"] == "train"
    assert run.data.tags["version.python"].startswith("3.")
    assert {"version.torch", "version.ray", "version.mlflow", "mind.config", "mind.preset"} <= run.data.tags.keys()
    children = mlflow.MlflowClient(parent.uri).search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.run_id}'"
    )
    assert [child.info.run_name for child in children] == ["second"]
    assert "dim: 64" in artifacts(parent)["config.yaml"].read_text()


def test_store_and_artifacts_lie_in_the_home_folder(config: Config) -> None:
    with open_run(config, "train", "run") as run:
        run.log_text("hello", "note.txt")
    assert (config.home_path / "mlflow.db").is_file()
    assert artifacts(run)["note.txt"].is_relative_to(config.home_path / "mlartifacts")


def test_store_is_the_setting_then_the_environment(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://from-environment")
    assert store_of(load_config(conf)) == "https://from-environment"
    assert store_of(load_config(conf, ["tracking.uri=https://from-setting"])) == "https://from-setting"


def test_metrics_per_step_with_names_that_mlflow_takes(config: Config) -> None:
    with open_run(config, "train", "run") as run:
        run.log_metrics({"hitrate@20": 0.1, "loss": 3.0}, step=1)
        run.log_metrics({"hitrate@20": 0.2, "loss": float("nan")}, step=2)
    history = mlflow.MlflowClient(run.uri).get_metric_history(run.run_id, "hitrate_at_20")
    assert [(point.step, point.value) for point in history] == [(1, 0.1), (2, 0.2)]
    assert metric_name("präfix 50%") == "präfix 50_"
    assert run.history("hitrate@20") == {1: 0.1, 2: 0.2}
    assert run.history("never") == {}


def test_more_metrics_and_params_than_one_request_takes(conf: Path) -> None:
    features = ", ".join(f"f{number}: {{}}" for number in range(40))
    long = "x" * 7000
    config = load_config(conf, [f"data.items={{path: {long}, id: item, features: {{{features}}}}}"])
    with open_run(config, "train", "run") as run:
        run.log_metrics({f"m{number}": number for number in range(1001)}, step=0)
    data = stored(run).data
    assert len(data.params) > 200
    assert len(data.params["data.items.path"]) == 6000
    assert len(data.metrics) == 1001
    assert run.lost == 0


def test_continued_run_is_the_same_run_even_with_other_settings(conf: Path, config: Config) -> None:
    with open_run(config, "train", "run") as run:
        run.log_metrics({"loss": 1.0}, step=1)
    with open_run(load_config(conf, ["train.epochs=99"]), "train", "run", run_id=run.run_id) as again:
        assert stored(again).info.status == "RUNNING"
    assert again.run_id == run.run_id
    client = mlflow.MlflowClient(run.uri)
    assert len(client.search_runs([stored(run).info.experiment_id])) == 1
    assert stored(run).data.params["train.epochs"] == "20"


def test_run_that_the_store_does_not_know_is_made_anew(config: Config) -> None:
    with open_run(config, "train", "run", run_id="0" * 32) as run:
        pass
    assert run.run_id != "0" * 32
    mlflow.MlflowClient(run.uri).delete_run(run.run_id)
    with open_run(config, "train", "run", run_id=run.run_id) as other:
        pass
    assert other.run_id != run.run_id


def test_failure_and_interruption_are_recorded(config: Config) -> None:
    run = open_run(config, "train", "run")
    with pytest.raises(ValueError, match="bad"), run:
        raise ValueError("bad s3://key:secret@bucket")
    assert stored(run).info.status == "FAILED"
    assert stored(run).data.tags["mind.failure"] == "ValueError: bad s3://***@bucket"
    stopped = open_run(config, "train", "run")
    with pytest.raises(KeyboardInterrupt), stopped:
        raise KeyboardInterrupt
    assert stored(stopped).info.status == "KILLED"


def test_tracker_pickles_as_an_address(config: Config) -> None:
    with open_run(config, "train", "run") as run:
        pickle.loads(pickle.dumps(run)).log_metrics({"from_a_worker": 1.0}, step=0)
        assert stored(run).info.status == "RUNNING"
    assert stored(run).data.metrics["from_a_worker"] == 1.0


def test_dataset_lineage_has_our_fingerprint(config: Config) -> None:
    with open_run(config, "train", "run") as run:
        run.log_dataset("tiny", "f" * 64, "s3://key:secret@bucket/log", "training", {"users": 3})
    (logged,) = stored(run).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("tiny", "f" * 36)
    assert logged.dataset.source == '{"uri": "s3://***@bucket/log"}'
    assert logged.dataset.profile == '{"users": 3}'
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "training")]
    assert stored(run).data.tags["mind.dataset"] == "f" * 64


def test_files_tables_and_figures(config: Config, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    figure = Figure()
    figure.subplots().plot([1, 2])
    with open_run(config, "train", "run") as run:
        run.log_table({"item": ["a", "b"], "score": [1.0, None]}, "top.json")
        run.log_figure(figure, "plots/line.png")
        run.log_artifact(tmp_path / "folder" / "a.txt")
        run.log_artifact(tmp_path / "folder", "whole")
    assert artifacts(run).keys() == {"config.yaml", "top.json", "plots/line.png", "a.txt", "whole/a.txt"}
    table = json.loads(artifacts(run)["top.json"].read_text())
    assert table == {"columns": ["item", "score"], "data": [["a", 1.0], ["b", None]]}
    assert '"type": "table"' in stored(run).data.tags["mlflow.loggedArtifacts"]  # so that the dashboard shows it


def test_model_is_stored_without_pickle_and_linked_to_its_run(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "factor").write_text("3")
    (tmp_path / "served.py").write_text(SERVED)
    signature = ModelSignature(Schema([ColSpec("double")]), Schema([ColSpec("double")]))
    with open_run(config, "train", "run") as run:
        run.log_metrics({"ndcg@20": 0.5}, step=7)
        uri = run.log_model("times", tmp_path / "model", tmp_path / "served.py", signature, [1.0, 2.0], step=7)
    assert uri is not None
    assert mlflow.get_tracking_uri() != run.uri  # the process-wide store is as it was

    client = mlflow.MlflowClient(run.uri)
    (model,) = client.search_logged_models([stored(run).info.experiment_id])
    assert (model.source_run_id, model.status) == (run.run_id, "READY")
    assert [(metric.key, metric.value) for metric in model.metrics] == [("ndcg_at_20", 0.5)]
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert not list(folder.rglob("*.pkl"))
    assert {path.name for path in (folder / "code").iterdir()} == {"mind_core", "pipelines"}
    requirements = (folder / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert "ray" not in requirements
    assert "+cpu" not in requirements

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    assert mlflow.pyfunc.load_model(str(folder)).predict([1.0, 2.0]) == [3.0, 6.0]


def test_system_metrics_appear_in_a_short_run(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SYSTEM_METRICS_INTERVAL_S", 0.1)
    config = load_config(conf, ["tracking.system_metrics=true"])
    with open_run(config, "train", "run") as run:
        time.sleep(0.5)
    metrics = stored(run).data.metrics
    assert metrics["system/system_memory_usage_megabytes"] > 0
    steps = len(mlflow.MlflowClient(run.uri).get_metric_history(run.run_id, "system/cpu_utilization_percentage"))
    assert steps >= 2

    with open_run(config, "train", "run", run_id=run.run_id):  # goes on after the last step
        time.sleep(0.3)
    history = mlflow.MlflowClient(run.uri).get_metric_history(run.run_id, "system/cpu_utilization_percentage")
    assert len({point.step for point in history}) == len(history) > steps


@pytest.mark.parametrize("uri", ["http://ann:secret@127.0.0.1:9", "file:///nowhere/mlruns", "gopher://x"])
def test_store_that_cannot_be_used_is_one_line_at_the_start(
    conf: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError) as caught:
        open_run(load_config(conf, [f"tracking.uri={uri}"]), "train", "run")
    message = str(caught.value)
    assert message.startswith(f"MLflow's store {uri.replace('ann:secret', '***')} cannot be used (")
    assert "\n" not in message
    assert "secret" not in message


def test_store_that_fails_later_is_warned_about_once_and_stops_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run(config, "train", "run")
    calls = []

    def broken(*_: object, **__: object) -> None:
        calls.append(1)
        raise ConnectionError("http://ann:secret@host is gone\nand more")

    monkeypatch.setattr(run._client, "log_batch", broken)
    with caplog.at_level(logging.WARNING, "pipelines.tracking.run"):
        for step in range(5):
            run.log_metrics({"loss": 1.0}, step)
    assert [record.message for record in caplog.records] == [
        "MLflow: http://***@host is gone; the run goes on without it"
    ]
    assert (run.lost, run.kept, len(calls)) == (0, 5, 1)  # the others did not wait for a dead server
    monkeypatch.undo()
    run.finish()
    assert len(mlflow.MlflowClient(run.uri).get_metric_history(run.run_id, "loss")) == 5
    assert stored(run).info.status == "FINISHED"


def test_new_database_is_made_in_silence(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(config.home_path)
    with open_run(config, "train", "run"):
        pass
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_no_password_in_what_is_recorded(conf: Path, tmp_path: Path) -> None:
    config = load_config(conf, [f"tracking.uri=sqlite:///{tmp_path}/x.db", "data.events.path=s3://key:secret@b/log"])
    assert "secret" not in str(resolved(config))
    with open_run(config, "train", "run") as run:
        pass
    assert "secret" not in str(stored(run).to_dictionary()) + artifacts(run)["config.yaml"].read_text()


def test_dashboard_becomes_the_server_of_the_store(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(config, "train", "run") as run:
        pass
    seen: list[Any] = []
    monkeypatch.setattr(dashboard.os, "execve", lambda *call: seen.append(call))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    dashboard.serve(run.uri, config.home_path, port=5997)
    ((program, arguments, environment),) = seen
    assert program == sys.executable
    server = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "5997", "--workers", "1"]
    assert arguments[1:] == [*server, "--app-name", "mind"]
    assert environment["MLFLOW_BACKEND_STORE_URI"] == run.uri
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert environment["PYTHONWARNINGS"] == "ignore:starlette.middleware.wsgi is deprecated,error"


def test_dashboard_says_that_a_port_is_taken(config: Config) -> None:
    with open_run(config, "train", "run") as run:
        pass
    with dashboard.socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is taken.*--port N"):
            dashboard.serve(run.uri, config.home_path, port)
