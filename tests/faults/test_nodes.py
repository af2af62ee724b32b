"""A cluster loses a machine, or its head: the job goes on, or the same job does, and makes what one machine makes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from tests.cluster.submitted import ENDED, Submitted, submit
from tests.cluster.testbed import Testbed, ray_nodes
from tests.cluster.testbed.nodes import wait_for
from tests.cluster.testbed.services import BUCKET, postgres_programs, storage
from tests.faults.cases import Outcome, Undisturbed, record, write_conf
from tests.faults.conftest import RESULTS
from tests.faults.stages import BY_NAME, Stage

pytestmark = [
    pytest.mark.ray,
    pytest.mark.faults,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(postgres_programs() is None, reason="the test bed needs PostgreSQL"),
]
START_S = 240  # for a job to be at work
JOB_S = 600


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """Up, with two workers of one CPU."""
    bed = Testbed(tmp_path_factory.mktemp("bed") / "b")
    bed.up(workers=2)
    yield bed
    bed.down()


class JobScene:
    """A stage as a job on the bed, on a home of its own in the bed's bucket."""

    def __init__(self, bed: Testbed, undisturbed: Undisturbed, name: str, folder: Path) -> None:
        undisturbed.run(name)
        self.bed, self.undisturbed, self.stage, self.folder = bed, undisturbed, BY_NAME[name], folder
        self.place = f"{BUCKET}/{folder.name}"
        self.store = storage(bed.state)
        self._copy(undisturbed.log, "log")
        for needed in self.stage.needs:
            self._copy(undisturbed.places(name)[0] / needed, f"home/{needed}")
        self.conf = write_conf(folder, f"s3://{self.place}/home", f"s3://{self.place}/log")
        self.home, self.out = folder / "fetched", folder / "lists.parquet"

    def _copy(self, source: Path, name: str) -> None:
        pafs.copy_files(str(source), f"{self.place}/{name}", destination_filesystem=self.store)

    def start(self) -> Submitted:
        """Submit it."""
        return submit(self.bed, self.stage.name, self.conf, "--home", f"s3://{self.place}/home")  # not the bed's

    def wait(self, job: Submitted) -> None:
        """Wait until the job is at work."""
        line = self.stage.moments[-1]
        wait_for(lambda: line in job.log() or job.status() in ENDED, f"{job.id} does not get on", START_S)

    def outcome(self, fault: str, ended: str, repeated_s: float | None) -> Outcome:
        """Compare with one machine's."""
        name = self.stage.name
        self.store = storage(self.bed.state)
        pafs.copy_files(f"{self.place}/home", str(self.home), source_filesystem=self.store)
        made, expected = self.stage.made(self.home, self.out), self.undisturbed.made[name]
        differs = sorted(key for key in made.keys() | expected.keys() if made.get(key) != expected.get(key))
        seconds = self.undisturbed.seconds[name]
        left = [str(path) for path in self.home.rglob(".work-*")]
        when = f"after “{self.stage.moments[-1].strip()}”"
        return Outcome(name, fault, when, ended, repeated_s, round(seconds, 1), differs, left)


def busy_worker(bed: Testbed, stage: Stage) -> str:
    """Name a node on which an actor of the stage lives, or else any worker."""
    alive = {number: name for name, number in ray_nodes.alive(bed.state).items()}
    for actor in ray_nodes.listed(bed.state, "actors"):
        title = f"{actor['class_name']}"
        if actor["state"] == "ALIVE" and any(word in title for word in stage.worker) and actor["node_id"] in alive:
            return alive[actor["node_id"]]
    return bed.workers()[-1]


@pytest.mark.parametrize("name", ["preprocess", "train", "evaluate", "export"])
def test_a_job_whose_node_is_lost_while_another_joins_makes_the_same(
    bed: Testbed, undisturbed: Undisturbed, tmp_path: Path, name: str
) -> None:
    scene = JobScene(bed, undisturbed, name, tmp_path)
    job = scene.start()
    scene.wait(job)
    bed.remove_node(busy_worker(bed, scene.stage))
    lost = time.monotonic()
    struck = job.status() == "RUNNING"
    bed.add_node()
    job.succeed(JOB_S)
    ended = f"{'' if struck else 'was faster: '}succeeded {time.monotonic() - lost:.0f} s later"
    outcome = scene.outcome("a node lost, another joins", ended, None)
    record(outcome, RESULTS)
    assert outcome.differs == []
    assert outcome.left == []


def test_a_job_that_dies_with_the_head_is_gone_on_with_on_the_next_one(
    bed: Testbed, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    scene = JobScene(bed, undisturbed, "train", tmp_path)
    job = scene.start()
    scene.wait(job)
    bed.restart_head()
    for _ in range(2):
        bed.add_node()
    began = time.monotonic()
    scene.start().succeed(JOB_S)
    outcome = scene.outcome("the head lost, and a new one", "died with it", round(time.monotonic() - began, 1))
    record(outcome, RESULTS)
    shutil.rmtree(scene.home)
    assert outcome.differs == []
    assert outcome.left == []
