"""What breaks around a command: another command beside it, the rights to its files, the clock."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.faults.cases import Fault, Scene, require_one_line
from tests.faults.commands import Command

NOBODY = 65534
CLOCK = Path(__file__).with_name("clock.c")
COMPILER = shutil.which("cc")


class AnotherBeside(Fault):
    """The same command is given once more while it runs: it waits, does the same, or is refused in one line."""

    name = "the same command beside it"

    def strike(self, scene: Scene, command: Command) -> bool:
        other = scene.start()
        scene.commands.reverse()  # the first one is what is waited for
        if other.finish() != 0:
            require_one_line(other)
        assert "Traceback" not in other.said(), other.said()
        return True


class NoRights(Fault):
    """The home belongs to somebody else, and this user may only read it."""

    name = "home of somebody else"
    waits = False
    refuses = True

    def ready(self, scene: Scene) -> str:
        super().ready(scene)
        self.home = scene.home
        self._own(NOBODY, 0o555)
        # root without what lets it pass by modes: an ordinary user, as far as files go
        scene.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
        return "from the start"

    def mend(self, scene: Scene) -> None:
        self._own(os.geteuid(), 0o755)

    def _own(self, user: int, mode: int) -> None:
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, user, -1)
            if path.is_dir():
                path.chmod(mode)


class ObjectStoreFull(Fault):
    """Somebody else in the same Ray puts four times into its object store what that holds, and keeps it a while."""

    name = "Ray's object store is full"
    store, objects, seconds = 80_000_000, 40, 5.0  # bytes; of 8 MiB each; kept
    hog = (
        "import sys, time\n"
        "import numpy as np, ray\n"
        "ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)\n"
        "kept = [ray.put(np.zeros(2**23, np.uint8)) for _ in range(int(sys.argv[2]))]\n"
        "time.sleep(float(sys.argv[3]))\n"
    )

    def ready(self, scene: Scene) -> str:
        scene.environment = {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(self.store)}
        return super().ready(scene)

    def strike(self, scene: Scene, command: Command) -> bool:
        words = " ".join(word for each in command.tree() for word in each.cmdline())
        address = re.search(r"--gcs-address=(\S+)", words)  # of the raylet
        assert address is not None, words
        told = [address[1], str(self.objects), str(self.seconds)]
        token = {**os.environ, "RAY_AUTH_MODE": "token"}
        with suppress(subprocess.TimeoutExpired):
            return subprocess.run([sys.executable, "-c", self.hog, *told], env=token, timeout=60).returncode == 0
        return False


class ClockJumps(Fault):
    """The clock of the machine is set while the command runs, as far as Python code sees it, and stays there."""

    def __init__(self, hours: int) -> None:
        self.hours = hours
        self.name = f"the clock is set {abs(hours)} hours {'back' if hours < 0 else 'on'}"

    def ready(self, scene: Scene) -> str:
        super().ready(scene)
        assert COMPILER is not None
        library, self.clock = scene.folder / "clock.so", scene.folder / "clock"
        subprocess.run([COMPILER, "-shared", "-fPIC", "-o", str(library), str(CLOCK), "-ldl"], check=True)
        self.clock.write_text("0")
        scene.environment = {"LD_PRELOAD": str(library), "MIND_FAULT_CLOCK": str(self.clock)}
        return ""

    def strike(self, scene: Scene, command: Command) -> bool:
        aside = self.clock.with_suffix(".new")
        aside.write_text(str(3600 * self.hours))
        aside.replace(self.clock)
        return True


def may_drop_rights() -> bool:
    """Tell whether a process here can be told to heed the modes of files: root with setpriv."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    return subprocess.run(["setpriv", "--bounding-set=-dac_override", "true"], check=False).returncode == 0
