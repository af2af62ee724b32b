"""The commands that `mind plan` predicts, run and watched: seconds, memory by process, bytes that workers send.

Part of benchmarks/plan.py. Linux only.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.cli_runs import Run, conf_text, mind, mind_train
from benchmarks.train_workers import count_collectives
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.training.data import read_data
from pipelines.training.loop import trainer_in_memory

NAME = "plan"
CONF = "d = 32, K = 2, L = 20, 2 x 128 negatives, batch 4,096"
SETTINGS = """\
model: {dim: 32, interests: 2, max_history: 20}
loss: {uniform_negatives: 128, popularity_negatives: 128}
train: {workers: 2, batch_size: 4096, validation_users: 2000, patience: null}
tracking: {system_metrics: false}
"""
PERIOD_S = 0.3
COUNTED_STEPS = 10

Kind = Literal["driver", "worker", "task", "ray"]


@dataclass(frozen=True)
class Trial:
    """A configuration over a generated log.  sets : settings of its trainings."""

    conf: Path
    home: Path
    sets: list[str]


def write_conf(folder: Path, log: Path) -> Path:
    """The settings of all trials, with the path of one's log."""
    conf = folder / "conf.yaml"
    conf.write_text(conf_text(NAME, log, SETTINGS))
    return conf


@dataclass
class Watch:
    """Resident memory of the commands started in its block, sampled. A page that several share counts in each of them:
    telling them apart takes the kernel a tenth of a second a process, and would slow down what is watched.

    together : the most that all processes held at a time.  most : by kind, the most that one of them held (of Ray's own
    processes: all together).  others : cores that everything else on the machine kept busy, a mean.
    """

    together: int = 0
    most: Counter[Kind] = field(default_factory=Counter)
    others: float = 0.0

    def __enter__(self) -> Watch:
        self._done = threading.Event()
        self._own: dict[int, float] = {}  # seconds of CPU by process
        self._began = time.perf_counter(), _busy_seconds()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        (began, busy), own = self._began, sum(self._own.values())
        self.others = max(0.0, _busy_seconds() - busy - own) / (time.perf_counter() - began)

    def _sample(self) -> None:
        workers: set[int] = set()  # a process of Ray Train keeps its title only while it runs a method
        while not self._done.wait(PERIOD_S):
            total, own = 0, 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    title, held = " ".join(process.cmdline()), process.memory_info().rss
                    if "RayTrainWorker" in title:
                        workers.add(process.pid)
                    kind = "worker" if process.pid in workers else _kind(title)
                    total += held
                    self._own[process.pid] = sum(process.cpu_times()[:2])
                    if kind == "ray":
                        own += held
                    else:
                        self.most[kind] = max(self.most[kind], held)
            self.together = max(self.together, total)
            self.most["ray"] = max(self.most["ray"], own)


def _busy_seconds() -> float:
    """Add up the busy seconds of all cores since the machine was started."""
    spent = psutil.cpu_times()
    return float(sum(spent) - spent.idle - spent.iowait - spent.guest - spent.guest_nice)


def _kind(title: str) -> Kind:
    if "/mind " in title:
        return "driver"
    return "task" if title.startswith("ray::") else "ray"


@dataclass(frozen=True)
class Preprocessed:
    """seconds : of the whole command."""

    seconds: float
    seen: Watch


def preprocessed(trial: Trial, times: int = 3) -> Preprocessed:
    """`mind preprocess`: the median of so many times, as a start-up varies by seconds."""
    seconds = []
    with Watch() as seen:
        for _ in range(times):
            seconds.append(mind("preprocess", str(trial.conf), "--home", str(trial.home)))
    return Preprocessed(statistics.median(seconds), seen)


@dataclass(frozen=True)
class Trained:
    """epoch_seconds : mean, from the first step to the last validation.  rest : seconds before and after."""

    epoch_seconds: float
    rest: float
    seen: Watch
    run: Run


def trained(trial: Trial, epochs: int) -> Trained:
    """`mind train`."""
    with Watch() as seen:
        run = mind_train(trial.conf, trial.home, *trial.sets)
    first = run.started + run.values("startup/total")[0]
    last = max(at for _, at, _ in run.metrics["validation/ndcg_at_20"])
    spent = last - first
    return Trained(spent / epochs, run.seconds - spent, seen, run)


def sent_per_step(config: Config) -> float:
    """Bytes that rank 0 sends in a step, a mean; as two processes of plain gloo, on the config's dataset."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_count, (config, folder), nprocs=2)
        return float((Path(folder) / "bytes").read_text())


def _count(rank: int, config: Config, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    dataset = Dataset.open(config.dataset_path)
    data = read_data(dataset, config.train)
    given, trainer = trainer_in_memory(config, dataset, data, torch.device("cpu"), rank, 2)
    sent: Counter[str] = Counter()
    count_collectives(sent, Counter())
    for step, _ in zip(given.steps(0), range(COUNTED_STEPS), strict=False):
        trainer.train_step(step.sequences, step.samples, step.weight)
    # DistributedDataParallel calls gloo from C++: a ring sends (W - 1) / W of a tensor twice, all of it for two
    dense = 4 * sum(each.numel() for each in trainer.objective.parameters() if each.requires_grad)
    if rank == 0:
        (Path(folder) / "bytes").write_text(str(sum(sent.values()) / COUNTED_STEPS + dense))
    dist.barrier()
    dist.destroy_process_group()
