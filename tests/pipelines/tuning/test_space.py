import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.load import load_config, resolved
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tuning.config import Domain
from pipelines.tuning.space import (
    Space,
    belongs,
    distributions,
    draw,
    every_point,
    grid_points,
    holds,
    identity,
    optuna_params,
    suggest,
    trial_config,
)

BASE = Config.model_validate({"name": "tiny", "data": {"events": {"path": "a.csv"}}})


def spaced(**domains: Any) -> Space:
    """``spaced(a={"grid": [1]})``."""
    return {name: Domain.model_validate(domain) for name, domain in domains.items()}


# ---------------------------------------------------------------- a trial's configuration


@pytest.mark.parametrize(
    ("sets", "values"),
    [
        (["model.interests=2", "optim.learning_rate=0.01"], {"model.interests": 2, "optim.learning_rate": 0.01}),
        (["model.hidden=[64, 32]"], {"model.hidden": [64, 32]}),
        (["model.attention_power=inf"], {"model.attention_power": "inf"}),
        (["loss.kind=full", "train.patience=7"], {"loss.kind": "full", "train.patience": 7}),
        (["model.encoder=mean", "model.interests=1"], {"model.encoder": "mean", "model.interests": 1}),
        (["model.recency=false", "train.behaviour_dropout=0"], {"model.recency": False, "train.behaviour_dropout": 0}),
        ([], {}),
    ],
)
def test_a_trial_trains_with_what_set_would_give(conf: Path, sets: list[str], values: dict[str, Any]) -> None:
    login = "tracking.uri=https://ann:s3cret@host/x"  # a stored configuration has no password, a trial needs it
    table = "data.items={path: i.csv, id: item, features: {genre: {kind: multi}}}"
    base = load_config(conf, [login, table, "train.seed=10", "model.max_history=20"])
    config = trial_config(base, values, seed=2)
    assert config == load_config(conf, [login, table, "train.seed=10", "model.max_history=20", *sets, "train.seed=12"])
    assert config.tracking.uri == "https://ann:s3cret@host/x"
    assert json.dumps(resolved(trial_config(base, json.loads(json.dumps(values)), seed=2))) == json.dumps(
        resolved(config)
    )


def test_the_base_is_left_as_it_was() -> None:
    before = resolved(BASE)
    trial_config(BASE, {"model.dim": 8}, seed=5)
    assert resolved(BASE) == before


def test_a_refused_trial_says_whether_its_values_or_the_base_must_change() -> None:
    with pytest.raises(UserError, match=r"^space: model.dim=30: must be a multiple of 4$"):
        trial_config(BASE, {"model.dim": 30})
    with pytest.raises(UserError, match=r"^base: model.interests=4: must be 1 with encoder: mean"):
        trial_config(BASE, {"model.encoder": "mean"})


def test_neither_ray_nor_torch_nor_mlflow_nor_optuna_is_imported() -> None:
    code = (
        "import sys, pipelines.tuning.space, pipelines.tuning.proposals;"
        "print(sorted({'ray', 'torch', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------- grids


def test_grids_are_crossed_with_the_last_one_fastest() -> None:
    space = spaced(a={"grid": [1, 2]}, b={"grid": ["x", "y"]})
    assert grid_points(space) == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


def test_a_setting_that_does_not_matter_is_left_out_and_the_point_comes_once() -> None:
    space = spaced(k={"grid": [1, 2, 4]}, r={"grid": [1, 3], "when": {"k": [2, 4]}})
    assert grid_points(space) == [
        {"k": 1},
        {"k": 2, "r": 1},
        {"k": 2, "r": 3},
        {"k": 4, "r": 1},
        {"k": 4, "r": 3},
    ]


def test_a_child_may_be_declared_before_its_parent_and_keeps_its_place() -> None:
    space = spaced(r={"grid": [1, 3], "when": {"k": 2}}, k={"grid": [1, 2]})
    points = grid_points(space)
    assert points == [{"k": 1}, {"r": 1, "k": 2}, {"r": 3, "k": 2}]
    assert list(points[1]) == ["r", "k"]


def test_a_grandchild_does_not_matter_where_its_parent_does_not() -> None:
    space = spaced(a={"grid": [0, 1]}, b={"grid": [0, 1], "when": {"a": 1}}, c={"grid": [5], "when": {"b": [0, 1]}})
    assert grid_points(space) == [{"a": 0}, {"a": 1, "b": 0, "c": 5}, {"a": 1, "b": 1, "c": 5}]


def test_every_named_parent_must_agree() -> None:
    space = spaced(a={"grid": [0, 1]}, b={"grid": [0, 1]}, c={"grid": [5], "when": {"a": 1, "b": 1}})
    assert [point for point in grid_points(space) if "c" in point] == [{"a": 1, "b": 1, "c": 5}]


def test_a_value_that_is_a_list_may_be_named_alone_or_in_a_list() -> None:
    assert holds([64, 32], [64, 32])
    assert holds([64, 32], [[64, 32], [8]])
    assert not holds([64], [64, 32])
    space = spaced(h={"grid": [[], [8, 8]]}, r={"grid": [1, 2], "when": {"h": [8, 8]}})
    assert grid_points(space) == [{"h": []}, {"h": [8, 8], "r": 1}, {"h": [8, 8], "r": 2}]


def test_without_grids_there_is_one_cell() -> None:
    assert grid_points(spaced(a={"uniform": [0, 1]})) == [{}]


def test_an_integer_and_its_float_are_one_point() -> None:
    assert identity({"a": 1, "h": [8]}) == identity({"h": [8], "a": 1.0})
    assert identity({"a": 1}) != identity({"a": 2})
    assert grid_points(spaced(a={"grid": [1, 1.0, 2]})) == [{"a": 1}, {"a": 2}]


def test_a_discrete_space_is_listed_whole_and_a_continuous_or_large_one_is_not() -> None:
    space = spaced(a={"choice": [1, 2]}, b={"integer": [0, 7], "step": 3, "when": {"a": 2}})
    assert every_point(space, 100) == [{"a": 1}, {"a": 2, "b": 0}, {"a": 2, "b": 3}, {"a": 2, "b": 6}]
    assert every_point(space, 5) is None
    assert every_point(spaced(a={"uniform": [0, 1]}), 100) is None


VALUES = st.sampled_from([0, 1, 2, 3, 0.5, "x", "y", "z", True, [4], [4, 8], []])


@st.composite
def spaces(draw_: st.DrawFn, kinds: tuple[str, ...]) -> Space:
    """Up to five settings, declared in any order, each waiting for at most two of those before it."""
    space: dict[str, Domain] = {}
    for number in range(draw_(st.integers(1, 5))):
        kind = draw_(st.sampled_from(kinds))
        given: dict[str, Any]
        if kind in ("grid", "choice"):
            given = {kind: draw_(st.lists(VALUES, min_size=1, max_size=3, unique_by=repr))}
        elif kind == "integer":
            low = draw_(st.integers(1, 50))
            log = draw_(st.booleans())
            given = {"integer": [low, low + draw_(st.integers(1, 40))], "log": log}
            given |= {} if log else {"step": draw_(st.integers(1, 9))}
        else:
            low = draw_(st.floats(1e-6, 10))
            given = {kind: [low, low + draw_(st.floats(1e-3, 1e3))]}
        parents = [name for name in space if kind != "grid" or space[name].grid is not None]
        when = {}
        for parent in draw_(st.lists(st.sampled_from(parents), max_size=2, unique=True)) if parents else []:
            options = space[parent].grid or space[parent].choice or space[parent].integer or [5.0]
            when[parent] = draw_(st.lists(st.sampled_from(options), min_size=1, max_size=2))
        space[f"s{number}"] = Domain.model_validate(given | {"when": when})
    return dict(draw_(st.permutations(list(space.items()))))


def matters(space: Space, name: str, point: Mapping[str, Any]) -> bool:
    """The sentence of the specification: every parent matters, and its value is among those listed."""
    return all(
        matters(space, parent, point)
        and parent in point
        and (point[parent] == wanted or (isinstance(wanted, list) and point[parent] in wanted))
        for parent, wanted in space[name].when.items()
    )


@given(spaces(("grid",)))
def test_grid_points_are_distinct_and_hold_what_matters(space: Space) -> None:
    points = grid_points(space)
    assert len({identity(point) for point in points}) == len(points)
    assert 1 <= len(points) <= math.prod(len(domain.grid or ()) for domain in space.values())
    for point in points:
        assert list(point) == [name for name in space if matters(space, name, point)]
        assert all(value in (space[name].grid or ()) for name, value in point.items())
    for name, domain in space.items():  # nothing is lost: a setting that always matters takes all its values
        if not domain.when:
            assert all(any(point[name] == value for point in points) for value in domain.grid or ())


# ---------------------------------------------------------------- draws


def allowed(domain: Domain, value: Any) -> bool:
    if domain.integer is not None:
        low, high = domain.integer
        return type(value) is int and low <= value <= high and (value - low) % domain.step == 0
    if bounds := domain.uniform or domain.log_uniform:
        return type(value) is float and bounds[0] <= value <= bounds[1]
    return any(value == option and type(value) is type(option) for option in domain.grid or domain.choice or ())


@settings(max_examples=200)
@given(space=spaces(("grid", "choice", "uniform", "log_uniform", "integer")), seed=st.integers(0, 2**32))
def test_a_draw_is_in_bounds_on_its_steps_and_holds_what_matters(space: Space, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for cell in grid_points(space)[:3]:
        point = draw(space, cell, generator)
        assert list(point) == [name for name in space if matters(space, name, point)]
        assert all(allowed(space[name], value) for name, value in point.items())
        assert cell.items() <= point.items()
        assert belongs(space, point)
        reloaded = json.loads(json.dumps(point))
        assert reloaded == point
        assert [type(value) for value in reloaded.values()] == [type(value) for value in point.values()]


def test_a_drawn_float_has_six_digits_and_never_steps_over_an_end() -> None:
    generator = np.random.default_rng(0)
    space = spaced(a={"uniform": [0.12345674, 0.12345676]}, b={"log_uniform": [1e-5, 1e-1]})
    for _ in range(50):
        point = draw(space, {}, generator)
        assert 0.12345674 <= point["a"] <= 0.12345676
        assert point["b"] == float(f"{point['b']:.6g}")


def test_a_logarithmic_domain_is_drawn_evenly_over_its_decades() -> None:
    generator = np.random.default_rng(0)
    space = spaced(a={"log_uniform": [1e-4, 1e0]}, b={"integer": [1, 1000], "log": True})
    points = [draw(space, {}, generator) for _ in range(2000)]
    assert np.mean([point["a"] < 1e-2 for point in points]) == pytest.approx(0.5, abs=0.05)
    assert np.median([point["b"] for point in points]) == pytest.approx(math.sqrt(500), rel=0.25)


def test_the_same_generator_draws_the_same_point() -> None:
    space = spaced(a={"uniform": [0, 1]}, b={"choice": ["x", "y", "z"]}, c={"integer": [1, 1000]})
    assert draw(space, {}, np.random.default_rng(3)) == draw(space, {}, np.random.default_rng(3))
    assert draw(space, {}, np.random.default_rng(3)) != draw(space, {}, np.random.default_rng(4))


def test_a_point_of_another_space_does_not_belong() -> None:
    space = spaced(k={"choice": [1, 2]}, r={"integer": [1, 5], "step": 2, "when": {"k": 2}})
    assert belongs(space, {"k": 1})
    assert belongs(space, {"k": 2, "r": 3})
    assert not belongs(space, {"k": 2})  # r is new
    assert not belongs(space, {"k": 1, "r": 3})  # r did not wait yet
    assert not belongs(space, {"k": 2, "r": 2})
    assert not belongs(space, {"k": 3, "r": 3})
    assert not belongs(space, {"k": 1, "gone": 1})


# ---------------------------------------------------------------- optuna


@settings(max_examples=30, deadline=None)
@given(space=spaces(("choice", "uniform", "log_uniform", "integer")), seed=st.integers(0, 1000))
def test_optuna_is_asked_for_what_matters_with_the_distributions_that_are_told_it(space: Space, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    point = suggest(space, trial)
    assert list(point) == [name for name in space if matters(space, name, point)]
    assert all(allowed(space[name], value) for name, value in point.items())
    domains = distributions(space)
    assert list(domains) == list(space)
    assert trial.distributions == {name: domains[name] for name in trial.params}
    assert trial.params.keys() == point.keys()
    assert optuna_params(space, point) == pytest.approx(trial.params, rel=1e-5)
