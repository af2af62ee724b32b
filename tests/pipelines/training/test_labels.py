"""Which events are labels, and where the history before a label ends, against a plain reading of the times."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mind_core.sequences import AllTargets, DrawnTargets, Sequences, View, WindowEnds, ends_before, packed
from pipelines.config.schema import Config, TrainConfig
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.training.data import columns_to_train, read_data, train_table, with_targets
from pipelines.training.labels import HELD_OUT, LabelRule, label_rule, train_sequences, with_fitting_windows
from pipelines.training.memory_input import MemoryInput, TrainInput, count_labels
from pipelines.training.stream_input import PartFile, StreamInput
from pipelines.training.train import train
from tests.pipelines.planted import configure

CPU = torch.device("cpu")
COLUMNS = ["items", "times"]
LOGS = st.lists(st.lists(st.integers(0, 6), max_size=9).map(sorted), min_size=1, max_size=6)  # each user's times
RULES = st.builds(LabelRule, st.booleans(), st.none() | st.integers(-1, 8))


def table(log: Sequence[Sequence[int]], first_item: int = 2) -> pa.Table:
    """Items are numbered in the order of the log, so that an item tells its event."""
    items, item = [], first_item
    for times in log:
        items.append(list(range(item, item + len(times))))
        item += len(times)
    kinds = pa.list_(pa.int32()), pa.list_(pa.int64())
    return pa.table({"items": pa.array(items, kinds[0]), "times": pa.array([list(each) for each in log], kinds[1])})


def labels_of(log: Sequence[Sequence[int]], rule: LabelRule) -> list[int]:
    """Places of the events that may be labels, in the flat log."""
    found, start = [], 0
    for times in log:
        late = [place for place, time in enumerate(times) if rule.since is None or time >= rule.since]
        found += [start + place for place in late if place > 0]
        start += len(times)
    return found


@given(LOGS, RULES)
def test_every_event_that_may_be_a_label_is_one(log: list[list[int]], rule: LabelRule) -> None:
    sequences, expected = train_sequences(table(log), [], rule), labels_of(log, rule)
    everything = AllTargets(sequences)
    assert everything[torch.arange(len(everything))].positions.tolist() == expected
    drawn = DrawnTargets(sequences, 3, 0)
    assert set(drawn[torch.arange(len(drawn))].positions.tolist()) <= set(expected)
    assert len(drawn) == 3 * sum(
        any(start <= place < stop for place in expected)
        for start, stop in zip(sequences.offsets[:-1].tolist(), sequences.offsets[1:].tolist(), strict=True)
    )
    counted = count_labels(sequences, False, 100)
    assert counted.nonzero().flatten().tolist() == [place + 2 for place in expected]


@given(LOGS, st.integers(1, 4), st.integers(0, 9), st.none() | st.integers(-1, 8))
def test_a_history_ends_before_a_moment_and_keeps_at_least_one_event(
    log: list[list[int]], horizon: int, seed: int, since: int | None
) -> None:
    sequences = train_sequences(table(log), [], LabelRule(by_moment=True, since=since))
    times = [time for own in log for time in own]
    samples = AllTargets(sequences)
    users, positions = (found := samples[torch.arange(len(samples))]).users, found.positions
    ends = ends_before(sequences, users, positions, horizon, torch.Generator().manual_seed(seed))
    for user, position, end in zip(users.tolist(), positions.tolist(), ends.tolist(), strict=True):
        start = int(sequences.offsets[user])
        assert start < end <= position
        assert position - end < horizon or times[end] < times[position] or times[end] == times[end + horizon - 1]
        # either no seen event is of the moment in which the history ends, or only the first one is left
        assert times[end - 1] < times[end] or end == start + 1
        if horizon == 1:
            assert end == max(start + 1, next(n for n in range(start, position + 1) if times[n] == times[position]))


@given(LOGS, RULES, st.integers(1, 3), st.integers(0, 9))
def test_windows_see_nothing_of_the_moment_of_their_labels(
    log: list[list[int]], rule: LabelRule, per_window: int, seed: int
) -> None:
    sequences, expected = train_sequences(table(log), [], rule), set(labels_of(log, rule))
    times = [time for own in log for time in own]
    ends = WindowEnds(sequences, 4)
    samples = ends[torch.arange(len(ends))]
    if not len(samples):
        return
    found = packed(sequences, samples, View(4), per_window, torch.Generator().manual_seed(seed))
    for number, (position, real, mask) in enumerate(zip(found.positions.tolist(), found.real, found.mask, strict=True)):
        if not real:
            continue
        assert position in expected
        seen = [item - 2 for item in found.items[number // per_window][mask].tolist()]
        assert seen
        assert max(seen) < position
        if rule.by_moment:
            assert times[max(seen)] < times[position] or len(seen) == 1
        else:
            assert max(seen) == position - 1


@contextmanager
def streamed(logs: list[list[list[int]]], config: TrainConfig, rule: LabelRule) -> Iterator[StreamInput]:
    """Write the parts of a log, items numbered through all of them, and give them as a stream."""

    def read(parts: Sequence[PartFile]) -> Iterator[pa.Table]:
        return (pq.read_table(part.path, columns=COLUMNS) for part in parts)

    with tempfile.TemporaryDirectory() as folder:
        files, item = [], 2
        for number, part in enumerate(logs):
            files.append(str(Path(folder, f"part-{number:05d}.parquet")))
            own = table(part, item).append_column("user", pa.array(range(len(part)), pa.int64()))
            pq.write_table(own, files[-1])
            item += sum(map(len, part))
        yield StreamInput(config, files, read, [], CPU, rule=rule)


def steps_of(given: TrainInput) -> list[tuple[int, int, int]]:
    """(label's item, events back to its moment, events of its user that are no labels) of an epoch, sorted."""
    found = []
    for step in given.steps(0):
        if not step.weight:
            continue
        sequences, samples = step.sequences, step.samples
        back = [0] * len(samples) if sequences.moments is None else sequences.moments[samples.positions].tolist()
        past = [0] * len(samples) if sequences.past is None else sequences.past[samples.users].tolist()
        found += list(zip(sequences.items[samples.positions].tolist(), back, past, strict=True))
    return sorted(found)


@settings(max_examples=40, deadline=None)
@given(st.lists(LOGS, min_size=1, max_size=3), RULES, st.integers(1, 30))
def test_a_stream_has_the_labels_that_memory_has(logs: list[list[list[int]]], rule: LabelRule, window: int) -> None:
    config = TrainConfig(batch_size=4, epochs=1, shuffle_events=window)
    log = [times for part in logs for times in part]
    if not labels_of(log, rule):
        return

    with streamed(logs, config, rule) as stream:
        found = steps_of(stream)
    assert found == steps_of(MemoryInput(config, train_sequences(table(log), [], rule)))


def unasked(given: TrainInput) -> list[int]:
    """The items of the events in a rank's share that are no labels, or of all where all may be: `past` says which."""
    found = []
    for sequences in given.histories():
        for start, count in zip(sequences.offsets[:-1].tolist(), sequences.before_labels.tolist(), strict=True):
            found += sequences.items[start : start + count].tolist()
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(LOGS, min_size=1, max_size=3), RULES, st.integers(1, 3))
def test_ranks_share_out_the_histories_that_items_begin_with(
    logs: list[list[list[int]]], rule: LabelRule, ranks: int
) -> None:
    """In memory and as a stream alike; an event that may be a label is in none, where some events are none."""
    config, log = TrainConfig(batch_size=4, epochs=1), [times for part in logs for times in part]
    if not labels_of(log, rule):
        return

    chained = itertools.chain(*log)
    expected = [place + 2 for place, time in enumerate(chained) if rule.since is None or time < rule.since]
    held = train_sequences(table(log), [], rule)
    shares = [unasked(MemoryInput(config, held, rank, ranks)) for rank in range(ranks)]
    assert sorted(itertools.chain(*shares)) == expected
    with streamed(logs, config, rule) as stream:
        assert unasked(stream) == expected


def test_nothing_to_predict_is_said_in_a_line() -> None:
    sequences = train_sequences(table([[1, 1], [5]]), [], LabelRule(since=5))
    with pytest.raises(UserError, match=r"train.label_share=0.1: none of the newest events .* at most 1"):
        MemoryInput(TrainConfig(label_share=0.1), sequences)


def test_sequences_without_a_rule_have_every_event_as_a_label() -> None:
    sequences = train_sequences(table([[1, 1, 2]]), [], LabelRule())
    assert sequences.moments is None
    assert sequences.past is None
    assert isinstance(sequences, Sequences)
    assert ends_before(sequences, torch.tensor([0]), torch.tensor([1]), 1, torch.Generator()).tolist() == [1]


@example([[1, 2]], [[]])
@given(LOGS, st.lists(st.lists(st.integers(2, 9), max_size=3), min_size=1, max_size=6))
def test_held_out_events_are_the_newest_moment(log: list[list[int]], targets: list[list[int]]) -> None:
    count = min(len(log), len(targets))
    known = table(log[:count]).append_column("user", pa.array(range(count), pa.int64()))
    nobody = known.slice(0, 0)
    validation = known.append_column("targets", pa.array(targets[:count], pa.list_(pa.int32())))
    joined = with_targets(nobody, validation)
    assert joined["times"].to_pylist() == [
        times + [HELD_OUT] * len(own) for times, own in zip(log[:count], targets[:count], strict=True)
    ]
    assert [len(items) for items in joined["items"].to_pylist()] == list(map(len, joined["times"].to_pylist()))
    assert joined.schema.field("times") == nobody.schema.field("times")


@pytest.mark.ray
def test_the_rule_of_a_dataset_follows_its_protocol_and_its_newest_events(config: Config) -> None:
    dataset = Dataset.open(config.dataset_path)
    assert label_rule(config.train, dataset) == LabelRule()
    assert label_rule(TrainConfig(cut="moment"), dataset).by_moment
    temporal = dataset.manifest.config | {"split": {"protocol": "temporal"}}
    as_temporal = Dataset(dataset.path, replace(dataset.manifest, config=temporal))
    assert label_rule(TrainConfig(), as_temporal) == LabelRule(by_moment=True)
    assert label_rule(TrainConfig(cut="event"), as_temporal) == LabelRule()
    since = label_rule(TrainConfig(label_share=0.25), dataset).since
    times = [time for own in dataset.table("train", ["times"])["times"].to_pylist() for time in own]
    assert since is not None
    assert sum(time >= since for time in times) / len(times) == pytest.approx(0.25, abs=0.01)
    table = train_table(dataset, [*columns_to_train(dataset), "times"], include_validation=True)
    assert [len(own) for own in table["times"].to_pylist()] == [len(own) for own in table["items"].to_pylist()]


def test_windows_fit_the_labels_that_users_have(config: Config) -> None:
    dataset = Dataset.open(config.dataset_path)
    counts = dataset.manifest.splits["train"]
    average = (counts.events - counts.users) / counts.users

    def windows(asked: int | None, users: int = counts.users) -> int | None:
        splits = dataset.manifest.splits | {"train": replace(counts, users=users)}
        other = Dataset(dataset.path, replace(dataset.manifest, splits=splits))
        train = config.train.model_copy(update={"labels_per_window": asked})
        return with_fitting_windows(config.model_copy(update={"train": train}), other).train.labels_per_window

    assert windows(None) is None
    found = windows(10_000)
    assert found is not None
    assert found / 2 < average <= found
    assert windows(4) == 4 < average
    assert windows(32, users=counts.events // 2) == 1, "one label each"


@pytest.mark.ray
def test_a_streamed_training_follows_the_rule(planted_home: Path, planted_log: Path) -> None:
    changed = {"cut": "moment", "label_share": 0.5, "input": "stream"}
    config = configure(planted_home, planted_log, workers=1, epochs=1, **changed)
    samples = MemoryInput(config.train, read_data(Dataset.open(config.dataset_path), config.train).train).size
    assert train(config).metrics["step"] == -(-samples // config.train.batch_size)
