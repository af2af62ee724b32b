"""Does anything grow? ``python -m tests.faults.soak stages|endpoint MINUTES FOLDER``.

stages    one process trains, evaluates and recommends in one Ray session, again and again, each time with another seed.
endpoint  `mind serve` answers requests, good and hostile ones, some a second; its registry's champion moves meanwhile.

FOLDER gets samples.csv, soak.png and a line for each round. What is flat after the first rounds does not leak.
"""

from __future__ import annotations

import json
import random
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import mlflow
import psutil

from pipelines.cluster.session import ray_session
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.evaluation.evaluate import evaluate
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.synthetic import generate
from pipelines.retrieval.recommend import recommend
from pipelines.training.train import train
from tests.faults.anything import request
from tests.faults.cases import write_conf
from tests.faults.commands import Command
from tests.faults.grows import Watch, plot
from tests.faults.servers import free_port, status
from tests.pipelines.small_model import PROFILE_AS_JSON, save_small

START_S = 240.0
ROUND_S = 60.0  # of the endpoint
PAUSE_S = 0.05  # between two requests
IDS = list(range(101, 141))  # items of the small model


def stages(minutes: float, folder: Path) -> None:
    """Train, evaluate and recommend until the time is over."""
    home = folder / "home"
    if not (folder / "log").is_dir():
        generate(folder / "log", events=6000, users=200, items=150, clusters=8)
    config = load_config(write_conf(folder, home, folder / "log"))
    watch = Watch(folder / "samples.csv", psutil.Process())
    with ray_session(config.ray, home=home):
        preprocess(config)
        watch.start()
        while watch.seconds < 60 * minutes:
            _round(config, watch.number, folder / "lists.parquet")
            print(f"round {watch.number}: {watch.seconds:.0f} s", flush=True)
            watch.number += 1
        watch.stop()


def _round(config: Config, number: int, out: Path) -> None:
    """Train with a seed of its own, test the model, write everybody's lists."""
    settings = config.model_copy(update={"train": config.train.model_copy(update={"seed": number})})
    model = train(settings).model
    evaluate(settings, model=model.name)
    recommend(settings, None, out=out, model=model.name)


def endpoint(minutes: float, folder: Path) -> None:
    """Ask a server until the time is over; every answer is a list or one line, and the champion moves each round."""
    home, port = folder / "home", free_port()
    folders = [save_small(home / "models" / f"soak-default-{seed}", seed=seed) for seed in (0, 1)]
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db", f"sqlite:///{home}/mlflow.db")
    client.create_registered_model("soak")
    for each in folders:
        client.create_model_version("soak", f"file://{each}", tags={"mind.model": str(each)})
    client.set_registered_model_alias("soak", "champion", "1")
    conf = folder / "soak.yaml"
    conf.write_text(
        f"name: soak\nhome: {home}\ndata: {{events: {{path: log.csv}}}}\nray: {{num_cpus: 2}}\n"
        f"serve: {{port: {port}, poll_s: 1}}\n"
    )
    server = Command(["serve", str(conf)], folder / "serve.log")
    try:
        _wait_for(port, server)
        watch, rng, counts = Watch(folder / "samples.csv", psutil.Process(server.process.pid)), random.Random(0), {}
        watch.start()
        while watch.seconds < 60 * minutes:
            client.set_registered_model_alias("soak", "champion", str(1 + watch.number % 2))
            counts = dict.fromkeys((200, 400, 413, 422), 0)
            while watch.seconds < ROUND_S * (watch.number + 1):
                answered = _ask(port, rng)
                assert answered in counts, f"status {answered}"
                counts[answered] += 1
                time.sleep(PAUSE_S)
            print(f"round {watch.number}: {counts}", flush=True)
            watch.number += 1
        watch.stop()
    finally:
        server.end_all()


def _ask(port: int, rng: random.Random) -> int:
    """Send a request that anybody might send; its answer is JSON and has a status."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/recommend", request(rng, IDS, PROFILE_AS_JSON))
        answer = connection.getresponse()
        json.loads(answer.read())
        return answer.status
    finally:
        connection.close()


def _wait_for(port: int, server: Command) -> None:
    until = time.monotonic() + START_S
    while status(f"http://127.0.0.1:{port}/ready") != 200:
        if time.monotonic() > until or server.process.poll() is not None:
            raise SystemExit(f"it does not answer: {server.said()}")
        time.sleep(0.5)


def main(kind: str, minutes: float, folder: Path) -> None:
    """Run, and print what grew."""
    folder.mkdir(parents=True, exist_ok=True)
    {"stages": stages, "endpoint": endpoint}[kind](minutes, folder)
    for name, value in plot(folder / "samples.csv", folder / "soak.png").items():
        print(f"{name}: {value:+.3f} a round")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
