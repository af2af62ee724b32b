"""What each setting of the default recipe gains, in the recipe and alone: one command.

    python -m benchmarks.ablation [--only online-retail] [--seeds 1] [--threads 2]

On each data set: the recipe, the recipe without each setting, none of the settings, and each setting alone on top of
none. A table of factors needs labels that are the newest: without them it is drawn, and alone it has them. Differences
are paired by user. Results are kept as those of `make bench-quality`: a killed run goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import CACHE, Options, say, use_cores
from benchmarks.quality.compete import Environments, compete, write
from benchmarks.quality.contestants import DEFAULT, OUR_CODE, Asked, Contestant, preset
from benchmarks.quality.data import NAMES, conf_of, prepared
from benchmarks.quality.summary import as_json, sheet
from benchmarks.report import show
from pipelines.config.load import load_config
from pipelines.config.schema import Config

RECIPE = "the recipe"
SETS = ("online-retail", "complete-journey", "tmall")


@dataclass(frozen=True)
class Part:
    """A setting of the recipe.

    without : what to set to do without it.  applies : whether a data set's recipe has it.
    needs : what it does nothing without, and is beside it where it stands alone: that one's `without`.
    """

    name: str
    without: str
    applies: Callable[[Config], bool] = lambda config: True
    needs: str = ""


def _by_time(config: Config) -> bool:
    return config.data.split.protocol == "temporal"


def _newest_labels(config: Config) -> bool:
    return config.train.label_share < 1


PARTS = (
    Part("memory", "model.repeat=none"),
    Part("distinct items", "model.history=newest"),
    Part("logits of the item", "model.initial_logits=position"),
    Part("several interests", "model.interests=1"),
    Part("recency", "model.recency=false"),
    Part("behaviour dropout", "train.behaviour_dropout=0"),
    Part("table of factors", "model.init=normal", _newest_labels, "train.label_share=1"),
    Part("newest labels", "train.label_share=1", _newest_labels),
    Part("cut by moment", "train.cut=event", _by_time),
    Part("horizon", "train.horizon=1", lambda config: config.data.split.protocol != "leave_one_out"),
)


def variants(config: Config) -> dict[str, list[str]]:
    """Say what is compared on a data set, by its label: what is set on top of its configuration."""
    parts = [part for part in PARTS if part.applies(config)]
    nothing = [part.without for part in parts]
    return {
        RECIPE: [],
        **{f"without {part.name}": [part.without] for part in parts},
        "none of them": nothing,
        **{f"{part.name} alone": [e for e in nothing if e not in (part.without, part.needs)] for part in parts},
    }


def contestants(config: Config) -> list[Contestant]:
    """Make the processes; the recipe has the name that the others are compared with."""
    return [
        Contestant(
            DEFAULT if label == RECIPE else label.replace(" ", "_"),
            label,
            "model",
            seeded=True,
            code=OUR_CODE,
            own=preset("default", *sets),
        )
        for label, sets in variants(config).items()
    ]


def main() -> None:
    """Print a table of each data set, and write the JSON file after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=SETS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of every training; default %(default)d")
    parser.add_argument("--out", type=Path, default=CACHE / "ablation.json", help="default %(default)s")
    parser.add_argument("--cache", type=Path, default=CACHE, help="default %(default)s")
    arguments = parser.parse_args()
    use_cores(arguments.threads)
    root: Path = arguments.cache / "quality"
    environments = Environments(Options(scratch=arguments.cache, cache=arguments.cache, torch_index=None))
    asked, record = Asked(threads=arguments.threads), {}
    for name in arguments.only:
        dataset = prepared(name, root / "home")
        if isinstance(dataset, str):
            say(dataset)
            continue
        config = load_config(conf_of(name))
        table = compete(name, dataset, config, contestants(config), arguments.seeds, asked, root, environments)
        show(sheet(table))
        record[name] = as_json(table)
        write(arguments.out, record)
    say(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
