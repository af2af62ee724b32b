from pathlib import Path
from typing import Any

import pytest

from jobs.client import Submission
from jobs.submit import Asked, prepare
from pipelines.errors import UserError

CONF = {"conf": Path("conf/tiny.yaml")}


def prepared(
    *words: str,
    stage: str = "train",
    asked: Asked | None = None,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> Submission:
    return prepare(stage, ["conf/tiny.yaml", *words], CONF | options, asked or Asked(), environment or {})[0]


def refused(*words: str, **given: Any) -> str:
    with pytest.raises(UserError) as error:
        prepared(*words, **given)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_entrypoint_is_the_same_command(here: Path) -> None:
    sent = prepared("--set", "train.epochs=3", "--preset", "paper", sets=["train.epochs=3"], preset="paper")
    assert sent.entrypoint == "python -m jobs.cli train conf/tiny.yaml --set train.epochs=3 --preset paper"
    assert sent.resources == {"entrypoint_num_cpus": 0.1}


def test_words_are_quoted_for_the_shell(here: Path) -> None:
    assert prepared("--set", "name=a; rm -rf /", sets=[]).entrypoint.endswith("--set 'name=a; rm -rf /'")


def test_the_id_is_readable_and_new(here: Path) -> None:
    first, second = prepared().id, prepared().id
    assert first != second
    assert first.startswith("mind-train-tiny-2")
    assert len(first) == len("mind-train-tiny-20261125-153012-ab12")


def test_metadata_say_what_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.submit.git_state", lambda: ("0123456789abcdef", True))
    metadata = prepared(asked=Asked(metadata=["ticket=42"])).metadata
    assert (metadata["mind_stage"], metadata["mind_conf"], metadata["ticket"]) == ("train", "conf/tiny.yaml", "42")
    assert metadata["mind_commit"] == "0123456789ab+changes"


def test_conf_travels_to_the_same_place(here: Path) -> None:
    _, files = prepare("train", ["conf/tiny.yaml"], CONF, Asked(), {})
    assert files["conf/tiny.yaml"].read_text() == (here / "conf/tiny.yaml").read_text()
    assert "pipelines/config/presets/paper.yaml" in files


def test_a_conf_from_elsewhere_gets_a_place_and_the_command_names_it(here: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "o.yaml"
    outside.write_text((here / "conf/tiny.yaml").read_text())
    sent, files = prepare("train", [str(outside)], {"conf": outside}, Asked(), {})
    assert sent.entrypoint == "python -m jobs.cli train submitted/o.yaml"
    assert files["submitted/o.yaml"] == outside


def test_a_campaign_takes_its_base_along(here: Path) -> None:
    campaign = here / "conf/k.yaml"
    campaign.write_text("campaign: k\nbase: tiny.yaml\nspace: {model.interests: {grid: [1, 2]}}\n")
    sent, files = prepare("tune", ["conf/k.yaml"], {"conf": Path("conf/k.yaml"), "resume": None}, Asked(), {})
    assert {"conf/k.yaml", "conf/tiny.yaml"} <= files.keys()
    assert sent.id.startswith("mind-tune-k-2")


def test_a_campaign_is_resumed_without_a_file(here: Path) -> None:
    options = {"conf": None, "resume": "k", "home": "s3://b/home"}
    sent, _ = prepare("tune", ["--resume", "k", "--home", "s3://b/home"], options, Asked(), {})
    assert sent.entrypoint == "python -m jobs.cli tune --resume k --home s3://b/home"
    with pytest.raises(UserError, match="home=mind_home: a relative path"):
        prepare("tune", ["--resume", "k"], {"conf": None, "resume": "k"}, Asked(), {})


def test_settings_are_forwarded_and_the_home_is_the_one_that_was_checked(here: Path) -> None:
    environment = {"AWS_ENDPOINT_URL": "http://s3:9000", "MLFLOW_TRACKING_URI": "http://mlflow:5000", "LANG": "C"}
    asked = Asked(env=["LANG", "OMP_NUM_THREADS=2"])
    env = prepared(asked=asked, environment=environment, home="/mnt/home").env
    assert env == {
        "AWS_ENDPOINT_URL": "http://s3:9000", "MLFLOW_TRACKING_URI": "http://mlflow:5000", "LANG": "C",
        "OMP_NUM_THREADS": "2", "MIND_HOME": "/mnt/home", "MIND_DRIVER_CPUS": "0.1",
    }  # fmt: skip


def test_without_a_share_of_a_node_the_driver_holds_none(here: Path) -> None:
    sent = prepared(asked=Asked(num_cpus=0, memory=2**30, resources={"driver": 1}))
    assert sent.resources == {"entrypoint_memory": 2**30, "entrypoint_resources": {"driver": 1}}
    assert "MIND_DRIVER_CPUS" not in sent.env


def test_places_of_this_machine_are_refused(here: Path) -> None:
    assert refused(home="mind_home").startswith(
        "home=mind_home: a relative path, and each node has its own; give s3://"
    )
    assert refused(home="~/home").startswith("home=~/home: a relative path")
    log = "data.events.path=data/log"
    assert refused(stage="preprocess", sets=[log]).startswith("data.events.path=data/log: a relative path, and data do")
    assert refused(stage="preprocess", append="new.csv").startswith("--append new.csv: a relative path")
    assert refused(stage="recommend", out="lists.csv").startswith("--out lists.csv: a relative path")
    (here / "models").mkdir()
    assert refused(stage="evaluate", model="models").startswith("--model models: a folder of this machine")
    assert refused(stage="evaluate", against=["paper", "models"]).startswith("--against models: a folder of this")
    assert refused(sets=["ray.address=10.0.0.1:6379"]).startswith("ray.address=10.0.0.1:6379: a job joins the cluster")


def test_training_does_not_read_the_log(here: Path) -> None:
    prepared(sets=["data.events.path=data/log"])


def test_a_mistake_is_found_before_anything_is_sent(here: Path) -> None:
    assert refused(sets=["train.epochs=0"]) == "--set train.epochs=0: must be >= 1"
    (here / "conf/tiny.yaml").unlink()
    assert refused() == "conf/tiny.yaml: no such configuration file"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(env=["NOT_SET"]), "--env NOT_SET: is not set here; give NOT_SET=VALUE"),
        (Asked(env=["2=x"]), "--env 2: must be NAME, a variable that is set here, or NAME=VALUE"),
        (Asked(metadata=["ticket"]), "--metadata ticket: must be KEY=VALUE, and KEY not begin with mind_"),
        (Asked(metadata=["mind_stage=x"]), "--metadata mind_stage: must be KEY=VALUE, and KEY not begin with mind_"),
        (Asked(submission_id="a/b"), "--submission-id a/b: must be letters, digits and . _ - alone"),
    ],
)
def test_options_of_the_job_are_checked(here: Path, asked: Asked, message: str) -> None:
    assert refused(asked=asked) == message


PLANTED = "planted/Secret+0123"


@pytest.mark.parametrize(
    ("words", "asked", "source"),
    [
        (("--set", f"train.metric={PLANTED}"), Asked(), "--set train.metric"),
        (("--set", "tracking.uri=http://ann:pw@host"), Asked(), "--set tracking.uri"),
        ((f"--user={PLANTED}",), Asked(), "--user"),
        ((), Asked(env=["AWS_SECRET_ACCESS_KEY"]), "--env AWS_SECRET_ACCESS_KEY"),
        ((), Asked(env=[f"HARMLESS={PLANTED}"]), "--env HARMLESS"),
        ((), Asked(env=["DB_PASSWORD=x"]), "--env DB_PASSWORD"),
        ((), Asked(metadata=[f"note=see {PLANTED}"]), "--metadata note"),
    ],
)
def test_a_secret_is_refused_wherever_it_is_put(here: Path, words: tuple[str, ...], asked: Asked, source: str) -> None:
    told = refused(*words, asked=asked, environment={"AWS_SECRET_ACCESS_KEY": PLANTED})
    assert told.startswith(f"{source}: ")
    assert "environment of the nodes" in told
    assert PLANTED not in told
    assert ":pw@" not in told


def test_a_secret_in_a_forwarded_variable_or_in_conf_is_refused(here: Path) -> None:
    told = refused(environment={"MLFLOW_TRACKING_URI": "http://ann:s3cret@host:5000"})
    assert told.startswith("MLFLOW_TRACKING_URI: holds a password or token (http://***@host:5000)")
    with (here / "conf/tiny.yaml").open("a") as file:
        file.write("tracking: {uri: 'postgresql://ann:s3cret@db/mlflow'}\n")
    told = refused()
    assert told.startswith("conf/tiny.yaml, line 5: holds a password or token")
    assert "s3cret" not in told
