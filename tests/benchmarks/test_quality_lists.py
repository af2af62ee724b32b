"""Lists and their scorer: the same figures as `mind evaluate`, whoever made the lists."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.peers.factor_models import ease_weights
from benchmarks.peers.lists import Split, Watch, mean_metric, read, top_lists, write
from benchmarks.quality.score import score
from mind_core.evaluation import Targets, evaluate
from mind_core.sequences import Sequences

CATALOGUE = 60
CUTOFFS = [5, 20]


class Table:
    """Scores of every user and item, as a Scorer of ours and as a peer's; no two of a user are equal."""

    def __init__(self, users: int, generator: np.random.Generator):
        self.values = np.stack([generator.permutation(CATALOGUE) for _ in range(users)]).astype(np.float32)

    def score(self, sequences: Sequences, users: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.values)[users].clone()

    def __call__(self, split: Split, users: np.ndarray) -> np.ndarray:
        return self.values[users].copy()


def made_up(seed: int) -> tuple[Table, Split, Split]:
    """Histories with repeats and distinct targets, some of them seen, of some users none."""
    generator = np.random.default_rng(seed)
    users = int(generator.integers(1, 12))
    lengths, wanted = generator.integers(0, 30, users), generator.integers(0, 8, users)
    items = generator.integers(2, CATALOGUE, lengths.sum()).astype(np.int32)
    targets = [2 + generator.permutation(CATALOGUE - 2)[:most] for most in wanted]
    flat = np.concatenate([np.zeros(0, np.int64), *targets]).astype(np.int32)
    return Table(users, generator), Split(items, _offsets(lengths)), Split(flat, _offsets(wanted))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def tensors(history: Split, targets: Split) -> tuple[Sequences, Targets]:
    arrays = [torch.from_numpy(each) for each in (history.items, history.offsets, targets.items, targets.offsets)]
    return Sequences(*arrays[:2]), Targets(*arrays[2:])


@pytest.mark.parametrize("filtered", [False, True])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_scorer_finds_what_full_evaluation_finds(filtered: bool, seed: int) -> None:
    table, history, targets = made_up(seed)
    sequences, asked = tensors(history, targets)
    lists = top_lists(table, history, filtered)
    found = score(lists["lists"], lists.get("new_lists"), sequences, asked, CUTOFFS)
    everyone = torch.arange(len(sequences))
    outcome = evaluate(table, sequences, asked, everyone, CUTOFFS, exclude_seen=filtered, shelves=not filtered)
    expected = {name: values for name, values in outcome.metrics.items() if not name.startswith("shelf_again")}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values.numpy(), nan_ok=True), name


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("metric", ["hit_rate@5", "recall@20", "ndcg@20", "ndcg@5", "mrr@20"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_peers_choose_by_the_metric_that_is_reported(metric: str, filtered: bool, seed: int) -> None:
    table, history, targets = made_up(seed)
    lists = top_lists(table, history, filtered)
    values = score(lists["lists"], lists.get("new_lists"), *tensors(history, targets), CUTOFFS)[metric]
    found = mean_metric(lists["lists"], history, targets, metric, filtered)
    assert found == pytest.approx(values.mean() if len(values) else 0.0)


def test_a_list_has_no_padding_no_seen_item_and_ends_where_candidates_do() -> None:
    history = Split(np.array([4, 4, 5]), np.array([0, 3]))

    def score_of(split: Split, users: np.ndarray) -> np.ndarray:
        return np.array([[9, 9, 1, -np.inf, 3, 2, 0]], np.float32)

    found = top_lists(score_of, history, filtered=False, depth=6)
    assert found["lists"].tolist() == [[4, 5, 2, 6, 0, 0]]
    assert found["new_lists"].tolist() == [[2, 6, 0, 0, 0, 0]]


def test_nobody_has_no_lists() -> None:
    nobody = Split(np.zeros(0, np.int64), np.zeros(1, np.int64))
    assert top_lists(lambda split, users: np.zeros((0, 5)), nobody, filtered=True)["lists"].shape == (0, 50)


def test_lists_are_read_as_they_were_written(tmp_path: Path) -> None:
    lists = {"lists": np.array([[3, 2]], np.int32), "new_lists": np.array([[2, 0]], np.int32)}
    write(tmp_path / "lists.npz", lists, {"fit_seconds": 1.5, "ended": None})
    found, told = read(tmp_path / "lists.npz")
    assert {name: each.tolist() for name, each in found.items()} == {"lists": [[3, 2]], "new_lists": [[2, 0]]}
    assert told == {"fit_seconds": 1.5, "ended": None}
    assert [file.name for file in tmp_path.iterdir()] == ["lists.npz"]


def test_a_training_ends_by_patience_by_epochs_and_by_time() -> None:
    watch = Watch({"patience": 2, "epochs": 9, "cap_seconds": 60})
    assert [watch.is_better(value) for value in (0.1, 0.3, 0.3)] == [True, True, False]
    assert watch.ended is None
    assert not watch.is_better(0.2)
    assert (watch.ended, watch.best_epoch) == ("patience", 2)
    watch = Watch({"patience": 2, "epochs": 1, "cap_seconds": 60})
    watch.is_better(0.1)
    assert watch.ended == "epochs"
    assert Watch({"patience": 2, "epochs": 9, "cap_seconds": -1}).ended == "cap"


def test_ease_is_the_closed_form() -> None:
    from scipy.sparse import csr_matrix

    clicks = (np.random.default_rng(0).random((3000, 1100)) < 0.02).astype(np.float32)  # more than one block
    gram = clicks.T @ clicks
    buffer = np.empty_like(gram)
    found = ease_weights(csr_matrix(gram), 20.0, buffer)
    assert np.shares_memory(found, buffer), "one dense matrix, not two"
    inverse = np.linalg.inv(gram.astype(np.float64) + 20 * np.eye(len(gram)))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("module", ["peers.lists", "peers.factor_models", "quality.score", "quality.summary"])
def test_examples_in_docstrings_hold(module: str) -> None:
    outcome = doctest.testmod(import_module(f"benchmarks.{module}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
