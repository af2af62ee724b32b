"""What the workers of a slot do inside Ray Train: take a trial, train it, report, take the next.

A slot is one run of Ray Train that lives as long as the campaign. A new run a trial would start three or four
processes and import torch in each: 20 s a trial on a small machine, beside trainings of a few minutes.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import ray
import ray.exceptions
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from mind_core.distributed import sum_over_ranks
from mind_core.routing import adaptive_interest_count
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.storage.home_files import fetch_folder, push_files
from pipelines.training.checkpoints import EarlyStopping, load_checkpoint
from pipelines.training.data import TrainData
from pipelines.training.loop import Metrics, Save, build_trainer, run_training
from pipelines.training.memory_input import MemoryInput
from pipelines.tuning.checkpoint import newest, place_of, publish, reports_of
from pipelines.tuning.dispatcher import Job
from pipelines.tuning.ledger import Report
from pipelines.tuning.shared_data import shared_data


def serve_trials(settings: dict[str, Any]) -> None:
    """Ray Train's entry point on each worker of a slot.

    settings : slot (its number), dispatcher (actor handle), data (a reference, in a list so that Ray leaves it one),
        dataset (path), threads.
    """
    torch.set_num_threads(settings["threads"])
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    dispatcher, dataset = settings["dispatcher"], Dataset.open(settings["dataset"])
    data = shared_data(ray.get(settings["data"][0])).to(device)
    while (job := _next_job(dispatcher, settings["slot"], rank, ranks)) is not None:
        try:
            train_trial(job, dataset, data, device, dispatcher, rank, ranks)
        except Exception as error:
            if ranks > 1:  # the others may wait for this one, or this one have lost another: a crash, to be tried again
                raise
            tell_failure(dispatcher, job, reason_of(error))
            if device.type == "cuda":  # its errors may stick: the next trial gets a fresh process
                raise


def _next_job(dispatcher: Any, slot: int, rank: int, ranks: int) -> Job | None:
    """The next trial, the same on every rank; None: go home, as when the dispatcher is dead."""
    while True:
        taken = None
        if rank == 0:
            with suppress(ray.exceptions.ActorDiedError):
                taken = ray.get(dispatcher.take.remote(slot))
        job: Job | Literal["wait"] | None = _same_on_all(taken, ranks)
        if job != "wait":
            return job


def train_trial(
    job: Job, dataset: Dataset, data: TrainData, device: torch.device, dispatcher: Any, rank: int, ranks: int
) -> None:
    """Train one trial, from its checkpoint if it has one, until it ends or Tune ends it."""
    config, folder = job.config, Path(job.checkpoint)
    assert data.train is not None
    given = MemoryInput(config.train, data.train, rank, ranks)
    trainer = build_trainer(config, dataset, data, given, device, rank, ranks)
    stopping = EarlyStopping(config.train.patience)
    reporter = TrialReporter(job, dispatcher, rank, ranks, serving_cost(config, data), device)
    checkpoint = _same_on_all(newest(folder) if rank == 0 else None, ranks)
    if checkpoint is not None:
        load_checkpoint(fetch_folder(checkpoint), trainer, stopping)
        reporter.reports, last = reports_of(checkpoint)
        if not reporter.ask(last):
            return
    run_training(config, data, given, trainer, stopping, reporter, rank, ranks)


class TrialReporter:
    """Keeps a trial's reports beside its checkpoint, tells the dispatcher, and brings back Tune's decision."""

    # Tune decides at validations; their loss is the mean of all steps since the one before
    every_steps: int | None = None

    def __init__(self, job: Job, dispatcher: Any, rank: int, ranks: int, cost: Metrics, device: torch.device):
        self.job, self.dispatcher, self.rank, self.ranks, self.cost = job, dispatcher, rank, ranks, cost
        self.device = device
        self.reports: list[Report] = []
        self.resumed = time.perf_counter()

    def first_step(self) -> Metrics:
        return {}

    def progress(self, metrics: Metrics) -> None:
        raise AssertionError("every_steps is None")

    def validated(self, metrics: Metrics, save: Save | None, last: bool) -> bool:
        now = time.perf_counter()
        before = self.reports[-1]["seconds"] if self.reports else 0.0
        if not math.isfinite(metrics["train/loss"]):  # the same mean on every rank
            if self.rank == 0:
                why = f"diverged: train/loss is {metrics['train/loss']} at epoch {metrics['epoch']:g}"
                tell_failure(self.dispatcher, self.job, why)
            return False
        kept = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.reports.append(kept | self.cost | {"seconds": before + now - self.resumed})
        place = place_of(Path(self.job.checkpoint), int(metrics["step"]), f"{self.job.start}-{self.job.attempt}")
        if save is not None:
            save(place)
            push_files(place)
        sum_over_ranks(torch.zeros(1, device=self.device))  # every rank has written its part
        if self.rank == 0:
            publish(place, self.reports, last)
        go_on = self.ask(last)
        self.resumed = time.perf_counter()
        return go_on

    def ask(self, last: bool) -> bool:
        """Report, and wait for Tune's decision; the same answer on every rank."""
        job, go_on = self.job, False
        if self.rank == 0:
            with suppress(ray.exceptions.ActorDiedError):  # nobody listens any more
                go_on = ray.get(self.dispatcher.report.remote(job.number, job.attempt, self.reports, last))
        return bool(sum_over_ranks(torch.tensor([float(go_on)], device=self.device)).item())


def tell_failure(dispatcher: Any, job: Job, reason: str) -> None:
    """End a trial as failed, if anybody is left to hear it."""
    with suppress(ray.exceptions.ActorDiedError):
        ray.get(dispatcher.failed.remote(job.number, job.attempt, reason))


def serving_cost(config: Config, data: TrainData) -> Metrics:
    """What one request costs: lookups (interests of the mean validation user), and those times the width."""
    lookups = 1.0
    if config.model.encoder == "mind":
        lengths = data.validation.lengths.clamp(max=config.model.max_history)
        most = torch.full_like(lengths, config.model.interests)
        count = adaptive_interest_count(lengths, config.model.interests) if config.model.adaptive_interests else most
        lookups = count.double().mean().item()
    return {"serving/lookups": lookups, "serving/multiply_adds": lookups * config.model.dim}


def _same_on_all(value: Any, ranks: int) -> Any:
    """Rank 0's value, on every rank."""
    box = [value]
    if ranks > 1:
        dist.broadcast_object_list(box)
    return box[0]


def reason_of(error: BaseException) -> str:
    """One line for the leaderboard."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
