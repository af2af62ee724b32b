"""Whatever is killed, the same command gives the same, and nothing is left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cases import Fault, Undisturbed, disturb, record
from tests.faults.conftest import RESULTS
from tests.faults.faults import Again, DiskFills, FullDisk, Memory, ReadOnly, Signal, TornInput, Worker, may_mount
from tests.faults.stages import BY_NAME, STAGES

pytestmark = [pytest.mark.ray, pytest.mark.timeout(3600)]

QUICK = [("preprocess", "SIGKILL", 1)]
KILLS = {name: lambda name=name: Signal(name) for name in ("SIGKILL", "SIGTERM", "SIGINT")} | {Worker.name: Worker}
MOMENTS = 3  # of each stage, at least
OF_RAY = {"preprocess": 3, "train": 3, "tune": 3, "pipeline": 2}  # moments at which a log of this size has Ray at work
ALL = [
    (stage.name, kill, moment)
    for stage in STAGES
    for kill in KILLS
    for moment in range(OF_RAY.get(stage.name, 0) if kill == Worker.name else max(MOMENTS, len(stage.moments)))
]


def check(undisturbed: Undisturbed, stage: str, fault: Fault, moment: int, folder: Path) -> None:
    outcome = disturb(undisturbed, stage, fault, moment, folder)
    assert outcome.struck, f"{outcome.when}: the command was faster, nothing was broken"
    record(outcome, RESULTS)
    assert outcome.differs == []
    assert outcome.left == []


@pytest.mark.parametrize(("stage", "kill", "moment"), QUICK)
def test_a_killed_command_is_gone_on_with(
    undisturbed: Undisturbed, tmp_path: Path, stage: str, kill: str, moment: int
) -> None:
    check(undisturbed, stage, KILLS[kill](), moment, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize(("stage", "kill", "moment"), [case for case in ALL if case not in QUICK])
def test_any_kill_at_any_moment_changes_nothing(
    undisturbed: Undisturbed, tmp_path: Path, stage: str, kill: str, moment: int
) -> None:
    check(undisturbed, stage, KILLS[kill](), moment, tmp_path)


@pytest.mark.faults
def test_a_training_killed_five_times_is_the_undisturbed_one_to_the_bit(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    check(undisturbed, "train", Again(), 1, tmp_path)


@pytest.mark.faults
@pytest.mark.skipif(not may_mount(), reason="only root may mount")
@pytest.mark.parametrize("stage", BY_NAME)
def test_a_full_disk_costs_no_more_than_what_did_not_fit(undisturbed: Undisturbed, tmp_path: Path, stage: str) -> None:
    check(undisturbed, stage, FullDisk(), 0, tmp_path)


@pytest.mark.faults
@pytest.mark.skipif(not may_mount(), reason="only root may mount")
@pytest.mark.parametrize("stage", BY_NAME)
def test_a_disk_that_fills_up_in_the_middle_costs_a_repetition(
    undisturbed: Undisturbed, tmp_path: Path, stage: str
) -> None:
    check(undisturbed, stage, DiskFills(), len(BY_NAME[stage].moments) - 1, tmp_path)


@pytest.mark.faults
@pytest.mark.skipif(not may_mount(), reason="only root may mount")
@pytest.mark.parametrize("stage", ["preprocess", "train", "export"])
def test_a_read_only_home_is_named_and_left_alone(undisturbed: Undisturbed, tmp_path: Path, stage: str) -> None:
    check(undisturbed, stage, ReadOnly(), 0, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["parquet", "csv.gz", "jsonl.gz"])
def test_a_torn_log_is_named_and_the_whole_one_is_what_counts(
    undisturbed: Undisturbed, tmp_path: Path, kind: str
) -> None:
    check(undisturbed, "preprocess", TornInput(kind), 0, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["preprocess", "train", "tune"])
def test_memory_that_runs_out_costs_a_repetition_at_most(undisturbed: Undisturbed, tmp_path: Path, stage: str) -> None:
    check(undisturbed, stage, Memory(), len(BY_NAME[stage].moments) - 1, tmp_path)
