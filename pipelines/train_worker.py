"""What one training worker does: read its data, step, validate, report. Runs inside Ray Train, on W workers alike."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import ray.train
import ray.train.torch
import torch

from mind_core.diagnostics import routing_diagnostics
from mind_core.distributed import sum_over_ranks
from mind_core.embeddings import WHOLE, Shard
from mind_core.evaluation import evaluate
from mind_core.inference import MINDRetriever, Retriever
from mind_core.negatives import NegativeSampler
from mind_core.profiling import StepTimes
from mind_core.sequences import full_histories
from mind_core.training import Trainer, learning_rate_factor
from pipelines.arrays import feature_specs
from pipelines.checkpoints import EarlyStopping, load_checkpoint, save_checkpoint
from pipelines.config import Config
from pipelines.dataset import Dataset
from pipelines.startup import Timeline
from pipelines.step_profile import profile_metrics
from pipelines.train_data import TrainData, build_model, columns_to_train, load_data, validation_rows
from pipelines.train_input import MemoryInput, Step, TrainInput
from pipelines.train_stream import RayReader, StreamInput

REPORT_EVERY_STEPS = 50  # of the loss; a report is a barrier over the workers
USERS_PER_CHUNK = 4096  # of validation, to bound its memory
DIAGNOSED_USERS = 512


def validation_metrics(
    retriever: Retriever, data: TrainData, users: torch.Tensor, cutoffs: list[int], exclude_seen: bool
) -> dict[str, float]:
    """Full-ranking metrics, averaged over the `users` of all ranks; each rank passes its own share."""
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


def train_loop(settings: dict[str, object]) -> None:
    """Ray Train's entry point on each worker.

    settings : config (Config), dataset (its path), threads (per worker), input (memory or stream), timeline (Timeline).
    """
    config, threads, timeline = settings["config"], settings["threads"], settings["timeline"]
    assert isinstance(config, Config)
    assert isinstance(threads, int)
    assert isinstance(timeline, Timeline)
    timeline.mark("workers")
    torch.set_num_threads(threads)
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    dataset = Dataset.open(str(settings["dataset"]))
    columns = columns_to_train(dataset)
    train = None if settings["input"] == "stream" else dataset.table("train", columns)
    tables = dataset.tables("validation", ["user", *columns, "targets"])
    validation = validation_rows(tables, config.train.validation_users, config.train.seed)
    data = load_data(dataset, train, validation).to(device)
    del train, validation
    given = _input(config, dataset, data, device)
    labels = given.label_counts(len(data.counts)) if config.loss.in_batch else None
    timeline.mark("data")
    shard = Shard(context.get_world_rank(), context.get_world_size()) if config.train.shard_items else WHOLE
    trainer = Trainer(
        build_model(config.model, dataset, config.train.seed, shard).to(device),
        data.bags,
        NegativeSampler(config.loss, data.counts, labels, data.cold).to(device),
        config.optim,
        total_steps=config.train.epochs * given.steps_per_epoch,
        seed=config.train.seed,
        behaviour_dropout=config.train.behaviour_dropout,
        autocast=_use_bfloat16(config, device),
        times=StepTimes(device) if config.train.profile else None,
    )
    stopping = EarlyStopping(config.train.patience)
    timeline.mark("model")
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            load_checkpoint(Path(folder), trainer, stopping)
    _run(config, data, given, trainer, stopping, timeline)


def _input(config: Config, dataset: Dataset, data: TrainData, device: torch.device) -> TrainInput:
    context = ray.train.get_context()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    if data.train is not None:
        return MemoryInput(config.train, data.train, rank, ranks)
    reader = RayReader(columns_to_train(dataset))
    profile = feature_specs(dataset.manifest.profile_features)
    return StreamInput(config.train, dataset.split_files("train"), reader, profile, device, rank, ranks)


def _run(
    config: Config,
    data: TrainData,
    given: TrainInput,
    trainer: Trainer,
    stopping: EarlyStopping,
    timeline: Timeline,
) -> None:
    context = ray.train.get_context()
    users = torch.arange(context.get_world_rank(), len(data.validation), context.get_world_size())
    users = users.to(trainer.device)
    per_epoch, total = given.steps_per_epoch, trainer.total_steps
    every = config.train.validate_every_steps or per_epoch
    if trainer.step >= total or stopping.should_stop():
        return
    fresh = trainer.step == 0  # the marks of a run that goes on tell nothing
    meter = _Meter(trainer.times)
    with closing(given.steps(trainer.step)) as steps:
        for step in meter.waits(steps):
            meter.add(trainer.train_step(step.sequences, step.samples, step.weight), step)
            if fresh and trainer.step == 1:
                timeline.mark("first_step")
                meter.more = timeline.metrics()
            if trainer.step % every == 0 or trainer.step == total:
                _validate_and_report(config, data, users, trainer, stopping, meter, per_epoch)
                if stopping.should_stop():
                    break
            elif trainer.step % REPORT_EVERY_STEPS == 0:
                ray.train.report(_progress(trainer, per_epoch) | meter.metrics())


def _validate_and_report(
    config: Config,
    data: TrainData,
    users: torch.Tensor,
    trainer: Trainer,
    stopping: EarlyStopping,
    meter: _Meter,
    per_epoch: int,
) -> None:
    metrics = meter.metrics()
    retriever = MINDRetriever.of(trainer.model, data.bags)
    found = validation_metrics(retriever, data, users, cutoffs_of(config), config.evaluate.seen == "filter")
    metrics |= {f"validation/{name}": value for name, value in found.items()}
    if config.model.encoder == "mind" and config.model.interests > 1:
        sample = full_histories(data.validation, users[:DIAGNOSED_USERS], config.model.max_history)
        metrics |= routing_diagnostics(retriever, sample)
    stopping.update(found[config.train.metric])
    metrics |= _progress(trainer, per_epoch)
    if trainer.times is not None:
        metrics |= profile_metrics(trainer.times)
    if ray.train.get_context().get_world_rank() == 0 or config.train.shard_items:
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), trainer, stopping)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
    else:
        ray.train.report(metrics)
    meter.restart()


def cutoffs_of(config: Config) -> list[int]:
    """The cutoffs to evaluate at: those asked for, and the one that early stopping goes by."""
    return sorted({*config.evaluate.cutoffs, int(config.train.metric.split("@")[1])})


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
        """The same steps, measuring how long each is waited for."""
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
