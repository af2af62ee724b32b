"""The training of a trial, on one rank: each validation becomes a result for Ray Tune, with a checkpoint beside it.

A trial has no state but its settings and its checkpoint. Whatever died, whoever starts it anew calls `results_of`.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mind_core.distributed import sum_over_ranks
from mind_core.routing import adaptive_interest_count
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import DivergedError, UserError, disk_error
from pipelines.storage.home_files import fetch_folder, push_files
from pipelines.training.checkpoints import EarlyStopping, load_checkpoint
from pipelines.training.data import TrainData
from pipelines.training.loop import Metrics, trainer_in_memory, validations
from pipelines.tuning.ledger import Report
from pipelines.tuning.space import trial_config
from pipelines.tuning.trial.checkpoint import newest, place_of, publish, reports_of

# Keys of a result. Tune's own `done` is set where the trial ends by itself; Tune also sets it when it stops a trial.
QUALITY, EPOCH, REPORTS, LAST, FAILURE = "quality", "epoch", "reports", "last", "failure"
REFUSED = "refused"  # by a disk: no fault of the trial
Result = dict[str, Any]


@dataclass(frozen=True)
class Common:
    """What all trials of a campaign have in common.

    base : the configuration that they vary.  dataset : its path.  threads : of a worker.
    """

    base: Config
    dataset: str
    threads: int


def results_of(
    trial: dict[str, Any], base: Config, dataset: Dataset, data: TrainData, device: torch.device, rank: int, ranks: int
) -> Generator[Result]:
    """Train a trial, from its checkpoint if it has one, and yield a result at each validation; the same on all ranks.

    Parameters
    ----------
    trial : what Tune was given: ``number``, ``seed``, ``values`` and ``checkpoint``, the folder of its checkpoints.

    Yields
    ------
    dict
        The newest validation, and the reports that are new since the one before. The first of a trial that goes on has
        all that the checkpoint knows.
    """
    config, folder = trial_config(base, trial["values"], trial["seed"] - base.train.seed), Path(trial["checkpoint"])
    given, trainer = trainer_in_memory(config, dataset, data, device, rank, ranks)
    stopping = EarlyStopping(config.train.patience)
    reports: list[Report] = []
    attempt, checkpoint = _same_on_all((secrets.token_hex(4), newest(folder)) if rank == 0 else None, ranks)
    if checkpoint is not None:
        load_checkpoint(fetch_folder(checkpoint), trainer, stopping)
        reports, last = reports_of(checkpoint)
        yield _result(reports, config, last)
        if last:
            return
    cost = serving_cost(config, data)
    resumed = time.perf_counter()
    try:
        for validation in validations(config, data, given, trainer, stopping, rank, ranks):
            metrics = validation.metrics
            seconds = (reports[-1]["seconds"] if reports else 0.0) + time.perf_counter() - resumed
            kept = {name: value for name, value in metrics.items() if math.isfinite(value)}
            reports.append(kept | cost | {"seconds": seconds})
            place = place_of(folder, int(metrics["step"]), attempt)
            if validation.save is not None:
                validation.save(place)
                push_files(place)
            sum_over_ranks(torch.zeros(1, device=device))  # every rank has written its part
            if rank == 0:
                publish(place, reports, validation.last)
            yield _result(reports[-1:], config, validation.last)
            resumed = time.perf_counter()  # Tune has decided; whatever that took was no training
    except DivergedError as error:  # on every rank; it ends this trial and no other
        yield failed(error)


def _result(new: list[Report], config: Config, last: bool) -> Result:
    quality = new[-1][f"validation/{config.train.metric}"]
    return {QUALITY: quality, EPOCH: new[-1]["epoch"], REPORTS: list(new), LAST: last, "done": last}


def failed(error: BaseException) -> Result:
    """Make the last result of a trial that another attempt would not save."""
    refused = disk_error(error)
    told = {FAILURE: reason_of(error)} if refused is None else {REFUSED: str(refused)}
    return {**told, LAST: True, "done": True}


def serving_cost(config: Config, data: TrainData) -> Metrics:
    """Say what one request costs: lookups (interests of the mean validation user), and those times the width."""
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
    """Say in one line, for the leaderboard, what went wrong."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
