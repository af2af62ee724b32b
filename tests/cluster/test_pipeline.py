"""Stages as jobs: the numbers of one machine, whatever nodes come and go. Each test prints what it measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from mlflow import MlflowClient

from tests.cluster.conftest import CONF, upload
from tests.cluster.submitted import ENDED, Submitted, mind, submit
from tests.cluster.testbed import Testbed, ray_nodes
from tests.cluster.testbed.nodes import wait_for
from tests.cluster.testbed.services import BUCKET, storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


START_S = 180  # for a job to be at work
STAGES = ("preprocess", "train", "evaluate")


def files(bed: Testbed, place: str) -> list[str]:
    """Below a place in the bed's bucket."""
    selector = pafs.FileSelector(f"{BUCKET}/{place}", recursive=True, allow_not_found=True)
    return [info.path for info in storage(bed.state).get_file_info(selector) if info.is_file]


def read(bed: Testbed, place: str, name: str) -> bytes:
    """The one file of that name below a place in the bed's bucket."""
    (path,) = (path for path in files(bed, place) if path.endswith(f"/{name}"))
    with storage(bed.state).open_input_stream(path) as file:
        return bytes(file.read())


def configuration(folder: Path, name: str, log: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(CONF.format(name=name, log=log))
    return path


def fingerprint(manifest: bytes) -> str:
    return str(json.loads(manifest)["fingerprint"])


def lose(bed: Testbed, node: str, job: Submitted, once: Callable[[], bool]) -> float:
    """Kill a node as soon as the job is so far, and see that the job is still at work; when that was."""
    wait_for(lambda: once() or job.status() in ENDED, f"{job.id} does not get on", START_S)
    bed.remove_node(node)
    assert job.status() == "RUNNING", job.log()
    return time.monotonic()


def training_workers(bed: Testbed) -> list[str]:
    """The nodes of all that ever were."""
    actors = ray_nodes.listed(bed.state, "actors")
    return [each["node_id"] for each in actors if each["class_name"].startswith("RayTrainWorker")]


def numbers(report: bytes) -> dict[str, object]:
    """Return an evaluation's numbers, without its places, MLflow's ids, and names, which tell where the log lay."""
    found = json.loads(report)
    del found["dataset"]
    for model in found["models"]:
        del model["path"], model["run_id"], model["name"]
    return dict(found)


@pytest.fixture(scope="module")
def conf(bed: Testbed, small_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return configuration(tmp_path_factory.mktemp("conf"), "same", upload(bed, small_log, "small"))


@pytest.fixture(scope="module")
def jobs(bed: Testbed, conf: Path) -> dict[str, Submitted]:
    """All three stages, done."""
    done = {}
    for stage in STAGES:
        begun = time.monotonic()
        done[stage] = submit(bed, stage, conf)
        done[stage].succeed()
        print(f"{stage}: {time.monotonic() - begun:.0f} s as a job")
    return done


def test_jobs_give_the_bits_that_one_machine_gives(
    bed: Testbed, jobs: dict[str, Submitted], small_log: Path, tmp_path: Path
) -> None:
    here, home = configuration(tmp_path, "same", str(small_log)), tmp_path / "home"
    for stage in STAGES:
        mind(stage, str(here), "--home", str(home), env={})

    (weights,) = home.glob("models/*/weights.safetensors")
    (report,) = home.glob("evaluations/*/report.json")
    assert read(bed, "home/models", "weights.safetensors") == weights.read_bytes()
    assert numbers(read(bed, "home/evaluations", "report.json")) == numbers(report.read_bytes())


def test_training_workers_are_on_different_nodes(bed: Testbed, jobs: dict[str, Submitted]) -> None:
    assert len(training_workers(bed)) == len(set(training_workers(bed))) == 2


def test_runs_are_on_the_server_and_what_they_keep_is_on_s3(bed: Testbed, jobs: dict[str, Submitted]) -> None:
    client = MlflowClient(bed.state.url("mlflow"))
    experiment = client.get_experiment_by_name("same")
    assert experiment is not None

    runs = {run.data.tags["mind.stage"]: run for run in client.search_runs([experiment.experiment_id])}

    assert runs.keys() == set(STAGES)
    assert client.get_metric_history(runs["train"].info.run_id, "train/loss")
    kept = {name: [path for path in files(bed, "mlflow") if runs[name].info.run_id in path] for name in STAGES}
    assert [path for path in kept["preprocess"] if path.endswith("/quality.html")]
    assert [path for path in kept["evaluate"] if path.endswith("/report.json")]
    assert [path for path in files(bed, "mlflow") if path.endswith("/weights.safetensors")]


def test_a_node_lost_and_one_that_joins_while_preprocessing_change_nothing(
    bed: Testbed, two_workers: list[str], log_in_files: Path, tmp_path: Path
) -> None:
    job = submit(bed, "preprocess", configuration(tmp_path, "lossy", upload(bed, log_in_files, "files")))
    lost = lose(bed, two_workers[1], job, lambda: any(".lossy.work-" in path for path in files(bed, "home/datasets")))
    bed.add_node()
    print(f"preprocess: {job.status()} when a node joined {time.monotonic() - lost:.0f} s after the loss of another")
    job.succeed()
    print(f"preprocess: ended {time.monotonic() - lost:.0f} s after the loss")
    mind("preprocess", str(configuration(tmp_path, "lossy", str(log_in_files))), "--home", str(tmp_path), env={})

    here = tmp_path / "datasets/lossy/manifest.json"
    assert fingerprint(read(bed, "home/datasets/lossy", "manifest.json")) == fingerprint(here.read_bytes())


def test_an_elastic_training_goes_on_with_one_worker_when_a_node_is_lost(
    bed: Testbed, jobs: dict[str, Submitted], two_workers: list[str], conf: Path
) -> None:
    workers, checkpoints = len(training_workers(bed)), set(files(bed, "home/runs"))
    job = submit(bed, "train", conf, "--set", "train.min_workers=1", "--set", "train.epochs=8")

    lost = lose(
        bed,
        two_workers[1],
        job,
        lambda: any("/checkpoint_" in path for path in set(files(bed, "home/runs")) - checkpoints),
    )
    job.succeed()
    print(f"train: ended {time.monotonic() - lost:.0f} s after the loss of a node")

    assert len(training_workers(bed)) == workers + 2 + 1
