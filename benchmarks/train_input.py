"""What reading the train split costs: our stream reader beside Ray Train's dataset shard, feeding the same steps.

    python -m benchmarks.train_input [--events 1500000] [--rounds 3]

One worker trains whole epochs of a generated log, its input from the one and the other in turn. Printed are samples/s,
their ratio within a round, and the CPU seconds that Ray's other processes took meanwhile: tasks that read, and whoever
coordinates the shards. The split is read window by window in both, and shuffled within a window.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import ray.data
import ray.train
import torch
from ray.train.torch import TorchTrainer

from mind_core.sequences import AllTargets
from mind_core.training import Trainer
from pipelines.cluster.session import ray_session
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import feature_specs, to_sequences
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.synthetic import generate
from pipelines.training.data import columns_to_train, read_data
from pipelines.training.labels import label_rule
from pipelines.training.loop import build_trainer
from pipelines.training.memory_input import Step
from pipelines.training.stream_input import Chunk, RayReader, StreamInput, cut, prefetched

WINDOW_EVENTS = 250_000
SHARDS = ("shard", "shard of a log larger than the object store")
BLOCK_BYTES = 2**18


def config_for(home: Path, log: Path) -> Config:
    """A small model: the cheaper a step, the more its input shows."""
    return Config.model_validate(
        {
            "name": "input",
            "home": str(home),
            "data": {
                "events": {"path": str(log / "events"), "user": "user_id", "item": "item_id", "time": "time"},
            },
            "model": {"dim": 16, "interests": 3, "max_history": 12, "hidden": [16]},
            "loss": {"uniform_negatives": 32, "popularity_negatives": 32},
            "train": {"batch_size": 1024, "epochs": 1, "input": "stream", "shuffle_events": WINDOW_EVENTS},
            "tracking": {"system_metrics": False},
        }
    )


def shard_steps(given: StreamInput, name: str, events_per_user: float) -> Iterator[Step]:
    """An epoch of Ray Train's shard `name`, shuffled window by window in a thread, cut into steps, as the stream is."""
    shard = ray.train.get_dataset_shard(name)
    users = max(1, int(WINDOW_EVENTS / events_per_user))
    blocks = shard.iter_batches(batch_size=users, batch_format="pyarrow", prefetch_batches=1)

    def windows() -> Iterator[Chunk]:
        for block in blocks:
            sequences = to_sequences(block, given.profile)
            samples = AllTargets(sequences)
            yield Chunk(sequences, samples[torch.randperm(len(samples))])

    sizes = (min(given.batch, given.size - step * given.batch) for step in range(given.steps_per_epoch))
    with closing(prefetched(windows())) as filled:
        for chunk in cut(filled, sizes):
            yield Step(chunk.sequences, chunk.samples, 1.0, len(chunk))


def cpu_seconds() -> dict[str, float]:
    """Return the CPU seconds of Ray's other worker processes on this node, by what they are."""
    found: dict[str, float] = {}
    for process in psutil.Process(os.getppid()).children():
        try:
            if process.pid != os.getpid():
                times, name = process.cpu_times(), process.cmdline()[0].split("(")[0].split(".")[0]
                found[f"{process.pid} {name}"] = times.user + times.system
        except (psutil.NoSuchProcess, psutil.AccessDenied, IndexError):
            continue
    return found


def epoch(trainer: Trainer, steps: Iterator[Step]) -> dict[str, Any]:
    """Train on all of them: samples/s, this process's CPU seconds, and the others' by name, where they are any."""
    others, own, started, samples = cpu_seconds(), time.process_time(), time.perf_counter(), 0
    for step in steps:
        trainer.train_step(step.sequences, step.samples, step.weight)
        samples += step.size
    seconds, after = time.perf_counter() - started, cpu_seconds()
    before = {key.split()[0]: spent for key, spent in others.items()}
    spent: dict[str, float] = {}
    for key, value in after.items():
        pid, name = key.split(maxsplit=1)
        spent[name] = spent.get(name, 0.0) + value - before.get(pid, 0.0)
    spent = {name: round(value, 1) for name, value in spent.items() if value >= 0.2}
    return {
        "samples": samples,
        "rate": samples / seconds,
        "seconds": seconds,
        "own": time.process_time() - own,
        "others": spent,
    }


def loop(settings: dict[str, Any]) -> None:
    """What the worker does: both readers in turn."""
    config: Config = settings["config"]
    torch.set_num_threads(1)
    dataset = Dataset.open(config.dataset_path)
    data = read_data(dataset, config.train, streamed=True)
    rule = label_rule(config.train, dataset)
    reader = RayReader(columns_to_train(dataset) + rule.columns)
    profile = feature_specs(dataset.manifest.profile_features)
    given = StreamInput(config.train, dataset.split_files("train"), reader, profile, torch.device("cpu"), rule=rule)
    trainer = build_trainer(config, dataset, data, given, torch.device("cpu"), 0, 1)
    counts = dataset.manifest.splits["train"]
    rounds = []
    for _ in range(settings["rounds"] + 1):
        found = {"stream": epoch(trainer, given.steps(0))}
        for name in SHARDS:
            found[name] = epoch(trainer, shard_steps(given, name, counts.events / counts.users))
        rounds.append(found)
    Path(settings["out"]).write_text(json.dumps(rounds[1:]), "utf-8")  # the first started processes


def main() -> None:
    """Generate, preprocess, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_500_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log, home = Path(folder, "log"), Path(folder, "home")
        generate(log, events=arguments.events, users=arguments.events // 40, items=20_000)
        config = config_for(home, log)
        with ray_session(config.ray, workers=1):
            preprocess(config)
            dataset = Dataset.open(config.dataset_path)
            ray.data.DataContext.get_current().target_max_block_size = BLOCK_BYTES  # many blocks, as a large log has
            split = ray.data.read_parquet(dataset.split_files("train")).select_columns(columns_to_train(dataset))
            waiting = ray.data.ExecutionOptions(  # as there: the execution waits for its consumer
                resource_limits=ray.data.ExecutionResources(object_store_memory=4 * BLOCK_BYTES)
            )
            out = Path(folder, "rounds.json")
            TorchTrainer(
                loop,
                train_loop_config={"config": config, "rounds": arguments.rounds, "out": str(out)},
                datasets=dict.fromkeys(SHARDS, split),
                dataset_config=ray.train.DataConfig(execution_options={SHARDS[1]: waiting}),
                scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
                run_config=ray.train.RunConfig(name="input", storage_path=folder),
            ).fit()
        show(json.loads(out.read_text("utf-8")))


def show(rounds: list[dict[str, dict[str, Any]]]) -> None:
    """Print the figures of each round."""
    for number, found in enumerate(rounds, 1):
        for name, one in found.items():
            rate = f"{one['rate']:,.0f} samples/s of {one['samples']:,} in {one['seconds']:.1f} s"
            print(f"round {number}, {name}: {rate}; CPU s of the worker {one['own']:.1f}, of others {one['others']}")
        for name in SHARDS:
            print(f"round {number}, {name} / stream: {found[name]['rate'] / found['stream']['rate']:.2f}")


if __name__ == "__main__":
    main()
