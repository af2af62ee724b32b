"""Memory of n trials at a time, over a small and a large data set of equally many items. Part of benchmarks/tune.py"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.campaigns import write_campaign
from benchmarks.cli_runs import MIND, Generated, environment, generated
from benchmarks.measure import REPOSITORY, Options, say
from benchmarks.report import Finding, Sheet, Target
from benchmarks.watched import tree_bytes

EVENTS = {"small": 1_000_000, "large": 10_000_000}
TRIALS_AT_A_TIME = (1, 2, 4)
PERIOD_S = 0.5
MIB = 2**20
GOAL = 0.8  # what a trial adds on the small data set over what it adds on the large one: 1 if only the model counts
# Next to no rate: the metric does not rise, so that patience ends a trial after a few validations.
SETTINGS = """\
train: {epochs: 1, validate_every_steps: 60, validation_users: 1000, patience: 1, batch_size: 1024}
optim: {learning_rate: 1.0e-9, table_learning_rate: 1.0e-9}
ray: {num_cpus: 4}
"""


def run(options: Options) -> Finding:
    """What the process tree holds while n workers train, by n and data set; the difference is what a trial adds."""
    rows, held, added = [], {}, {}
    for name, events in EVENTS.items():
        events = events // 10 if options.quick else events
        made = generated(options.cache, f"bench-tune-{name}", events, events // 100, 2_000, SETTINGS)
        for trials in TRIALS_AT_A_TIME:
            held[name, trials] = _held(made, options.scratch, name, trials)
            say(f"  {name}, {trials} at a time: {held[name, trials] / MIB:,.0f} MiB")
        first, last = TRIALS_AT_A_TIME[0], TRIALS_AT_A_TIME[-1]
        added[name] = (held[name, last] - held[name, first]) / (last - first)
        cells = [f"{held[name, trials] / MIB:,.0f}" for trials in TRIALS_AT_A_TIME]
        rows.append([f"{events:,} events", *cells, f"{added[name] / MIB:,.0f}"])
    figures = {f"{name}-{trials}": value for (name, trials), value in held.items()} | {
        f"added-{name}": value for name, value in added.items()
    }
    notes = ["proportional set sizes: a page that processes share, as those of the object store, counts once"]
    columns = ["", *(f"{trials} at a time" for trials in TRIALS_AT_A_TIME), "a trial adds"]
    target = Target("memory a trial adds: small over large data set", added["small"] / added["large"], GOAL)
    return Finding(figures, [Sheet("Memory of a campaign, MiB", columns, rows, notes)], [target])


def _held(made: Generated, scratch: Path, name: str, trials: int) -> float:
    """The most that all processes of the campaign hold while that many workers train."""
    home = made.fresh_home(scratch / f"memory-{name}-{trials}")
    file = write_campaign(
        made,
        scratch / f"memory-{name}-{trials}.yaml",
        space={"model.routing_scale": {"log_uniform": [1, 100]}},
        search={"method": "random", "trials": 2 * trials},
        stopping={"method": "none"},
        resources={"concurrent": trials},
        finish={"refit": "none"},
    )
    command = [str(MIND), "tune", str(file), "--home", str(home)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoints = home / "campaigns" / file.stem / "checkpoints"
    most = 0
    while process.poll() is None:
        if len(list(checkpoints.glob("*/step-*"))) >= trials:  # all of them have trained up to a validation
            most = max(most, tree_bytes(process.pid))
        time.sleep(PERIOD_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return float(most)
