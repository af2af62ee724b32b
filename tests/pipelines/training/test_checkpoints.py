"""Checkpoints of sharded item tables: a run may go on with other shards than it began with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mind_core.embeddings import WHOLE, Shard
from mind_core.training import Trainer
from pipelines.training.checkpoints import EarlyStopping, load_checkpoint, load_weights, save_checkpoint
from tests.mind_core.given import random_sequences, trainer, world

LISTS = random_sequences(20, 30, 8, seed=3)


def given_trainer(shard: Shard, seed: int = 0) -> Trainer:
    made = trainer(world(LISTS, 30, shard=shard, seed=seed))
    made.rank = shard.rank  # as in a process of that rank
    return made


def everything(one: Trainer) -> dict[str, Tensor]:
    return one.model.state_dict() | one.state_dict()


def filled_with_row_numbers(one: Trainer) -> Trainer:
    """So that every row of the item table and of its optimiser says which one it is."""
    shard = one.model.item_table.shard
    for name, value in everything(one).items():
        if name.startswith(("item_table.", "rows.items.")):
            rows = torch.arange(len(value)) * shard.ranks + shard.rank
            value.copy_(rows.view(-1, *[1] * (value.dim() - 1)).expand_as(value))
    return one


@pytest.mark.parametrize("saved", [1, 2, 3])
@pytest.mark.parametrize("loaded", [1, 2, 4])
def test_every_rank_finds_its_rows_whatever_the_shards_were(tmp_path: Path, saved: int, loaded: int) -> None:
    # given checkpoints of all ranks in one folder, as Ray Train joins them
    for rank in range(saved):
        before = filled_with_row_numbers(given_trainer(Shard(rank, saved)))
        before.step = 7
        save_checkpoint(tmp_path, before, EarlyStopping(3, best=0.5, stale=1))
    # when ranks of another number go on, from other weights
    for rank in range(loaded):
        after, stopping = given_trainer(Shard(rank, loaded), seed=1), EarlyStopping(3)
        load_checkpoint(tmp_path, after, stopping)
        expected = everything(filled_with_row_numbers(given_trainer(Shard(rank, loaded))))
        for name, value in everything(after).items():
            assert torch.equal(value, torch.tensor(7) if name == "step" else expected[name]), name
        assert (stopping.best, stopping.stale) == (0.5, 1)


def test_only_rank_0_writes_what_all_ranks_have(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, given_trainer(Shard(1, 2)), EarlyStopping(3))
    assert [file.name for file in tmp_path.iterdir()] == ["items-00001-of-00002.safetensors"]


def test_the_weights_alone_make_a_whole_model_of_shards(tmp_path: Path) -> None:
    for rank in range(2):
        save_checkpoint(tmp_path, given_trainer(Shard(rank, 2)), EarlyStopping(3))
    model = world(LISTS, 30, seed=1).model
    load_weights(tmp_path, model)
    assert torch.equal(model.item_table.weight, given_trainer(WHOLE).model.item_table.weight)
