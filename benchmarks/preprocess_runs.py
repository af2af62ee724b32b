"""`mind preprocess` as a command over a generated log, and what it says of itself."""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cli_runs import MIND, conf_text, environment
from benchmarks.event_logs import write_log
from benchmarks.measure import Options
from benchmarks.watched import Watched, watch
from pipelines.dataset.dataset import Dataset

NAME = "bench"
SAID_TO_S = 0.1  # a pass says its seconds to so many

# a head and a worker node, each with a raylet and object store of its own, on this machine
TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
from pipelines.config.load import load_config
from pipelines.preprocess.preprocess import preprocess
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
preprocess(load_config(sys.argv[1], [f"home={sys.argv[2]}", f"ray.address={cluster.address}"]))
cluster.shutdown()
"""


@dataclass(frozen=True)
class Preprocessed:
    """seconds : of the whole command.  work : of them in its passes, the rest is start-up, MLflow and the end.

    driver_cpu_s : CPU seconds of the driver: imports, start-up, what it sums up, and Ray Data's scheduling loop.
    """

    seconds: float
    work: float
    driver_cpu_s: float
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
    return _preprocessed(watch([str(MIND), "preprocess", str(conf), "--home", str(home), *words], environment()), home)


def on_two_nodes(log: Path, home: Path) -> Preprocessed:
    """Preprocess a log on a head and a worker node of one CPU each; to the seconds counts that they start and end."""
    shutil.rmtree(home, ignore_errors=True)
    conf = write_conf(log, home)
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ran = watch([sys.executable, "-c", TWO_NODES, str(conf), str(home)], environment() | token)
    return _preprocessed(ran, home)


def _preprocessed(ran: Watched, home: Path) -> Preprocessed:
    work = max(SAID_TO_S / 2, sum(float(seconds) for seconds in re.findall(r"done in ([0-9.]+) s", ran.said)))
    fingerprint = Dataset.open(home / "datasets" / NAME).manifest.fingerprint
    return Preprocessed(ran.seconds, work, ran.driver_cpu_s, ran.peak_bytes, fingerprint)
