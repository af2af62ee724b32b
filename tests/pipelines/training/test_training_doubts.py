"""A model that ranks worse than popularity, and one that ranks better, on the same users."""

from __future__ import annotations

import torch

from mind_core.evaluation import Targets
from mind_core.features import Bags
from mind_core.inference import PopularityRetriever
from mind_core.sequences import Sequences
from pipelines.training.data import TrainData
from pipelines.training.doubts import doubts

COUNTS = torch.tensor([0, 0, 5, 4, 3, 2])  # by item index


def data(targets: list[int]) -> TrainData:
    """Users with one behaviour, item 5, and one target each."""
    users = len(targets)
    sequences = Sequences(torch.full((users,), 5), torch.arange(users + 1))
    bags = Bags(torch.arange(7), torch.arange(6), torch.ones(6))
    held_out = Targets(torch.tensor(targets), torch.arange(users + 1))
    return TrainData(None, sequences, held_out, bags, COUNTS, torch.zeros(6, dtype=torch.bool))


def found(model: torch.Tensor, targets: list[int]) -> list[str]:
    ranking = PopularityRetriever(model, max_history=1)
    return doubts(ranking, data(targets), [0.3, 0.2, 0.1], "ndcg@1", interests=1, exclude_seen=True)


def test_a_model_below_popularity_is_doubted() -> None:
    lines = found(COUNTS.flip(0), targets=[2, 2, 2])
    assert len(lines) == 2
    assert lines[0].startswith("Validation fell from its first report on (ndcg@1 .3000, .2000, .1000)")
    assert lines[1].startswith("Below popularity: ndcg@1 .0000 against 1.0000 on 3 validation users")


def test_a_model_above_popularity_is_not() -> None:
    assert len(found(COUNTS.flip(0), targets=[4, 4, 4])) == 1


def test_nobody_to_ask_is_no_reason_to_doubt() -> None:
    assert found(COUNTS, targets=[5]) == []  # seen, so not asked for
