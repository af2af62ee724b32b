"""`mind preprocess` as a command over a generated log, and what it says of itself."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cli_runs import MIND, conf_text, environment
from benchmarks.event_logs import write_log
from benchmarks.measure import Options
from benchmarks.watched import watch
from pipelines.dataset.dataset import Dataset

NAME = "bench"
SAID_TO_S = 0.1  # a pass says its seconds to so many


@dataclass(frozen=True)
class Preprocessed:
    """seconds : of the whole command.  work : of them in its passes, the rest is start-up, MLflow and the end."""

    seconds: float
    work: float
    peak_bytes: int
    fingerprint: str


def make_log(options: Options, events: int) -> Path:
    """A log in the order of time, made once."""
    return write_log(options.cache / f"events-{events}", events)


def write_conf(log: Path, home: Path) -> Path:
    """The configuration of a log, in a home that is made if needed."""
    home.mkdir(parents=True, exist_ok=True)
    conf = home / "conf.yaml"
    conf.write_text(conf_text(NAME, log))
    return conf


def preprocess(log: Path, home: Path, *words: str, fresh: bool = True) -> Preprocessed:
    """Run the command; `fresh`: in an empty home."""
    if fresh:
        shutil.rmtree(home, ignore_errors=True)
    conf = write_conf(log, home)
    ran = watch([str(MIND), "preprocess", str(conf), "--home", str(home), *words], environment())
    work = max(SAID_TO_S / 2, sum(float(seconds) for seconds in re.findall(r"done in ([0-9.]+) s", ran.said)))
    fingerprint = Dataset.open(home / "datasets" / NAME).manifest.fingerprint
    return Preprocessed(ran.seconds, work, ran.peak_bytes, fingerprint)
