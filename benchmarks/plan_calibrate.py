"""The figures of this machine that `mind plan` needs: rates as `--measure` finds them, and start-ups from small runs.

None of the logs is of a size that benchmarks/plan.py predicts. Part of benchmarks/plan.py.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.cli_runs import mind
from benchmarks.measure import say
from benchmarks.plan_runs import Trained, Trial, preprocessed, trained, write_conf
from pipelines.config.load import load_config
from pipelines.plan import memory, preprocessing, ranking
from pipelines.plan.code import INLINE_BYTES, REPORT_EVERY_STEPS
from pipelines.plan.job import Job
from pipelines.plan.machine import Machine
from pipelines.plan.measure import measured
from pipelines.plan.training import compute_seconds, network_seconds
from pipelines.preprocess.synthetic import generate

EVENTS, USERS, ITEMS = 20_000, 400, 500
PADDED_EVENTS = 70_000  # with a column of noise, which makes Ray start for a small log
EPOCHS = 4
SETS = [f"train.epochs={EPOCHS}", "train.batch_size=64"]  # many short steps: what a report costs shows


def calibrated(folder: Path) -> Machine:
    """All figures but the network, which is stated."""
    say("  rates")
    small = _small(folder / "small")
    job = Job(EVENTS, ITEMS, USERS, load_config(small.conf, SETS))
    found = measured(Machine(), job.config)
    say("  start-ups")
    found = _preprocessing(found, small, _padded(folder / "padded"), job)
    found = _training(found, trained(small, EPOCHS), job)
    whole = mind("evaluate", str(small.conf), "--home", str(small.home))
    return replace(found, start_evaluate=whole - ranking.evaluation_seconds(job, found, found.cores))


def _preprocessing(found: Machine, small: Trial, padded: Trial, job: Job) -> Machine:
    """Beside the passes: the command, and Ray with its processes."""
    mind("preprocess", str(small.conf), "--home", str(small.home))  # makes MLflow's database, seconds of a new home
    inline = preprocessed(small)
    mind("preprocess", str(padded.conf), "--home", str(padded.home))
    with_ray = preprocessed(padded)
    larger = replace(job, events=PADDED_EVENTS)
    passes = [preprocessing.pass_seconds(each, found, found.cores) for each in (job, larger)]
    return replace(
        found,
        start_preprocess=inline.seconds - passes[0],
        start_ray=with_ray.seconds - inline.seconds - passes[1] + passes[0],
        driver_preprocess=inline.seen.together - found.cores * memory.task_bytes(job),
        task=with_ray.seen.most["task"] - memory.task_bytes(larger),
        ray=with_ray.seen.most["ray"],
    )


def _training(found: Machine, run: Trained, job: Job) -> Machine:
    """Beside the epochs; empty processes; and how long a report holds up."""
    held = {name: sum(parts(job, found).values()) - each for name, parts, each in (
        ("worker", memory.training_worker, found.worker), ("driver", memory.train_driver, found.driver)
    )}  # fmt: skip
    each_step = 64 / statistics.median(run.run.values("train/samples_per_second"))  # a report included
    step = compute_seconds(job, found, 1) + network_seconds(job, found, job.workers)
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


def _padded(folder: Path) -> Trial:
    """A log beyond the size that is worked through without Ray, whose events are few."""
    log = generate(folder / "log", PADDED_EVENTS, USERS, ITEMS, features=False)
    file = next(log.events.glob("*.parquet"))
    table = pq.read_table(file)
    width = 1 + INLINE_BYTES // len(table)
    noise = np.random.default_rng(0).integers(0, 256, width * len(table), np.uint8).tobytes()
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(table), [None, pa.py_buffer(noise)])
    pq.write_table(table.append_column("noise", column), file)
    return Trial(write_conf(folder, log.events), folder / "home", [])
