"""Whatever happens around a command: it ends as if alone, or in one line, and the next one makes the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cases import Undisturbed
from tests.faults.stages import BY_NAME
from tests.faults.surroundings import COMPILER, AnotherBeside, ClockJumps, NoRights, ObjectStoreFull, may_drop_rights
from tests.faults.test_kills import check

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("stage", BY_NAME)
def test_two_commands_on_one_home_make_what_one_makes(undisturbed: Undisturbed, tmp_path: Path, stage: str) -> None:
    check(undisturbed, stage, AnotherBeside(), 0, tmp_path)


@pytest.mark.skipif(not may_drop_rights(), reason="only root may give a home to somebody else")
@pytest.mark.parametrize("stage", BY_NAME)
def test_a_home_of_somebody_else_is_named_and_left_alone(undisturbed: Undisturbed, tmp_path: Path, stage: str) -> None:
    check(undisturbed, stage, NoRights(), 0, tmp_path)


@pytest.mark.parametrize("stage", ["preprocess", "train", "tune"])  # the others need no Ray for a log of this size
def test_an_object_store_that_others_fill_costs_nothing(undisturbed: Undisturbed, tmp_path: Path, stage: str) -> None:
    check(undisturbed, stage, ObjectStoreFull(), 0, tmp_path)


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.parametrize("hours", [-3, 48])
@pytest.mark.parametrize("stage", ["preprocess", "train", "tune"])
def test_a_clock_that_is_set_changes_nothing(undisturbed: Undisturbed, tmp_path: Path, stage: str, hours: int) -> None:
    check(undisturbed, stage, ClockJumps(hours), len(BY_NAME[stage].moments) - 1, tmp_path)
