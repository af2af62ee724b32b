"""Each size that planning repeats or derives is the code's own: who changes one is sent to the other."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import mind_core.factors
import mind_core.inference
import mind_core.loss
import mind_core.memory
import mind_core.repeats
import mind_core.search
import mind_core.sizes
import pipelines.log.formats
import pipelines.preprocess.buckets
import pipelines.preprocess.core_items
import pipelines.preprocess.exchange
import pipelines.preprocess.sort_parts
import pipelines.training.memory_input
import pipelines.training.worker
from mind_core.config import LossConfig, ModelConfig, OptimConfig
from mind_core.distributed import exchange_rows, fetch_rows, route_rows, send_to_owners
from mind_core.embeddings import Shard
from mind_core.features import FeatureSpec, item_bags
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.routing import adaptive_interest_count
from mind_core.sequences import AllTargets, DrawnTargets, Samples, Sequences
from mind_core.special_rows import FIRST_ITEM
from mind_core.training import Trainer
from pipelines.dataset.dataset import SplitCounts
from pipelines.plan import constants, memory, network, preprocessing
from pipelines.plan.distinct_items import distinct_items
from pipelines.plan.ranking import interests_of_user
from pipelines.plan.workload import Workload
from pipelines.preprocess.synthetic import _lengths
from pipelines.training.memory_input import choose_input, epoch_steps, memory_bytes, rank_batch
from tests.pipelines.plan.given import config, workload

ITEMS = 300
MODEL = {"dim": 8, "interests": 3, "max_history": 10, "hidden": (16,)}


def trainer(optimizer: str = "adam", shard: Shard = Shard()) -> Trainer:  # noqa: B008
    rows = ITEMS + FIRST_ITEM
    return Trainer(
        MIND(ModelConfig(**MODEL), rows, [], [], shard=shard),
        item_bags([], rows),
        NegativeSampler(LossConfig(), torch.ones(rows)),
        OptimConfig(table_optimizer=optimizer),  # type: ignore[arg-type]
        total_steps=1,
    )


def held(*tensors: Tensor) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("BUCKETS", pipelines.preprocess.buckets),
        ("EVENTS_PER_PART", pipelines.preprocess.sort_parts),
        ("BLOCK_ROWS", pipelines.log.formats),
        ("EXCHANGED_AT_ONCE", pipelines.preprocess.exchange),
        ("TILE_USERS", mind_core.inference),
        ("TILE_SCORES", mind_core.loss),
        ("REPORT_EVERY_STEPS", pipelines.training.worker),
        ("EVENT_BYTES", pipelines.training.memory_input),
        ("USER_BYTES", pipelines.training.memory_input),
        ("PROFILE_BYTES", pipelines.training.memory_input),
        ("REPEATS_BYTES", pipelines.training.memory_input),
        ("MEMORY_SHARE", pipelines.training.memory_input),
    ],
)
def test_a_repeated_size_is_that_of_the_code(name: str, module: Any) -> None:
    assert getattr(constants, name) == getattr(module, name)


def test_a_search_takes_as_much_at_once_as_is_planned() -> None:
    assert mind_core.search.SCORES_AT_ONCE["cpu"] == constants.SEARCH_SCORES
    assert constants.SEARCH_EXACT == mind_core.search.EXACT_AT_ONCE


def test_factors_take_as_many_passes_as_are_planned() -> None:
    assert constants.FACTOR_PASSES == mind_core.factors.PASSES + 1, "the last is for the strengths"
    assert constants.FACTOR_SPARE == mind_core.factors.SPARE


def test_item_counts_of_eight_parts_are_added_at_a_time() -> None:
    assert f"len(held) > {constants.COUNTS_HELD}" in inspect.getsource(pipelines.preprocess.core_items.total)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_table_and_its_optimizer_hold_what_is_planned(optimizer: str, ranks: int) -> None:
    made = trainer(optimizer, Shard(0, ranks))
    planned = workload(items=ITEMS, model=MODEL, train={"workers": ranks, "shard_items": ranks > 1})
    real = held(made.model.item_table.weight, *made.rows["items"].state_dict().values())
    assert real == memory.table_row_bytes(8, optimizer) * memory.held_rows(planned)


def test_items_hold_their_make_up_and_the_law_of_negatives() -> None:
    made = trainer()
    bags, negatives = made.item_bags, made.sampler
    counts, cold = torch.ones(ITEMS, dtype=torch.int64), torch.zeros(ITEMS, dtype=torch.bool)
    real = held(bags.offsets, bags.rows, bags.weights, *negatives.buffers(), counts, cold)
    assert real == pytest.approx(memory.item_bytes(workload(model=MODEL)) * ITEMS, rel=0.01)


@pytest.mark.parametrize("encoder", ["mind", "mean"])
@pytest.mark.parametrize("recency", [True, False])
@pytest.mark.parametrize(
    "more",
    [
        {"history": "newest", "repeat": "none"},
        {"history": "distinct", "repeat": "memory", "shared": True},
        {"history": "newest", "repeat": "memory", "context": "transformer", "context_layers": 3, "heads": 2},
    ],
)
def test_dense_parameters_are_counted_one_by_one(encoder: str, recency: bool, more: dict[str, Any]) -> None:
    settings = {**MODEL, "encoder": encoder, "recency": recency, "interests": 3 if encoder == "mind" else 1, **more}
    windows = {"train": {"labels_per_window": 4}} if "context" in more else {}
    specs = [FeatureSpec("group", "categorical", 5), FeatureSpec("age", "numeric", 0)]
    model = MIND(ModelConfig(**settings), ITEMS, [], specs)
    features = {"group": {}, "age": {"kind": "numeric"}}
    profile = {"path": "none", "id": "user", "features": features}
    planned = workload(model=settings, data={"events": {"path": "none"}, "profile": profile}, **windows)
    assert planned.parameters == sum(each.numel() for each in model.encoder.parameters())


class Twin:
    """Takes the place of torch.distributed on rank 0 of two, the other of which does just the same."""

    def __init__(self) -> None:
        self.sent = 0

    def all_gather_single(self, out: Tensor, own: Tensor) -> None:
        self.sent += held(own)
        out.view(2, -1).copy_(own.reshape(1, -1).expand(2, -1))

    def all_to_all_single(
        self, out: Tensor, own: Tensor, _out: list[int] | None = None, sizes: list[int] | None = None
    ) -> None:
        stays = len(own) // 2 if sizes is None else sizes[0]
        self.sent += held(own[stays:])
        out.copy_(own)  # both owners are asked for equally many


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Twin:
    made = Twin()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for name in ("all_gather_single", "all_to_all_single"):
        monkeypatch.setattr(dist, name, getattr(made, name))
    return made


def test_replicated_rows_are_exchanged_in_the_bytes_planned(twin: Twin) -> None:
    exchange_rows(torch.arange(6), torch.ones(6, 8))
    assert twin.sent == network.rows_sent(2, 6, 8, sharded=False) == 6 * (8 + 4 * 8) + 8


def test_sharded_rows_are_exchanged_in_the_bytes_planned(twin: Twin) -> None:
    rows = torch.arange(6)
    fetch_rows(torch.ones(10, 8), route_rows(rows))
    send_to_owners(rows, torch.ones(6, 8))
    assert twin.sent == network.rows_sent(2, 6, 8, sharded=True) == 3 * (16 + 8 * 8) + 16


@pytest.mark.parametrize("events", [1, 300_000, 900_000, 10_000_000, 600_000_000, 10**10])
def test_preprocessing_cuts_as_many_parts_as_planned(events: int) -> None:
    buckets = np.full(constants.BUCKETS, events // constants.BUCKETS)
    buckets[: events % constants.BUCKETS] += 1
    runs = pipelines.preprocess.buckets.group(buckets, constants.EVENTS_PER_PART)
    planned = workload(events=max(events, 2), users=1)
    assert preprocessing.parts(planned) == pytest.approx(len(runs), rel=0.01)
    largest = max(buckets[first:stop].sum() for first, stop in runs)
    assert memory.part_events(planned) == pytest.approx(largest, rel=0.5, abs=1)


@pytest.mark.parametrize(("workers", "batch"), [(1, 1024), (3, 1000), (8, 4)])
def test_steps_of_an_epoch_and_samples_of_a_rank_are_the_codes(workers: int, batch: int) -> None:
    planned = workload(train={"workers": workers, "batch_size": batch})
    assert planned.rank_batch == rank_batch(batch, workers)
    assert planned.steps == pytest.approx(epoch_steps(round(planned.samples), batch, workers), abs=1)


@pytest.mark.parametrize("memory_of_node", [1e6, 1e9, 1e12])
@pytest.mark.parametrize("share", [0.5, 1])
@pytest.mark.parametrize("given", ["auto", "memory", "stream"])
def test_the_input_is_chosen_as_training_does(memory_of_node: float, given: str, share: float) -> None:
    planned = workload(train={"workers": 2, "input": given, "label_share": share})
    counts = SplitCounts(round(planned.train_users), round(planned.train_events), 0, 0)
    traits = planned.config.model.uses_traits
    assert memory.input_bytes(planned) == pytest.approx(memory_bytes(counts, 0, traits=traits, timed=share < 1))
    chosen = choose_input(planned.config.train, counts, 0, memory_of_node, traits=traits, timed=share < 1)
    assert memory.chosen_input(planned, memory_of_node) == chosen


def test_a_memory_has_as_many_traits_and_hidden_units_as_planned() -> None:
    assert len(mind_core.repeats.TRAITS) == mind_core.sizes.TRAITS
    assert mind_core.memory.HIDDEN == mind_core.sizes.MEMORY_HIDDEN
    assert mind_core.factors.SPARE == mind_core.sizes.SPARE
    assert mind_core.inference.TILE_USERS == mind_core.sizes.TILE_USERS


@pytest.fixture(scope="module")
def generated() -> tuple[Workload, Sequences]:
    """The train split of a log as `mind generate` makes it: lengths of its own law, leave-one-out."""
    planned = workload(events=200_000, items=5_000, users=10_000, model={"max_history": 12})
    lengths = _lengths(np.random.default_rng(0), 200_000, 10_000)
    lengths = np.where(lengths >= 3, lengths - 2, lengths)
    place = np.random.default_rng(1).random(lengths.sum())
    rank = (planned.head * ((1 + planned.items / planned.head) ** place - 1)).astype(np.int64)
    offsets = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]))
    return planned, Sequences(torch.tensor(rank + FIRST_ITEM), offsets)


def test_samples_and_histories_follow_from_the_law_of_lengths(generated: tuple[Workload, Sequences]) -> None:
    planned, sequences = generated
    samples = AllTargets(sequences)
    assert planned.train_events == pytest.approx(len(sequences.items), rel=0.01)
    assert planned.samples == pytest.approx(len(samples), rel=0.01)
    found = samples[torch.arange(len(samples))]
    before = (found.positions - sequences.offsets[found.users]).clamp(max=12)
    assert planned.history == pytest.approx(float(before.double().mean()), rel=0.02)


def test_drawn_targets_follow_from_the_law_of_lengths(generated: tuple[Workload, Sequences]) -> None:
    planned, sequences = generated
    drawn = Workload(planned.events, planned.items, planned.users, config(model={"max_history": 12}, train=PER_USER))
    samples = DrawnTargets(sequences, 5, 0)
    assert drawn.samples == pytest.approx(len(samples), rel=0.03)  # the generator rounds a few users of one event up
    found = samples[torch.arange(len(samples))]
    before = (found.positions - sequences.offsets[found.users]).clamp(max=12)
    assert drawn.history == pytest.approx(float(before.double().mean()), rel=0.03)


PER_USER = {"targets_per_user": 5}


def test_distinct_items_of_a_batch_are_those_expected(generated: tuple[Workload, Sequences]) -> None:
    planned, sequences = generated
    items = round(planned.items) + FIRST_ITEM
    made = Trainer(
        MIND(planned.config.model, items, [], []),
        item_bags([], items),
        NegativeSampler(planned.config.loss, torch.bincount(sequences.items, minlength=items)),
        planned.config.optim,
        total_steps=1,
    )
    every = AllTargets(sequences)
    counts = []
    for seed in range(10):
        chosen: Samples = every[torch.randint(len(every), (256,), generator=torch.Generator().manual_seed(seed))]
        made.step = seed
        counts.append(int((made._draw(sequences, chosen)[0].items >= FIRST_ITEM).sum()))
    assert distinct_items(planned, 256) == pytest.approx(np.mean(counts), rel=0.05)


def test_users_have_as_many_interests_as_the_routing_gives_them(generated: tuple[Workload, Sequences]) -> None:
    planned, sequences = generated
    known = (sequences.lengths + 2).clamp(max=12)  # all events, the two held out too
    number = adaptive_interest_count(known, planned.config.model.interests)
    assert interests_of_user(planned) == pytest.approx(float(number.double().mean()), rel=0.05)
