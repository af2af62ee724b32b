"""What `mind serve` answers: `make bench-serve`. Started as a user would, called over loopback by Locust.

    1, 8, 32 clients without a pause    p50, p99, requests/s; every list is compared with the one in batch
    the alias moves under 32 clients    no request may be lost, and both versions answer
    mlflow models serve                 the same model, the same callers

Callers and server share the machine. Takes a configuration whose model is trained: `python -m benchmarks.serve
conf/beauty.yaml`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from benchmarks.measure import REPOSITORY, machine, say
from benchmarks.report import Sheet, show
from pipelines.config.load import load_config, resolved
from pipelines.config.schema import Config

HISTORIES = 1_000
N = 20
START_S = 300
ALIAS_S = 3.0  # after which it moves


def main() -> None:
    """Run all of it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("conf", nargs="?", default="conf/beauty.yaml", type=Path)
    parser.add_argument("--home", help="of the trained model")
    parser.add_argument("--set", "-s", action="append", default=[])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    arguments = parser.parse_args()
    sets = [*arguments.set, *([f"home={arguments.home}"] if arguments.home else [])]
    config = load_config(arguments.conf, sets)
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as scratch:
        figures = measured(config, Path(scratch), arguments.clients, arguments.seconds)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"machine": machine(), **figures}, indent=1))


def measured(config: Config, scratch: Path, clients: Sequence[int], seconds: float) -> dict[str, Any]:
    """Measure both servers and print what they did."""
    from pipelines.dataset.dataset import Dataset
    from pipelines.models.find import find_model

    dataset = Dataset.open(config.dataset_path)
    folder = find_model(config, dataset)
    asked = scratch / "asked.jsonl"
    items = write_requests(dataset, folder, asked)
    say(f"{folder.name}: {items:,} items; {HISTORIES:,} histories of users, n = {N}, {seconds:g} s each")
    served, alias = of_serve(config, folder, scratch, asked, clients, seconds)
    stored = of_mlflow(folder, scratch, asked, clients, seconds)
    rows = [[server, f"{count}", *_cells(told)] for server, each in (("mind serve", served),
            ("mlflow models serve", stored)) for count, told in each.items()]  # fmt: skip
    heads = ["server", "clients", "requests", "p50 ms", "p99 ms", "requests/s", "failed or another list than in batch"]
    show(Sheet("Lists over HTTP, callers on the same machine", heads, rows))
    versions = ", ".join(f"version {version}: {times:,}" for version, times in sorted(alias["versions"].items()))
    show(Sheet("The alias moves under load", ["requests", "lost", "p99 ms", "answered by"],
               [[f"{alias['requests']:,}", f"{alias['failures']:,}", f"{alias['p99']:.0f}", versions]]))  # fmt: skip
    return {"serve": served, "alias": alias, "mlflow": stored}


def write_requests(dataset: Any, folder: Path, path: Path) -> int:
    """Write requests of real users with the lists that the batch gives them; the number of items."""
    from pipelines.models.artifact import load_model

    model = load_model(folder)
    rows = dataset.table("test")
    places = np.linspace(0, len(rows) - 1, min(HISTORIES, len(rows))).astype(np.int64)
    rows = rows.take(pa.array(places))
    ids = np.array(model.item_ids.to_pylist(), object)
    lists = model.recommend(model.sequences(rows), N, exclude_seen=model.card.exclude_seen)
    found = lists.group_by("user", use_threads=False).aggregate([("id", "list")])
    of = dict(zip(found["user"].to_pylist(), found["id_list"].to_pylist(), strict=True))
    profiles = raw_profiles(model, rows)
    with path.open("w") as out:
        for row, history in enumerate(rows["items"].to_pylist()):
            raw, profile = ids[np.array(history, np.int64) - 2].tolist(), profiles[row]
            line = {
                "serve": {"history": raw, "n": N, "profile": profile},
                "mlflow": {"dataframe_records": [{"history": raw, **profile}], "params": {"k": N}},
                "ids": of[row],
            }
            out.write(json.dumps(line) + "\n")
    return len(ids)


def raw_profiles(model: Any, rows: pa.Table) -> list[dict[str, Any]]:
    """Turn encoded profiles back into raw values; what was rare or missing is left out, where that is the same."""
    profiles: list[dict[str, Any]] = [{} for _ in range(len(rows))]
    for encoder in model.profile_encoders:
        if encoder.kind != "categorical":
            continue
        for row, index in enumerate(rows[f"profile_{encoder.name}"].to_pylist()):
            if index >= 3:
                profiles[row][encoder.name] = encoder.values[index - 3].as_py()
            elif index == 1:
                profiles[row][encoder.name] = "a value that is not in the vocabulary"
    return profiles


def of_serve(
    config: Config, folder: Path, scratch: Path, asked: Path, clients: Sequence[int], seconds: float
) -> tuple[dict[int, Any], Any]:
    """Measure `mind serve`, and once more while the alias moves."""
    import mlflow

    uri = f"sqlite:///{scratch}/mlflow.db"
    registry = mlflow.MlflowClient(uri, uri)
    registry.create_registered_model(config.name)
    copy = scratch / "second" / folder.name
    shutil.copytree(folder, copy)
    run = json.loads((folder / "config.json").read_text())["run_id"]
    for each in (folder, copy):
        tags = {"mind.model": str(each), **({} if run is None else {"mind.run": run})}
        registry.create_model_version(config.name, each.as_uri(), tags=tags)
    registry.set_registered_model_alias(config.name, "champion", "1")
    port = free_port()
    settings = resolved(config) | {"tracking": {"uri": uri}}
    settings["serve"] = {**settings["serve"], "port": port, "poll_s": 0.5}
    conf = scratch / "serve.yaml"
    conf.write_text(yaml.safe_dump(settings))
    with running([sys.executable, "-m", "jobs.cli", "serve", str(conf)], f"http://127.0.0.1:{port}/ready"):
        told = {count: load("serve", port, asked, scratch, count, seconds) for count in [clients[0], *clients]}
        caller = start_load("serve", port, asked, scratch, clients[-1], seconds)
        time.sleep(ALIAS_S + 2)
        registry.set_registered_model_alias(config.name, "champion", "2")
        alias = end_load(caller, scratch)
    return told, alias


def of_mlflow(folder: Path, scratch: Path, asked: Path, clients: Sequence[int], seconds: float) -> dict[int, Any]:
    """Measure `mlflow models serve` of the same model."""
    import mlflow

    from pipelines.models import serving
    from pipelines.models.artifact import load_model

    saved, target = load_model(folder), scratch / "mlflow-model"
    mlflow.pyfunc.save_model(
        target,
        python_model=serving.__file__,
        artifacts={"model": str(folder)},
        code_paths=[str(REPOSITORY / "mind_core"), str(REPOSITORY / "pipelines")],
        signature=serving.signature(saved),
        pip_requirements=[],
    )
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(target), "--env-manager", "local"]
    with running([*command, "--port", str(port)], f"http://127.0.0.1:{port}/ping"):
        return {count: load("mlflow", port, asked, scratch, count, seconds) for count in [clients[0], *clients]}


def load(kind: str, port: int, asked: Path, scratch: Path, clients: int, seconds: float) -> Any:
    """Let so many clients ask for so long; what they found."""
    return end_load(start_load(kind, port, asked, scratch, clients, seconds), scratch)


def start_load(
    kind: str, port: int, asked: Path, scratch: Path, clients: int, seconds: float
) -> subprocess.Popen[bytes]:
    """Start Locust."""
    environment = {"MIND_LOAD": str(asked), "MIND_LOAD_KIND": kind, "MIND_LOAD_OUT": str(scratch / "told.json")}
    command = [sys.executable, "-m", "locust", "-f", str(REPOSITORY / "benchmarks" / "serve_load.py"), "--headless"]
    command += ["--host", f"http://127.0.0.1:{port}", "--users", str(clients), "--spawn-rate", str(clients)]
    command += ["--run-time", f"{seconds:g}s", "--only-summary", "--loglevel", "ERROR"]
    with (scratch / "locust.log").open("ab") as log:
        return subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)


def end_load(caller: subprocess.Popen[bytes], scratch: Path) -> Any:
    """Wait for Locust, and read what it told."""
    caller.wait()  # its exit code is 1 where a request failed
    told = json.loads((scratch / "told.json").read_text())
    (scratch / "told.json").unlink()
    for error in told["errors"]:
        say(f"failed: {error}")
    return told


@contextmanager
def running(command: list[str], ready: str) -> Iterator[None]:
    """Run a server until the block ends."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # mlflow calls uvicorn by its name
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": path}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            ends = time.monotonic() + START_S
            while not answers(ready):
                if process.poll() is not None or time.monotonic() > ends:
                    log.seek(0)
                    raise SystemExit(f"{' '.join(command)} did not start:\n{log.read().decode()[-2000:]}")
                time.sleep(0.5)
            yield
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM) if "mlflow" in command else process.terminate()
                process.wait(timeout=120)


def answers(url: str) -> bool:
    """Say whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _cells(told: Any) -> list[str]:
    figures = [f"{told['requests']:,}", f"{told['p50']:.0f}", f"{told['p99']:.0f}", f"{told['per_second']:.1f}"]
    return [*figures, f"{told['failures']:,}"]


if __name__ == "__main__":
    main()
