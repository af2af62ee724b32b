"""The mistakes in a campaign's ``space`` that would otherwise show in the middle of it, one line each.

Imports neither Ray, torch nor MLflow: a typing error must answer at once.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipelines.config.explain import show
from pipelines.config.load import most_interests
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tuning.config import Campaign, Domain
from pipelines.tuning.space import Point, Space, allows, draw, every_point, extremes, order, trial_config

ENUMERATED = 2000  # points of a space that are all checked; of a larger one a sample is
SAMPLED = 300

IN_SETTINGS = "set it in `settings` of the campaign, for all trials"
CANNOT_VARY = {  # a section or a setting -> why, and the way out
    "name": f"trials share the dataset of that name; {IN_SETTINGS}",
    "preset": "it stands for many settings; give the campaign one `preset`, and the settings that matter a domain",
    "home": f"trials share it; {IN_SETTINGS}",
    "data": f"trials learn from one dataset; {IN_SETTINGS}",
    "evaluate": f"trials are compared by train.metric alone; {IN_SETTINGS}",
    "tracking": f"trials are tracked in one place; {IN_SETTINGS}",
    "ray": f"trials share one cluster; {IN_SETTINGS}",
    "train.seed": "a seed is not searched; give search.seeds, the number of trainings of a point",
    "train.workers": "give resources.workers",
    "train.min_workers": f"it matters to no trial that keeps its nodes; {IN_SETTINGS}",
    "train.use_gpu": "give resources.gpus",
    "train.threads": "give resources.cpus",
    "train.max_failures": "give resources.max_failures",
    "train.metric": f"trials are compared by it; {IN_SETTINGS}",
    "train.validation_users": f"trials are compared on the same users; {IN_SETTINGS}",
    "train.validate_every_steps": f"trials are compared at the same steps; {IN_SETTINGS}",
    "train.epochs": f"trials are compared epoch by epoch; {IN_SETTINGS}",
    "train.cut": f"all trials train on the same labels; {IN_SETTINGS}",
    "train.label_share": f"all trials train on the same labels; {IN_SETTINGS}",
    "train.include_validation": "trials are compared on the validation split; give finish.refit: train_validation",
    "train.refit": "trials are compared on the validation split; give finish.refit: train_validation",
    "train.profile": f"it changes no result; {IN_SETTINGS}",
    "train.input": f"it changes no result; {IN_SETTINGS}",
    "train.shard_items": f"it changes no result; {IN_SETTINGS}",
}


def check_space(campaign: Campaign, base: Config, source: str) -> None:
    """Refuse a space that cannot be searched.

    Parameters
    ----------
    campaign : Campaign
        The campaign.
    base : Config
        What its trials vary, with its ``settings``.
    source : str
        The campaign's file, for the message.

    Raises
    ------
    UserError
        One line, for the first mistake: the file, the key and the way out.
    """
    space = campaign.space
    for name in space:
        _check_setting(name, base, f"{source}: space: ")
    for name in space:
        _check_when(name, space, f"{source}: space: {name}: when: ")
    try:
        order(space)
    except graphlib.CycleError as error:
        cycle = " <- ".join(error.args[1])
        raise UserError(f"{source}: space: when: {cycle} go round in a circle; take one `when` away") from None
    _check_method(campaign, source)
    _check_values(space, base, source)


def _check_setting(name: str, base: Config, prefix: str) -> None:
    """See that `name` is a setting which trials may differ in."""
    sections = name.split(".")
    for known in (".".join(sections[:depth]) for depth in range(1, len(sections) + 1)):
        if known in CANNOT_VARY:
            raise UserError(f"{prefix}{name}: cannot vary between trials, {CANNOT_VARY[known]}")
    tree: Any = base.model_dump()
    for depth, part in enumerate(sections):
        if not isinstance(tree, dict):
            raise UserError(f"{prefix}{name}: unknown key, did you mean {'.'.join(sections[:depth])}?")
        if part not in tree:
            try:
                trial_config(base, {".".join(sections[: depth + 1]): None})
            except UserError as error:  # the Config's own words, with the nearest key
                raise UserError(prefix + str(error).removeprefix("space: ").removeprefix("base: ")) from None
        tree = tree[part]
    if isinstance(tree, dict):
        examples = " or ".join(f"{name}.{key}" for key in tree if f"{name}.{key}" not in CANNOT_VARY)
        raise UserError(f"{prefix}{name}: is a section, name a setting in it: {examples}")


def _check_when(name: str, space: Space, prefix: str) -> None:
    for parent, wanted in space[name].when.items():
        if parent == name:
            raise UserError(f"{prefix}{parent}: a setting cannot wait for itself; name another one of the space")
        if parent not in space:
            raise UserError(f"{prefix}{parent}: not in the space, which has {', '.join(space)}")
        if space[name].grid is not None and space[parent].grid is None:
            kind = space[parent].kind
            raise UserError(
                f"{prefix}{parent}: a grid can only wait for a grid, not for {kind}; "
                f"make {name} a choice, or {parent} a grid"
            )
        values = [wanted] if not isinstance(wanted, list) or allows(space[parent], wanted) else wanted
        never = [value for value in values if not allows(space[parent], value)]
        if never or not values:
            shown = show(never[0] if never else wanted)
            raise UserError(f"{prefix}{parent}={shown}: must be what {parent} can be, {_described(space[parent])}")


def _described(domain: Domain) -> str:
    values = getattr(domain, domain.kind)
    step = f" in steps of {domain.step}" if domain.step != 1 else ""
    return ", ".join(map(show, values)) if domain.kind in ("grid", "choice") else f"{values[0]} to {values[1]}{step}"


def _check_method(campaign: Campaign, source: str) -> None:
    method, cost = campaign.search.method, campaign.search.cost
    for name, domain in campaign.space.items():
        if method == "grid" and domain.grid is None:
            raise UserError(
                f"{source}: space: {name}: {domain.kind}: must be grid with search.method: grid; "
                "list the values, or let search.method be random or optuna"
            )
        if method == "optuna" and domain.grid is not None:
            raise UserError(
                f"{source}: space: {name}: grid: must be choice (or a range) with search.method: optuna, "
                "which draws every setting"
            )
    if cost is not None and method != "optuna":
        raise UserError(
            f"{source}: search.cost={show(cost)}: must be left out with search.method: {method}; only optuna has two "
            "objectives"
        )


def _check_values(space: Space, base: Config, source: str) -> None:
    """Build the configuration of every point, or of a sample and of all that is listed where they are too many."""
    for point in _examples(space):
        text = _refusal(base, point)
        if text is None:
            continue
        blamed = point
        for name in point:  # what is left has all it takes for this very message
            fewer = {other: value for other, value in blamed.items() if other != name}
            blamed = fewer if _refusal(base, fewer) == text else blamed
        text = text.removeprefix("space: ")
        if len(blamed) == 1 and text.startswith(f"{next(iter(blamed))}="):
            raise UserError(f"{source}: space: {text}")
        shown = ", ".join(f"{name}={show(value)}" for name, value in blamed.items())
        raise UserError(
            f"{source}: space: {shown}: {text}; keep such points out with `when`, or change the base in `settings`"
        )


def _refusal(base: Config, point: Point) -> str | None:
    try:
        config = trial_config(base, point)
    except UserError as error:
        return str(error)
    most, interests = most_interests(config), config.model.interests
    if interests > most:
        return (
            f"model.interests={interests}: must be <= {most} with model.max_history={config.model.max_history}, as a "
            "user has at most floor(log2(max_history)) interests; more make the same model"
        )
    return None


def _examples(space: Space) -> Iterator[Point]:
    every = every_point(space, ENUMERATED)
    if every is not None:
        yield from every
        return
    generator = np.random.default_rng(0)
    drawn = [draw(space, {}, generator) for _ in range(SAMPLED)]
    for name, domain in space.items():
        if within := next((point for point in drawn if name in point), None):
            for value in extremes(domain):
                yield draw(space, within | {name: value}, generator)
    yield from drawn
