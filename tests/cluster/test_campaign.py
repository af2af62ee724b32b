"""Whole pipelines and campaigns as jobs: what is done stays done, whatever nodes come and go."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.cluster.conftest import CONF, upload
from tests.cluster.submitted import submit
from tests.cluster.test_pipeline import START_S, files
from tests.cluster.testbed import Testbed
from tests.cluster.testbed.nodes import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

CAMPAIGN = """\
campaign: wandering
base: {base}
settings: {{train: {{epochs: 2, workers: 2}}}}
space:
  model.interests: {{grid: [1, 2, 4]}}
  optim.learning_rate: {{grid: [0.002, 0.004]}}
search: {{method: grid}}
stopping: {{method: none}}
resources: {{workers: 1, cpus: 1}}
"""


def statuses(bed: Testbed) -> Counter[str]:
    """Count the statuses of the campaign's trials, as MLflow has them."""
    client = MlflowClient(bed.state.url("mlflow"))
    experiment = client.get_experiment_by_name("searched")
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
    return Counter(run.info.status for run in runs if "mind.trial" in run.data.tags)


def test_a_campaign_loses_a_node_and_gains_one(
    bed: Testbed, two_workers: list[str], small_log: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(CONF.format(name="searched", log=upload(bed, small_log, "searched")))
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text(CAMPAIGN.format(base=base.name))
    submit(bed, "preprocess", base).succeed()

    begun = time.monotonic()
    job = submit(bed, "tune", campaign)
    wait_for(lambda: statuses(bed)["FINISHED"] >= 1 or job.is_over(), "no trial ends", START_S)
    bed.remove_node(two_workers[1])
    assert job.status() == "RUNNING", job.log()
    print(f"tune: a node lost after {time.monotonic() - begun:.0f} s, {dict(statuses(bed))}")
    done = statuses(bed)["FINISHED"]
    wait_for(lambda: statuses(bed)["FINISHED"] > done or job.is_over(), "no trial ends on one node", START_S)
    bed.add_node()
    print(f"tune: a node more after {time.monotonic() - begun:.0f} s, {dict(statuses(bed))}")
    log = job.succeed(600)

    print(f"tune: {time.monotonic() - begun:.0f} s in all")
    assert statuses(bed) == {"FINISHED": 6}
    assert "alias challenger" in " ".join(log.split())


def test_a_pipeline_is_done_once(bed: Testbed, two_workers: list[str], small_log: Path, tmp_path: Path) -> None:
    conf = tmp_path / "whole.yaml"
    conf.write_text(CONF.format(name="whole", log=upload(bed, small_log, "whole")))
    submit(bed, "pipeline", conf).succeed(400)
    made = {path for path in files(bed, "home") if "/whole-" in path and path.endswith(".json")}
    assert [path for path in made if path.endswith("/export.json")]

    again = submit(bed, "pipeline", conf).succeed()

    assert again.count("is up to date") == 4
    assert {path for path in files(bed, "home") if "/whole-" in path and path.endswith(".json")} == made
