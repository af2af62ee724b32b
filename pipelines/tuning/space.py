"""What a campaign's ``space`` means: its points, how to draw one, and the configuration of a trial.

A point is a plain dict, dotted setting -> value; a setting whose ``when`` does not hold is left out of it and keeps
what the base says.
Imports neither Ray, torch nor MLflow, and optuna only where it is asked.
"""

from __future__ import annotations

import graphlib
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from pipelines.config.explain import Layer, explain
from pipelines.config.load import merge
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tuning.config import Domain, Value

if TYPE_CHECKING:
    import optuna

Space = Mapping[str, Domain]
Point = dict[str, Any]


# ---------------------------------------------------------------- a trial's configuration


def trial_config(base: Config, values: Mapping[str, Any], seed: int = 0) -> Config:
    """Make the configuration that a trial trains with: what ``mind train`` would make of the values as ``--set``.

    Parameters
    ----------
    base : Config
        With the campaign's ``settings`` in it.
    values : mapping
        Dotted setting -> value.
    seed : int
        Added to the base's ``train.seed``.

    Raises
    ------
    UserError
        The first mistake. It begins with ``space: `` where one of `values` is refused, with ``base: `` where one of
        the base is, beside them.
    """
    below = base.model_dump()  # not load_config.resolved, which hides the passwords
    over = _nested(values)
    merged = merge(below, over)
    merged["train"]["seed"] = base.train.seed + seed
    merged["train"]["refit"] = False  # trials are compared on the validation split
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        text = explain(error, merged, [Layer("base", below), Layer("space", over)])
        raise UserError(re.sub(r" \(and \d+ more\)$", "", text)) from None


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """``{"model.dim": 8}`` as ``{"model": {"dim": 8}}``."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, key = name.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = value
    return tree


# ---------------------------------------------------------------- points


def identity(values: Mapping[str, Any]) -> Hashable:
    """Make a key, equal for equal points, fresh or read from JSON; 1 and 1.0 are one value, as to the Config."""
    return frozenset((name, tuple(value) if isinstance(value, list) else value) for name, value in values.items())


def grid_points(space: Space) -> list[Point]:
    """List every point of the grids, crossed in order of declaration with the last one fastest.

    Settings that are drawn are left out, and a point that conditions make equal to one before it. Without grids there
    is one point, ``{}``.
    """
    grids = {name: domain for name, domain in space.items() if domain.grid is not None}
    ordered = order(grids)
    points: dict[Hashable, Point] = {}
    for combination in product(*(domain.grid or () for domain in grids.values())):
        values = dict(zip(grids, combination, strict=True))
        point = _walk(grids, lambda name, _, values=values: values[name], ordered)  # type: ignore[misc]
        points.setdefault(identity(point), point)
    return list(points.values())


def grid_part(space: Space, point: Mapping[str, Any]) -> Point:
    """Say which of `grid_points` this point belongs to."""
    return {name: value for name, value in point.items() if name in space and space[name].grid is not None}


def every_point(space: Space, limit: int) -> list[Point] | None:
    """List all points of a space that has no continuous domain and at most `limit` combinations, otherwise None."""
    options = {name: found for name, domain in space.items() if (found := _options(domain)) is not None}
    if len(options) < len(space) or math.prod(map(len, options.values())) > limit:
        return None
    return grid_points({name: Domain(grid=list(options[name]), when=space[name].when) for name in space})


def allows(domain: Domain, value: Any) -> bool:
    """Say whether a setting of this domain may have the value."""
    options = _options(domain)
    if options is not None:
        return value in options
    low, high = _bounds(domain)
    return isinstance(value, (int, float)) and low <= value <= high


def belongs(space: Space, values: Mapping[str, Any]) -> bool:
    """Say whether the space can give this point: false for one drawn before the space was changed."""
    try:
        point = _walk(space, lambda name, _: values[name])
    except KeyError:  # a setting that the space has gained
        return False
    return point == values and all(allows(space[name], value) for name, value in point.items())


def order(space: Space) -> list[str]:
    """Sort the settings, parents (those that a ``when`` names) before their children.

    Raises
    ------
    graphlib.CycleError
        With the cycle as its second argument.
    """
    return list(graphlib.TopologicalSorter({name: list(domain.when) for name, domain in space.items()}).static_order())


def _walk(space: Space, value_of: Callable[[str, Domain], Any], ordered: Sequence[str] | None = None) -> Point:
    """Ask for the value of each setting that matters, given its parents'. The point is in order of declaration."""
    point: Point = {}
    for name in order(space) if ordered is None else ordered:
        if name in space and all(
            parent in point and holds(point[parent], wanted) for parent, wanted in space[name].when.items()
        ):
            point[name] = value_of(name, space[name])
    return {name: point[name] for name in space if name in point}


def holds(value: Any, wanted: Value | Sequence[Value]) -> bool:
    """Say whether `value` is what a ``when`` asks for or one of it; a value may be a list itself (model.hidden)."""
    return value == wanted or (isinstance(wanted, list) and value in wanted)


def _options(domain: Domain) -> Sequence[Value] | None:
    """List what there is to choose from; None where there is a continuum."""
    if domain.integer is not None:
        return range(domain.integer[0], domain.integer[1] + 1, domain.step)
    return domain.grid or domain.choice


def _last(ends: tuple[int, int], step: int) -> int:
    """Find the highest number that whole steps from the lower end come to."""
    return ends[1] - (ends[1] - ends[0]) % step


def _bounds(domain: Domain) -> tuple[float, float]:
    bounds = domain.uniform or domain.log_uniform
    assert bounds is not None
    return bounds


def extremes(domain: Domain) -> Iterator[Value]:
    """List the values, or the ends of the range: what to try first when looking for a mistake."""
    options = _options(domain)
    if options is None:
        yield from _bounds(domain)
    elif domain.integer is not None:
        yield from dict.fromkeys((options[0], options[-1]))
    else:
        yield from options


# ---------------------------------------------------------------- draws


def draw(space: Space, fixed: Mapping[str, Any], generator: np.random.Generator) -> Point:
    """Draw a random point.

    Parameters
    ----------
    space : mapping
        A campaign's.
    fixed : mapping
        What is not to be drawn, where it matters: a point of the grids.
    generator : numpy.random.Generator
        The only source of chance.

    Returns
    -------
    dict
        Plain Python values; floats have 6 significant digits, so that they print and reload alike.
    """
    return _walk(space, lambda name, domain: fixed[name] if name in fixed else _draw_one(domain, generator))


def _draw_one(domain: Domain, generator: np.random.Generator) -> Value:
    options = _options(domain)
    if domain.log and domain.integer is not None:
        low, high = domain.integer
        number = round(math.exp(generator.uniform(math.log(low - 0.5), math.log(high + 0.5))))
        return min(max(number, low), high)
    if options is not None:
        return options[int(generator.integers(len(options)))]
    low_end, high_end = _bounds(domain)
    if domain.uniform is not None:
        return _rounded(float(generator.uniform(low_end, high_end)), domain)
    return _rounded(math.exp(generator.uniform(math.log(low_end), math.log(high_end))), domain)


def _rounded(number: float, domain: Domain) -> float:
    low, high = _bounds(domain)
    return min(max(float(f"{number:.6g}"), low), high)  # rounding may step over an end


# ---------------------------------------------------------------- optuna


def suggest(space: Space, trial: optuna.trial.Trial) -> Point:
    """Ask optuna for the point to try; only the settings that matter are asked for."""
    return _walk(space, lambda name, domain: _suggest_one(name, domain, trial))


def _suggest_one(name: str, domain: Domain, trial: optuna.trial.Trial) -> Value:
    if domain.integer is not None:
        low, high = domain.integer[0], _last(domain.integer, domain.step)
        return trial.suggest_int(name, low, high, step=domain.step, log=domain.log)
    options = _options(domain)
    if options is not None:
        return options[trial.suggest_categorical(name, range(len(options)))]
    low_end, high_end = _bounds(domain)
    return _rounded(trial.suggest_float(name, low_end, high_end, log=domain.log_uniform is not None), domain)


def distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """Say what `suggest` asks optuna for, by setting."""
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

    def one(domain: Domain) -> BaseDistribution:
        if domain.integer is not None:
            low, high = domain.integer[0], _last(domain.integer, domain.step)
            return IntDistribution(low, high, log=domain.log, step=domain.step)
        options = _options(domain)
        if options is not None:
            return CategoricalDistribution(range(len(options)))
        return FloatDistribution(*_bounds(domain), log=domain.log_uniform is not None)

    return {name: one(domain) for name, domain in space.items()}


def optuna_params(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """Write a point as optuna holds it: of a choice the place in its list, as the value itself may be a list."""
    return {
        name: value if space[name].choice is None else (space[name].choice or []).index(value)
        for name, value in point.items()
    }
