"""Where the item table of a training begins: with the factors of what is no label, once, on every rank alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mind_core.config import ModelConfig
from mind_core.factors import item_factors
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.training.checkpoints import EarlyStopping
from pipelines.training.data import read_data
from pipelines.training.loop import build_trainer, validations
from pipelines.training.memory_input import MemoryInput
from tests.pipelines.planted import configure

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("model", "share", "items", "expected"),
    [
        ({}, 1.0, 100, False),
        ({}, 0.5, 100, True),
        ({}, 0.5, 1_000_001, False),
        ({"init": "svd"}, 1.0, 2_000_000, True),
        ({"init": "normal"}, 0.5, 100, False),
        ({"encoder": "popularity", "interests": 1}, 0.5, 100, False),
    ],
)
def test_what_init_means(
    planted_home: Path, planted_log: Path, model: dict[str, Any], share: float, items: int, expected: bool
) -> None:
    config = configure(planted_home, planted_log, label_share=share)
    config = config.model_copy(update={"model": ModelConfig(**model)})
    assert config.begins_with_factors(items) == expected


@pytest.mark.ray
def test_a_fresh_training_begins_there_and_one_that_goes_on_stays_where_it_was(config: Config) -> None:
    train = config.train.model_copy(update={"label_share": 0.5, "epochs": 1, "validate_every_steps": 1})
    config = config.model_copy(update={"train": train})
    dataset = Dataset.open(config.dataset_path)
    data = read_data(dataset, config.train)
    assert data.train is not None
    given = MemoryInput(config.train, data.train, max_history=config.model.max_history)
    trainer = build_trainer(config, dataset, data, given, CPU, rank=0, ranks=1)
    began = []
    step = trainer.train_step
    trainer.train_step = lambda *rest: (began.append(trainer.model.item_table.weight.clone()), step(*rest))[1]  # type: ignore[method-assign]
    next(validations(config, data, given, trainer, EarlyStopping(None), rank=0, ranks=1))
    items = trainer.model.items
    found = item_factors(given.histories, items, config.model.dim, torch.Generator().manual_seed(config.train.seed))
    rows = began[0][:items]
    had = found.any(1)
    assert had.any()
    torch.testing.assert_close(rows[had], found[had] * config.model.init_std * config.model.dim**0.5)
    before = trainer.model.item_table.weight.clone()
    next(validations(config, data, given, trainer, EarlyStopping(None), rank=0, ranks=1))
    assert torch.equal(began[1], before)
