"""`mind pipeline`: every step once, and again only what its input has made old."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.exceptions import RayTaskError

from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.pipeline import StageResult, pipeline
from pipelines.preprocess.append import append
from pipelines.preprocess.preprocess import made_before, preprocess
from tests.pipelines.planted import configure

pytestmark = pytest.mark.ray


@pytest.fixture
def own(tmp_path: Path, planted_log: Path, ray_cluster: None) -> Config:
    """A home and a log of this test's own, and one epoch."""
    log = tmp_path / "log"
    shutil.copytree(planted_log, log)
    return configure(tmp_path / "home", log, epochs=1, workers=1)


def worked(steps: list[StageResult]) -> list[str]:
    return [step.name for step in steps if step.seconds is not None]


ALL = ["preprocess", "train", "evaluate", "export"]


def evaluated(config: Config, **settings: Any) -> Config:
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=settings)})


def test_each_step_is_done_once_and_again_only_for_what_has_changed(own: Config) -> None:
    steps = pipeline(own)
    assert worked(steps) == ALL
    assert all(step.output.exists() for step in steps)
    assert steps[3].figures["items"] == steps[0].figures["items"]

    again = pipeline(own)
    assert worked(again) == []
    assert [(step.output, dict(step.figures)) for step in again] == [
        (step.output, dict(step.figures)) for step in steps
    ]

    assert worked(pipeline(evaluated(own, top_n=3))) == ["export"]
    assert worked(pipeline(own, latest=False)) == ["export"]
    shutil.rmtree(steps[2].output)
    assert worked(pipeline(own)) == ["evaluate"]

    shutil.rmtree(steps[1].output)  # somebody removed the model
    assert worked(pipeline(own)) == ["train", "evaluate", "export"]


def test_a_log_that_has_changed_makes_anew_what_comes_out_other(own: Config) -> None:
    pipeline(own)
    file = next(Path(own.data.events.path).iterdir())
    events = pq.read_table(file)
    pq.write_table(events.slice(0, 100), file.with_name("again.parquet"))  # duplicates: the same dataset comes out
    assert worked(pipeline(own)) == ["preprocess"]
    pq.write_table(events.slice(0, len(events) // 2), file)
    assert worked(pipeline(own)) == ALL


def test_an_appended_day_is_kept_while_the_log_is_as_it_was(own: Config, tmp_path: Path) -> None:
    preprocess(own)
    before = made_before(own)
    assert before is not None
    event = pq.read_table(next(Path(own.data.events.path).iterdir())).slice(0, 50)
    time = event.schema.get_field_index("time")
    later = pa.array([value + (value - value) for value in event["time"].to_pylist()], event.schema.field(time).type)
    day = tmp_path / "day.parquet"
    pq.write_table(event.set_column(time, "time", later), day)
    append(own, str(day))
    found = made_before(own)
    assert found is not None
    assert found.manifest.appended == 1


def test_a_step_that_fails_is_named(own: Config) -> None:
    broken = configure(Path(own.home), Path(own.data.events.path).parent / "nowhere")
    with pytest.raises(UserError, match=r"^preprocess: .*nowhere"):
        pipeline(broken)


def test_a_mistake_in_a_worker_is_one_line_with_the_step(own: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = RayTaskError("map", "forty lines of remote traceback", UserError("log.csv: no column user"))
    for error in (remote.as_instanceof_cause(), RuntimeError("a stage failed")):
        if isinstance(error, RuntimeError):
            error.__cause__ = remote.as_instanceof_cause()

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("pipelines.pipeline.preprocess", fail)
        with pytest.raises(UserError, match=r"^preprocess: log.csv: no column user$"):
            pipeline(own)


def test_any_other_error_says_in_which_step(own: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("pipelines.pipeline.preprocess", fail)
    with pytest.raises(KeyError) as found:
        pipeline(own)
    assert found.value.__notes__ == ["in the step preprocess of mind pipeline"]


def test_a_model_trained_on_the_validation_split_has_no_figure_of_it(own: Config) -> None:
    config = own.model_copy(update={"train": own.train.model_copy(update={"include_validation": True})})
    steps = pipeline(config)
    assert worked(steps) == ALL
    assert steps[1].figures == {}


def test_the_report_of_another_model_of_this_name_does_not_count(own: Config) -> None:
    steps = pipeline(own)
    file = steps[2].output / "report.json"
    report = json.loads(file.read_text())
    report["models"][0]["run_id"] = "another"
    file.write_text(json.dumps(report))
    assert worked(pipeline(own)) == ["evaluate"]
