"""How long full ranking takes: mind evaluate, mind export, and every validation. Brute force over all V items."""

from __future__ import annotations

import math

from pipelines.plan.job import Job
from pipelines.plan.machine import Machine
from pipelines.plan.memory import Parts

BASELINES = 4  # that mind evaluate ranks beside a model; pipelines.evaluation.baselines
LIST_ROW_BYTES = 28  # of a list's row before compression: user 8, rank 4, id 8, score 4, interest 4


def user_seconds(job: Job, machine: Machine) -> float:
    """Of a user on a core: the search, and u beside it: the history encoded, the metrics.

    Source: mind_core.evaluation.evaluate.
    """
    model = job.config.model
    return search_seconds(job.items, model.interests, model.dim, machine) + machine.user


def search_seconds(items: float, interests: int, dim: int, machine: Machine) -> float:
    """Of a user's search on a core: V (K / score + 2 K d / product + 1 / rank); one interest needs no mask.

    Source: mind_core.inference.search.
    """
    masked = interests if interests > 1 else 0
    return items * (masked / machine.score + interests * 2 * dim / machine.product + 1 / machine.rank)


def ranking_actors(job: Job, cores: float) -> float:
    """`train.workers` of them, of one thread each, but no more than cores.  Source: pipelines.models.over_users."""
    return max(1.0, min(job.workers, cores))


def evaluation_seconds(job: Job, machine: Machine, cores: float) -> float:
    """Of `mind evaluate` beside its start: all test users, by the model and by four baselines (as of K = d = 1).

    Where seen items are kept each of them makes three lists of a user: V / rank for each beyond the first.
    """
    more_lists = 2 * job.items / machine.rank if job.config.evaluate.seen == "keep" else 0.0
    baselines = BASELINES * (search_seconds(job.items, 1, 1, machine) + more_lists)
    return job.held_out * (user_seconds(job, machine) + more_lists + baselines) / ranking_actors(job, cores)


def export_seconds(job: Job, machine: Machine, cores: float) -> float:
    """Of `mind export` beside its start: every user once."""
    return job.users * user_seconds(job, machine) / ranking_actors(job, cores)


def interests_of_user(job: Job) -> float:
    """Mean of K' = max(1, min(K, floor(log2 n))), n at most L: 1 + sum of P(n >= 2^k) over k = 2 to K.

    Source: mind_core.routing.adaptive_interest_count.
    """
    model = job.config.model
    if not model.adaptive_interests:
        return float(model.interests)
    least = [2**k for k in range(2, model.interests + 1) if 2**k <= model.max_history]
    return 1 + math.fsum(job.going_on ** (length - 1) for length in least)


def exported(job: Job) -> Parts:
    """Bytes of `mind export` before compression: d floats an item and a user's interest, top_n rows a user.

    Source: pipelines.retrieval.export.
    """
    vector = 4 * job.config.model.dim
    return {
        "export: item vectors": vector * job.items,
        "export: user vectors": vector * job.users * interests_of_user(job),
        "export: lists": LIST_ROW_BYTES * job.users * job.config.evaluate.top_n,
    }
