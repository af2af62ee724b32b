"""How good the lists are, beside rules and other people's models, on all data at hand: one command.

    python -m benchmarks.quality [--only beauty,tmall] [--contestants default,ials] [--seeds 3] [--quick]
                                 [--write-readme]

Every contestant is a process that fits, ranks the catalogue for the test users and writes its lists; one scorer reads
them all. A result is kept (~/.cache/mind-bench/quality) under its data, settings, code and seed: a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure import CACHE, REPOSITORY, Options, machine, say, use_cores
from benchmarks.peers.export import export_splits
from benchmarks.peers.install import NotInstalled, rechub_python, rectools_python
from benchmarks.peers.lists import read
from benchmarks.quality.contestants import CONTESTANTS, REQUIREMENTS, Asked, Contestant
from benchmarks.quality.data import NAMES, asked_users, conf_of, prepared
from benchmarks.quality.readme import markdown, missing, write_readme
from benchmarks.quality.results import Failed, code_digest, result_path, run_contestant
from benchmarks.quality.score import score
from benchmarks.quality.summary import Outcome, Table, as_json, sheet
from benchmarks.report import show
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset

SAID = 4  # of what a run lacks
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
    """Run the contestants on a data set, or find what they did before."""
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
        outcomes[contestant.name] = outcome
    seen = "filtered" if filtered else "kept"
    protocol = f"{config.data.split.protocol}, full ranking of {dataset.manifest.items:,} items, seen {seen}, "
    return Table(name, protocol + f"{len(sequences):,} test users", filtered, outcomes, left_out, tuple(failed))


def main() -> None:
    """Run what was asked for; print a table per data set, write the JSON file after each."""
    arguments = _arguments()
    use_cores(arguments.threads)
    options = Options(scratch=arguments.cache, cache=arguments.cache, torch_index=arguments.torch_index)
    root: Path = arguments.cache / "quality"
    asked = Asked(arguments.quick, 60 * arguments.cap, arguments.threads)
    seeds = arguments.seeds or (1 if arguments.quick else 3)
    chosen = [each for each in CONTESTANTS if each.name in arguments.contestants]
    environments, tables = Environments(options), list[Table]()
    record: dict[str, Any] = {"machine": machine(), "quick": arguments.quick, "seeds": seeds, "data_sets": {}}
    for name in arguments.only:
        say(f"{name} ...")
        dataset = prepared(name, arguments.home or root / "home")
        if isinstance(dataset, str):
            print(dataset)
            record["data_sets"][name] = {"left_out": dataset}
            continue
        config = load_config(conf_of(name))
        table = compete(name, dataset, config, chosen, seeds, asked, root, environments)
        tables.append(table)
        show(sheet(table))
        record["data_sets"][name] = as_json(table) | {"fingerprint": dataset.manifest.fingerprint}
        write(arguments.out, record)
    print(f"written to {arguments.out}")
    if arguments.write_readme:
        if lacks := missing(tables, seeds, arguments.quick):
            more = f"; and {len(lacks) - SAID} more" if len(lacks) > SAID else ""
            raise SystemExit(f"README.md is left as it is, this run is not complete: {'; '.join(lacks[:SAID])}{more}")
        write_readme(REPOSITORY / "README.md", markdown(tables, seeds))


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(record, indent=1) + "\n")
    aside.rename(path)


def _arguments() -> argparse.Namespace:
    def among(known: list[str]) -> Callable[[str], list[str]]:
        def names(text: str) -> list[str]:
            for name in text.split(","):
                if name not in known:
                    raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(known)}")
            return text.split(",")

        return names

    everybody = [each.name for each in CONTESTANTS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=among(list(NAMES)), default=list(NAMES), metavar="A,B", help=", ".join(NAMES))
    parser.add_argument(
        "--contestants", type=among(everybody), default=everybody, metavar="A,B", help=", ".join(everybody)
    )
    parser.add_argument("--seeds", type=int, help="of every contestant that draws lots; default 3, 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="1 epoch, some hundred users; its figures mean nothing")
    parser.add_argument("--cap", type=float, default=60.0, help="minutes of a training at most; default %(default)g")
    parser.add_argument("--threads", type=int, default=2, help="and cores, of every contestant; default %(default)d")
    parser.add_argument("--home", type=Path, help="where the data sets lie already; default: made in the cache")
    parser.add_argument("--out", type=Path, default=CACHE / "quality.json", help="JSON file; default %(default)s")
    parser.add_argument("--cache", type=Path, default=CACHE, help="default %(default)s")
    parser.add_argument("--torch-index", metavar="URL", help="where pip finds torch for the peers' environments")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md, if all is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
