"""What taking a day's log onto a dataset costs against making it anew. Part of benchmarks/preprocess.py"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.event_logs import EVENTS_PER_ITEM, EVENTS_PER_USER, FIRST_TIME_US, GAP_US
from benchmarks.measure import Options, ratio, say, spread
from benchmarks.preprocess_runs import Preprocessed, make_log, preprocess
from benchmarks.report import Finding, Sheet, Target

SHARE = 0.01  # of the log's events that are new
ACTIVE = {"5 % of the users": 0.05, "every second user": 0.5}


def run(options: Options) -> Finding:
    """A rebuild, then each append onto a copy of it, round by round."""
    events = 200_000 if options.quick else 10_000_000
    log = make_log(options, events)
    days = {
        name: _day(options.scratch / f"day-{n}.parquet", events, share)
        for n, (name, share) in enumerate(ACTIVE.items())
    }
    built: list[Preprocessed] = []
    appended: dict[str, list[Preprocessed]] = {name: [] for name in ACTIVE}
    for number in range(options.rounds):
        say(f"  round {number + 1}/{options.rounds}")
        home = options.scratch / "rebuild"
        built.append(preprocess(log, home))
        for name, day in days.items():
            copy = options.scratch / "append"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(home, copy)
            appended[name].append(preprocess(log, copy, "--append", str(day), fresh=False))
    whole, work = spread([each.seconds for each in built]), spread([each.work for each in built])
    rows = [["a new dataset", whole.text(".1f"), "1", work.text(".2f"), "1"]]
    figures = {"rebuild": {"seconds": whole.figures(), "work": work.figures()}}
    targets = []
    for name, runs in appended.items():
        seconds, inner = spread([each.seconds for each in runs]), spread([each.work for each in runs])
        shares = ratio(seconds, whole), ratio(inner, work)
        rows.append(
            [
                f"--append, of {name}",
                seconds.text(".1f"),
                shares[0].text(".2f"),
                inner.text(".2f"),
                shares[1].text(".2f"),
            ]
        )
        figures[name] = {"seconds": seconds.figures(), "work": inner.figures()}
        targets.append(Target(f"0.1 x rebuild / --append of {name}, passes", 0.1 / shares[1].median, 1))
    columns = ["", "whole command, s", "/ new", "passes, s", "/ new"]
    notes = [f"{SHARE:.0%} new events, of users that the log knows; passes: without start-up of Python, Ray and MLflow"]
    return Finding(figures, [Sheet(f"A day onto {events:,} events", columns, rows, notes)], targets)


def _day(file: Path, events: int, active: float) -> Path:
    """The day after the log's end."""
    rng = np.random.default_rng(1)
    count, users, items = int(SHARE * events), events // EVENTS_PER_USER, events // EVENTS_PER_ITEM
    people = rng.permutation(users)[: max(1, int(active * users))]
    rank = np.floor(np.exp(rng.random(count) * np.log(items + 1))).astype(np.int64) - 1
    start = FIRST_TIME_US + GAP_US * (events + 2**20)
    columns = {
        "user_id": people[rng.integers(0, len(people), count)],
        "item_id": rank * 2_654_435_761 % items,
        "time": pa.array(start + np.sort(rng.integers(0, GAP_US * count, count)), pa.timestamp("us")),
    }
    pq.write_table(pa.table(columns), file)
    return file
