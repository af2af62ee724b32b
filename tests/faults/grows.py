"""Does anything of a process grow? It and its children are looked at once a second: samples.csv, a picture, a slope."""

from __future__ import annotations

import csv
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from matplotlib.figure import Figure

COLUMNS = ("seconds", "round", "memory_mb", "handles", "threads", "children", "ray_workers", "children_mb", "shm_mb")
LOOK_S = 1.0
WARM = 0.25  # of the rounds, until caches are filled


def sample(process: psutil.Process, began: float, number: int) -> list[float]:
    """Note what a process and its children have now, in the order of COLUMNS.

    handles and threads are of the process and all its children. shm_mb is what the one of them that has most maps of
    /dev/shm: Ray's object store is mapped by many and is there once.
    """
    handles, threads, children, workers, memory, shared = process.num_fds(), process.num_threads(), 0, 0, 0, 0
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            handles, threads = handles + child.num_fds(), threads + child.num_threads()
            title = (child.cmdline() or [""])[0]
            children, workers = children + 1, workers + title.startswith("ray::")
            memory, shared = memory + child.memory_info().rss, max(shared, _shared(child))
    own = process.memory_info().rss
    return [
        round(time.monotonic() - began, 1),
        number,
        round(own / 1e6, 1),
        handles,
        threads,
        children,
        workers,
        round((memory - shared) / 1e6, 1),
        round(shared / 1e6, 1),
    ]


def _shared(process: psutil.Process) -> int:
    """Read the bytes of /dev/shm that are in a process's resident memory."""
    with suppress(OSError):
        found = re.search(r"^RssShmem:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        return 1024 * int(found.group(1)) if found else 0
    return 0


class Watch:
    """Takes samples of a process until it is told to stop; `number` is the round that they are noted under."""

    def __init__(self, file: Path, process: psutil.Process) -> None:
        self.file, self.process, self.number = file, process, 0
        self.began = time.monotonic()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    @property
    def seconds(self) -> float:
        """How long it has been watching."""
        return time.monotonic() - self.began

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def stop(self) -> None:
        """End; the file is whole then."""
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        with self.file.open("w", newline="") as out:
            rows = csv.writer(out)
            rows.writerow(COLUMNS)
            while not self.done.wait(LOOK_S):
                with suppress(psutil.Error):
                    rows.writerow(sample(self.process, self.began, self.number))
                out.flush()


def growth(rounds: Sequence[float], values: Sequence[float]) -> float:
    """Say how much the median of a round grows from round to round once it is warm; 0 without two such rounds.

    >>> growth([0, 1, 2, 3, 4], [0, 5, 7, 9, 11])
    2.0
    """
    numbers = sorted(set(rounds))
    numbers = numbers[max(1, int(WARM * len(numbers))) :]
    medians = [np.median([v for n, v in zip(rounds, values, strict=True) if n == number]) for number in numbers]
    return round(float(np.polyfit(numbers, medians, 1)[0]), 3) if len(numbers) > 1 else 0.0


def plot(file: Path, out: Path) -> dict[str, float]:
    """Draw the samples; the growth of each column a round."""
    with file.open() as source:
        rows = [[float(value) for value in row] for row in list(csv.reader(source))[1:]]
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    figure = Figure(figsize=(8, 6))
    found = {}
    axes = figure.subplots(len(COLUMNS) - 2, 1, sharex=True)
    for place, name in zip(axes, COLUMNS[2:], strict=True):
        place.plot(np.array(columns["seconds"]) / 60, columns[name], linewidth=0.6)
        place.set_ylabel(name, rotation=0, ha="right", fontsize=8)
        place.tick_params(labelsize=7)
        place.set_ylim(0, 1.15 * max(*columns[name], 1e-3))
        found[name] = growth(columns["round"], columns[name])
    axes[-1].set_xlabel("minutes", fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=90)
    return found
