"""What one worker of `mind train` does inside Ray Train: read its data, train, report through Ray."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from mind_core.training import Trainer
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import feature_specs
from pipelines.errors import DivergedError
from pipelines.training.callback import DIVERGED, TAKEN_BACK
from pipelines.training.checkpoints import EarlyStopping, load_checkpoint
from pipelines.training.data import TrainData, columns_to_train, read_data
from pipelines.training.labels import label_rule, with_fitting_windows
from pipelines.training.loop import Metrics, Validation, build_trainer, validations
from pipelines.training.memory_input import MemoryInput, TrainInput
from pipelines.training.startup import Timeline
from pipelines.training.stream_input import RayReader, StreamInput

MOST_HALVINGS = 5  # of the rates, between two checkpoints
REPORT_EVERY_STEPS = 50  # of the loss; a report is a barrier over the workers


class RayReporter:
    """Reports to Ray Train, which keeps the checkpoints and shows the metrics to its callbacks."""

    every_steps = REPORT_EVERY_STEPS

    def __init__(self, timeline: Timeline):
        self.timeline = timeline

    def first_step(self) -> Metrics:
        self.timeline.mark("first_step")
        return self.timeline.metrics()

    def progress(self, metrics: Metrics) -> None:
        ray.train.report(metrics)

    def validated(self, validation: Validation) -> None:
        if validation.save is None:
            ray.train.report(validation.metrics)
        else:
            with tempfile.TemporaryDirectory() as folder:
                validation.save(Path(folder))
                ray.train.report(validation.metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def train_loop(settings: dict[str, object]) -> None:
    """Train on a worker: Ray Train's entry point.

    settings : config (Config), dataset (its path), threads (per worker), input (memory or stream), timeline (Timeline).
    """
    config, threads, timeline = settings["config"], settings["threads"], settings["timeline"]
    assert isinstance(config, Config)
    assert isinstance(threads, int)
    assert isinstance(timeline, Timeline)
    timeline.mark("workers")
    torch.set_num_threads(threads)
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    dataset = Dataset.open(str(settings["dataset"]))
    config = with_fitting_windows(config, dataset)
    data = read_data(dataset, config.train, streamed=settings["input"] == "stream").to(device)
    given = _input(config, dataset, data, device, rank, ranks)
    timeline.mark("data")
    trainer = build_trainer(config, dataset, data, given, device, rank, ranks)
    stopping = EarlyStopping(config.train.patience)
    timeline.mark("model")
    _restore(ray.train.get_checkpoint(), trainer, stopping)
    reporter = RayReporter(timeline)
    halvings = 0  # since the last checkpoint
    while True:
        try:
            for validation in validations(config, data, given, trainer, stopping, rank, ranks, reporter):
                reporter.validated(validation)
                halvings = 0
            return
        except DivergedError as error:  # on all ranks. No crash, which Ray would answer by training the same again
            if config.train.on_divergence == "stop" or halvings == MOST_HALVINGS:
                ray.train.report({DIVERGED: str(error)})
                return
            halvings += 1
            trainer = build_trainer(config, dataset, data, given, device, rank, ranks)
            stopping = EarlyStopping(config.train.patience)
            _restore(_last_checkpoint(rank, ranks), trainer, stopping)
            trainer.rate_factor *= 0.5**halvings
            what = f"{error}; back to step {trainer.step}, at {trainer.rate_factor:g} of the rates"
            ray.train.report({TAKEN_BACK: what})


def _restore(checkpoint: ray.train.Checkpoint | None, trainer: Trainer, stopping: EarlyStopping) -> None:
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            load_checkpoint(Path(folder), trainer, stopping)


def _last_checkpoint(rank: int, ranks: int) -> ray.train.Checkpoint | None:
    """Find the newest checkpoint of this run: rank 0, which reports all of them, tells the others."""
    box = [ray.train.get_checkpoint() if rank == 0 else None]
    if ranks > 1:
        dist.broadcast_object_list(box)
    return box[0]


def _input(
    config: Config, dataset: Dataset, data: TrainData, device: torch.device, rank: int, ranks: int
) -> TrainInput:
    if data.train is not None:
        return MemoryInput(config.train, data.train, rank, ranks, config.model.max_history)
    rule = label_rule(config.train, dataset)
    reader = RayReader(columns_to_train(dataset) + rule.columns)
    profile = feature_specs(dataset.manifest.profile_features)
    files, history = dataset.split_files("train"), config.model.max_history
    return StreamInput(config.train, files, reader, profile, device, rank, ranks, history, rule)
