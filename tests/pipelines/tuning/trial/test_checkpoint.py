"""What an unfinished trial goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.tuning.trial.checkpoint import Report, newest, place_of, publish, reports_of

FIRST: Report = {"step": 100.0, "validation/ndcg@20": 0.1}
SECOND: Report = {"step": 200.0, "validation/ndcg@20": 0.30000000000000004}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "00001"


def save(folder: Path, step: int, *reports: Report, attempt: int = 1, last: bool = False, model: str = "") -> None:
    place = place_of(folder, step, str(attempt))
    (place / "model").write_text(model or f"after {step} steps")
    publish(place, list(reports), last)


def model_of(folder: Path) -> str:
    found = newest(folder)
    assert found is not None
    return (found / "model").read_text()


def test_a_trial_that_never_validated_has_nothing_to_go_on_from(folder: Path) -> None:
    assert newest(folder) is None
    place_of(folder, 100, "1")
    assert newest(folder) is None


@pytest.mark.parametrize("last", [False, True])
def test_reports_and_end_come_back_equal(folder: Path, last: bool) -> None:
    save(folder, 200, FIRST, SECOND, last=last)
    found = newest(folder)
    assert found is not None
    assert reports_of(found) == ([FIRST, SECOND], last)


def test_a_newer_checkpoint_takes_the_place_of_the_older(folder: Path) -> None:
    save(folder, 100, FIRST)
    save(folder, 200, FIRST, SECOND)
    assert model_of(folder) == "after 200 steps"
    assert [place.name for place in folder.iterdir()] == ["step-000000200.1"]


def test_newest_is_by_number_not_by_spelling(folder: Path) -> None:
    save(folder, 999, FIRST)
    save(folder, 1000, FIRST, SECOND)
    assert model_of(folder) == "after 1000 steps"


def test_a_half_written_checkpoint_does_not_count(folder: Path) -> None:
    save(folder, 100, FIRST)
    (place_of(folder, 200, "1") / "model").write_text("half of")
    assert model_of(folder) == "after 100 steps"


def test_the_older_checkpoint_is_there_until_the_newer_is_whole(folder: Path) -> None:
    save(folder, 100, FIRST)
    place = place_of(folder, 200, "1")
    assert (folder / "step-000000100.1" / "reports.json").is_file()
    publish(place, [FIRST, SECOND], last=False)
    assert not (folder / "step-000000100.1").exists()


def test_a_process_killed_before_older_ones_were_removed_leaves_the_newest_to_count(folder: Path) -> None:
    save(folder, 200, FIRST, SECOND)
    kept = folder.parent / "kept"
    (folder / "step-000000200.1").rename(kept)
    save(folder, 100, FIRST)
    kept.rename(folder / "step-000000200.1")
    assert model_of(folder) == "after 200 steps"
    save(folder, 300, FIRST, SECOND)
    assert [place.name for place in folder.iterdir()] == ["step-000000300.1"]


def test_a_repeated_attempt_at_the_same_step_replaces(folder: Path) -> None:
    save(folder, 100, FIRST, model="first attempt")
    save(folder, 100, SECOND, attempt=2, last=True, model="second attempt")
    assert model_of(folder) == "second attempt"
    found = newest(folder)
    assert found is not None
    assert reports_of(found) == ([SECOND], True)


def test_attempts_write_beside_each_other_and_ranks_of_one_attempt_together(folder: Path) -> None:
    assert place_of(folder, 100, "1") != place_of(folder, 100, "2")
    (place_of(folder, 100, "2") / "rank-0").touch()
    (place_of(folder, 100, "2") / "rank-1").touch()
    assert sorted(file.name for file in place_of(folder, 100, "2").iterdir()) == ["rank-0", "rank-1"]


def test_a_late_word_of_an_earlier_attempt_takes_nothing_away(folder: Path) -> None:
    late = place_of(folder, 100, "1")
    save(folder, 200, FIRST, SECOND, attempt=2)
    publish(late, [FIRST], last=False)
    assert model_of(folder) == "after 200 steps"
