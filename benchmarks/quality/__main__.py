"""How good the lists are, beside rules and other people's models, on all data at hand: one command.

    python -m benchmarks.quality [--only beauty,tmall] [--contestants default,ials] [--seeds 3] [--quick | --kept]
                                 [--write-readme]

Every contestant is a process that fits, ranks the catalogue for the test users and writes its lists; one scorer reads
them all. A result is kept (~/.cache/mind-bench/quality) under its data, settings, code and seed: a killed run goes on,
and `--kept` shows what is there already.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import CACHE, REPOSITORY, Options, machine, say, use_cores
from benchmarks.quality.compete import Environments, compete, write
from benchmarks.quality.contestants import CONTESTANTS, Asked
from benchmarks.quality.data import NAMES, conf_of, prepared
from benchmarks.quality.readme import markdown, write_readme
from benchmarks.quality.summary import Table, as_json, sheet
from benchmarks.report import show
from pipelines.config.load import load_config


def main() -> None:
    """Run what was asked for; print a table per data set, write the JSON file after each."""
    arguments = _arguments()
    use_cores(arguments.threads)
    options = Options(scratch=arguments.cache, cache=arguments.cache, torch_index=arguments.torch_index)
    root: Path = arguments.cache / "quality"
    asked = Asked(arguments.quick, 60 * arguments.cap, arguments.threads, arguments.kept)
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
        if arguments.quick or not tables:
            raise SystemExit("README.md is left as it is: figures of --quick mean nothing, and so does an empty table")
        write_readme(REPOSITORY / "README.md", markdown(tables, seeds))


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
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="1 epoch, some hundred users; its figures mean nothing")
    how.add_argument("--kept", action="store_true", help="run nothing, show the results that are kept")
    parser.add_argument("--cap", type=float, default=60.0, help="minutes of a training at most; default %(default)g")
    parser.add_argument("--threads", type=int, default=2, help="and cores, of every contestant; default %(default)d")
    parser.add_argument("--home", type=Path, help="where the data sets lie already; default: made in the cache")
    parser.add_argument("--out", type=Path, default=CACHE / "quality.json", help="JSON file; default %(default)s")
    parser.add_argument("--cache", type=Path, default=CACHE, help="default %(default)s")
    parser.add_argument("--torch-index", metavar="URL", help="where pip finds torch for the peers' environments")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md, with what it lacks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
