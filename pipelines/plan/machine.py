"""A node of the cluster and its measured rates. Every figure can be changed: ``mind plan -m cores=32 -m memory=256G``.

The defaults are of the machine that the documentation's figures come from (2 cores of an AMD EPYC, 24 GB, no GPU),
2026-11-25: rates by ``mind plan --measure`` (default settings; thread, which varies most, a middle of several runs),
start-ups, report and empty processes by ``python -m benchmarks.plan calibrate``. The network is stated, not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from pipelines.config.numbers import parse_number
from pipelines.errors import UserError


def figure(default: float, what: str) -> float:
    """Make a field of `Machine` that says what it is."""
    value: float = field(default=default, metadata={"what": what})
    return value


@dataclass(frozen=True, kw_only=True)
class Machine:
    """All figures are above 0."""

    cores: float = figure(2, "of a node")
    memory: float = figure(25e9, "bytes of a node")
    network: float = figure(10e9, "bit/s of a node, each way")
    disk: float = figure(340e6, "bytes/s of a node's way to home")
    flop: float = figure(50e9, "FLOP/s of a core in the products of a training step")
    cell: float = figure(210e6, "history cells x d a second and core: looked up, routed, differentiated")
    row: float = figure(43e6, "table rows x d that a core updates in a second")
    pair: float = figure(500e6, "pairs (user, item) x d that a core goes through in a pass of the factors, each way")
    step: float = figure(2.5e-3, "s of any training step, whatever its size")
    thread: float = figure(0.6, "what a second thread of a worker adds, of a first one")
    exchange: float = figure(4.9e9, "bit/s that one worker's collective gets through, whatever the network allows")
    score: float = figure(1e9, "scores (user x item x interest) a second and core: looked through")
    rank: float = figure(225e6, "user x item a second and core: a rule's top N of all scores")
    product: float = figure(84e9, "FLOP/s of a core in the products of ranking")
    user: float = figure(2e-4, "s of a ranked user and core beside the scores")
    clean: float = figure(0.5e6, "events a second and core, all passes of preprocessing")
    group: float = figure(9e6, "rows of item counts that the driver adds in a second")
    report: float = figure(0.43, "s that a report, every 50 steps, holds up a training")
    start_preprocess: float = figure(10.5, "s of the command beside its passes: Python, Ray, its workers, MLflow")
    start_train: float = figure(29.0, "s of the command beside its epochs")
    start_evaluate: float = figure(14.0, "s of the command beside the ranking")
    driver: float = figure(5.9e8, "bytes of a driver of train or evaluate that holds nothing: Python, PyTorch, MLflow")
    driver_preprocess: float = figure(3.4e8, "bytes of a driver of preprocess that holds nothing")
    worker: float = figure(6.3e8, "bytes of a training worker that holds nothing")
    task: float = figure(2.4e8, "bytes of a process of preprocessing that holds nothing")
    ray: float = figure(5.2e8, "bytes of Ray's own processes on a node")

    def threads(self, count: float) -> float:
        """Say how many times faster a worker of `count` threads is than of one."""
        return 1 + (count - 1) * self.thread


def described(machine: Machine) -> list[tuple[str, float, str]]:
    """List every figure: its name, its value, what it is."""
    return [(each.name, getattr(machine, each.name), each.metadata["what"]) for each in fields(machine)]


def with_figures(machine: Machine, texts: Sequence[str]) -> Machine:
    """Put ``name=value`` each in place of the figure of that name.

    Raises
    ------
    UserError
        For another name, or what is no number above 0.
    """
    known = [each.name for each in fields(Machine)]
    given: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise UserError(f"--machine {text}: must be FIGURE=VALUE, as cores=32; figures are {', '.join(known)}")
        given[name] = parse_number(value, f"--machine {name}:")
    return replace(machine, **given)
