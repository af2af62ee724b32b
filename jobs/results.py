"""What each command prints with ``--json``: a type a command, of which the reference page and the tests are made.

    {"command": "mind generate", "format": 1, "result": {...}}

A type or a converter is imported when it is needed: a command pays for its own alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Split:
    """Of a dataset. users, events, targets : how many; events are those in histories. skipped_users : left out."""

    users: int
    events: int
    targets: int
    skipped_users: int


@dataclass(frozen=True)
class Prepared:
    """A dataset.

    name, path, fingerprint : which it is.
    rows_read, set_aside, events : rows of the log, those set aside by their reason, and those that were kept.
    users, items, splits : what is in it.
    quality_page : HTML.
    warnings : of the data's quality, a line each.
    """

    name: str
    path: Path
    fingerprint: str
    rows_read: int
    set_aside: dict[str, int]
    events: int
    users: int
    items: int
    splits: dict[str, Split]
    quality_page: Path
    warnings: list[str]


@dataclass(frozen=True)
class Page:
    """A page. page : HTML."""

    page: Path


@dataclass(frozen=True)
class Lists:
    """Lists of items.

    file : where they were written, with --out or --all.
    rows : otherwise the lists themselves, a row an item, as docs/export.md has them.
    """

    file: Path | None
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Exported:
    """An export.

    folder : with --towers the towers' folder, and nothing else is said.
    model, fingerprint : of which model and dataset.
    items, users, interests : how many vectors of each kind.
    top_n, seen, latest : of the lists.
    """

    folder: Path
    model: str | None = None
    fingerprint: str | None = None
    items: int | None = None
    users: int | None = None
    interests: int | None = None
    top_n: int | None = None
    seen: str | None = None
    latest: bool | None = None


@dataclass(frozen=True)
class Step:
    """A step. output : what it made. seconds : null where it was made before. figures : the few that say most."""

    name: str
    output: Path
    seconds: float | None
    figures: dict[str, float]


@dataclass(frozen=True)
class Steps:
    """All steps of a pipeline, in order."""

    steps: list[Step]


@dataclass(frozen=True)
class SettingManual:
    """A setting. name : dotted. accepts, default, manual : texts."""

    name: str
    accepts: str
    default: str
    manual: str


@dataclass(frozen=True)
class Manual:
    """Settings, each with its manual."""

    settings: list[SettingManual]


@dataclass(frozen=True)
class Proposal:
    """A configuration. file : where it was written. text : of the file."""

    file: Path
    text: str


@dataclass(frozen=True)
class Campaign:
    """A campaign.

    page : the report, HTML.
    leaderboard : points of the search, the best first: rank, values, metric, deviation, trials and more.
    """

    page: Path
    leaderboard: list[dict[str, Any]]


@dataclass(frozen=True)
class Decision:
    """A promotion.

    promoted : whether the challenger is the champion now.
    reason : in a line.
    name, challenger, champion : the registered model, and versions before the decision.
    metric, mean, low, high : challenger less champion (popularity, where there was none), with its 95 % interval; null
        if nothing was compared.
    """

    promoted: bool
    reason: str
    name: str
    challenger: str
    champion: str | None
    metric: str | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PlannedProcess:
    """A kind of process. a_node : how many of it share a node. bytes : of one, at its peak."""

    name: str
    a_node: int
    bytes: float


@dataclass(frozen=True)
class Obstacle:
    """A bottleneck. kind : compute, network, memory, disk or driver. where, change : texts."""

    kind: str
    where: str
    change: str


@dataclass(frozen=True)
class Planned:
    """A plan, or the machine's figures alone with --measure.

    machine : figures by their name.
    nodes, workers, threads : of the training.
    seconds : by stage.
    processes, bottlenecks : the worst bottleneck first.
    """

    machine: dict[str, float]
    nodes: int | None = None
    workers: int | None = None
    threads: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    processes: list[PlannedProcess] = field(default_factory=list)
    bottlenecks: list[Obstacle] = field(default_factory=list)


@dataclass(frozen=True)
class JobState:
    """A job of a cluster.

    id, status, stage, entrypoint : as Ray knows it; stage is null if mind did not submit it.
    started, seconds : since 1970; how long it ran, or has run.
    exit_code, reason : of one that failed.
    metadata : by key.
    """

    id: str
    status: str
    stage: str | None
    entrypoint: str
    started: float | None
    seconds: float
    exit_code: int | None
    reason: str | None
    metadata: dict[str, str]


@dataclass(frozen=True)
class JobStates:
    """Jobs, newest first."""

    jobs: list[JobState]


def _prepared(dataset: Any) -> Prepared:
    from pipelines.quality.report import Quality

    manifest, quality = dataset.manifest, Quality.read(dataset.layout)
    splits = {
        name: Split(each.users, each.events, each.targets, each.skipped_users) for name, each in manifest.splits.items()
    }
    told = [] if quality is None else [f"{each.name}: {each.found}" for each in quality.warnings]
    return Prepared(manifest.name, dataset.path, manifest.fingerprint, manifest.rows_read, manifest.set_aside,
                    manifest.events, manifest.users, manifest.items, splits, dataset.layout.quality_page,
                    told)  # fmt: skip


def _exported(folder: Any) -> Exported:
    from pipelines.retrieval.export import Export

    made = Export.read(folder)
    if made is None:
        return Exported(folder)
    return Exported(folder, made.model, made.fingerprint, made.items, made.counts.users, made.counts.interests,
                    made.top_n, made.seen, made.latest)  # fmt: skip


def _steps(taken: Any) -> Steps:
    return Steps([Step(each.name, each.output, each.seconds, dict(each.figures)) for each in taken])


def _manual(found: Any) -> Manual:
    settings = [each for part in found for each in part.settings]
    return Manual([SettingManual(each.name, each.accepts, each.default, each.manual) for each in settings])


def _campaign(page: Any) -> Campaign:
    import json

    return Campaign(page, json.loads((page.parent / "leaderboard.json").read_text("utf-8")))


def _decision(made: Any) -> Decision:
    champion = None if made.champion is None else made.champion.version
    told = Decision(made.promoted, made.reason, made.challenger.name, made.challenger.version, champion)
    if (found := made.difference) is None:
        return told
    return Decision(told.promoted, told.reason, told.name, told.challenger, champion, found.metric, found.mean,
                    found.low, found.high)  # fmt: skip


def _planned(made: Any) -> Planned:
    from pipelines.plan.bottlenecks import bottlenecks
    from pipelines.plan.machine import described

    machine, plan = made
    figures = {name: float(value) for name, value, _ in described(machine)}
    if plan is None:
        return Planned(figures)
    processes = [PlannedProcess(each.name, each.a_node, each.bytes) for each in plan.processes]
    found = [Obstacle(each.kind, each.where, each.change) for each in bottlenecks(plan)]
    seconds = {each.name: each.total for each in plan.stages}
    return Planned(figures, plan.nodes, plan.workload.workers, plan.threads, seconds, processes, found)


def _job(job: Any) -> JobState:
    failed = job.status not in ("PENDING", "RUNNING", "SUCCEEDED")
    return JobState(job.id, job.status, job.stage, job.entrypoint, job.started or None, job.seconds, job.exit_code,
                    job.reason if failed else None, dict(job.metadata))  # fmt: skip


def _jobs(found: Any) -> JobStates:
    return JobStates([_job(job) for job in found])


@dataclass(frozen=True)
class Standing:
    """A Ray that stays. started : by this command; it was up otherwise. address, cpus : of that Ray."""

    started: bool
    address: str
    cpus: int


@dataclass(frozen=True)
class Ended:
    """The end of a Ray. was_up : whether there was one."""

    was_up: bool


def _standing(made: Any) -> Standing:
    found, new = made
    return Standing(new, found.address, found.cpus)


RESULTS: Mapping[str, tuple[type | str, Callable[[Any], Any]]] = {
    # what a command returns -> its type: a class, or where one is that is heavy to import
    "mind preprocess": (Prepared, _prepared),
    "mind init": (Proposal, lambda made: Proposal(*made)),
    "mind import": (Proposal, lambda made: Proposal(*made)),
    "mind train": ("pipelines.training.train:TrainOutcome", lambda outcome: outcome),
    "mind evaluate": ("pipelines.evaluation.report:Report", lambda report: report),
    "mind report": (Page, Page),
    "mind recommend": (Lists, lambda lists: lists),
    "mind similar": (Lists, lambda lists: lists),
    "mind export": (Exported, _exported),
    "mind pipeline": (Steps, _steps),
    "mind generate": ("pipelines.preprocess.synthetic:Generated", lambda log: log),
    "mind config": (Manual, _manual),
    "mind tune": (Campaign, _campaign),
    "mind promote": (Decision, _decision),
    "mind plan": (Planned, _planned),
    "mind up": (Standing, _standing),
    "mind down": (Ended, Ended),
    "mind doctor": ("jobs.doctor:Diagnosis", lambda found: found),
    "mind submit": (JobState, _job),
    "mind jobs list": (JobStates, _jobs),
    "mind jobs status": (JobState, _job),
    "mind jobs stop": (JobState, _job),
}


def result_type(command: str) -> Any:
    """Return the class of a command's result."""
    kind = RESULTS[command][0]
    if isinstance(kind, type):
        return kind
    module, _, name = kind.partition(":")
    return getattr(import_module(module), name)


def document(command: str, returned: Any) -> str:
    """Write what a command returned as the JSON document of its result."""
    from pydantic import TypeAdapter

    result = TypeAdapter(result_type(command)).dump_json(RESULTS[command][1](returned)).decode()
    return f'{{"command": "{command}", "format": {FORMAT}, "result": {result}}}'


@contextmanager
def lists_file(out: Path | None, wanted: bool) -> Iterator[Path | None]:
    """Yield where a command writes its lists: `out`, or, if rows are `wanted` and it is None, a file that `lists_in`
    reads before it is gone.
    """
    if out is not None or not wanted:
        yield out
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch) / "rows.parquet"


def lists_in(made: Path | None, out: Path | None) -> Lists | None:
    """Read what a command has written, as a result: the file, or its rows if nobody had asked for the file `out`."""
    if made is None:
        return None
    if out is not None or made.name != "rows.parquet":
        return Lists(made)
    import pyarrow.parquet as pq

    return Lists(None, pq.read_table(made).to_pylist())
