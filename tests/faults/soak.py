"""Does anything grow? ``python -m tests.faults.soak MINUTES FOLDER``: train, evaluate, recommend, again and again.

One process does all of it in one Ray session, each time with another seed; meanwhile its memory, file handles and
threads, its children's memory, their number, and /dev/shm are noted once a second. FOLDER gets samples.csv, soak.png
and a line for each round. What is flat after the first rounds does not leak.
"""

from __future__ import annotations

import csv
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from matplotlib.figure import Figure

from pipelines.cluster.session import ray_session
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.evaluation.evaluate import evaluate
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.synthetic import generate
from pipelines.retrieval.recommend import recommend
from pipelines.training.train import train
from tests.faults.cases import write_conf

COLUMNS = ("seconds", "round", "memory_mb", "handles", "threads", "children", "children_mb", "shm_mb")
LOOK_S = 1.0
WARM = 2  # rounds until caches are filled


def sample(began: float, number: int) -> list[float]:
    """Note what this process and its children have now, in the order of COLUMNS."""
    me = psutil.Process()
    memory, count = 0, 0
    for child in me.children(recursive=True):
        with suppress(psutil.Error):
            memory, count = memory + child.memory_info().rss, count + 1
    return [
        round(time.monotonic() - began, 1),
        number,
        round(me.memory_info().rss / 1e6, 1),
        me.num_fds(),
        me.num_threads(),
        count,
        round(memory / 1e6, 1),
        round(shutil.disk_usage("/dev/shm").used / 1e6, 1),
    ]


class Watch:
    """Takes samples until it is told to stop."""

    def __init__(self, file: Path) -> None:
        self.file, self.number = file, 0
        self.began = time.monotonic()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        with self.file.open("w", newline="") as out:
            rows = csv.writer(out)
            rows.writerow(COLUMNS)
            while not self.done.wait(LOOK_S):
                rows.writerow(sample(self.began, self.number))
                out.flush()


def one_round(config: Config, number: int, out: Path) -> None:
    """Train with a seed of its own, test the model, write everybody's lists."""
    settings = config.model_copy(update={"train": config.train.model_copy(update={"seed": number})})
    model = train(settings).model
    evaluate(settings, model=model.name)
    recommend(settings, None, out=out, model=model.name)


def growth(rounds: Sequence[float], values: Sequence[float]) -> float:
    """Say how much the median of a round grows from round to round once it is warm; 0 without two such rounds."""
    numbers = sorted({number for number in rounds if number >= WARM})
    medians = [np.median([v for n, v in zip(rounds, values, strict=True) if n == number]) for number in numbers]
    return float(np.polyfit(numbers, medians, 1)[0]) if len(numbers) > 1 else 0.0


def plot(file: Path, out: Path) -> dict[str, float]:
    """Draw the samples; the growth of each column a round."""
    with file.open() as source:
        rows = [[float(value) for value in row] for row in list(csv.reader(source))[1:]]
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    figure = Figure(figsize=(9, 9))
    found = {}
    axes = figure.subplots(len(COLUMNS) - 2, 1, sharex=True)
    for place, name in zip(axes, COLUMNS[2:], strict=True):
        place.plot(np.array(columns["seconds"]) / 60, columns[name], linewidth=0.8)
        place.set_ylabel(name, rotation=0, ha="right", fontsize=8)
        place.set_ylim(bottom=0)
        found[name] = growth(columns["round"], columns[name])
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    return found


def main(minutes: float, folder: Path) -> None:
    """Run, and print what grew."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "home"
    if not (folder / "log").is_dir():
        generate(folder / "log", events=6000, users=200, items=150, clusters=8)
    config = load_config(write_conf(folder, home, folder / "log"))
    watch = Watch(folder / "samples.csv")
    with ray_session(config.ray, home=home):
        preprocess(config)
        watch.thread.start()
        while time.monotonic() - watch.began < 60 * minutes:
            one_round(config, watch.number, folder / "lists.parquet")
            print(f"round {watch.number}: {time.monotonic() - watch.began:.0f} s", flush=True)
            watch.number += 1
        watch.done.set()
        watch.thread.join()
    for name, value in plot(folder / "samples.csv", folder / "soak.png").items():
        print(f"{name}: {value:+.2f} a round")


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
