"""Phases of a step: all of them are counted, nested ones once, and looking changes nothing."""

from __future__ import annotations

import time

import torch

from mind_core.profiling import PHASES, StepTimes
from tests.mind_core.given import batches, random_sequences, trainer, world

CPU = torch.device("cpu")


def test_an_inner_phase_is_not_counted_for_the_outer_one() -> None:
    times = StepTimes(CPU)
    with times.phase("update"), times.phase("exchange"):
        time.sleep(0.02)
    assert times.seconds["exchange"] >= 0.02
    assert times.seconds["update"] < 0.01


def test_a_step_counts_every_phase_but_waiting_and_trains_as_without() -> None:
    lists = random_sequences(20, 30, 8)
    plain, timed = world(lists, 30), world(lists, 30)
    times = StepTimes(CPU)
    unwatched, watched = trainer(plain), trainer(timed, times=times)
    for samples in batches(plain.sequences, 16, 3):
        assert torch.equal(unwatched.train_step(plain.sequences, samples), watched.train_step(timed.sequences, samples))
    assert times.steps == 3
    assert [name for name in PHASES if times.seconds[name] > 0] == [name for name in PHASES if name != "wait"]
