"""A training from its first step to its last, on one rank: step, validate, stop early. Knows no Ray.

Whoever runs it takes one validation after the other and says where its checkpoint goes: Ray Train for `mind train`
(pipelines.training.worker), Ray Tune for a trial of `mind tune` (pipelines.tuning.trial.training).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from mind_core.diagnostics import routing_diagnostics
from mind_core.distributed import sum_over_ranks
from mind_core.embeddings import WHOLE, Shard
from mind_core.evaluation import evaluate
from mind_core.factors import begin_with_factors
from mind_core.inference import MINDRetriever, Retriever
from mind_core.negatives import NegativeSampler
from mind_core.profiling import StepTimes
from mind_core.sequences import full_histories
from mind_core.training import Trainer, learning_rate_factor
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.training.checkpoints import EarlyStopping, save_checkpoint
from pipelines.training.data import TrainData, build_model, horizon_of, require_room_to_train
from pipelines.training.divergence import require_above_chance, require_finite_losses, require_finite_weights
from pipelines.training.labels import with_fitting_windows
from pipelines.training.memory_input import MemoryInput, Step, TrainInput
from pipelines.training.step_profile import profile_metrics

USERS_PER_CHUNK = 4096  # of validation, to bound its memory
DIAGNOSED_USERS = 512
CHECK_EVERY_STEPS = 50  # of the loss, where nobody wants it reported: a diverged training runs no longer than that

Metrics = dict[str, float]
Save = Callable[[Path], None]


class Progress(Protocol):
    """Whoever follows a training between its validations. Every rank has one and calls it at the same steps."""

    every_steps: int  # loss reports between validations

    def first_step(self) -> Metrics:
        """Return, after the first step of a new run, what to add to the next report."""
        ...

    def progress(self, metrics: Metrics) -> None:
        """Take the figures of the steps since the last report."""
        ...


@dataclass(frozen=True)
class Validation:
    """What a training has come to.

    save : writes this rank's part of a checkpoint into a folder; None: it has none.
    last : the run ends here.
    """

    metrics: Metrics
    save: Save | None
    last: bool


def validation_metrics(
    retriever: Retriever, data: TrainData, users: torch.Tensor, cutoffs: list[int], exclude_seen: bool
) -> dict[str, float]:
    """Compute full-ranking metrics, averaged over the `users` of all ranks; each rank passes its own part."""
    sums: dict[str, float] = {}
    counted = 0
    for chunk in users.split(USERS_PER_CHUNK):
        outcome = evaluate(retriever, data.validation, data.targets, chunk, cutoffs, exclude_seen=exclude_seen)
        counted += len(outcome.users)
        for name, values in outcome.metrics.items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    names = [f"{metric}@{n}" for n in cutoffs for metric in ("hit_rate", "recall", "ndcg", "mrr")]
    local = torch.tensor([counted, *(sums.get(name, 0.0) for name in names)], dtype=torch.float64, device=users.device)
    total = sum_over_ranks(local)
    return {name: float(value) for name, value in zip(names, total[1:] / total[0].clamp(min=1), strict=True)}


def build_trainer(
    config: Config, dataset: Dataset, data: TrainData, given: TrainInput, device: torch.device, rank: int, ranks: int
) -> Trainer:
    """Build a fresh model with its optimisers and negatives, the same on every rank."""
    require_room_to_train(config, dataset)
    labels = given.label_counts(len(data.counts)) if config.loss.in_batch else None
    shard = Shard(rank, ranks) if config.train.shard_items else WHOLE
    return Trainer(
        build_model(config.model, dataset, config.train.seed, shard).to(device),
        data.bags,
        NegativeSampler(config.loss, data.counts, labels, data.cold).to(device),
        config.optim,
        total_steps=config.train.epochs * given.steps_per_epoch,
        seed=config.train.seed,
        behaviour_dropout=config.train.behaviour_dropout,
        labels_per_window=config.train.labels_per_window,
        horizon=horizon_of(config.train, dataset),
        autocast=_use_bfloat16(config, device),
        times=StepTimes(device) if config.train.profile else None,
    )


def trainer_in_memory(
    config: Config, dataset: Dataset, data: TrainData, device: torch.device, rank: int, ranks: int
) -> tuple[MemoryInput, Trainer]:
    """Build the input that holds the train split in memory, and a fresh trainer for its steps."""
    assert data.train is not None
    config = with_fitting_windows(config, dataset)
    given = MemoryInput(config.train, data.train, rank, ranks, config.model.max_history)
    return given, build_trainer(config, dataset, data, given, device, rank, ranks)


def validations(
    config: Config,
    data: TrainData,
    given: TrainInput,
    trainer: Trainer,
    stopping: EarlyStopping,
    rank: int,
    ranks: int,
    progress: Progress | None = None,
) -> Generator[Validation]:
    """Train from `trainer.step` to the last epoch or `train.patience`; nothing is trained while the caller holds one.

    Every rank must take equally many.

    Raises
    ------
    DivergedError
        On all ranks, once the loss or the weights are no longer finite, or a validation is below chance; before any of
        it is reported or saved.
    """
    users = torch.arange(rank, len(data.validation), ranks).to(trainer.device)
    per_epoch, total = given.steps_per_epoch, trainer.total_steps
    every = config.train.validate_every_steps or per_epoch
    if trainer.step >= total or stopping.should_stop():
        return
    fresh = trainer.step == 0
    if fresh and config.begins_with_factors(trainer.model.items):
        table, std = trainer.model.item_table, config.model.init_std
        begin_with_factors(table, given.histories, trainer.model.items, std, config.train.seed)
    meter = _Meter(trainer.times)
    with closing(given.steps(trainer.step)) as steps:
        for step in meter.waits(steps):
            meter.add(trainer.train_step(step.sequences, step.samples, step.weight), step)
            if progress is not None and fresh and trainer.step == 1:
                meter.more = progress.first_step()
            if trainer.step % every == 0 or trainer.step == total:
                require_finite_losses(meter.losses, trainer, per_epoch)
                require_finite_weights(trainer)
                metrics = meter.metrics() | _progress(trainer, per_epoch)
                if not config.train.include_validation:
                    metrics |= _validate(config, data, users, trainer)
                    stopping.update(metrics[f"validation/{config.train.metric}"])
                last = trainer.step == total or stopping.should_stop()
                saves = rank == 0 or config.train.shard_items
                save = (lambda folder: save_checkpoint(folder, trainer, stopping)) if saves else None
                yield Validation(metrics, save, last)
                if last:
                    return
                meter.restart()
            elif progress is not None and trainer.step % progress.every_steps == 0:
                require_finite_losses(meter.losses, trainer, per_epoch)
                progress.progress(_progress(trainer, per_epoch) | meter.metrics())
            elif trainer.step % CHECK_EVERY_STEPS == 0:
                require_finite_losses(meter.losses, trainer, per_epoch)


def _validate(config: Config, data: TrainData, users: torch.Tensor, trainer: Trainer) -> Metrics:
    retriever = MINDRetriever.of(trainer.model, data.bags)
    found = validation_metrics(retriever, data, users, config.metric_cutoffs, config.evaluate.seen == "filter")
    require_above_chance(found, max(config.metric_cutoffs), len(data.validation), trainer.model.items)
    metrics = {f"validation/{name}": value for name, value in found.items()}
    if config.model.encoder == "mind" and config.model.interests > 1:
        sample = full_histories(data.validation, users[:DIAGNOSED_USERS], retriever.view)
        metrics |= routing_diagnostics(retriever, sample)
    if trainer.times is not None:
        metrics |= profile_metrics(trainer.times)
    return metrics


def _progress(trainer: Trainer, per_epoch: int) -> dict[str, float]:
    factor = learning_rate_factor(trainer.step - 1, trainer.total_steps, trainer.optim)
    return {
        "step": trainer.step,
        "total_steps": trainer.total_steps,
        "epoch": trainer.step / per_epoch,
        "train/learning_rate": factor * trainer.optim.learning_rate,
    }


class _Meter:
    """Mean loss, samples per second and share of waiting since the last report; losses stay on the device until then.

    times : counts the waiting too, if given.  more : metrics for the next report only.
    """

    def __init__(self, times: StepTimes | None = None) -> None:
        self.times = times
        self.more: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.samples = 0
        self.waited = 0.0
        self.started = time.perf_counter()

    def waits(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield the same steps, measuring how long each is waited for."""
        while True:
            started = time.perf_counter()
            with nullcontext() if self.times is None else self.times.phase("wait"):
                step = next(steps, None)
            self.waited += time.perf_counter() - started
            if step is None:
                return
            yield step

    def add(self, loss: torch.Tensor, step: Step) -> None:
        self.losses.append(loss * step.weight)
        self.samples += step.size

    def metrics(self) -> dict[str, float]:
        """Close the interval; loss and waiting are averaged over ranks."""
        if not self.losses:
            return {}
        seconds = time.perf_counter() - self.started
        loss = torch.stack(self.losses).mean()
        means = sum_over_ranks(torch.stack([loss, loss.new_tensor(self.waited / seconds), torch.ones_like(loss)]))
        result = {
            "train/loss": float(means[0] / means[2]),
            "train/wait_share": float(means[1] / means[2]),
            "train/samples_per_second": self.samples / seconds,
        }
        result, self.more = result | self.more, {}
        self.restart()
        return result


def _use_bfloat16(config: Config, device: torch.device) -> bool:
    return config.train.precision == "bfloat16" or (config.train.precision == "auto" and device.type == "cuda")
