"""What breaks: signals to the command and its workers, the disk, the memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq

from tests.faults.cases import Fault, Scene, arguments, write_conf
from tests.faults.commands import Command

WORKER_S = 60.0  # for a worker to be there
AGAIN = 5  # kills of one training
ROOM = (0.05, 0.8)  # of what a stage writes: so much is free on the disk that is full


class Signal(Fault):
    """A signal to the command itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def strike(self, scene: Scene, command: Command) -> bool:
        command.process.send_signal(signal.Signals[self.name])
        return True


class Worker(Fault):
    """SIGKILL to a process of Ray that does the stage's work."""

    name = "worker SIGKILL"

    def strike(self, scene: Scene, command: Command) -> bool:
        until = time.monotonic() + WORKER_S
        while time.monotonic() < until and command.process.poll() is None:
            if (worker := command.worker(lambda title: title.startswith(scene.stage.worker))) is not None:
                worker.kill()
                return True
        return False


class Again(Fault):
    """SIGKILL to the command, and to the command that goes on, and so forth: at random moments after its first line."""

    name = f"SIGKILL, {AGAIN} times"

    def strike(self, scene: Scene, command: Command) -> bool:
        command.process.kill()
        for _ in range(AGAIN - 1):
            command = scene.start()
            if not command.wait_for(scene.stage.moments[-1]):
                return False
            time.sleep(scene.random.uniform(0, 0.4))
            command.process.kill()
        return True


class FullDisk(Fault):
    """A home on a disk (tmpfs) with room for a part of what the stage writes."""

    name = "disk full"
    waits = False
    refuses = True

    def ready(self, scene: Scene) -> str:
        self.furnish_disk(scene)
        if scene.stage.name == "recommend":
            scene.out = scene.home / "lists.parquet"
        share = scene.random.uniform(*ROOM)
        used = shutil.disk_usage(self.home).used
        room = int(share * _written(scene))
        _mount("-o", f"remount,size={used + room}", str(self.home))
        return f"{room / 1000:,.0f} kB were free"

    def furnish_disk(self, scene: Scene) -> None:
        """Give the home a disk of its own, with room for everything yet, and what the stage starts from."""
        self.home = scene.home
        _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", str(self.home))
        scene.furnish()

    def mend(self, scene: Scene) -> None:
        _mount("-o", "remount,size=1g", str(self.home))

    def look(self, scene: Scene) -> list[str]:
        """Let a next command deliver what MLflow did not take, where the disturbed one ended well."""
        if len(scene.commands) == 1 and any((scene.home / "unsent").glob("*/*")):
            trained = scene.stage.name in ("train", "pipeline")  # which would train once more
            words = ["evaluate", str(scene.conf)] if trained else arguments(scene.stage, scene.conf, scene.out)
            following = Command(words, scene.folder / "following.log")
            scene.commands.append(following)
            assert following.finish() == 0, following.said()
        return []

    def end(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.home)], check=False)


class DiskFills(FullDisk):
    """The disk of the home is full from one moment on: nothing fits any more."""

    name = "disk fills up"
    waits = True
    left = 4096  # bytes

    def ready(self, scene: Scene) -> str:
        self.furnish_disk(scene)
        return ""

    def strike(self, scene: Scene, command: Command) -> bool:
        used = shutil.disk_usage(self.home).used
        _mount("-o", f"remount,size={used + self.left}", str(self.home))
        return True


class ReadOnly(FullDisk):
    """A home that is read-only."""

    name = "read-only home"

    def ready(self, scene: Scene) -> str:
        self.furnish_disk(scene)
        _mount("-o", "remount,ro", str(self.home))
        return "from the start"

    def mend(self, scene: Scene) -> None:
        _mount("-o", "remount,rw", str(self.home))


class TornInput(Fault):
    """The log's file ends in its middle, as one that is still being copied."""

    waits = False
    refuses = True

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = f"log of {kind} torn"

    def ready(self, scene: Scene) -> str:
        super().ready(scene)
        log = scene.folder / "log"
        shutil.copytree(scene.undisturbed.log, log)
        (source,) = (log / "events").iterdir()
        events = pq.read_table(source).to_pandas()
        source.unlink()
        self.file = log / "events" / f"part.{self.kind}"
        if self.kind == "parquet":
            shutil.copy(next((scene.undisturbed.log / "events").iterdir()), self.file)
        elif self.kind == "csv.gz":
            events.to_csv(self.file, index=False)
        else:
            events.to_json(self.file, orient="records", lines=True, date_format="iso", date_unit="us")
        self.whole = self.file.read_bytes()
        share = scene.random.uniform(0.2, 0.9)
        self.file.write_bytes(self.whole[: int(share * len(self.whole))])
        scene.conf = write_conf(scene.folder, scene.home, log)
        return f"after {share:.0%} of its bytes"

    def mend(self, scene: Scene) -> None:
        self.file.write_bytes(self.whole)


class Memory(Fault):
    """Another process takes memory until Ray's monitor ends workers, for some seconds."""

    name = "memory runs out"
    refuses = True
    hog = (
        "import sys, time\n"
        "taken = []\n"
        "import psutil\n"
        "while psutil.virtual_memory().percent < float(sys.argv[1]):\n"
        "    taken.append(b'x' * 2**26)\n"
        "print('full', flush=True)\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    seconds = 4.0
    spare = 8e9  # bytes that the stage may take

    def ready(self, scene: Scene) -> str:
        memory = psutil.virtual_memory()
        self.share = min(0.9, memory.percent / 100 + self.spare / memory.total)
        scene.environment = {"RAY_memory_usage_threshold": f"{self.share:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
        return super().ready(scene)

    def strike(self, scene: Scene, command: Command) -> bool:
        hog = subprocess.run([sys.executable, "-c", self.hog, f"{100 * self.share + 2:.1f}", f"{self.seconds}"])
        return hog.returncode == 0

    def mend(self, scene: Scene) -> None:
        scene.environment = {}


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def may_mount() -> bool:
    """Tell whether this process may mount file systems: root, outside a container that forbids it."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


def _written(scene: Scene) -> int:
    """Count the bytes that an undisturbed run of the stage has left in its home, and MLflow's store, which is new."""
    home, out = scene.undisturbed.places(scene.stage.name)
    folders = {"preprocess": ["datasets"], "train": ["models", "runs"], "evaluate": ["evaluations"],
               "export": ["exports"], "tune": ["campaigns"], "pipeline": ["datasets", "models", "runs", "exports"],
               "recommend": []}[scene.stage.name]  # fmt: skip
    files = [file for folder in folders for file in (home / folder).rglob("*")]
    files += [home / "mlflow.db"] if scene.stage.name != "recommend" else [out]
    return sum(file.stat().st_size for file in files if file.is_file())
