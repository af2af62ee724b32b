"""What one training worker does: read its data, step, validate, report. Runs inside Ray Train, on W workers alike."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray.train
import ray.train.torch
import torch

from mind_core.config import ModelConfig
from mind_core.diagnostics import routing_diagnostics
from mind_core.distributed import sum_over_ranks
from mind_core.evaluation import Targets, evaluate
from mind_core.features import Bags, item_bags
from mind_core.inference import MINDRetriever, Retriever
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.sequences import Samples, Sequences, all_targets, draw_targets, epoch_batches, full_histories
from mind_core.training import Trainer, learning_rate_factor, seeded
from pipelines.arrays import feature_columns, feature_specs, to_sequences, to_targets, train_counts
from pipelines.checkpoints import EarlyStopping, load_checkpoint, save_checkpoint
from pipelines.config import Config
from pipelines.dataset import Dataset

REPORT_EVERY_STEPS = 50  # of the loss; a report is a barrier over the workers
USERS_PER_CHUNK = 4096  # of validation, to bound its memory
DIAGNOSED_USERS = 512


@dataclass(frozen=True)
class TrainData:
    """What a worker holds in memory: flat arrays of the splits, and the items' make-up."""

    train: Sequences
    validation: Sequences
    targets: Targets
    bags: Bags
    counts: torch.Tensor  # (V,) events per item index in the training split

    def to(self, device: torch.device) -> TrainData:
        """The same on a device."""

        def move(sequences: Sequences) -> Sequences:
            profile = None if sequences.profile is None else sequences.profile.to(device)
            return Sequences(sequences.items.to(device), sequences.offsets.to(device), profile)

        targets = Targets(self.targets.items.to(device), self.targets.offsets.to(device))
        counts = self.counts.to(device)
        return TrainData(move(self.train), move(self.validation), targets, self.bags.to(device), counts)


def build_model(config: ModelConfig, dataset: Dataset, seed: int) -> MIND:
    """A fresh model for a dataset; the same on every rank."""
    manifest = dataset.manifest
    specs = feature_specs(manifest.item_features), feature_specs(manifest.profile_features)
    return MIND(config, manifest.item_rows, *specs, seed)


def load_data(dataset: Dataset, train: pa.Table, validation: pa.Table) -> TrainData:
    """Flat arrays from the Arrow tables of the splits (sorted by user here: blocks come in any order)."""
    manifest = dataset.manifest
    profile = feature_specs(manifest.profile_features)
    bags, counts = load_items(dataset)
    validation = validation.sort_by("user")
    return TrainData(
        to_sequences(train.sort_by("user"), profile),
        to_sequences(validation, profile),
        to_targets(validation),
        bags,
        counts,
    )


def load_items(dataset: Dataset) -> tuple[Bags, torch.Tensor]:
    """Each item's make-up, and its events in the training split (V,)."""
    items, manifest = dataset.items(), dataset.manifest
    columns = feature_columns(items, feature_specs(manifest.item_features), "feature")
    return item_bags(columns, manifest.item_rows), train_counts(items)


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


def validation_users(config: Config, data: TrainData) -> torch.Tensor:
    """The users to validate on: all, or a sample fixed by the seed."""
    count = len(data.validation)
    limit = config.train.validation_users or count
    return torch.randperm(count, generator=seeded("cpu", config.train.seed, "validation users"))[:limit].sort().values


def train_loop(settings: dict[str, object]) -> None:
    """Ray Train's entry point on each worker.

    settings : config (Config), dataset (its path), threads (per worker).
    """
    config, threads = settings["config"], settings["threads"]
    assert isinstance(config, Config)
    assert isinstance(threads, int)
    torch.set_num_threads(threads)
    context = ray.train.get_context()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    dataset = Dataset.open(str(settings["dataset"]))
    data = load_data(dataset, _read("train"), _read("validation")).to(device)
    epochs = EpochPlan(config, data.train)
    model = build_model(config.model, dataset, config.train.seed).to(device)
    sampler = NegativeSampler(config.loss, data.counts, epochs.label_counts(data)).to(device)
    trainer = Trainer(
        model,
        data.bags,
        sampler,
        config.optim,
        total_steps=epochs.total_steps(ranks),
        seed=config.train.seed,
        behaviour_dropout=config.train.behaviour_dropout,
        autocast=_use_bfloat16(config, device),
    )
    stopping = EarlyStopping(config.train.patience)
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            load_checkpoint(Path(folder), trainer, stopping)
    _run_epochs(config, data, epochs, trainer, stopping, rank, ranks)


class EpochPlan:
    """Which samples an epoch has and how many steps that takes; a pure function of the seed, so a resumed run knows it.

    Every worker plans the same global batches and takes every W-th sample of each.
    """

    def __init__(self, config: Config, sequences: Sequences):
        self.config, self.sequences = config.train, sequences
        self.every = all_targets(sequences) if self.config.targets_per_user is None else None

    def samples(self, epoch: int) -> Samples:
        """The samples of an epoch, in file order."""
        if self.every is not None:
            return self.every
        assert self.config.targets_per_user is not None
        generator = seeded("cpu", self.config.seed, "targets", epoch)
        cpu = Sequences(self.sequences.items.cpu(), self.sequences.offsets.cpu())
        drawn = draw_targets(cpu, self.config.targets_per_user, generator)
        return Samples(drawn.users.to(self.sequences.items.device), drawn.positions.to(self.sequences.items.device))

    def batches(self, epoch: int, ranks: int) -> list[torch.Tensor]:
        """Global batches of an epoch: index tensors into `samples`."""
        generator = seeded("cpu", self.config.seed, "order", epoch)
        return epoch_batches(self.size, self.config.batch_size, ranks, generator)

    @property
    def size(self) -> int:
        if self.every is not None:
            return len(self.every)
        return int((self.sequences.lengths >= 2).sum()) * (self.config.targets_per_user or 0)

    def steps(self, ranks: int) -> int:
        """Steps of one epoch."""
        size = max(ranks, self.config.batch_size // ranks * ranks)
        return -(-(self.size + -self.size % ranks) // size)

    def total_steps(self, ranks: int) -> int:
        """Steps of the whole run, if nothing stops it early."""
        return self.config.epochs * self.steps(ranks)

    def label_counts(self, data: TrainData) -> torch.Tensor:
        """(V,) how often each item is a label in an epoch, up to a factor: what in-batch negatives follow."""
        samples = all_targets(data.train)
        labels = data.train.items[samples.positions].long()
        weights = None
        if self.every is None:  # each user has equally many labels, drawn uniformly from all positions but the first
            weights = 1.0 / (data.train.lengths[samples.users] - 1).double()
        return torch.bincount(labels, weights, minlength=len(data.counts))


def _run_epochs(
    config: Config,
    data: TrainData,
    epochs: EpochPlan,
    trainer: Trainer,
    stopping: EarlyStopping,
    rank: int,
    ranks: int,
) -> None:
    users = validation_users(config, data)[rank::ranks].to(trainer.device)
    per_epoch, total = epochs.steps(ranks), epochs.total_steps(ranks)
    every = config.train.validate_every_steps or per_epoch
    meter = _Meter()
    while trainer.step < total and not stopping.should_stop():
        epoch, done = divmod(trainer.step, per_epoch)
        samples = epochs.samples(epoch)
        for batch in epochs.batches(epoch, ranks)[done:]:
            own = samples[batch[rank::ranks].to(trainer.device)]
            meter.add(trainer.train_step(data.train, own), len(batch))
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
    if ray.train.get_context().get_world_rank() == 0:
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
    """Mean loss and samples per second since the last report; losses stay on the device until then."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.samples = 0
        self.started = time.perf_counter()

    def add(self, loss: torch.Tensor, samples: int) -> None:
        self.losses.append(loss)
        self.samples += samples

    def metrics(self) -> dict[str, float]:
        """Close the interval; the loss is averaged over ranks."""
        if not self.losses:
            return {}
        loss = sum_over_ranks(torch.stack([torch.stack(self.losses).mean(), torch.ones_like(self.losses[0])]))
        result = {
            "train/loss": float(loss[0] / loss[1]),
            "train/samples_per_second": self.samples / (time.perf_counter() - self.started),
        }
        self.restart()
        return result


def _read(split: str) -> pa.Table:
    """A whole split through Ray Data, block by block."""
    shard = ray.train.get_dataset_shard(split)
    blocks = [b for b in shard.iter_batches(batch_size=None, batch_format="pyarrow") if b.num_rows]
    if not blocks:
        raise ValueError(f"the dataset has no {split} sequences")
    return pa.concat_tables(blocks).combine_chunks()


def _use_bfloat16(config: Config, device: torch.device) -> bool:
    return config.train.precision == "bfloat16" or (config.train.precision == "auto" and device.type == "cuda")
