"""The model card that people read: what it was trained on, how good it is, what for, its limits, how to serve it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.models.artifact import ModelCard
from pipelines.words import counted

HEADLINES = ("hit_rate", "recall", "ndcg", "mrr")


@dataclass(frozen=True)
class Outcome:
    """What an evaluation said of the model.

    protocol : in a line.  metrics, intervals : by name.  bands : (title, unit of the sizes, rows of name, size, value).
    differences : to other models and to rules, a line each.
    """

    protocol: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    bands: Sequence[tuple[str, str, Sequence[tuple[str, int, float]]]]
    differences: Sequence[str]


def card_text(
    card: ModelCard, data: str, metric: str, doubts: Sequence[str] = (), tested: Outcome | None = None
) -> str:
    """Write the card as Markdown.

    Parameters
    ----------
    data : a sentence on the dataset.
    metric : the headline's name.
    doubts : what looks wrong, a line each.
    tested : None before an evaluation.
    """
    config = card.config
    features = [*(f"item {info.name} ({info.kind})" for info in card.item_features),
                *(f"user {info.name} ({info.kind})" for info in card.profile_features)]  # fmt: skip
    vectors = "One vector" if config.interests == 1 else f"Up to {counted(config.interests, 'vector')}"
    what = {
        "popularity": "Lists what most users had: the rule that a model has to beat.",
        "mean_pooling": "One vector a user, the mean of the behaviours (YouTube DNN).",
    }.get(config.encoder, f"{vectors} a user, by capsule routing (MIND, arXiv 1904.08030).")
    lines = [
        f"# {card.name}",
        f"{what} {config.dim} dimensions, the newest {config.max_history} behaviours of a user, preset {card.preset}.",
        "## Data",
        data,
        f"Features: {', '.join(features)}." if features else "It knows items and users by their ids alone.",
        "## How good it is",
        *_tested(tested, metric),
        *_validated(card, metric),
        *(f"**Look again:** {line}" for line in doubts),
        "## Intended use",
        "The first stage of a recommender: tens to hundreds of candidates out of the whole catalogue, for a ranking "
        "model, or for a list as it is.",
        "## Limits",
        "- It knows the items of its training. A history without any of them gets the popular list, which the answer "
        "says; new items come in by their features (`mind export --items`).",
        "- It repeats what the log holds: what was shown more is found more. Look at the bands by popularity.",
        "- Metrics are of a log from before it was used. What users do with the lists is for an experiment to find.",
        f"- Items that a user had are {'left out of' if card.exclude_seen else 'kept in'} lists unless a request says "
        "otherwise.",
        "## Serve it",
        _served(card.name),
    ]
    return "\n\n".join(lines) + "\n"


def _served(name: str) -> str:
    return "\n".join(
        [
            "```python",
            "import mind",
            f'model = mind.load("mind_home/models/{name}")',
            "model.recommend([1, 2, 3], n=10).ids  # ids of items, oldest first",
            "```",
            "",
            "Over HTTP: `mind serve CONF`, or MLflow's own server, `mlflow models serve -m models:/NAME@champion`.",
        ]
    )


def _validated(card: ModelCard, metric: str) -> list[str]:
    found = {name: value for name, value in card.metrics.items() if name == f"validation/{metric}"}
    cutoff = metric.split("@")[1]
    named = [f"validation/{kind}@{cutoff}" for kind in HEADLINES]
    found |= {name: card.metrics[name] for name in named if name in card.metrics}
    if not found:
        return ["It was trained on the validation split too, so it was not validated."]
    told = ", ".join(f"{name.removeprefix('validation/')} {value:.4f}" for name, value in found.items())
    return [f"Best validation: {told}."]


def _tested(tested: Outcome | None, metric: str) -> list[str]:
    if tested is None:
        return ["Not yet tested: `mind evaluate CONF`."]
    cutoff = metric.split("@")[1]
    rows = ["| metric | mean | 95 % interval |", "|---|---|---|"]
    for name in dict.fromkeys((metric, *(f"{kind}@{cutoff}" for kind in HEADLINES))):
        if name in tested.metrics:
            low, high = tested.intervals.get(name, (float("nan"), float("nan")))
            rows.append(f"| {name} | {tested.metrics[name]:.4f} | {low:.4f} to {high:.4f} |")
    found = [f"Tested: {tested.protocol}.", "\n".join(rows)]
    for title, unit, band in tested.bands:
        found.append(f"{title}:")  # MLflow's pages set tables without space between them
        found.append("\n".join([f"| band | {unit} | value |", "|---|---|---|",
                                *(f"| {name} | {size:,} | {value:.4f} |" for name, size, value in band)]))  # fmt: skip
    return [*found, "\n".join(f"- {line}" for line in tested.differences)]
