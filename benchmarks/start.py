"""What a person waits for before anything is computed: seconds of whole commands, with and without `mind up`.

    python -m benchmarks.start [--only train,recommend,...] [--rounds 3]

Needs conf/beauty.yaml's data for one of its rows; without that the row is left out. Alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cli_runs import MIND, conf_text, environment, mind, mind_train
from benchmarks.measure import CACHE, REPOSITORY, Spread, interleaved, machine, say, spread
from benchmarks.report import Sheet, show

EVENTS, ROWS = 40_000, 500_000
BEAUTY = REPOSITORY / "conf" / "beauty.yaml"
OUT = CACHE / "start.json"
ALONE, STAYING = "by itself", "with mind up"


@dataclass(frozen=True)
class Case:
    """One thing that is waited for: seconds of it in a home, and what is asked for by itself and with `mind up`."""

    name: str
    seconds: Callable[[Path], float]
    goal: float | None
    goal_up: float | None


def main() -> None:
    """Measure every case in turn, both ways, round by round, and print the table."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="mind-start-") as scratch:
        homes = _homes(Path(scratch))
        cases = [case for case in _cases(Path(scratch)) if case.name.startswith(arguments.only)]
        mind("up", "--home", str(homes[STAYING]))
        try:
            found = {case.name: _measured(case, homes, arguments.rounds) for case in cases}
        finally:
            mind("down", "--home", str(homes[STAYING]))
    show(_sheet(cases, found))
    figures = {name: {way: each.figures() for way, each in ways.items()} for name, ways in found.items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    print(f"written to {arguments.out}")


def _homes(scratch: Path) -> dict[str, Path]:
    """Two homes with the same generated log, its dataset and a model; their MLflow databases are made."""
    mind("generate", str(scratch / "log"), "--events", str(EVENTS))
    mind("generate", str(scratch / "large"), "--events", str(ROWS), "--users", "20000", "--items", "5000")
    (scratch / "small.yaml").write_text(conf_text("small", scratch / "log" / "events", "train: {epochs: 2}\n"))
    (scratch / "large.yaml").write_text(conf_text("large", scratch / "large" / "events"))
    homes = {way: scratch / name for way, name in ((ALONE, "home"), (STAYING, "home-up"))}
    for home in homes.values():
        for stage in ("preprocess", "train"):
            mind(stage, str(scratch / "small.yaml"), "--home", str(home))
    if _has_beauty():
        for home in homes.values():
            mind("preprocess", str(BEAUTY), "--home", str(home))
            mind("train", str(BEAUTY), "--home", str(home), "--set", "train.epochs=1")
    return homes


def _cases(scratch: Path) -> list[Case]:
    small, large = str(scratch / "small.yaml"), str(scratch / "large.yaml")
    cases = [
        Case("first step of train", lambda home: _first_step(Path(small), home), 10, 4),
        Case("recommend --user", lambda home: mind("recommend", small, "--user", "1", "--home", str(home)), 5, 2),
        Case("preprocess, 0.5 M rows", lambda home: mind("preprocess", large, "--home", str(home)), 6, 3),
        Case(f"five commands, {EVENTS:,} events", lambda home: _five(small, home), 45, 20),
        Case("error about a setting", lambda home: _refused(small, home, "--set", "train.epochs=none"), 2, None),
        Case("error about a file", lambda home: _refused(str(scratch / "none.yaml"), home), 2, None),
        Case("a user who is not there", lambda home: _refused(small, home, "--user", "nobody"), 2, None),
    ]
    if _has_beauty():
        beauty = ["evaluate", str(BEAUTY), "--set", "train.epochs=1", "--home"]
        cases.insert(2, Case("evaluate conf/beauty.yaml", lambda home: mind(*beauty, str(home)), 15, None))
    return cases


def _has_beauty() -> bool:
    return (REPOSITORY.parent / "shared" / "data" / "amazon-beauty").is_dir()


def _first_step(conf: Path, home: Path) -> float:
    """Seconds from the start of the command to the first step, as the run itself has logged them."""
    run = mind_train(conf, home, f"train.seed={time.time_ns() % 2**31}")
    return run.values("startup/total")[0]


def _five(conf: str, home: Path) -> float:
    """Seconds of preprocess, train, evaluate, recommend and export, one after the other, in a home without them."""
    for made in ("datasets", "models", "runs", "evaluations", "exports"):
        shutil.rmtree(home / made, ignore_errors=True)
    words = {"recommend": ["--user", "1"]}
    stages = ("preprocess", "train", "evaluate", "recommend", "export")
    return sum(mind(stage, conf, "--home", str(home), *words.get(stage, [])) for stage in stages)


def _refused(conf: str, home: Path, *words: str) -> float:
    """Seconds until a mistake is told in a line."""
    started = time.perf_counter()
    command = [MIND, "recommend" if "--user" in words else "train", conf, "--home", str(home), *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    if done.returncode != 2:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}, not 2")
    return time.perf_counter() - started


def _measured(case: Case, homes: dict[str, Path], rounds: int) -> dict[str, Spread]:
    say(f"{case.name} ...")
    ways = {way: (lambda home=home: case.seconds(home)) for way, home in homes.items()}
    return {way: spread(values) for way, values in interleaved(ways, rounds).items()}


def _sheet(cases: list[Case], found: dict[str, dict[str, Spread]]) -> Sheet:
    rows = []
    for case in cases:
        ways, goals = found[case.name], (case.goal, case.goal_up)
        asked = ["" if goal is None else f"{goal:g}" for goal in goals]
        rows.append([case.name, ways[ALONE].text(".1f"), asked[0], ways[STAYING].text(".1f"), asked[1]])
    return Sheet("Seconds, medians (lowest to highest)", ["", ALONE, "asked", STAYING, "asked"], rows)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: tuple(text.split(",")), default=("",), help="how names begin")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


if __name__ == "__main__":
    main()
