import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.schema import Split
from pipelines.dataset.splits import Stretches, first_occurrences, gather, split_users


def cut(
    split: Split, lengths: list[int], time: list[int] | None = None, cutoffs: tuple[int, int] | None = None
) -> dict[str, Stretches]:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    times = np.array(time if time is not None else np.arange(offsets[-1]), np.int64)
    return split_users(split, pa.array(range(len(lengths)), pa.int64()), offsets, times, cutoffs)


def rows(stretches: Stretches) -> list[tuple[int, list[int], list[int]]]:
    return [
        (int(user), list(range(a, b)), list(range(c, d)))
        for user, a, b, c, d in zip(
            stretches.user,
            stretches.start,
            stretches.stop,
            stretches.target_start,
            stretches.target_stop,
            strict=True,
        )
    ]


def test_leave_one_out_keeps_the_last_for_test_and_the_one_before_for_validation() -> None:
    splits = cut(Split(), [4, 2, 3])  # events 0-3, 4-5, 6-8
    assert rows(splits["train"]) == [(0, [0, 1], []), (1, [4, 5], []), (2, [6], [])]
    assert rows(splits["validation"]) == [(0, [0, 1], [2]), (2, [6], [7])]
    assert rows(splits["test"]) == [(0, [0, 1, 2], [3]), (2, [6, 7], [8])]
    assert (splits["validation"].skipped, splits["test"].skipped) == (1, 1)


def test_temporal_targets_lie_after_the_cutoff_and_histories_before_it() -> None:
    split = Split(protocol="temporal", validation_from=10, test_from=20)
    time = [1, 9, 10, 19, 20, 25, 12, 21, 3, 4, 30]  # users of 6, 2, 2 and 1 events
    splits = cut(split, [6, 2, 2, 1], time, (10, 20))
    assert rows(splits["train"]) == [(0, [0, 1], []), (2, [8, 9], [])]
    assert rows(splits["validation"]) == [(0, [0, 1], [2, 3])]
    assert rows(splits["test"]) == [(0, [0, 1, 2, 3], [4, 5]), (1, [6], [7])]
    assert [splits[name].skipped for name in ("train", "validation", "test")] == [2, 3, 2]


def test_user_holdout_observes_the_first_share_and_seeks_the_rest() -> None:
    splits = cut(Split(protocol="user_holdout", held_out=0.49), [10] * 50 + [1] * 50)
    sizes = {name: len(splits[name].user) for name in splits}
    everyone = sorted(int(user) for name in splits for user in splits[name].user if user < 50)
    assert everyone == list(range(50)), "each user is in one split"
    assert sizes["validation"] > 10
    assert splits["validation"].skipped > 10, "one event leaves nothing to find"
    for name in ("validation", "test"):
        for user, history, targets in rows(splits[name]):
            assert history == list(range(10 * user, 10 * user + 8))
            assert targets == [10 * user + 8, 10 * user + 9]
    assert all(
        stop == start for start, stop in zip(splits["train"].target_start, splits["train"].target_stop, strict=True)
    )


def test_user_holdout_depends_on_the_id_and_the_seed_alone() -> None:
    def held(ids: list[str], seed: int) -> set[str]:
        offsets = np.arange(len(ids) + 1) * 2
        split = Split(protocol="user_holdout", seed=seed)
        test = split_users(split, pa.array(ids), offsets, np.zeros(2 * len(ids), np.int64), None)["test"]
        return {ids[user] for user in test.user}

    ids = [f"user {n}" for n in range(500)]
    assert held(ids, 0) == held(ids[::-1], 0)
    assert held(ids[:250], 0) == held(ids, 0) & set(ids[:250])
    assert held(ids, 0) != held(ids, 1)
    assert 25 < len(held(ids, 0)) < 80


@pytest.mark.parametrize(("length", "observed", "expected"), [(100, 0.29, 29), (5, 0.8, 4), (2, 0.1, 1), (3, 0.99, 2)])
def test_the_observed_share_is_rounded_down_but_not_by_float_noise(length: int, observed: float, expected: int) -> None:
    split = Split(protocol="user_holdout", held_out=0.49, observed=observed)
    splits = cut(split, [length] * 20)
    seen = {len(history) for name in ("validation", "test") for _, history, _ in rows(splits[name])}
    assert seen == {expected}


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=8))
def test_first_occurrences_are_those_of_a_plain_loop(lists: list[list[int]]) -> None:
    array = pa.array(lists, pa.list_(pa.int32()))
    assert first_occurrences(array).to_pylist() == [list(dict.fromkeys(each)) for each in lists]


@given(st.lists(st.integers(1, 6), max_size=12), st.sampled_from(["leave_one_out", "temporal", "user_holdout"]))
def test_history_comes_before_targets_and_nobody_sees_the_same_event_twice(lengths: list[int], protocol: str) -> None:
    total = sum(lengths)
    dates = {"validation_from": 3, "test_from": 5} if protocol == "temporal" else {}
    time = [place for length in lengths for place in range(length)]
    splits = cut(Split.model_validate({"protocol": protocol, **dates}), lengths, time, (3, 5))
    for name, stretches in splits.items():
        events = [event for _, history, targets in rows(stretches) for event in history + targets]
        assert events == sorted(set(events))
        assert all(0 <= event < total for event in events)
        assert all(history for _, history, _ in rows(stretches))
        assert all(bool(targets) == (name != "train") for _, _, targets in rows(stretches))


def test_gather_takes_slices() -> None:
    lists = gather(np.array([5, 6, 7, 8], np.int32), np.array([0, 2, 3]), np.array([2, 2, 4]))
    assert lists.to_pylist() == [[5, 6], [], [8]]
