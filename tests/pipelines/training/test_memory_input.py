"""The two inputs of training: every sample once an epoch, equal steps on all ranks, and a place to go on at."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.config import LossConfig, ModelConfig, OptimConfig
from mind_core.features import FeatureSpec, item_bags
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.sequences import Sequences
from mind_core.training import Trainer
from pipelines.config.schema import TrainConfig
from pipelines.dataset.dataset import SplitCounts
from pipelines.dataset.tensors import to_sequences
from pipelines.training import memory_input as train_input
from pipelines.training import stream_input as train_stream
from pipelines.training.checkpoints import EarlyStopping, load_checkpoint, save_checkpoint
from pipelines.training.memory_input import MemoryInput, Step, TrainInput, choose_input, memory_bytes
from pipelines.training.stream_input import (
    PartFile,
    Piece,
    RayReader,
    StreamInput,
    group_pieces,
    part_of,
    prefetched,
    rank_pieces,
    recut,
)

CPU = torch.device("cpu")
PROFILE = [FeatureSpec("group", "categorical", 1000)]
COLUMNS = ["items", "profile_group"]
LONGEST = 3  # events of a window
Log = list[list[int]]  # of each part, its users' numbers of events

logs = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=6), min_size=1, max_size=6).filter(
    lambda log: any(n >= 2 for part in log for n in part)
)


def written(log: Log, folder: Path) -> list[str]:
    """PartFile files in which no item occurs twice, so that a label names its sample; user u's group is u."""
    files, user, item = [], 0, 2
    for number, sizes in enumerate(log):
        items = []
        for n in sizes:
            items.append(list(range(item, item + n)))
            item += n
        groups = range(user, user + len(sizes))
        user += len(sizes)
        columns = {
            "user": pa.array(groups, pa.int64()),
            "items": pa.array(items, pa.list_(pa.int32())),
            "profile_group": pa.array(groups, pa.int32()),
        }
        files.append(str(folder / f"part-{number:05d}.parquet"))
        pq.write_table(pa.table(columns), files[-1], row_group_size=4)
    return files


def read(parts: Sequence[PartFile]) -> Iterator[pa.Table]:
    return (pq.read_table(part.path, columns=COLUMNS) for part in parts)


def whole(files: list[str]) -> Sequences:
    return to_sequences(pa.concat_tables([pq.read_table(file) for file in files]), PROFILE)


def stream(files: list[str], config: TrainConfig, rank: int = 0, ranks: int = 1) -> StreamInput:
    return StreamInput(config, files, read, PROFILE, CPU, rank, ranks, LONGEST)


@contextmanager
def counted_by_one_rank() -> Iterator[None]:
    """Every rank counts the samples of all parts, as if the others had told it theirs."""

    def everything(given: StreamInput) -> Iterator[tuple[PartFile, Sequences]]:
        own = [part for part in given.parts if part.users]
        return ((part, to_sequences(table, [])) for part, table in zip(own, given.read(own), strict=True))

    with mock.patch.object(StreamInput, "_own_sequences", everything):
        yield


def labels(step: Step) -> list[int]:
    return [int(item) for item in step.sequences.items[step.samples.positions]]


def epoch(given: TrainInput, number: int = 0) -> list[Step]:
    per_epoch = given.steps_per_epoch
    steps = given.steps(number * per_epoch)
    return [next(steps) for _ in range(per_epoch)]


def trained_labels(given: TrainInput, number: int = 0) -> Counter[int]:
    return Counter(label for step in epoch(given, number) if step.weight for label in labels(step))


@settings(max_examples=60, deadline=None)
@given(logs, st.integers(1, 3), st.integers(1, 12), st.integers(1, 30), st.integers(0, 1), st.none() | st.just(2))
def test_both_inputs_have_the_same_samples_in_an_epoch_each_once(
    log: Log, ranks: int, batch_size: int, shuffle_events: int, number: int, per_window: int | None
) -> None:
    """Samples are events, or windows of LONGEST of them."""
    config = TrainConfig(batch_size=batch_size, shuffle_events=shuffle_events, epochs=2, labels_per_window=per_window)
    with tempfile.TemporaryDirectory() as folder, counted_by_one_rank():
        files = written(log, Path(folder))
        sequences = whole(files)
        streamed, from_memory = Counter[int](), Counter[int]()
        for rank in range(ranks):
            streamed += trained_labels(stream(files, config, rank, ranks), number)
            from_memory += trained_labels(MemoryInput(config, sequences, rank, ranks, LONGEST), number)
    assert set(streamed.values()) == {1}
    assert set(streamed) == set(from_memory)
    assert from_memory.total() - streamed.total() == -streamed.total() % ranks, (
        "memory repeats samples to even the ranks out"
    )


@settings(max_examples=40, deadline=None)
@given(logs, st.integers(1, 3), st.integers(1, 12), st.integers(1, 30))
def test_ranks_do_equally_many_steps_and_weights_make_every_sample_count_the_same(
    log: Log, ranks: int, batch_size: int, shuffle_events: int
) -> None:
    config = TrainConfig(batch_size=batch_size, shuffle_events=shuffle_events, epochs=2)
    with tempfile.TemporaryDirectory() as folder:
        files = written(log, Path(folder))
        of_ranks = [list(stream(files, config, rank, ranks).steps(0)) for rank in range(ranks)]
        planned = [given.steps_per_epoch for given in (stream(files, config), MemoryInput(config, whole(files)))]
    assert len({len(steps) for steps in of_ranks}) == 1
    if ranks == 1:
        assert [len(of_ranks[0])] * 2 == [2 * steps for steps in planned]
    for steps in zip(*of_ranks, strict=True):
        own = [len(step.samples) if step.weight else 0 for step in steps]
        assert {step.size for step in steps} == {sum(own)}
        assert all(len(step.samples) for step in steps), "a rank without samples borrows one"
        assert [step.weight for step in steps] == [n * ranks / sum(own) for n in own]


def held(lengths: list[int]) -> Sequences:
    """In memory, item p at position p."""
    return Sequences(torch.arange(sum(lengths)), torch.tensor([0, *lengths]).cumsum(0))


lengths_of_users = st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(lambda lengths: max(lengths) >= 2)


@settings(max_examples=60, deadline=None)
@given(lengths_of_users, st.integers(1, 5), st.integers(1, 20), st.none() | st.integers(1, 3), st.integers(1, 9))
def test_ranks_take_turns_in_the_samples_of_the_same_global_batches(
    lengths: list[int], ranks: int, batch_size: int, per_user: int | None, chunk: int
) -> None:
    # given ranks that each take every W-th sample, and one worker alone with batches of the same size
    config = TrainConfig(batch_size=batch_size, epochs=2, targets_per_user=per_user)
    size = ranks * max(1, batch_size // ranks)
    alone = MemoryInput(config.model_copy(update={"batch_size": size}), held(lengths))
    with mock.patch.object(train_input, "CHUNK", chunk):
        of_ranks = [list(MemoryInput(config, held(lengths), rank, ranks).steps(0)) for rank in range(ranks)]
    batches = list(alone.steps(0))

    # then they have its batches together, but for what evens out the last of an epoch
    for steps, batch in zip(zip(*of_ranks, strict=True), batches, strict=True):
        assert {(step.weight, step.size) for step in steps} == {(1.0, sum(len(step.samples) for step in steps))}
        assert len({len(step.samples) for step in steps}) == 1
        together = torch.stack([step.samples.positions for step in steps], 1).flatten()
        assert len(batch.samples) <= len(together) < len(batch.samples) + ranks
        assert torch.equal(together[: len(batch.samples)], batch.samples.positions)
    assert all(step.size == size for step in batches[: alone.steps_per_epoch - 1]), "only an epoch's last is smaller"


@settings(max_examples=60, deadline=None)
@given(lengths_of_users, st.integers(1, 3), st.integers(1, 9), st.none() | st.integers(1, 3), st.data())
def test_training_from_memory_goes_on_at_any_step_as_if_it_had_never_stopped(
    lengths: list[int], ranks: int, batch_size: int, per_user: int | None, data: st.DataObject
) -> None:
    config = TrainConfig(batch_size=batch_size, epochs=3, targets_per_user=per_user)
    given = MemoryInput(config, held(lengths), data.draw(st.integers(0, ranks - 1)), ranks)
    undisturbed = [(labels(step), step.samples.users.tolist(), step.size) for step in given.steps(0)]
    assert len(undisturbed) == 3 * given.steps_per_epoch
    first = data.draw(st.integers(0, len(undisturbed)))
    assert [(labels(step), step.samples.users.tolist(), step.size) for step in given.steps(first)] == undisturbed[
        first:
    ]


@pytest.mark.parametrize("per_user", [None, 30])
def test_epochs_and_seeds_have_their_own_orders_in_memory(per_user: int | None) -> None:
    sequences = held([31] * 4)
    orders = {
        (seed, number): [
            label
            for step in epoch(
                MemoryInput(TrainConfig(batch_size=8, epochs=2, seed=seed, targets_per_user=per_user), sequences),
                number,
            )
            for label in labels(step)
        ]
        for seed in (0, 1)
        for number in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    assert all(order != sorted(order) for order in orders.values())
    assert len({tuple(sorted(order)) for order in orders.values()}) == (1 if per_user is None else 4), "drawn anew"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=8), st.booleans(), st.integers(1, 9))
def test_labels_are_counted_a_chunk_at_a_time(lists: list[list[int]], drawn: bool, chunk: int) -> None:
    expected = [0.0] * 10
    for items in lists:
        for item in items[1:]:
            expected[item] += 1 / (len(items) - 1) if drawn else 1
    flat = torch.tensor([item for items in lists for item in items], dtype=torch.int32)
    sequences = Sequences(flat, torch.tensor([0, *map(len, lists)]).cumsum(0))
    with mock.patch.object(train_input, "CHUNK", chunk):
        assert train_input.count_labels(sequences, drawn, 10).tolist() == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(logs, st.integers(1, 3), st.integers(1, 9), st.integers(1, 30), st.data())
def test_a_stream_goes_on_at_any_step_as_if_it_had_never_stopped(
    log: Log, ranks: int, batch_size: int, shuffle_events: int, data: st.DataObject
) -> None:
    config = TrainConfig(batch_size=batch_size, shuffle_events=shuffle_events, epochs=2)
    rank = data.draw(st.integers(0, ranks - 1))
    with tempfile.TemporaryDirectory() as folder:
        given = stream(written(log, Path(folder)), config, rank, ranks)
        undisturbed = [(labels(step), step.weight) for step in given.steps(0)]
        first = data.draw(st.integers(0, len(undisturbed) - 1))
        assert [(labels(step), step.weight) for step in given.steps(first)] == undisturbed[first:]


@settings(max_examples=30, deadline=None)
@given(logs, st.integers(1, 9), st.integers(1, 30))
def test_a_streamed_sample_keeps_its_history_and_its_profile(log: Log, batch_size: int, shuffle_events: int) -> None:
    config = TrainConfig(batch_size=batch_size, shuffle_events=shuffle_events, epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        files = written(log, Path(folder))
        sequences, steps = whole(files), list(stream(files, config).steps(0))
    for step in steps:
        start = step.sequences.offsets[step.samples.users]
        for label, first, user in zip(labels(step), start, step.samples.users, strict=True):
            place = label - 2  # items are numbered in the order of the log
            owner = int(torch.searchsorted(sequences.offsets, place, right=True)) - 1
            assert step.sequences.items[first] == sequences.items[sequences.offsets[owner]]
            bags, expected = step.sequences.profile_of(user.view(1)), sequences.profile_of(torch.tensor([owner]))
            assert bags is not None
            assert expected is not None
            assert torch.equal(bags.rows, expected.rows)


def test_each_epoch_has_its_own_order_and_the_same_seed_repeats_it(tmp_path: Path) -> None:
    files = written([[5, 5, 5]] * 8, tmp_path)
    config = TrainConfig(batch_size=8, shuffle_events=30, epochs=2)
    orders = [[labels(step) for step in epoch(stream(files, config), number)] for number in (0, 1, 0)]
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]


def test_parts_come_in_random_order_and_samples_are_shuffled_within_a_window(tmp_path: Path) -> None:
    # given 8 parts of 10 samples, and windows of two parts
    files = written([[11]] * 8, tmp_path)
    config = TrainConfig(batch_size=20, shuffle_events=22, epochs=1)
    windows = [[(label - 2) // 11 for label in labels(step)] for step in stream(files, config).steps(0)]
    assert [len(set(window)) for window in windows] == [2] * 4
    assert [sorted(set(window)) for window in windows] != [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert all(sorted(window) != window for window in windows)


def test_a_window_holds_no_more_events_than_asked_for_unless_one_part_has() -> None:
    pieces = [
        Piece(PartFile(number, "", 1, events, events - 1), 0, events - 1)
        for number, events in enumerate([4, 4, 9, 2, 2, 2])
    ]
    windows = [[piece.part.events for piece in group] for group in group_pieces(pieces, 8)]
    assert windows == [[4, 4], [9], [2, 2, 2]]


def test_shares_differ_by_one_sample_at_most_even_within_one_part() -> None:
    parts = [PartFile(0, "", 1, 5, 4), PartFile(1, "", 1, 7, 6)]
    shares = [[(p.part.number, p.first, p.stop) for p in rank_pieces(parts, rank, 3)] for rank in range(3)]
    assert shares == [[(0, 0, 3)], [(0, 3, 4), (1, 0, 2)], [(1, 2, 6)]]


def test_a_parts_size_is_read_from_its_footer(tmp_path: Path) -> None:
    files = written([[3, 0, 1, 4, 2]], tmp_path)
    part = part_of(0, files[0])
    assert (part.users, part.samples) == (5, 2 + 3 + 1)


@pytest.mark.parametrize("ranks", [1, 2])
def test_drawn_targets_are_equally_many_per_user(tmp_path: Path, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # given users of 0 to 5 events, of whom 2, 0 and 3 have a target
    log = [[3, 1, 5], [0, 1], [2, 2, 4]]
    files = written(log, tmp_path)
    monkeypatch.setattr(train_stream, "sum_over_ranks", lambda own: torch.tensor([6, 0, 9]))  # each rank knows its own
    config = TrainConfig(batch_size=4, shuffle_events=4, epochs=2, targets_per_user=3)
    streams = [stream(files, config, rank, ranks) for rank in range(ranks)]
    offsets = whole(files).offsets
    for number in (0, 1):
        drawn = sum((trained_labels(each, number) for each in streams), Counter())
        owners = torch.searchsorted(offsets, torch.tensor(list(drawn.elements())) - 2, right=True) - 1
        assert sorted(Counter(owners.tolist()).items()) == [(user, 3) for user in (0, 2, 5, 6, 7)]


def test_drawn_targets_are_new_in_each_epoch_and_counted_by_a_pass_over_the_log(tmp_path: Path) -> None:
    files = written([[7, 7, 7], [1], [7, 7]], tmp_path)
    given = stream(files, TrainConfig(batch_size=4, epochs=2, targets_per_user=2))
    assert given.size == 10
    assert trained_labels(given, 0) != trained_labels(given, 1)


@pytest.mark.parametrize("per_user", [None, 2])
def test_both_inputs_have_the_same_law_of_labels(tmp_path: Path, per_user: int | None) -> None:
    files = written([[3, 1, 5], [0, 1], [2, 2, 4]], tmp_path)
    config = TrainConfig(targets_per_user=per_user)
    counts = [given.label_counts(25) for given in (stream(files, config), MemoryInput(config, whole(files)))]
    assert torch.equal(counts[0], counts[1])


def trainer_of(given: TrainInput) -> Trainer:
    config, items = ModelConfig(dim=8, interests=2, max_history=4, hidden=(8,)), 80
    sampler = NegativeSampler(LossConfig(uniform_negatives=8, popularity_negatives=0), torch.ones(items))
    model = MIND(config, items, [], PROFILE, seed=1)
    total = 3 * given.steps_per_epoch
    return Trainer(model, item_bags([], items), sampler, OptimConfig(schedule="linear"), total_steps=total)


def run(trainer: Trainer, given: TrainInput, until: int) -> None:
    for step in given.steps(trainer.step):
        trainer.train_step(step.sequences, step.samples, step.weight)
        if trainer.step == until:
            return


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_a_streamed_training_that_was_stopped_ends_with_the_weights_of_one_left_alone(
    tmp_path: Path, stop: int
) -> None:
    # given a training of three epochs, five steps each, stopped within an epoch or at its end
    given = stream(
        written([[5, 1, 6], [7, 3], [6, 6]], tmp_path), TrainConfig(batch_size=6, shuffle_events=9, epochs=3)
    )
    assert given.steps_per_epoch == 5
    undisturbed, stopped = trainer_of(given), trainer_of(given)
    run(undisturbed, given, 15)
    run(stopped, given, stop)
    save_checkpoint(tmp_path, stopped, EarlyStopping(None))

    # when it goes on from its checkpoint
    resumed = trainer_of(given)
    load_checkpoint(tmp_path, resumed, EarlyStopping(None))
    run(resumed, given, 15)

    # then nothing tells them apart
    assert resumed.step == undisturbed.step == 15
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_next_window_is_made_while_the_caller_works_with_this_one_and_no_more() -> None:
    made: list[int] = []

    def windows() -> Iterator[int]:
        for number in (1, 2, 3):
            made.append(number)
            yield number

    taken = prefetched(windows())
    assert next(taken) == 1
    deadline = time.monotonic() + 10
    while made != [1, 2] and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.01)
    assert made == [1, 2]
    assert list(taken) == [2, 3]


def test_a_failure_while_reading_reaches_the_training() -> None:
    def windows() -> Iterator[int]:
        yield 1
        raise OSError("disk gone")

    taken = prefetched(windows())
    assert next(taken) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(taken)


@pytest.mark.ray
def test_ray_data_reads_the_parts_in_the_order_of_the_epoch(tmp_path: Path, ray_cluster: None) -> None:
    files = written([[5, 1, 6], [7, 3], [6, 6], [2], [4, 4, 4, 4]] * 4, tmp_path)
    config = TrainConfig(batch_size=8, shuffle_events=20, epochs=2)
    by_ray = StreamInput(config, files, RayReader(COLUMNS), PROFILE, CPU, rank=1, ranks=2)
    for ours, expected in zip(by_ray.steps(3), stream(files, config, rank=1, ranks=2).steps(3), strict=True):
        assert labels(ours) == labels(expected)


def test_tables_are_cut_anew_to_the_rows_of_the_parts() -> None:
    tables = [pa.table({"x": x}) for x in ([1, 2, 3], [4], [5, 6, 7, 8], [9])]
    assert [table["x"].to_pylist() for table in recut(tables, [2, 2, 1, 4])] == [[1, 2], [3, 4], [5], [6, 7, 8, 9]]


def test_auto_streams_when_the_split_is_larger_than_half_of_a_workers_memory() -> None:
    counts = SplitCounts(users=1_000_000, events=100_000_000, targets=0, skipped_users=0)
    need = memory_bytes(counts, profile_features=2)
    kinds = [choose_input(TrainConfig(workers=2), counts, 2, memory) for memory in (4 * need, 4 * need - 1)]
    assert kinds == ["memory", "stream"]
    assert choose_input(TrainConfig(input="memory"), counts, 2, 1.0) == "memory"
    assert choose_input(TrainConfig(input="stream"), counts, 2, 1e15) == "stream"
