"""Doubts about a model that was just trained: found on a sample of the validation users. Needs no Ray."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mind_core.evaluation import Outcome, evaluate
from mind_core.inference import PopularityRetriever, Retriever
from pipelines.models.doubts import below_popularity, fell_from_the_start, never_asked
from pipelines.training.data import TrainData

SAMPLED_SCORES = 2**26  # users times items that are scored: a doubt must cost next to nothing
SAMPLED_USERS = 2048


def doubts(
    retriever: Retriever,
    data: TrainData,
    validated: Sequence[float],
    metric: str,
    *,
    interests: int,
    exclude_seen: bool,
) -> list[str]:
    """Look for everything that pipelines.models.doubts knows of.

    Parameters
    ----------
    validated : `metric` of each validation of the run, in their order.
    metric : <name>@<N>, as ``train.metric``.
    interests : K.
    """
    items = len(retriever.item_vectors)
    users = torch.arange(len(data.validation))[: max(1, min(SAMPLED_USERS, SAMPLED_SCORES // items))]
    cutoffs = [int(metric.split("@")[1])]

    def found_by(ranking: Retriever) -> Outcome:
        return evaluate(ranking, data.validation, data.targets, users, cutoffs, exclude_seen=exclude_seen)

    found = found_by(retriever)
    if not len(found.users):
        return []
    popular = found_by(PopularityRetriever(data.counts, retriever.view.max_history))
    model, popularity = (float(each.metrics[metric].mean()) for each in (found, popular))
    lines = (
        fell_from_the_start(validated, metric),
        below_popularity(model, popularity, metric, f"{len(found.users):,} validation users"),
        never_asked(_shares(found, interests)),
    )
    return [line for line in lines if line is not None]


def _shares(found: Outcome, interests: int) -> list[float]:
    asked = torch.bincount(found.interest[found.top_items > 0], minlength=interests)
    return (asked / asked.sum().clamp(min=1)).tolist()
