"""The figures of this machine that `mind plan` needs: rates as `--measure` finds them, and start-ups from small runs.

None of the logs is of a size that benchmarks/plan.py predicts. Part of benchmarks/plan.py.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

from benchmarks.cli_runs import mind
from benchmarks.measure import say
from benchmarks.plan_runs import Trained, Trial, preprocessed, trained, write_conf
from pipelines.config.load import load_config
from pipelines.plan import memory, preprocessing, ranking
from pipelines.plan.constants import REPORT_EVERY_STEPS
from pipelines.plan.machine import Machine
from pipelines.plan.measure import measured
from pipelines.plan.training import compute_seconds, network_seconds
from pipelines.plan.workload import Workload
from pipelines.preprocess.synthetic import generate

EVENTS, USERS, ITEMS = 20_000, 400, 500
EPOCHS = 4
SETS = [f"train.epochs={EPOCHS}", "train.batch_size=64"]  # many short steps: what a report costs shows


def calibrated(folder: Path) -> Machine:
    """All figures but the network, which is stated."""
    say("  rates")
    small = _small(folder / "small")
    workload = Workload(EVENTS, ITEMS, USERS, load_config(small.conf, SETS))
    found = measured(Machine(), workload.config)
    say("  start-ups")
    found = _preprocessing(found, small, workload)
    found = _training(found, trained(small, EPOCHS), workload)
    whole = mind("evaluate", str(small.conf), "--home", str(small.home))
    return replace(found, start_evaluate=whole - ranking.evaluation_seconds(workload, found, found.cores))


def _preprocessing(found: Machine, small: Trial, workload: Workload) -> Machine:
    """Beside the passes: the command, Ray and its processes."""
    mind("preprocess", str(small.conf), "--home", str(small.home))  # makes MLflow's database, seconds of a new home
    seen = preprocessed(small)
    return replace(
        found,
        start_preprocess=seen.seconds - preprocessing.pass_seconds(workload, found, found.cores),
        driver_preprocess=seen.seen.most["driver"] - memory.task_bytes(workload),
        task=seen.seen.most["task"] - memory.task_bytes(workload),
        ray=seen.seen.most["ray"],
    )


def _training(found: Machine, run: Trained, workload: Workload) -> Machine:
    """Beside the epochs; empty processes; and how long a report holds up."""
    held = {name: sum(parts(workload, found).values()) - each for name, parts, each in (
        ("worker", memory.training_worker, found.worker), ("driver", memory.train_driver, found.driver)
    )}  # fmt: skip
    each_step = 64 / statistics.median(run.run.values("train/samples_per_second"))  # a report included
    step = compute_seconds(workload, found, 1) + network_seconds(workload, found, workload.workers)
    return replace(
        found,
        start_train=run.rest,
        worker=run.seen.most["worker"] - held["worker"],
        driver=run.seen.most["driver"] - held["driver"],
        report=max(0.01, REPORT_EVERY_STEPS * (each_step - step)),
    )


def _small(folder: Path) -> Trial:
    log = generate(folder / "log", EVENTS, USERS, ITEMS, features=False)
    return Trial(write_conf(folder, log.events), folder / "home", SETS)
