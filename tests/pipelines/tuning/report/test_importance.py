import pytest

from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.report.importance import importance
from tests.pipelines.tuning.ledgers import METRIC, RANDOM, random_ledger, trial

K, R = "model.interests", "model.iterations"


def test_importance_is_all_of_the_setting_that_alone_matters() -> None:
    records = [trial(1 + 4 * a + b, [0.1 * a], {"a": a, "b": b, "c": "same"}) for a in range(4) for b in range(4)]
    shares = importance(records, METRIC).shares
    assert list(shares) == ["a", "b", "c"]
    assert shares["a"] == pytest.approx(1, abs=0.02)
    assert sum(shares.values()) == pytest.approx(1)


def test_importance_gives_a_conditional_setting_no_credit_for_what_turned_it_off() -> None:
    records = [trial(n, [0.1], {K: 1}) for n in range(1, 4)]
    records += [trial(10 * k + r, [0.1 * k], {K: k, R: r}) for k in (2, 3, 4) for r in (1, 2, 3)]
    assert importance(records, METRIC).shares[R] < 0.05


def test_importance_takes_lists_words_and_logarithmic_numbers() -> None:
    shares = importance(random_ledger(30), METRIC).shares
    assert set(shares) == set(RANDOM["space"])  # type: ignore[call-overload]
    assert next(iter(shares)) == "optim.learning_rate"
    assert sum(shares.values()) == pytest.approx(1)


def test_importance_is_at_the_last_epoch_that_all_stopped_trials_saw() -> None:
    # at epoch 2 only a matters; what the finished ones reach after it must not count
    records = [trial(1 + n, [0.0, 0.1 * (n % 2), *([0.9] if n > 5 else [])], {"a": n % 2, "b": n // 2},
                     status="finished" if n > 5 else "stopped") for n in range(8)]  # fmt: skip
    told = importance(records, METRIC)
    assert told.epoch == 2
    assert told.shares["a"] > 0.9


@pytest.mark.parametrize(
    "records",
    [
        [],
        [trial(n, [0.1 * n]) for n in (1, 2, 3)],
        [trial(n, [0.1]) for n in range(1, 9)],
        [trial(n, [0.1 * n], {"a": 1}) for n in range(1, 9)],
    ],
    ids=["none", "few", "equal", "one value"],
)
def test_importance_says_nothing_where_there_is_nothing_to_say(records: list[TrialRecord]) -> None:
    assert importance(records, METRIC).shares == {}
