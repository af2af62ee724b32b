"""Faults of what a training talks to: MLflow's server, PostgreSQL under it, the object store of its home."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import psycopg
import pyarrow.fs as pafs
from mlflow import MlflowClient

from tests.faults import servers
from tests.faults.cases import Fault, Scene, write_conf
from tests.faults.commands import Command
from tests.faults.stages import TIMED

AWAY_S = 8.0
BUCKET = "faults"


def tracked(uri: str) -> dict[str, object]:
    """Read what a store has of the training: how its run ended, and its metrics but for those of time."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("planted")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`mind.stage` = 'train'")
    found: dict[str, object] = {"runs": len(runs)}
    for run in runs[:1]:
        found["status"] = run.info.status
        for name in run.data.metrics:
            if not name.startswith(("test/", "startup/")) and not any(part in name for part in TIMED):
                history = client.get_metric_history(run.info.run_id, name)
                found[name] = sorted({(each.step, each.value) for each in history})
    return found


class MlflowAway(Fault):
    """MLflow's server is killed and comes back: AWAY_S later, or only after the command's end."""

    def __init__(self, after_the_end: bool = False) -> None:
        self.name = "MLflow's server SIGKILL, " + ("back after the end" if after_the_end else f"back {AWAY_S:.0f} s on")
        self.after_the_end = after_the_end
        self.waiting: list[threading.Thread] = []

    def ready(self, scene: Scene) -> str:
        scene.furnish()
        self.server, self.address = servers.mlflow_server(scene.folder, f"sqlite:///{scene.folder}/store.db")
        self.server.start()
        scene.environment = {"MLFLOW_TRACKING_URI": self.address}
        return ""

    def strike(self, scene: Scene, command: Command) -> bool:
        self.server.kill()
        if not self.after_the_end:
            self.later(self.server.start)
        return True

    def later(self, mend: Callable[[], None]) -> None:
        """Mend it after some time, whatever the command does."""

        def wait() -> None:
            time.sleep(AWAY_S)
            mend()

        self.waiting.append(threading.Thread(target=wait))
        self.waiting[-1].start()

    def mend(self, scene: Scene) -> None:
        for thread in self.waiting:
            thread.join()
        if self.after_the_end:
            self.server.start()

    def look(self, scene: Scene) -> list[str]:
        """Let the next command, an evaluation, deliver what is left; compare what the store has."""
        conf = write_conf(scene.folder, scene.home, scene.undisturbed.log)
        following = Command(["evaluate", str(conf)], scene.folder / "following.log", scene.environment)
        scene.commands.append(following)
        assert following.finish() == 0, following.said()
        expected = tracked(f"sqlite:///{scene.undisturbed.places('train')[0]}/mlflow.db")
        found = tracked(self.address)
        return [f"{name} in MLflow" for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]

    def end(self) -> None:
        for thread in self.waiting:
            thread.join()
        self.server.kill()


class MlflowSlow(MlflowAway):
    """MLflow's server takes requests and answers none, for some time."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"MLflow's server hangs for {AWAY_S:.0f} s"

    def strike(self, scene: Scene, command: Command) -> bool:
        self.server.signal(signal.SIGSTOP)
        self.later(lambda: self.server.signal(signal.SIGCONT))
        return True


class MlflowDrags(MlflowAway):
    """MLflow's server takes ten seconds for every answer, from one moment on until the command's end."""

    waits_s, works_s = 10.0, 0.1

    def __init__(self) -> None:
        super().__init__()
        self.name = f"MLflow's server takes {self.waits_s:.0f} s an answer"
        self.ended = threading.Event()

    def strike(self, scene: Scene, command: Command) -> bool:
        def drag() -> None:
            while not self.ended.is_set() and command.process.poll() is None:
                self.server.signal(signal.SIGSTOP)
                self.ended.wait(self.waits_s)
                self.server.signal(signal.SIGCONT)
                self.ended.wait(self.works_s)

        self.waiting.append(threading.Thread(target=drag))
        self.waiting[-1].start()
        return True

    def end(self) -> None:
        self.ended.set()
        super().end()


class MlflowNotThere(MlflowAway):
    """Nobody answers at the address of MLflow's server when the command starts."""

    waits = False
    refuses = True

    def __init__(self) -> None:
        super().__init__(after_the_end=True)
        self.name = "MLflow's server not there"

    def ready(self, scene: Scene) -> str:
        super().ready(scene)
        self.server.kill()
        return "from the start"

    def strike(self, scene: Scene, command: Command) -> bool:
        return True


class PostgresAway(MlflowAway):
    """PostgreSQL, in which MLflow's server keeps all, is killed and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"PostgreSQL under MLflow SIGKILL, back {AWAY_S:.0f} s on"

    def ready(self, scene: Scene) -> str:
        scene.furnish()
        self.database, self.uri = servers.postgres(scene.folder)
        self.database.start()
        self.server, self.address = servers.mlflow_server(scene.folder, self.uri)
        self.server.start()
        scene.environment = {"MLFLOW_TRACKING_URI": self.address}
        return ""

    def strike(self, scene: Scene, command: Command) -> bool:
        self.database.kill()
        (scene.folder / "pg" / "db" / "postmaster.pid").unlink(missing_ok=True)
        self.later(self.database.start)
        return True

    def end(self) -> None:
        super().end()
        self.database.kill()


class PostgresReadOnly(PostgresAway):
    """PostgreSQL under MLflow's server takes no writes for some time, as a replica after a fail-over."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"PostgreSQL under MLflow read-only for {AWAY_S:.0f} s"

    def strike(self, scene: Scene, command: Command) -> bool:
        self.read_only("on")
        self.later(lambda: self.read_only("off"))
        return True

    def read_only(self, word: str) -> None:
        """Set it, and end the sessions that were begun before."""
        own = "-c default_transaction_read_only=off"  # else this session could not undo it
        with psycopg.connect(self.uri.replace("+psycopg", ""), autocommit=True, options=own) as database:
            database.execute(f"ALTER DATABASE postgres SET default_transaction_read_only = {word}")
            others = "FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
            database.execute(f"SELECT pg_terminate_backend(pid) {others}")


class StorageAway(Fault):
    """The S3 server of a home stands still, or is not there, for some time: what it holds stays."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.name = f"S3 hangs for {seconds:.0f} s"

    def ready(self, scene: Scene) -> str:
        self.server, scene.environment = servers.s3(scene.folder)
        self.server.start()
        scene.environment = scene.environment | {"MIND_CACHE": str(scene.folder / "cache")}
        scene.furnish()
        self.store = pafs.S3FileSystem(
            access_key=servers.KEY["AWS_ACCESS_KEY_ID"],
            secret_key=servers.KEY["AWS_SECRET_ACCESS_KEY"],
            region=servers.KEY["AWS_DEFAULT_REGION"],
            endpoint_override=scene.environment["AWS_ENDPOINT_URL"],
            allow_bucket_creation=True,
        )
        self.store.create_dir(BUCKET)
        for needed in scene.stage.needs:
            pafs.copy_files(str(scene.home / needed), f"{BUCKET}/home/{needed}", destination_filesystem=self.store)
        scene.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{scene.folder}/mlflow.db"
        scene.conf = write_conf(scene.folder, f"s3://{BUCKET}/home", scene.undisturbed.log)
        return ""

    def strike(self, scene: Scene, command: Command) -> bool:
        self.server.signal(signal.SIGSTOP)
        time.sleep(self.seconds)
        self.server.signal(signal.SIGCONT)
        return True

    def look(self, scene: Scene) -> list[str]:
        """Bring what the command made here, where it is compared."""
        fetched = scene.folder / "fetched"
        fetched.mkdir()
        pafs.copy_files(f"{BUCKET}/home", str(fetched), source_filesystem=self.store)
        scene.home = fetched
        return []

    def end(self) -> None:
        self.server.signal(signal.SIGCONT)
        self.server.kill()


class StorageRestarted(StorageAway):
    """The S3 server of a home ends amid what it answers, and is there again some time later, with what it had."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.name = f"S3 stopped, back {seconds:.0f} s on"

    def ready(self, scene: Scene) -> str:
        when = super().ready(scene)
        port = int(scene.environment["AWS_ENDPOINT_URL"].rpartition(":")[2])
        self.way, way = servers.relay(scene.folder, port)  # the server keeps all in its memory: its door is closed
        self.way.start()
        scene.environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{way}"
        return when

    def strike(self, scene: Scene, command: Command) -> bool:
        self.way.kill()
        time.sleep(self.seconds)
        self.way.start()
        return True

    def end(self) -> None:
        self.way.kill()
        super().end()
