"""Seconds of a slot that a trial takes beyond its training, and the same by a run of Ray Train a trial, which Ray's
documentation shows. Part of benchmarks/tune.py
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.campaigns import Ran, mind_tune, write_campaign
from benchmarks.cli_runs import Generated, environment, generated
from benchmarks.measure import REPOSITORY, Options, interleaved, spread
from benchmarks.report import Finding, Sheet, Target

NAME = "bench-tune"
FEW, MANY = 6, 22
CONCURRENT = 2
GOAL_S = 5.0
PEER = REPOSITORY / "benchmarks" / "peers" / "train_in_tune.py"


def run(options: Options) -> Finding:
    """Campaigns of few and of many short trials: the difference is what the trials cost, without start and end."""
    made = generated(options.cache, NAME, 50_000, 2_000, 1_000, "train: {epochs: 2}\n")
    numbers = count()
    contenders = {
        f"{trials} trials": partial(_campaign, made, options.scratch, trials, numbers) for trials in (FEW, MANY)
    }
    ours = interleaved(contenders, options.rounds)
    few, many = ours[f"{FEW} trials"], ours[f"{MANY} trials"]
    slope = spread([_between(a, b) for a, b in zip(few, many, strict=True)])
    whole = spread([(CONCURRENT * ran.seconds - ran.training) / MANY for ran in many])
    training = spread([ran.training / len(ran.records) for ran in many])
    peer = _peer(made, options)
    rows = [
        ["a trial's training and validation", training.text(".2f")],
        [f"beyond it, between {FEW} and {MANY} trials", slope.text(".2f")],
        [f"beyond it, start and report of the whole command included ({MANY} trials)", whole.text(".2f")],
        ["beyond it, with a run of Ray Train a trial (1 round)", f"{peer:.2f}"],
    ]
    notes = [f"{CONCURRENT} trials at a time, each one worker of one thread; seconds of one of the {CONCURRENT} slots"]
    figures = {"training": training.figures(), "overhead": slope.figures(), "whole": whole.figures(), "peer": peer}
    target = Target(f"{GOAL_S:g} s over a trial's overhead", GOAL_S / slope.median, 1.0)
    return Finding(figures, [Sheet("A trial, seconds", ["", "seconds"], rows, notes)], [target])


def _campaign(made: Generated, scratch: Path, trials: int, numbers: count[int]) -> Ran:
    number = next(numbers)
    home = made.fresh_home(scratch / f"tune-home-{number}")
    file = write_campaign(
        made,
        scratch / f"overhead-{number}.yaml",
        space={"model.routing_scale": {"log_uniform": [1, 100]}},
        search={"method": "random", "trials": trials},
        stopping={"method": "none"},
        resources={"concurrent": CONCURRENT},
        finish={"refit": "none"},
    )
    return mind_tune(file, home)


def _between(few: Ran, many: Ran) -> float:
    """Slot seconds of a trial in the longer campaign that the shorter one has not, less its training."""
    slots = CONCURRENT * (many.seconds - few.seconds)
    return (slots - (many.training - few.training)) / (len(many.records) - len(few.records))


def _peer(made: Generated, options: Options) -> float:
    """Slot seconds of a trial beyond its training, with the pattern of Ray's documentation."""
    trials = 4 if options.quick else 8
    words = [sys.executable, str(PEER), str(made.conf), str(made.home), str(trials), str(CONCURRENT)]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{PEER.name}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return float(done.stdout.strip().splitlines()[-1])
