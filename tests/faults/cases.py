"""One fault in one stage: break it, repeat the command, compare with the undisturbed run, look around."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.commands import Command, left_in
from tests.faults.stages import BY_NAME, CAMPAIGN, CONF, EARLIER, Made, Stage

LATEST_S = 1.5  # after a moment's line; a random part of it is waited


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
    said: str = ""  # the last line of the disturbed command
    struck: bool = True  # False: the command ended before anything was broken


class Undisturbed:
    """Homes in which every stage has run once without any fault: what the others are compared with.

    folder : may hold what an earlier run of the harness has made, with the same code.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.file = folder / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.made: dict[str, Made] = {name: BY_NAME[name].made(*self.places(name)) for name in self.seconds}

    def places(self, name: str) -> tuple[Path, Path]:
        """The home of a stage, one for all but the pipeline, which does all by itself; and the file of lists."""
        own = self.folder / ("whole" if name == "pipeline" else "stages")
        return own / "home", own / "lists.parquet"

    def run(self, name: str) -> None:
        """Run a stage, and before it those that it starts from, unless they have been run."""
        for each in (*EARLIER[name], name):
            if each in self.made:
                continue
            home, out = self.places(each)
            home.mkdir(parents=True, exist_ok=True)
            conf = write_conf(home.parent, home, self.log)
            command = Command(arguments(BY_NAME[each], conf, out), self.folder / f"{each}.log")
            assert command.finish() == 0, command.said()
            self.seconds[each] = command.seconds
            self.made[each] = BY_NAME[each].made(home, out)
            self.file.write_text(json.dumps(self.seconds))
            command.left_running()  # the next one is not to be slowed down by it


def write_conf(folder: Path, home: Path | str, log: Path | str, more: str = "") -> Path:
    """Write the configuration of a home, with `more` lines of YAML, and a campaign beside it."""
    conf = folder / "conf.yaml"
    conf.write_text(CONF.format(home=home, log=log) + more)
    (folder / "campaign.yaml").write_text(CAMPAIGN)
    return conf


def arguments(stage: Stage, conf: Path, out: Path) -> list[str]:
    """Give the words after `mind` that run a stage."""
    places = {"CONF": conf, "CAMPAIGN": conf.with_name("campaign.yaml"), "OUT": out}
    return [str(places.get(word, word)) for word in stage.arguments]


class Scene:
    """A stage about to be disturbed: a home of its own with what the stage starts from.

    more : lines of YAML for the configuration.
    """

    def __init__(self, undisturbed: Undisturbed, name: str, folder: Path, seed: int = 0, more: str = "") -> None:
        undisturbed.run(name)
        self.undisturbed, self.stage, self.folder = undisturbed, BY_NAME[name], folder
        self.home, self.out = folder / "home", folder / "lists.parquet"
        self.environment: dict[str, str] = {}
        self.prefix: list[str] = []  # of its commands
        self.random = random.Random(f"{name} {seed}")
        self.commands: list[Command] = []
        self.home.mkdir(parents=True, exist_ok=True)
        self.conf = write_conf(folder, self.home, undisturbed.log, more)

    def furnish(self) -> None:
        """Copy what the stage starts from into the home."""
        for needed in self.stage.needs:
            shutil.copytree(self.undisturbed.places(self.stage.name)[0] / needed, self.home / needed)

    def start(self) -> Command:
        """Start the stage's command once more."""
        log = self.folder / f"command-{len(self.commands)}.log"
        self.commands.append(Command(arguments(self.stage, self.conf, self.out), log, self.environment, self.prefix))
        return self.commands[-1]

    def outcome(self, fault: str, when: str, ended: str, repeated_s: float | None) -> Outcome:
        """Compare with the undisturbed run, and look around."""
        name, home = self.stage.name, self.home
        made, expected = self.stage.made(home, self.out), self.undisturbed.made[name]
        running = [each for command in self.commands for each in command.left_running()]
        return Outcome(
            stage=name,
            fault=fault,
            when=when,
            ended=ended,
            repeated_s=None if repeated_s is None else round(repeated_s, 1),
            undisturbed_s=round(self.undisturbed.seconds[name], 1),
            differs=sorted(key for key in made.keys() | expected.keys() if made.get(key) != expected.get(key)),
            left=[*running, *left_in(home)],
            said=last_line(self.commands[0]),
        )

    def end(self) -> None:
        """End whatever is left of its commands."""
        for command in self.commands:
            command.end_all()


def last_line(command: Command) -> str:
    """Return the last line that a command said."""
    return (command.said().strip().splitlines() or [""])[-1]


def require_one_line(command: Command) -> None:
    """See that a command that has ended was refused as a user's mistake is: a line, exit code 2, no traceback."""
    assert command.process.returncode == 2, command.said()
    assert last_line(command).startswith("mind: error: "), command.said()
    assert "Traceback" not in command.said(), command.said()


class Fault:
    """Something that breaks. `waits`: for a moment of the stage; else it is broken from the start."""

    name = ""
    waits = True
    refuses = False  # the command must end in one line with exit code 2, or else well

    def ready(self, scene: Scene) -> str:
        """Prepare the home and its surroundings before the command starts; words for the table's `when`."""
        scene.furnish()
        return ""

    def strike(self, scene: Scene, command: Command) -> bool:
        """Break it; False if the command was faster."""
        return True

    def mend(self, scene: Scene) -> None:
        """Undo it before the command is repeated."""

    def look(self, scene: Scene) -> list[str]:
        """Name what else is not as it should be, once all is over."""
        return []

    def end(self) -> None:
        """Leave the machine as it was, whatever happened."""


def disturb(undisturbed: Undisturbed, name: str, fault: Fault, moment: int, folder: Path, seed: int = 0) -> Outcome:
    """Break a stage once, some time after one of its moments, and repeat the command if it did not finish."""
    scene = Scene(undisturbed, name, folder, seed)
    try:
        when = fault.ready(scene)
        first = scene.start()
        if fault.waits:
            line = scene.stage.moments[moment % len(scene.stage.moments)]
            wait_s = random.Random(f"{name} {fault.name} {moment} {seed}").uniform(0, LATEST_S)
            when = f"{wait_s:.1f} s after “{line.strip().rstrip('.').strip()}”"
            first.wait_for(line)
            time.sleep(wait_s)
        struck = first.process.poll() is None or not fault.waits
        struck = struck and fault.strike(scene, first)
        code = scene.commands[-1].finish()  # some faults start the command again themselves
        if fault.refuses and code != 0:
            require_one_line(first)
        fault.mend(scene)
        repeated = None
        if code != 0:
            again = scene.start()
            assert again.finish() == 0, f"{first.said()}\n---\n{again.said()}"
            repeated = again.seconds
        found = fault.look(scene)
        outcome = scene.outcome(fault.name, when, f"exit {code}", repeated)
        outcome.struck = struck
        outcome.left += found
        return outcome
    finally:
        scene.end()
        fault.end()


def record(outcome: Outcome, folder: Path) -> None:
    """Keep a row for the table."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{outcome.stage}-{outcome.fault}-{outcome.when}".replace(" ", "_").replace("/", "_")
    (folder / f"{name}.json").write_text(json.dumps(asdict(outcome), ensure_ascii=False, indent=1), "utf-8")
