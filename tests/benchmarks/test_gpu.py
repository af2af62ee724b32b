"""The prepared script for a GPU, on the CPU: what it says of a step adds up."""

from __future__ import annotations

import torch

from benchmarks.generated_steps import Shape, make_samples, make_sequences, make_trainer
from benchmarks.gpu import WAYS, bytes_of_step, point, trainers
from benchmarks.train_floor import Speeds, measure_speeds

SHAPE = Shape(dim=8, history=5, interests=2, batch=16)
SEQUENCES = make_sequences(50, "zipf", 2_000)
BATCHES = make_samples(SEQUENCES, SHAPE.batch, 3, seed=1)


def test_every_way_has_a_trainer_of_its_own_and_bfloat16_is_one_of_them() -> None:
    made = trainers(50, SHAPE, SEQUENCES, torch.device("cpu"))
    assert tuple(made) == WAYS
    assert [each.autocast for each in made.values()] == [False, True, False]
    assert len({id(each.model) for each in made.values()}) == 3


def test_a_point_is_told_in_shares_and_against_the_roofline() -> None:
    trainer = make_trainer(SEQUENCES, 50, SHAPE)
    speeds = Speeds(bytes_per_second=1e30, float32=1.0, bfloat16=1.0)
    found = point("float32", 50, trainer, SEQUENCES, BATCHES, speeds, [80.0, 100.0, 120.0])
    assert (found.rate, found.low, found.high) == (100.0, 80.0, 120.0)
    assert 0 < found.products < 1
    assert 0 < found.busy <= 1
    assert found.roofline == found.flop / (SHAPE.batch / 100.0)
    # routing's products alone: 3 iterations over B users, K interests, L behaviours of d dimensions
    assert found.flop > 2 * 3 * 16 * 2 * 5 * 8


def test_bytes_of_a_step_are_those_of_its_distinct_rows() -> None:
    moved = bytes_of_step(make_trainer(SEQUENCES, 50, SHAPE), SEQUENCES, BATCHES[0])
    assert moved % (2 * 3 * 4 * SHAPE.dim) == 0
    assert 0 < moved <= 2 * 3 * 4 * SHAPE.dim * 52


def test_a_card_is_measured() -> None:
    speeds = measure_speeds(torch.device("cpu"), quick=True)
    assert min(speeds.float32, speeds.bfloat16, speeds.bytes_per_second) > 0
