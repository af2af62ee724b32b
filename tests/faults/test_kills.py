"""Whatever is killed, the same command gives the same, and nothing is left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cases import FAULTS, Undisturbed, disturb, record
from tests.faults.conftest import RESULTS
from tests.faults.stages import STAGES

pytestmark = [pytest.mark.ray, pytest.mark.timeout(3600)]

QUICK = [("preprocess", "SIGKILL", 1)]
ALL = [(stage.name, fault, moment) for stage in STAGES for fault in FAULTS for moment in range(len(stage.moments))]


def check(undisturbed: Undisturbed, stage: str, fault: str, moment: int, folder: Path) -> None:
    outcome = disturb(undisturbed, stage, fault, moment, folder)
    record(outcome, RESULTS)
    assert outcome.differs == []
    assert outcome.left == []


@pytest.mark.parametrize(("stage", "fault", "moment"), QUICK)
def test_a_killed_command_is_gone_on_with(
    undisturbed: Undisturbed, tmp_path: Path, stage: str, fault: str, moment: int
) -> None:
    check(undisturbed, stage, fault, moment, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize(("stage", "fault", "moment"), [case for case in ALL if case not in QUICK])
def test_any_kill_at_any_moment_changes_nothing(
    undisturbed: Undisturbed, tmp_path: Path, stage: str, fault: str, moment: int
) -> None:
    check(undisturbed, stage, fault, moment, tmp_path)
