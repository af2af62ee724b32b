"""Is `mind plan` right? Predicted beside measured at three sizes of a log, for docs/scaling.md.

    python -m benchmarks.plan [PIECE ...] [--out FILE]

Pieces are calibrate, 100k, 1M and 10M; all of them, without one named: about ten minutes on 2 cores, alone. The
machine's figures come from shapes of training steps and from small logs of their own (`mind plan --measure`, and
calibrate's 20,000 and 70,000 events), so that no size is predicted from itself. What is found is kept in FILE.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import CACHE, machine, say
from benchmarks.plan_calibrate import calibrated
from benchmarks.plan_runs import CONF, Trial, preprocessed, sent_per_step, trained, write_conf
from benchmarks.report import Sheet, show
from pipelines.config.load import load_config
from pipelines.config.numbers import show_bytes, show_seconds
from pipelines.plan import memory, network, preprocessing
from pipelines.plan.machine import Machine
from pipelines.plan.plan import EPOCH, PREPROCESS, WORKER, make_plan
from pipelines.plan.workload import Workload
from pipelines.preprocess.synthetic import generate

CALIBRATE = "calibrate"
EPOCHS = {100_000: 5, 1_000_000: 3, 10_000_000: 1}
SIZES = {"100k": 100_000, "1M": 1_000_000, "10M": 10_000_000}
EVENTS_PER_USER, EVENTS_PER_ITEM = 100, 50
GOAL = 0.3

SECONDS, EPOCH_SECONDS = "preprocess, s", "an epoch, s"
WORKER_BYTES, PREPROCESS_BYTES = "training worker", "preprocess, all processes"
DISK_BYTES, SENT_BYTES = "dataset on disk", "sent a step and worker"
OTHERS = "other work on the machine meanwhile, cores"
SHOWN: dict[str, Callable[[float], str]] = {
    SECONDS: show_seconds,
    EPOCH_SECONDS: show_seconds,
    WORKER_BYTES: show_bytes,
    PREPROCESS_BYTES: show_bytes,
    DISK_BYTES: show_bytes,
    SENT_BYTES: show_bytes,
}


def trial(folder: Path, events: int) -> Trial:
    """A size's log, where its dataset and runs go, and the settings that it is trained with."""
    log = generate(folder / "log", events, events // EVENTS_PER_USER, events // EVENTS_PER_ITEM, features=False)
    return Trial(write_conf(folder, log.events), folder / "home", [f"train.epochs={EPOCHS[events]}"])


def workload_of(made: Trial, events: int) -> Workload:
    """What `mind plan` is told: the sizes that the generator was told, and the configuration."""
    config = load_config(made.conf, [*made.sets, f"home={made.home}"])
    return Workload(events, events // EVENTS_PER_ITEM, events // EVENTS_PER_USER, config)


def predicted(workload: Workload, figures: Machine) -> dict[str, float]:
    """By the formulas alone."""
    plan = make_plan(workload, figures)
    return {
        SECONDS: plan.stage(PREPROCESS).total,
        EPOCH_SECONDS: plan.stage(EPOCH).total,
        WORKER_BYTES: plan.process(WORKER).bytes,
        PREPROCESS_BYTES: memory.preprocess_node(workload, figures),
        DISK_BYTES: sum(preprocessing.dataset(workload).values()),
        SENT_BYTES: sum(network.step_sent(workload).values()),
    }


def measured(made: Trial, workload: Workload) -> dict[str, float]:
    """By running the commands, and by counting what two workers of the same dataset hand to their collectives."""
    say("  mind preprocess")
    clean = preprocessed(made)
    files = [file for file in workload.config.dataset_path.rglob("*") if file.is_file()]
    say("  mind train")
    training = trained(made, workload.config.train.epochs)
    say("  counting")
    return {
        SECONDS: clean.seconds,
        EPOCH_SECONDS: training.epoch_seconds,
        WORKER_BYTES: training.seen.most["worker"],
        PREPROCESS_BYTES: clean.seen.together,
        DISK_BYTES: sum(file.stat().st_size for file in files),
        SENT_BYTES: sent_per_step(workload.config),
        OTHERS: max(clean.seen.others, training.seen.others),
    }


def sheet(found: dict[str, dict[str, dict[str, float]]]) -> Sheet:
    """All sizes that were measured."""
    rows = []
    for name in SHOWN:
        for size in [size for size in SIZES if size in found]:
            guess, real = found[size]["predicted"][name], found[size]["measured"][name]
            ratio = guess / real
            verdict = "" if 1 - GOAL <= ratio <= 1 + GOAL else "missed"
            rows.append([name, size, SHOWN[name](guess), SHOWN[name](real), f"{ratio:.2f}", verdict])
    busy = [f"{size} {each['measured'][OTHERS]:.2f}" for size, each in found.items()]
    columns = ["what", "events", "predicted", "measured", "predicted / measured", f"within {GOAL:.0%}"]
    return Sheet(f"mind plan on 2 workers; {CONF}", columns, rows, [f"{OTHERS}: {', '.join(busy)}"])


def main() -> None:
    """Run the pieces, keep what they find, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=", ".join([CALIBRATE, *SIZES]))
    parser.add_argument("--out", type=Path, default=CACHE / "plan.json", help="default %(default)s")
    arguments = parser.parse_args()
    pieces = arguments.pieces or [CALIBRATE, *SIZES]
    if unknown := set(pieces) - {CALIBRATE, *SIZES}:
        parser.error(f"{', '.join(sorted(unknown))}: pieces are {', '.join([CALIBRATE, *SIZES])}")
    kept: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    if CALIBRATE not in pieces and "figures" not in kept:
        parser.error(f"{arguments.out} has no figures of this machine yet: {CALIBRATE} comes first")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for piece in pieces:
        say(f"{piece} ...")
        folder = Path(tempfile.mkdtemp(prefix="mind-bench-"))
        try:
            if piece == CALIBRATE:
                kept["figures"] = asdict(calibrated(folder))
            else:
                made = trial(folder, SIZES[piece])
                workload = workload_of(made, SIZES[piece])
                kept.setdefault("sizes", {})[piece] = {"measured": measured(made, workload)}
        finally:
            shutil.rmtree(folder)
        kept["machine"] = machine()
        arguments.out.write_text(json.dumps(kept, indent=1) + "\n")
    figures, sizes = Machine(**kept["figures"]), kept.get("sizes", {})
    for name, each in sizes.items():
        conf = write_conf(Path(tempfile.gettempdir()), Path("none"))
        made = Trial(conf, Path("none"), [f"train.epochs={EPOCHS[SIZES[name]]}"])
        each["predicted"] = predicted(workload_of(made, SIZES[name]), figures)
    arguments.out.write_text(json.dumps(kept, indent=1) + "\n")
    show(sheet(sizes))
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
