"""How long full ranking takes: mind evaluate, mind export, and every validation. Brute force over all V items."""

from __future__ import annotations

import math

from pipelines.plan.machine import Machine
from pipelines.plan.memory import Parts
from pipelines.plan.workload import Workload

BASELINES = 4  # that mind evaluate ranks beside a model; pipelines.evaluation.baselines
LIST_ROW_BYTES = 28  # of a list's row before compression: user 8, rank 4, id 8, score 4, interest 4


def user_seconds(workload: Workload, machine: Machine) -> float:
    """Estimate the time of a user on a core: the search, and u beside it: the history encoded, the metrics.

    Source: mind_core.evaluation.evaluate.
    """
    model = workload.config.model
    return search_seconds(workload.items, model.interests, model.dim, machine) + machine.user


def search_seconds(items: float, interests: int, dim: int, machine: Machine) -> float:
    """Estimate a user's search on a core: V K (1 / score + 2 d / product).  Source: mind_core.search."""
    return items * interests * (1 / machine.score + 2 * dim / machine.product)


def ranking_actors(workload: Workload, cores: float) -> float:
    """Count `train.workers` actors, of a thread each, but no more than cores.

    Source: pipelines.models.users.on_ray.
    """
    return max(1.0, min(workload.workers, cores))


def evaluation_seconds(workload: Workload, machine: Machine, cores: float) -> float:
    """Estimate `mind evaluate` without its start: all test users, by the model and four baselines.

    A baseline scores all items, and makes three lists of a user where seen items are kept: V / rank each.
    """
    lists = 3 if workload.config.evaluate.seen == "keep" else 1
    baselines = BASELINES * lists * workload.items / machine.rank
    return workload.held_out * (user_seconds(workload, machine) + baselines) / ranking_actors(workload, cores)


def export_seconds(workload: Workload, machine: Machine, cores: float) -> float:
    """Estimate `mind export` without its start: every user once."""
    return workload.users * user_seconds(workload, machine) / ranking_actors(workload, cores)


def interests_of_user(workload: Workload) -> float:
    """Average K' = max(1, min(K, floor(log2 n))), n at most L: 1 + sum of P(n >= 2^k) over k = 2 to K.

    Source: mind_core.routing.adaptive_interest_count.
    """
    model = workload.config.model
    if not model.adaptive_interests:
        return float(model.interests)
    least = [2**k for k in range(2, model.interests + 1) if 2**k <= model.max_history]
    return 1 + math.fsum(workload.going_on ** (length - 1) for length in least)


def exported(workload: Workload) -> Parts:
    """Count bytes of `mind export` before compression: d floats an item and a user's interest, top_n rows a user.

    Source: pipelines.retrieval.export.
    """
    vector = 4 * workload.config.model.dim
    return {
        "export: item vectors": vector * workload.items,
        "export: user vectors": vector * workload.users * interests_of_user(workload),
        "export: lists": LIST_ROW_BYTES * workload.users * workload.config.evaluate.top_n,
    }
