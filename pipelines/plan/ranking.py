"""How long full ranking takes: mind evaluate, recommend --all, and every validation. Brute force over all V items."""

from __future__ import annotations

from pipelines.plan.job import Job
from pipelines.plan.machine import Machine

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
    """`train.workers` of them, of one thread each, but no more than cores.  Source: pipelines.user_slices."""
    return max(1.0, min(job.workers, cores))


def evaluation_seconds(job: Job, machine: Machine, cores: float) -> float:
    """Of `mind evaluate` beside its start: all test users, by the model and by popularity (K = d = 1)."""
    each = user_seconds(job, machine) + search_seconds(job.items, 1, 1, machine)
    return job.held_out * each / ranking_actors(job, cores)


def recommend_seconds(job: Job, machine: Machine, cores: float) -> float:
    """Of `mind recommend --all`: every user once."""
    return job.users * user_seconds(job, machine) / ranking_actors(job, cores)


def lists_bytes(job: Job) -> float:
    """Of `mind recommend --all`: top_n rows a user, before compression."""
    return LIST_ROW_BYTES * job.users * job.config.evaluate.top_n
