"""The user tower by itself is the model."""

import torch

from mind_core.config import ModelConfig
from mind_core.features import FeatureColumn, FeatureSpec, item_bags, profile_bags
from mind_core.inference import MINDRetriever
from mind_core.model import MIND
from mind_core.sequences import Sequences, full_histories
from mind_core.tower import UserTower, tower_inputs

SPECS = [FeatureSpec("group", "categorical", 6), FeatureSpec("tags", "multi", 6), FeatureSpec("age", "numeric", 0)]


def given(config: ModelConfig, specs: list[FeatureSpec]) -> tuple[MINDRetriever, Sequences]:
    model = MIND(config, 20, [], specs, seed=1)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    items = torch.tensor([5, 6, 5, 7, 8, 9, 5, 3, 4, 19], dtype=torch.int32)
    columns = [
        FeatureColumn(SPECS[0], torch.tensor([3, 4, 2])),
        FeatureColumn(SPECS[1], torch.tensor([3, 4, 5, 2, 3]), torch.tensor([0, 3, 4, 5])),
        FeatureColumn(SPECS[2], torch.tensor([0.5, float("nan"), -1.0])),
    ]
    profile = profile_bags(columns) if specs else None
    sequences = Sequences(items, torch.tensor([0, 7, 7, 10]), profile)
    return MINDRetriever.of(model.eval(), item_bags([], 20)), sequences


def check(config: ModelConfig, specs: list[FeatureSpec]) -> None:
    retriever, sequences = given(config, specs)
    histories = full_histories(sequences, torch.arange(3), retriever.view)
    vectors, own = retriever.interests(histories)
    with torch.no_grad():
        interests, theirs, memory = UserTower(retriever)(*tower_inputs(histories, retriever.view.max_history))
    torch.testing.assert_close(interests, vectors * own.unsqueeze(-1), rtol=0, atol=1e-6)
    assert torch.equal(theirs, own)
    ours = retriever.memory(histories, vectors, own)
    expected = torch.zeros_like(memory)
    if ours is not None:
        expected[:, : ours.shape[1]] = ours
    torch.testing.assert_close(memory, expected, rtol=0, atol=1e-6)


SMALL = {"dim": 8, "interests": 3, "max_history": 6, "hidden": (8,), "profile_dim": 4}


def test_with_a_profile_and_a_memory() -> None:
    check(ModelConfig(**SMALL), SPECS)  # type: ignore[arg-type]


def test_without_either() -> None:
    check(ModelConfig(**SMALL, repeat="none", history="newest"), [])  # type: ignore[arg-type]


def test_mean_pooling_and_the_papers_logits() -> None:
    check(ModelConfig(**{**SMALL, "interests": 1}, encoder="mean"), SPECS)  # type: ignore[arg-type]
    check(ModelConfig(**SMALL, initial_logits="position"), SPECS)  # type: ignore[arg-type]


def test_the_context_encoder() -> None:
    check(ModelConfig(**SMALL, context="transformer", history="newest"), [])  # type: ignore[arg-type]
