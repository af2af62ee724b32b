"""The ledger as Ray Tune's searcher, what comes back from Tune, and schedulers that know the past. Without Ray."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from pipelines.config.schema import Config
from pipelines.tuning.config import Stopping
from pipelines.tuning.ledger import Ledger, TrialRecord
from pipelines.tuning.schedulers import prime, scheduler_of
from pipelines.tuning.search import UNSTARTED, LedgerCallback, LedgerSearch, Trials
from pipelines.tuning.trial.training import EPOCH, FAILURE, LAST, QUALITY, REPORTS, failed
from tests.pipelines.tuning.ledgers import METRIC, campaign, trial

BASE = Config.model_validate(
    {"name": "tiny", "data": {"events": {"path": "log.csv"}}, "train": {"epochs": 9, "seed": 5}}
)
RANDOM = {"space": {"optim.learning_rate": {"uniform": [0.001, 0.1]}}}
CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


class Watched:
    """A watcher that notes what it is told, and what the ledger says at that moment."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.heard: list[tuple[str, int, str]] = []

    def note(self, event: str, record: TrialRecord) -> None:
        written = next(each for each in self.ledger.read() if each.number == record.number)
        self.heard.append((event, record.number, written.status))

    def started(self, record: TrialRecord) -> None:
        self.note("started", record)

    def reported(self, record: TrialRecord) -> None:
        self.note("reported", record)

    def ended(self, record: TrialRecord) -> None:
        self.note("ended", record)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "campaigns" / "k-by-r")


@pytest.fixture
def watched(ledger: Ledger) -> Watched:
    return Watched(ledger)


def trials_of(ledger: Ledger, *watchers: Watched, **changes: Any) -> Trials:
    return Trials(campaign(**changes), BASE, ledger, watchers)


def end(trials: Trials, record: TrialRecord, quality: float = 0.1, status: Any = "finished") -> None:
    ended = trial(record.number, [quality], record.values, point=record.point, seed=record.seed, status=status)
    trials.update(replace(ended, finalist=record.finalist), lambda watcher, new: watcher.ended(new))


def handed_out(trials: Trials, finalist: bool = False) -> list[TrialRecord]:
    found = []
    while (record := trials.next(finalist)) is not None:
        found.append(record)
    return found


# ---------------------------------------------------------------- the ledger hands out


def test_a_point_is_in_the_ledger_when_it_is_drawn_with_all_its_seeds(ledger: Ledger) -> None:
    record = trials_of(ledger, search={"seeds": 3}).next(finalist=False)
    k = {"model.interests": 1}
    assert ledger.read() == [TrialRecord(n, 1, seed, k, epochs=9) for n, seed in ((1, 5), (2, 6), (3, 7))]
    assert record == ledger.read()[0]


def test_with_finalists_a_point_is_drawn_with_its_first_seed_only(ledger: Ledger) -> None:
    trials = trials_of(ledger, search={"seeds": 3, "finalists": 1})
    trials.next(finalist=False)
    trials.next(finalist=False)
    assert [(record.point, record.seed) for record in ledger.read()] == [(1, 5), (2, 5)]


def test_every_trial_is_handed_out_once_until_the_space_is_exhausted(ledger: Ledger) -> None:
    trials = trials_of(ledger, search={"seeds": 2})
    assert [record.number for record in handed_out(trials)] == list(range(1, 2 * 17 + 1))
    assert trials.next(finalist=False) is None


def test_trials_that_were_extended_add_their_points_only(ledger: Ledger) -> None:
    few = handed_out(trials_of(ledger, **RANDOM, search={"method": "random", "trials": 2}))
    assert handed_out(trials_of(ledger, **RANDOM, search={"method": "random", "trials": 4}))[:2] == few
    assert [record.point for record in ledger.read()] == [1, 2, 3, 4]


@settings(max_examples=15, deadline=None)
@given(before=st.integers(0, 8), ends=st.sets(st.integers(1, 8)))
def test_another_start_hands_out_the_unfinished_first_and_then_draws_the_same_points(
    tmp_path_factory: pytest.TempPathFactory, before: int, ends: set[int]
) -> None:
    search = {"method": "random", "trials": 4, "seeds": 2}
    whole = handed_out(trials_of(Ledger(tmp_path_factory.mktemp("whole")), **RANDOM, search=search))
    ledger = Ledger(tmp_path_factory.mktemp("killed"))
    first = trials_of(ledger, **RANDOM, search=search)
    for record in [first.next(finalist=False) for _ in range(before)]:
        assert record is not None
        if record.number in ends:
            end(first, record)
    second = handed_out(trials_of(ledger, **RANDOM, search=search))
    left = [record for record in whole if record.number not in ends or record.number > before]
    assert second == left


def test_what_runs_is_not_in_the_ledger_and_begins_again(ledger: Ledger) -> None:
    trials = trials_of(ledger)
    record = trials.next(finalist=False)
    assert record is not None
    running = replace(record, status="running", reports=trial(1, [0.1]).reports)
    trials.update(running, lambda watcher, new: watcher.reported(new))
    assert trials.all() == [running]
    assert ledger.read() == [record]
    assert trials_of(ledger).next(finalist=False) == record


def test_an_end_is_in_the_ledger_before_watchers_hear_of_it(ledger: Ledger, watched: Watched) -> None:
    trials = trials_of(ledger, watched)
    record = trials.next(finalist=False)
    assert record is not None
    trials.update(replace(record, status="running"), lambda watcher, new: watcher.started(new))
    end(trials, record)
    assert watched.heard == [("started", 1, "waiting"), ("ended", 1, "finished")]


def test_the_checkpoint_of_a_trial_goes_with_its_end(ledger: Ledger) -> None:
    trials = trials_of(ledger)
    records = [trials.next(finalist=False) for _ in range(2)]
    for record in records:
        assert record is not None
        ledger.checkpoint(record.number).mkdir(parents=True)
    assert records[0] is not None
    end(trials, records[0])
    assert [ledger.checkpoint(number).exists() for number in (1, 2)] == [False, True]


def test_there_is_something_left_until_all_has_ended(ledger: Ledger) -> None:
    trials = trials_of(ledger, space={"model.interests": {"grid": [1, 2]}})
    assert trials.any_left()
    assert len(ledger.read()) == 1, "a point is drawn to find out, one is enough"
    assert trials.any_left()
    assert len(ledger.read()) == 1
    for record in handed_out(trials):
        assert trials.any_left()
        end(trials, record)
    assert not trials.any_left()
    assert not trials_of(ledger, space={"model.interests": {"grid": [1, 2]}}).any_left()


# ---------------------------------------------------------------- finalists

FIVE = {"space": {"model.interests": {"grid": [1, 2, 4, 6, 8]}}}


def five(ledger: Ledger) -> None:
    """The best failed, the second was stopped early; of the rest points 1, 3 and 5 are the best, in this order."""
    for number, (k, best, status) in enumerate(
        [(1, 0.5, "finished"), (2, 0.9, "failed"), (4, 0.4, "finished"), (6, 0.7, "stopped"), (8, 0.3, "finished")], 1
    ):
        record = trial(number, [best], {"model.interests": k}, seed=5, status=status)  # type: ignore[arg-type]
        ledger.write(record)


def finalists(trials: Trials) -> list[tuple[int, int]]:
    return [(record.point, record.seed) for record in trials.left(finalist=True)]


@pytest.mark.parametrize(
    ("number", "points"), [(1, [1]), (2, [1, 3]), (4, [1, 3, 5, 4]), (5, [1, 3, 5, 4])]
)  # those that were stopped come after all that ran to their end; one that failed has nothing to say
def test_finalists_are_the_best_points_with_the_seeds_they_lack(ledger: Ledger, number: int, points: list[int]) -> None:
    five(ledger)
    trials = trials_of(ledger, **FIVE, search={"seeds": 3, "finalists": number})
    trials.add_finalists()
    assert finalists(trials) == [(point, seed) for point in points for seed in (6, 7)]
    assert all(record.finalist for record in ledger.read()[5:])
    assert ledger.read()[5].values == {"model.interests": 1}


def test_finalists_are_entered_once(ledger: Ledger) -> None:
    five(ledger)
    search = {"seeds": 2, "finalists": 2}
    trials_of(ledger, **FIVE, search=search).add_finalists()
    again = trials_of(ledger, **FIVE, search=search)
    again.add_finalists()
    assert finalists(again) == [(1, 6), (3, 6)]
    for record in handed_out(again, finalist=True):
        end(again, record, quality=0.0)
    assert not again.any_left(), "by the search's ranking, to which the finalists' own results do not count"
    assert len(ledger.read()) == 7


def test_an_interrupted_entry_of_finalists_is_completed(ledger: Ledger) -> None:
    five(ledger)
    ledger.write(TrialRecord(6, 1, 6, {"model.interests": 1}, 9, finalist=True))
    trials = trials_of(ledger, **FIVE, search={"seeds": 3, "finalists": 1})
    trials.add_finalists()
    assert finalists(trials) == [(1, 6), (1, 7)]


def test_when_the_search_is_over_the_finalists_are_what_is_left(ledger: Ledger) -> None:
    five(ledger)
    trials = trials_of(ledger, **FIVE, search={"seeds": 2, "finalists": 1})
    assert trials.next(finalist=False) is None
    assert trials.any_left()
    assert [record.number for record in handed_out(trials, finalist=True)] == [6]


def test_without_finalists_or_without_any_success_nothing_is_added(ledger: Ledger) -> None:
    for number, k in enumerate([1, 2, 4, 6, 8], 1):
        ledger.write(trial(number, [], {"model.interests": k}, seed=5, status="failed"))
    assert not trials_of(ledger, **FIVE, search={"seeds": 2, "finalists": 1}).any_left()
    assert not trials_of(ledger, **FIVE).any_left()


# ---------------------------------------------------------------- what Tune asks for


def test_tune_is_given_the_settings_and_the_place_of_the_checkpoint(ledger: Ledger) -> None:
    trials = trials_of(ledger, space={"model.interests": {"grid": [2]}}, search={"seeds": 2})
    search = LedgerSearch(trials, finalist=False)
    first, second = search.suggest("a"), search.suggest("b")
    assert (first["number"], first["seed"]) == (1, 5)
    k = {"model.interests": 2}
    assert second == {"number": 2, "seed": 6, "values": k, "checkpoint": str(ledger.checkpoint(2))}
    assert search.suggest("c") == search.FINISHED


def test_without_workers_tune_is_given_nothing_more(ledger: Ledger) -> None:
    trials = trials_of(ledger)
    trials.lost = "no room"
    search = LedgerSearch(trials, finalist=False)
    assert search.suggest("a") == search.FINISHED
    assert ledger.read() == []


# ---------------------------------------------------------------- what Tune tells


class Told:
    """A campaign's first trial in Tune's hands."""

    def __init__(self, ledger: Ledger, watched: Watched) -> None:
        self.trials = trials_of(ledger, watched)
        self.callback = LedgerCallback(self.trials)
        record = self.trials.next(finalist=False)
        assert record is not None
        self.trial: Any
        self.error: Exception | None = None
        self.trial = SimpleNamespace(
            config={"number": record.number}, last_result={}, get_pickled_error=lambda: self.error
        )

    def start(self) -> None:
        self.callback.on_trial_start(0, [], self.trial)

    @property
    def record(self) -> TrialRecord:
        return self.trials.records[1]

    def result(self, **result: Any) -> None:
        self.callback.on_trial_result(0, [], self.trial, result)
        self.trial.last_result = result

    def complete(self) -> None:
        self.callback.on_trial_complete(0, [], self.trial)

    def fail(self, error: Exception | None) -> None:
        """Its process died once too often."""
        self.error = error
        self.callback.on_trial_error(0, [], self.trial)


@pytest.fixture
def unstarted(ledger: Ledger, watched: Watched) -> Told:
    return Told(ledger, watched)


@pytest.fixture
def told(unstarted: Told) -> Told:
    unstarted.start()
    return unstarted


FIRST, SECOND, THIRD = trial(1, [0.1, 0.2, 0.3]).reports


def test_a_trial_that_started_runs(told: Told, watched: Watched) -> None:
    assert told.record.status == "running"
    assert watched.heard == [("started", 1, "waiting")]


def test_reports_come_into_the_record_one_by_one(told: Told, watched: Watched) -> None:
    told.result(**{REPORTS: [FIRST]})
    told.result(**{REPORTS: [SECOND]})
    assert told.record.reports == (FIRST, SECOND)
    assert [event for event, _, _ in watched.heard] == ["started", "reported", "reported"]


def test_reports_of_a_trial_that_was_started_anew_are_not_doubled(told: Told, watched: Watched) -> None:
    for report in (FIRST, SECOND, FIRST, SECOND, THIRD):
        told.result(**{REPORTS: [report]})
    assert told.record.reports == (FIRST, SECOND, THIRD)
    assert len(watched.heard) == 1 + 3


@pytest.mark.parametrize(("last", "status"), [(True, "finished"), (False, "stopped")])
def test_a_trial_is_finished_by_itself_or_stopped_by_tune(
    told: Told, ledger: Ledger, watched: Watched, last: bool, status: str
) -> None:
    told.result(**{REPORTS: [FIRST], LAST: last, "done": True})
    told.complete()
    assert (told.record.status, told.record.reason) == (status, None)
    assert ledger.read() == [told.record]
    assert watched.heard[-1] == ("ended", 1, status)


def test_a_failure_has_its_reason_and_the_reports_before_it(told: Told, ledger: Ledger) -> None:
    told.result(**{REPORTS: [FIRST]})
    told.result(**{FAILURE: "ValueError: nan", LAST: True, "done": True})
    told.complete()
    assert (told.record.status, told.record.reason) == ("failed", "ValueError: nan")
    assert ledger.read()[0].reports == (FIRST,)


def test_a_trial_whose_process_died_too_often_has_failed(told: Told, ledger: Ledger, watched: Watched) -> None:
    told.result(**{REPORTS: [FIRST]})
    told.fail(RuntimeError("out of\nmemory"))
    record = ledger.read()[0]
    assert (record.status, record.reports) == ("failed", (FIRST,))
    assert record.reason == "its process died 3 times, the last time: RuntimeError: out of memory"
    assert watched.heard[-1] == ("ended", 1, "failed")
    assert told.trials.lost is None


FULL = OSError(28, "No space left on device", "/home/trials/00001.json")


@pytest.mark.parametrize("where", ["trial", "process", "ledger"])
def test_a_disk_that_refuses_is_no_failure_of_the_trial(
    told: Told, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    told.result(**{REPORTS: [FIRST]})
    if where == "trial":
        told.result(**failed(FULL))
        told.complete()
    elif where == "process":
        told.fail(FULL)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "write", MagicMock(side_effect=FULL))
            told.result(**{REPORTS: [], LAST: True, "done": True})
            told.complete()
    assert told.trials.refused is not None
    assert told.trials.refused.startswith("/home/trials/00001.json: no space is left on the disk; free some")
    assert LedgerSearch(told.trials, finalist=False).suggest("x") == "FINISHED"
    assert ledger.read()[0].status == "waiting"


def test_a_trial_whose_process_was_never_there_is_handed_out_again(unstarted: Told, ledger: Ledger) -> None:
    unstarted.fail(None)
    assert ledger.read()[0].status == "waiting"
    again = unstarted.trials.next(finalist=False)
    assert again is not None
    assert again.number == 1
    assert unstarted.trials.lost is None


def test_when_no_process_can_be_started_the_campaign_is_lost_and_its_trials_are_for_the_next_start(
    unstarted: Told, ledger: Ledger
) -> None:
    for _ in range(UNSTARTED):
        unstarted.fail(OSError("no such dataset"))
    assert unstarted.trials.lost == "OSError: no such dataset"
    assert ledger.read()[0].status == "waiting"


def test_a_start_between_two_that_failed_says_that_processes_can_be_started(unstarted: Told) -> None:
    for _ in range(UNSTARTED - 1):
        unstarted.fail(None)
    unstarted.start()
    unstarted.trials.records[1] = replace(unstarted.record, status="waiting")
    unstarted.fail(None)
    assert unstarted.trials.lost is None


# ---------------------------------------------------------------- schedulers that know the past

ASHA = Stopping(method="asha", grace_epochs=1, reduction=2)
MEDIAN = Stopping(method="median", grace_epochs=2, min_trials=2)


def as_result(report: dict[str, float]) -> dict[str, float]:
    return {QUALITY: report[f"validation/{METRIC}"], EPOCH: report[EPOCH]}


def decisions(scheduler: TrialScheduler, validations: Sequence[float]) -> list[str]:
    """Return what is decided on one more trial, until it is stopped."""
    nobody: Any = None
    newcomer: Any = SimpleTrial("new")
    scheduler.on_trial_add(nobody, newcomer)
    found = []
    for report in trial(1, validations).reports:
        found.append(scheduler.on_trial_result(nobody, newcomer, as_result(report)))
        if found[-1] == STOP:
            break
    return found


class SimpleTrial:
    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def live(scheduler: TrialScheduler, records: Sequence[TrialRecord], chance: random.Random) -> list[TrialRecord]:
    """Let Tune run these trials side by side, in some order; it is told of their ends as Ray's controller does.

    Returns them as they ended: those that the scheduler stopped, stopped.
    """
    nobody: Any = None
    running: list[tuple[Any, TrialRecord, list[dict[str, Any]]]] = []
    ended = []
    for record in records:
        results: list[dict[str, Any]] = [as_result(report) for report in record.reports]
        if record.status == "failed":
            results.append({FAILURE: "nan"})
        running.append((SimpleTrial(f"live-{record.number}"), record, results))
        scheduler.on_trial_add(nobody, running[-1][0])
    while running:
        who, record, results = chance.choice(running)
        result = results.pop(0)
        if results or record.status == "stopped":  # otherwise it is done: the scheduler is not asked
            decision = scheduler.on_trial_result(nobody, who, result)
            if decision == STOP and results:
                seen = len(record.reports) - len([each for each in results if QUALITY in each])
                record, results = replace(record, status="stopped", reports=record.reports[:seen]), []
        if not results:
            scheduler.on_trial_complete(nobody, who, result)
            running = [each for each in running if each[0] is not who]
            ended.append(record)
    return sorted(ended, key=lambda record: record.number)


def test_asha_goes_by_the_trials_of_an_earlier_start() -> None:
    """At epoch 1 the past has 0.1 and 0.3: the better half begins at 0.2."""
    past = [trial(1, [0.1], status="stopped"), trial(2, [0.3, 0.4])]
    fresh, primed = scheduler_of(ASHA, 9), scheduler_of(ASHA, 9)
    prime(primed, past, METRIC)
    assert decisions(fresh, [0.19]) == [CONTINUE]
    assert decisions(primed, [0.19]) == [STOP]
    primed = scheduler_of(ASHA, 9)
    prime(primed, past, METRIC)
    assert decisions(primed, [0.21, 0.39]) == [CONTINUE, STOP], "at epoch 2 it must beat the second's 0.4"


def test_the_median_rule_goes_by_the_trials_of_an_earlier_start() -> None:
    """From epoch 2 on the past has means of 0.3 and 0.5 at epoch 2, of 0.35 and 0.55 at epoch 3."""
    past = [trial(1, [0.9, 0.3, 0.4]), trial(2, [0.9, 0.5, 0.6])]
    for validations, expected in (([0.1, 0.41, 0.44], [CONTINUE, CONTINUE, STOP]), ([0.1, 0.39], [CONTINUE, STOP])):
        primed = scheduler_of(MEDIAN, 9)
        prime(primed, past, METRIC)
        assert decisions(primed, validations) == expected


@pytest.mark.parametrize("stopping", [ASHA, MEDIAN, Stopping(method="asha", grace_epochs=2, reduction=3)])
@settings(max_examples=40, deadline=None)
@given(
    past=st.lists(
        st.tuples(
            st.lists(st.integers(0, 50), min_size=1, max_size=6),
            st.sampled_from(["finished", "stopped", "failed"]),
            st.sampled_from([1.0, 1.5, 2.5]),
        ),
        max_size=6,
    ),
    new=st.lists(st.integers(0, 50), min_size=6, max_size=6),
    seed=st.integers(0, 99),
)
def test_a_primed_scheduler_decides_as_one_that_saw_it_live(
    stopping: Stopping, past: list[tuple[list[int], Any, float]], new: list[int], seed: int
) -> None:
    records = []
    for number, (hundredths, status, pace) in enumerate(past, 1):  # pace: epochs from validation to validation
        record = trial(number, [n / 100 for n in hundredths], status=status)
        reports = tuple(report | {"epoch": pace * report["epoch"]} for report in record.reports)
        records.append(replace(record, reports=reports))
    saw, primed = scheduler_of(stopping, 20), scheduler_of(stopping, 20)
    prime(primed, live(saw, records, random.Random(seed)), METRIC)
    validations = [n / 100 for n in new]
    assert decisions(primed, validations) == decisions(saw, validations)


def test_a_past_that_the_rule_would_have_stopped_can_be_shown() -> None:
    """They ran side by side, each before the others had enough to compare with; shown one by one the last is late."""
    past = [trial(number, [0.5] * 4) for number in (1, 2, 3)] + [trial(4, [0.1, 0.1, 0.1, 0.6])]
    primed = scheduler_of(MEDIAN, 9)
    prime(primed, past, METRIC)
    assert decisions(primed, [0.1, 0.4]) == [CONTINUE, STOP]


@pytest.mark.parametrize("stopping", [ASHA, MEDIAN])
def test_a_trial_that_failed_says_what_it_reported_and_no_more(stopping: Stopping) -> None:
    scheduler = scheduler_of(stopping, 9)
    live(scheduler, [trial(1, [0.1, 0.2], status="failed"), trial(2, [], status="failed")], random.Random(0))
    assert decisions(scheduler, [0.3, 0.3, 0.3]) == [CONTINUE] * 3
    primed = scheduler_of(stopping, 9)
    prime(primed, [trial(1, [], status="failed"), trial(2, [], status="stopped")], METRIC)
    assert decisions(primed, [0.1]) == [CONTINUE]


@pytest.mark.parametrize("method", ["asha", "median"])
def test_a_grace_as_long_as_the_training_or_longer_stops_nobody(method: Any) -> None:
    for grace in (5, 30):
        scheduler = scheduler_of(Stopping(method=method, grace_epochs=grace, min_trials=1), epochs=4)
        prime(scheduler, [trial(1, [0.9] * 4), trial(2, [0.9] * 4)], METRIC)
        assert decisions(scheduler, [0.1] * 4) == [CONTINUE] * 4


def test_the_last_epoch_is_the_trials_own_end_not_a_stop() -> None:
    assert decisions(scheduler_of(ASHA, 4), [0.1] * 4) == [CONTINUE] * 4


def test_without_stopping_tune_lets_every_trial_run() -> None:
    scheduler = scheduler_of(Stopping(method="none"), 4)
    prime(scheduler, [trial(1, [0.9] * 4)], METRIC)
    assert isinstance(scheduler, FIFOScheduler)
    assert decisions(scheduler, [0.1] * 4) == [CONTINUE] * 4


def test_seeds_that_a_kill_left_out_are_entered_by_the_next_start(ledger: Ledger) -> None:
    trials = trials_of(ledger, search={"seeds": 2})
    trials.add(1, trials.seeds[0], {"model.interests": 1})  # and before its second seed, the process is killed
    again = trials_of(ledger, search={"seeds": 2})
    assert again.any_left()
    assert [(record.point, record.seed) for record in again.all()] == [(1, 5), (1, 6)]


def test_what_failed_waits_again_where_that_is_asked_for(ledger: Ledger) -> None:
    trials = trials_of(ledger)
    for status in ("finished", "failed"):
        record = trials.next(finalist=False)
        assert record is not None
        end(trials, record, status=status)
    ledger.reset_failed()
    assert [record.status for record in ledger.read()][:2] == ["finished", "waiting"]
    again = trials_of(ledger).next(finalist=False)
    assert again is not None
    assert (again.number, again.reason) == (2, None)
