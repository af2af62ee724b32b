"""Whatever a training talks to goes away: it is the same training, and MLflow has all of it in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.testbed.services import postgres_programs
from tests.faults.cases import Fault, Undisturbed
from tests.faults.stores import (
    MlflowAway,
    MlflowDrags,
    MlflowNotThere,
    MlflowSlow,
    PostgresAway,
    PostgresReadOnly,
    StorageAway,
    StorageRestarted,
)
from tests.faults.test_kills import check

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    "fault",
    [MlflowAway(), MlflowAway(after_the_end=True), MlflowSlow(), MlflowDrags(), MlflowNotThere()],
    ids=lambda fault: fault.name,
)
def test_an_mlflow_server_that_goes_away_costs_nothing(undisturbed: Undisturbed, tmp_path: Path, fault: Fault) -> None:
    check(undisturbed, "train", fault, 1, tmp_path)


@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")
@pytest.mark.parametrize("fault", [PostgresAway(), PostgresReadOnly()], ids=lambda fault: fault.name)
def test_a_database_that_goes_away_under_mlflow_costs_nothing(
    undisturbed: Undisturbed, tmp_path: Path, fault: Fault
) -> None:
    check(undisturbed, "train", fault, 1, tmp_path)


@pytest.mark.parametrize("stage", ["preprocess", "train"])
def test_an_object_store_that_stands_still_costs_a_repetition_at_most(
    undisturbed: Undisturbed, tmp_path: Path, stage: str
) -> None:
    check(undisturbed, stage, StorageAway(20.0), 1, tmp_path)


@pytest.mark.parametrize("stage", ["preprocess", "train", "export"])
def test_an_object_store_that_is_restarted_costs_a_repetition_at_most(
    undisturbed: Undisturbed, tmp_path: Path, stage: str
) -> None:
    check(undisturbed, stage, StorageRestarted(8.0), 1, tmp_path)
