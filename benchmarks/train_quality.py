"""Seconds of training to a given validation HitRate@20 on Beauty and ML-1M. Part of benchmarks/train.py

Ours, ours with a dense gradient and Adam over the whole table, and torch-rechub's MIND, by turns in processes of their
own: each trains for a while on both cores, then ranks the catalogue for the same users while its clock stands still.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.cli_runs import mind
from benchmarks.dataset_loop import load
from benchmarks.measure import REPOSITORY, Options, say
from benchmarks.peers.export import export
from benchmarks.peers.install import rechub_python
from benchmarks.quality_loop import evaluated_users
from benchmarks.report import Finding, Sheet
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset

CONFS = ("beauty", "ml-1m")
OURS, DENSE, RECHUB = "ours", "ours with dense Adam", "torch-rechub 0.9.0"
FIRST_TURN, GROWTH = 4.0, 1.25  # seconds until the first evaluation, and how much later each next one comes
PATIENCE = 2.0  # a contender that has not become better in the last half of its time has finished
MIN_SECONDS = 60.0  # ... but not before
RECHUB_BATCH = "256"  # the tutorial's
RECHUB_LEARNING_RATE = "5e-3"  # the best for it of 1e-3 (the tutorial's), 5e-3 and 2e-2


@dataclass(frozen=True)
class Point:
    """A point of a learning curve: seconds of training and samples so far, HitRate@20 of the validation users."""

    seconds: float
    samples: int
    hit_rate: float


Curve = list[Point]
Turn = Callable[[float], Point]  # seconds to have trained at its end -> what was reached


def run(options: Options) -> Finding:
    """Both data sets, one after the other; one whose files are missing is left out."""
    sheets: list[Sheet] = []
    figures: dict[str, Any] = {}
    for name in CONFS:
        conf = REPOSITORY / "conf" / f"{name}.yaml"
        config = load_config(conf)
        if not (REPOSITORY / config.data.events.path).exists():
            say(f"  {name}: left out, {config.data.events.path} is not there")
            continue
        curves = _compete(options, name, conf, config)
        figures[name] = {contender: [asdict(point) for point in curve] for contender, curve in curves.items()}
        sheets.append(_sheet(name, curves, options.cap))
    return Finding(figures, sheets)


def _compete(options: Options, name: str, conf: Path, config: Config) -> dict[str, Curve]:
    home = options.scratch / "quality-home"
    mind("preprocess", str(conf), "--home", str(home))
    folder = home / "datasets" / config.name
    data = load(Dataset.open(folder))
    users = 500 if options.quick else 4000
    arrays = options.scratch / f"{name}.npz"
    export(data, arrays, evaluated_users(data, users), with_users=True)
    loop = [sys.executable, "-m", "benchmarks.quality_loop", str(conf), str(folder), "--users", str(users)]
    rechub = [str(rechub_python(options)), str(REPOSITORY / "benchmarks" / "peers" / "rechub.py"), "quality"]
    rechub += [str(arrays), "--length", str(config.model.max_history), "--dim", str(config.model.dim)]
    rechub += ["--interests", str(config.model.interests), "--learning-rate", RECHUB_LEARNING_RATE]
    rechub += ["--batch", RECHUB_BATCH]
    commands = {OURS: loop, DENSE: [*loop, "--optimizer", "dense"], RECHUB: rechub}
    with ExitStack() as stack:
        turns: dict[str, Turn] = {}
        for contender, command in commands.items():
            log = options.scratch / f"{name}-{len(turns)}.log"
            turns[contender] = stack.enter_context(_contender(contender, command, log))
        return _take_turns(name, turns, options.cap)


@contextmanager
def _contender(name: str, command: list[str], log: Path) -> Iterator[Turn]:
    """Start a process and hand back how to give it a turn; it ends with the block."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        asking, answers = process.stdin, process.stdout

        def turn(seconds: float) -> Point:
            asking.write(f"{seconds}\n")
            asking.flush()
            return Point(**_answer(name, answers, log))

        try:
            _answer(name, answers, log)  # that it is ready
            yield turn
        finally:
            process.kill()
            process.wait()


def _answer(name: str, answers: IO[str], log: Path) -> dict[str, Any]:
    for line in answers:
        if line.startswith("{"):  # a peer may print what it likes in between
            found: dict[str, Any] = json.loads(line)
            return found
    said = log.read_text().strip().splitlines() or ["it ended without a word"]
    raise SystemExit(f"{name}: {said[-1]}")


def _take_turns(name: str, turns: dict[str, Turn], cap: float) -> dict[str, Curve]:
    """Give every contender that still learns its next turn, until none does or all have had `cap` seconds."""
    curves: dict[str, Curve] = {contender: [] for contender in turns}
    until = min(FIRST_TURN, cap)
    while learning := [contender for contender, curve in curves.items() if not _finished(curve, cap)]:
        for contender in learning:
            point = turns[contender](until)
            curves[contender].append(point)
            say(f"  {name}, {point.seconds:.0f} s: {contender} {point.hit_rate:.4f}")
        until = min(cap, until * GROWTH)
    return curves


def _finished(curve: Curve, cap: float) -> bool:
    if not curve:
        return False
    now = curve[-1].seconds
    return now >= cap or (now > MIN_SECONDS and now > PATIENCE * _best(curve).seconds)


def _best(curve: Curve) -> Point:
    return max(curve, key=lambda point: point.hit_rate)


def _sheet(name: str, curves: dict[str, Curve], cap: float) -> Sheet:
    """Seconds to what torch-rechub, the dense baseline and ours get to."""
    best = {contender: _best(curve).hit_rate for contender, curve in curves.items()}
    goals = {
        "half of ours' best": best[OURS] / 2,
        "torch-rechub's best": best[RECHUB],
        "90 % of ours' best": 0.9 * best[OURS],
        "dense Adam's best": best[DENSE],
        "ours' best": best[OURS],
    }
    rows = [["the best it reached", *(f"{best[contender]:.4f}" for contender in curves)]]
    rows.append(["samples/s while training", *(f"{_rate(curve):,.0f}" for curve in curves.values())])
    for goal, value in sorted(goals.items(), key=lambda pair: pair[1]):
        rows.append([f"seconds to {value:.4f}, {goal}", *(_seconds_to(value, curve) for curve in curves.values())])
    notes = [
        f"seconds of training alone, evaluations left out; up to {cap:.0f} each, and to the end of what it learns",
        "torch-rechub as in its tutorial: batch 256, the user's number and profile as features, no features of items; "
        f"learning rate {RECHUB_LEARNING_RATE}",
    ]
    return Sheet(f"Validation HitRate@20 on {name}, two cores", ["", *curves], rows, notes)


def _rate(curve: Curve) -> float:
    return curve[-1].samples / curve[-1].seconds


def _seconds_to(value: float, curve: Curve) -> str:
    return next((f"{point.seconds:.0f}" for point in curve if point.hit_rate >= value), "not reached")
