"""Rows of the splits, and of the users that no split has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.config.schema import DataConfig
from pipelines.dataset.sorted_events import SortedEvents
from pipelines.dataset.split_rows import newcomers, split_rows

EVENTS = {"path": "log", "user": "user", "item": "item", "time": "time"}


def given_events(times: list[list[int]]) -> SortedEvents:
    """A user for each list; the item of an event is its time modulo 4."""
    user = np.repeat(np.arange(len(times)), [len(each) for each in times]).astype(np.int32)
    time = np.concatenate(times).astype(np.int64)
    return SortedEvents(
        pa.array([f"u{n}" for n in range(len(times))]), pa.array(range(4)), user, (time % 4).astype(np.int32), time
    )


def test_users_whose_events_are_all_held_out_have_a_row_of_their_own() -> None:
    # given users before, across, and after the cut-offs 10 and 20
    split = {"protocol": "temporal", "validation_from": 10, "test_from": 20}
    data = DataConfig.model_validate({"events": EVENTS, "split": split})
    histories = given_events([[1, 2], [1, 12, 22], [21, 25, 26], [11, 15]])
    index = np.array([7, 8, 9, 10])
    rows = split_rows(histories, histories.item + np.int32(2), index, data, "number", (10, 20))
    found = newcomers(histories, histories.item + np.int32(2), index, rows)
    # then those with nothing before the test time, and nothing to be found after it, are the newcomers
    assert found.table.to_pylist() == [
        {"user": 9, "items": [], "targets": [3, 4]},
        {"user": 10, "items": [], "targets": [5]},
    ]
    everyone = {user for each in (*rows.values(), found) for user in each.table["user"].to_pylist()}
    assert everyone == {7, 8, 9, 10}


def test_leave_one_out_has_no_newcomers() -> None:
    data = DataConfig.model_validate({"events": EVENTS})
    histories, index = given_events([[1], [1, 2, 3]]), np.array([0, 1])
    items = histories.item + np.int32(2)
    rows = split_rows(histories, items, index, data, "number", None)
    assert newcomers(histories, items, index, rows).table.num_rows == 0
