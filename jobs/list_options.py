"""Options of what a list may hold, and the settings `lists.*` that they become."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipelines.errors import UserError

Where = Annotated[
    str | None, typer.Option("--where", metavar="FILTER", help="Items that may be listed: \"department != 'FUEL'\".")
]
Allow = Annotated[
    list[str] | None, typer.Option("--allow", metavar="FILE", help="Only items whose ids it holds. Repeatable.")
]
Deny = Annotated[
    list[str] | None, typer.Option("--deny", metavar="FILE", help="No item whose id it holds. Repeatable.")
]
Stock = Annotated[
    str | None, typer.Option("--stock", metavar="FILE", help="A table of the items, whose columns --where may name.")
]
CapOption = Annotated[
    list[str] | None, typer.Option("--cap", metavar="COL=N", help="At most N of one value of a column. Repeatable.")
]
PolicyOption = Annotated[
    str | None, typer.Option("--policy", help="best, quota, round_robin or greedy: how places are given.")
]
Lambda = Annotated[
    float | None, typer.Option("--lambda", metavar="L", help="Of --policy greedy: what another category is worth.")
]
Category = Annotated[
    str | None, typer.Option("--category", metavar="COL", help="Of --policy greedy: the column that it tells apart.")
]
Quota = Annotated[
    int | None, typer.Option("--quota", metavar="Q", help="Of --policy quota: so many places for each interest.")
]


def with_lists(
    sets: list[str] | None,
    *,
    where: str | None = None,
    allow: list[str] | None = None,
    deny: list[str] | None = None,
    stock: str | None = None,
    cap: list[str] | None = None,
    policy: str | None = None,
    diversity: float | None = None,
    category: str | None = None,
    quota: int | None = None,
) -> list[str]:
    """Combine what --set sets with the options; --lambda, --category and --quota alone say which policy is meant.

    >>> with_lists(["a=1"], cap=["department=3"], diversity=0.5)
    ['a=1', 'lists.cap={"department": 3}', 'lists.policy="greedy"', 'lists.diversity=0.5']
    """
    if where is not None:
        _check_filter(where)
    if policy is None:
        policy = "greedy" if (diversity, category) != (None, None) else "quota" if quota is not None else None
    values: dict[str, Any] = {
        "where": where,
        "allow": allow or None,
        "deny": deny or None,
        "stock": None if stock is None else {"path": stock},
        "cap": dict(map(_cap, cap)) if cap else None,
        "policy": policy,
        "diversity": diversity,
        "category": category,
        "quota": quota,
    }
    # as JSON, which is YAML: a filter holds quotes and colons
    return [*(sets or []), *(f"lists.{k}={json.dumps(v)}" for k, v in values.items() if v is not None)]


def _check_filter(where: str) -> None:
    """Name a mistake in a filter as it was typed."""
    from pipelines.config.where import parse_where

    try:
        parse_where(where)
    except ValueError as error:
        shown = where if len(where) <= 60 else where[:59] + "…"
        raise UserError(f"--where {shown}: {error}") from None


def _cap(text: str) -> tuple[str, int]:
    column, equals, number = text.rpartition("=")
    if not equals or not column or not number.strip().isdecimal():
        raise UserError(f"--cap {text}: must be COLUMN=N, for example department=3")
    return column, int(number)
