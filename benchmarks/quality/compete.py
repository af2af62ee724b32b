"""Contestants over a data set: each is run, or what it did before is found, and all lists are scored alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure import Options, say
from benchmarks.peers.export import export_splits
from benchmarks.peers.install import NotInstalled, rechub_python, rectools_python
from benchmarks.peers.lists import read
from benchmarks.quality.contestants import REQUIREMENTS, Asked, Contestant
from benchmarks.quality.data import asked_users, conf_of
from benchmarks.quality.results import Failed, code_digest, result_path, run_contestant
from benchmarks.quality.score import score
from benchmarks.quality.summary import Outcome, Table
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset

PYTHONS: dict[str, Callable[[Options], Path]] = {"rectools": rectools_python, "rechub": rechub_python}


class Environments:
    """The peers' Pythons, each made when it is first needed; one that cannot be made is not tried again."""

    def __init__(self, options: Options):
        self.options = options
        self.pythons: dict[str, Path] = {}
        self.failed: dict[str, str] = {}

    def require(self, name: str) -> None:
        """Make it.

        Raises
        ------
        Failed
            If that cannot be done, with the last line of pip.
        """
        if name and name not in self.pythons and name not in self.failed:
            try:
                self.pythons[name] = PYTHONS[name](self.options)
            except NotInstalled as error:
                self.failed[name] = str(error)
        if name in self.failed:
            raise Failed(f"cannot be installed: {self.failed[name]}")


def compete(
    name: str,
    dataset: Dataset,
    config: Config,
    contestants: Iterable[Contestant],
    seeds: int,
    asked: Asked,
    root: Path,
    environments: Environments,
) -> Table:
    """Run the contestants on a data set, or find what they did before; who has no result is no part of the table."""
    sequences, targets = asked_users(dataset, asked.sample)
    filtered, fingerprint = config.evaluate.seen == "filter", dataset.manifest.fingerprint
    arrays = root / "arrays" / f"{name}-{fingerprint[:12]}{'-quick' if asked.quick else ''}.npz"
    outcomes: dict[str, Outcome] = {}
    left_out: dict[str, str] = {}
    failed = []
    for contestant in contestants:
        if (why := contestant.absent(config)) is not None:
            left_out[contestant.name] = why
            continue
        outcome = Outcome(contestant.label, [], [])
        code = [code_digest(contestant.code), *REQUIREMENTS.get(contestant.environment, ())]
        try:
            for seed in range(seeds if contestant.seeded else 1):
                settings = contestant.settings(config, dataset, asked, seed)
                out = result_path(root / "results", name, fingerprint, contestant.name, settings, " ".join(code))
                if not out.is_file():
                    if asked.kept:
                        continue
                    environments.require(contestant.environment)
                    if contestant.kind == "peer" and not arrays.is_file():
                        arrays.parent.mkdir(parents=True, exist_ok=True)
                        export_splits(dataset, arrays, asked.sample)
                    pythons = environments.pythons
                    command = contestant.command(conf_of(name), dataset.path, arrays, out, settings, pythons)
                    run_contestant(command, out, asked.threads)
                lists, told = read(out)
                outcome.runs.append(score(lists["lists"], lists.get("new_lists"), sequences, targets))
                outcome.told.append(told | {"settings": settings})
                say(f"  {name}, {contestant.label}, seed {seed}: NDCG@20 {outcome.means('ndcg@20')[-1]:.4f}, "
                    f"{told['fit_seconds']:.0f} s, {told['peak_bytes'] / 1e9:.1f} GB")  # fmt: skip
        except Failed as error:
            left_out[contestant.name] = str(error)
            failed.append(contestant.name)
            say(f"  {name}, {contestant.label}: {error}")
            continue
        if outcome.runs:
            outcomes[contestant.name] = outcome
    seen = "filtered" if filtered else "kept"
    protocol = f"{config.data.split.protocol}, full ranking of {dataset.manifest.items:,} items, seen {seen}, "
    return Table(name, protocol + f"{len(sequences):,} test users", filtered, outcomes, left_out, tuple(failed))


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(record, indent=1) + "\n")
    aside.rename(path)
