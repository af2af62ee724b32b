"""One fault in one stage: break it, repeat the command, compare with the undisturbed run, look around."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.commands import Command, left_in
from tests.faults.stages import BY_NAME, CONF, STAGES, Made, Stage

LATEST_S = 1.5  # after a moment's line; a random part of it is waited
DRIVER = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
FAULTS = (*DRIVER, "worker SIGKILL")


@dataclass
class Outcome:
    """A row of docs/reliability.md."""

    stage: str
    fault: str
    when: str
    ended: str  # how the disturbed command did
    repeated_s: float | None  # seconds of the repeated command; None: the disturbed one finished the work
    undisturbed_s: float
    differs: list[str] = field(default_factory=list)  # names of what is not as in the undisturbed run
    left: list[str] = field(default_factory=list)
    said: str = ""


class Undisturbed:
    """A home in which every stage has run once without any fault: what the others are compared with.

    folder : may hold one that an earlier run of the harness has made, with the same code.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.home = folder / "home"
        self.conf = write_conf(folder, self.home, log)
        self.file = folder / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.made: dict[str, Made] = {name: BY_NAME[name].made(self.home, self.out) for name in self.seconds}

    @property
    def out(self) -> Path:
        """The file of lists."""
        return self.folder / "lists.parquet"

    def run_until(self, name: str) -> None:
        """Run the stages up to this one that have not been run yet."""
        for stage in STAGES[: [stage.name for stage in STAGES].index(name) + 1]:
            if stage.name not in self.made:
                command = Command(arguments(stage, self.conf, self.out), self.folder / f"{stage.name}.log")
                assert command.finish() == 0, command.said()
                self.seconds[stage.name] = command.seconds
                self.made[stage.name] = stage.made(self.home, self.out)
                self.file.write_text(json.dumps(self.seconds))


def write_conf(folder: Path, home: Path, log: Path) -> Path:
    """Write the configuration of a home."""
    conf = folder / "conf.yaml"
    conf.write_text(CONF.format(home=home, log=log))
    return conf


def arguments(stage: Stage, conf: Path, out: Path) -> list[str]:
    """Give the words after `mind` that run a stage."""
    return [stage.name, str(conf), *(str(out) if word == "OUT" else word for word in stage.arguments)]


def disturb(undisturbed: Undisturbed, name: str, fault: str, moment: int, folder: Path, seed: int = 0) -> Outcome:
    """Break a stage once, some time after one of its moments, and repeat the command if it did not finish."""
    stage = BY_NAME[name]
    undisturbed.run_until(name)
    home, out = folder / "home", folder / "lists.parquet"
    home.mkdir(parents=True)
    for needed in stage.needs:
        shutil.copytree(undisturbed.home / needed, home / needed)
    conf = write_conf(folder, home, undisturbed.log)
    line = stage.moments[moment % len(stage.moments)]
    wait_s = random.Random(f"{name} {fault} {moment} {seed}").uniform(0, LATEST_S)
    first = Command(arguments(stage, conf, out), folder / "first.log")
    try:
        first.wait_for(line)
        time.sleep(wait_s)
        broken = _break(first, stage, fault)
        code = first.finish()
        repeated = None
        if code != 0:
            repeated = Command(arguments(stage, conf, out), folder / "repeated.log")
            assert repeated.finish() == 0, f"{first.said()}\n---\n{repeated.said()}"
        made = stage.made(home, out)
        expected = undisturbed.made[name]
        return Outcome(
            stage=name,
            fault=fault,
            when=f"{wait_s:.1f} s after “{line.strip().rstrip('.').strip()}”",
            ended=f"exit {code}" if broken else f"was faster: exit {code}",
            repeated_s=None if repeated is None else round(repeated.seconds, 1),
            undisturbed_s=round(undisturbed.seconds[name], 1),
            differs=sorted(key for key in made.keys() | expected.keys() if made.get(key) != expected.get(key)),
            left=[*first.left_running(), *([] if repeated is None else repeated.left_running()), *left_in(home)],
            said=(first.said().strip().splitlines() or [""])[-1][:160],
        )
    finally:
        first.end_all()


def _break(command: Command, stage: Stage, fault: str) -> bool:
    """Do it; False if the command was faster."""
    if command.process.poll() is not None:
        return False
    if fault in DRIVER:
        command.process.send_signal(DRIVER[fault])
        return True
    until = time.monotonic() + 60
    while time.monotonic() < until and command.process.poll() is None:
        if (worker := command.worker(lambda title: title.startswith(stage.worker))) is not None:
            worker.kill()
            return True
    return False


def record(outcome: Outcome, folder: Path) -> None:
    """Keep a row for the table."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{outcome.stage}-{outcome.fault}-{outcome.when}".replace(" ", "_").replace("/", "_")
    (folder / f"{name}.json").write_text(json.dumps(asdict(outcome), ensure_ascii=False, indent=1), "utf-8")
