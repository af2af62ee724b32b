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
from pydantic import ValidationError

from pipelines.config import Config
from pipelines.errors import UserError
from pipelines.load_config import load_config, resolved
from pipelines.tuning.config import Campaign, Domain
from pipelines.tuning.space import (
    CANNOT_VARY,
    Space,
    belongs,
    check_space,
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


def campaign(space: Mapping[str, Any], **search: Any) -> Campaign:
    return Campaign.model_validate({"campaign": "c", "base": "base.yaml", "space": space, "search": search})


def mistake(space: Mapping[str, Any], base: Config = BASE, **search: Any) -> str:
    """What is said about a space, which must be one line that names the file."""
    with pytest.raises(UserError) as caught:
        check_space(campaign(space, **search), base, "c.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("c.yaml: ")
    return message.removeprefix("c.yaml: ")


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


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("space", "search"),
    [
        ({"model.interests": {"grid": [1, 2]}, "model.dim": {"grid": [8, 16], "when": {"model.interests": 2}}}, {}),
        ({"model.encoder": {"grid": ["mind"]}, "model.hidden": {"grid": [[], [64], [64, 32]]}}, {}),
        ({"optim.learning_rate": {"log_uniform": [1e-4, 1e-1]}, "loss.logq": {"grid": [True, False]}},
         {"method": "random"}),
        ({"model.dim": {"integer": [8, 64], "step": 4}, "train.patience": {"integer": [1, 9]}},
         {"method": "optuna", "cost": "lookups"}),
        ({"model.attention_power": {"grid": [1, "inf", math.inf]}, "train.batch_size": {"grid": [256, 512]}}, {}),
    ],
)  # fmt: skip
def test_a_sound_space_passes(space: Mapping[str, Any], search: dict[str, Any]) -> None:
    check_space(campaign(space, **search), BASE, "c.yaml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.interest", "model.interest: unknown key, did you mean model.interests?"),
        ("interests", "interests: unknown key, did you mean model.interests?"),
        ("sigma", "sigma: unknown key, did you mean model.sigma?"),
        ("modle.dim", "modle: unknown key, did you mean model?"),
        ("optim.zzz", "optim.zzz: unknown key, allowed: learning_rate, table_learning_rate, "),
        ("model.dim.x", "model.dim.x: unknown key, did you mean model.dim?"),
        ("model", "model: is a section, name a setting in it: model.encoder or model.dim or "),
        ("train", "train: is a section, name a setting in it: train.batch_size or "),
    ],
)
def test_an_unknown_setting_gets_a_suggestion(name: str, message: str) -> None:
    assert mistake({name: {"grid": [1]}}).startswith(f"space: {message}")


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("train.seed", "search.seeds"),
        ("train.workers", "resources.workers"),
        ("train.use_gpu", "resources.gpus"),
        ("train.threads", "resources.cpus"),
        ("train.max_failures", "resources.max_failures"),
        ("train.epochs", "set it in `settings`"),
        ("train.metric", "set it in `settings`"),
        ("train.validation_users", "set it in `settings`"),
        ("train.validate_every_steps", "set it in `settings`"),
        ("train.profile", "set it in `settings`"),
        ("train.input", "set it in `settings`"),
        ("train.shard_items", "set it in `settings`"),
        ("data.min_user_events", "set it in `settings`"),
        ("data", "set it in `settings`"),
        ("evaluate.top_n", "set it in `settings`"),
        ("tracking.uri", "set it in `settings`"),
        ("ray.num_cpus", "set it in `settings`"),
        ("name", "set it in `settings`"),
        ("home", "set it in `settings`"),
        ("preset", "give the campaign one `preset`"),
    ],
)
def test_a_setting_that_trials_share_says_where_it_belongs(name: str, way_out: str) -> None:
    message = mistake({name: {"grid": [1]}})
    assert message.startswith(f"space: {name}: cannot vary between trials, ")
    assert way_out in message


def test_every_setting_that_cannot_vary_exists() -> None:
    for name in CANNOT_VARY:
        tree = BASE.model_dump()
        for part in name.split("."):
            tree = tree[part]


K = "model.interests"
R = "model.iterations"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({R: {"grid": [1], "when": {K: 2}}},
         f"{R}: when: {K}: not in the space, which has {R}"),
        ({R: {"grid": [1], "when": {R: 1}}},
         f"{R}: when: {R}: a setting cannot wait for itself; name another one of the space"),
        ({K: {"grid": [1, 2]}, R: {"grid": [1], "when": {K: [2, 3]}}},
         f"{R}: when: {K}=3: must be what {K} can be, 1, 2"),
        ({K: {"grid": [1, 2]}, R: {"grid": [1], "when": {K: []}}},
         f"{R}: when: {K}=[]: must be what {K} can be, 1, 2"),
        ({K: {"integer": [1, 8], "step": 3}, R: {"choice": [1], "when": {K: 3}}},
         f"{R}: when: {K}=3: must be what {K} can be, 1 to 8 in steps of 3"),
        ({"model.sigma": {"uniform": [0.5, 1]}, R: {"choice": [1], "when": {"model.sigma": 2}}},
         f"{R}: when: model.sigma=2: must be what model.sigma can be, 0.5 to 1.0"),
        ({K: {"grid": [2], "when": {R: 1}}, R: {"grid": [1], "when": {K: 2}}},
         f"when: {K} <- {R} <- {K} go round in a circle; take one `when` away"),
        ({K: {"choice": [1, 2]}, R: {"grid": [1], "when": {K: 2}}},
         f"{R}: when: {K}: a grid can only wait for a grid, not for choice; make {R} a choice, or {K} a grid"),
    ],
)  # fmt: skip
def test_a_when_that_can_never_be_answered_is_a_mistake(space: Mapping[str, Any], message: str) -> None:
    assert mistake(space, method="random") == f"space: {message}"


def test_method_grid_wants_grids_only() -> None:
    message = mistake({K: {"grid": [1]}, "model.sigma": {"uniform": [0.5, 1]}})
    assert message == (
        "space: model.sigma: uniform: must be grid with search.method: grid; list the values, or let search.method "
        "be random or optuna"
    )


def test_method_optuna_wants_no_grid() -> None:
    message = mistake({K: {"grid": [1]}}, method="optuna")
    assert message == (
        f"space: {K}: grid: must be choice (or a range) with search.method: optuna, which draws every setting"
    )


@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_second_objective_belongs_to_optuna(method: str) -> None:
    message = mistake({K: {"grid": [1]}}, method=method, cost="lookups")
    assert message == (
        f"search.cost='lookups': must be left out with search.method: {method}; only optuna has two objectives"
    )


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.dim": {"grid": [32, 30]}}, "model.dim=30: must be a multiple of 4"),
        ({K: {"choice": [0]}}, f"{K}=0: must be an integer >= 1"),
        ({K: {"choice": ["two"]}}, f"{K}='two': must be an integer"),
        ({"model.hidden": {"choice": [[64], [30]]}}, "model.hidden=[30]: must be a list of multiples of 4"),
        ({"loss.kind": {"grid": ["full", "ful"]}}, "loss.kind='ful': must be 'sampled' or 'full'"),
        ({"train.behaviour_dropout": {"uniform": [0, 1]}}, "train.behaviour_dropout=1.0: must be < 1.0"),
        ({"model.dim": {"integer": [8, 64]}}, "model.dim=9: must be a multiple of 4"),
        ({"model.temperature": {"uniform": [0, 1]}}, "model.temperature=0.0: must be a number > 0"),
        ({"optim.warmup_steps": {"integer": [-5, 5000]}, "model.dim": {"grid": [8, 16]}},
         "optim.warmup_steps=-5: must be >= 0"),
    ],
)  # fmt: skip
def test_a_value_that_no_training_takes_is_found_before_one_starts(space: Mapping[str, Any], message: str) -> None:
    assert mistake(space, method="random") == f"space: {message}"


def test_a_pair_of_values_that_do_not_go_together_names_both_and_nothing_else() -> None:
    space = {
        "loss.logq": {"grid": [True, False]},
        "model.encoder": {"grid": ["mind", "mean"]},
        K: {"grid": [1, 2]},
        "model.dim": {"grid": [8, 16]},
    }
    assert mistake(space) == (
        f"space: model.encoder='mean', {K}=2: {K}=2: must be 1 with encoder: mean, which has a single user vector; "
        "keep such points out with `when`, or change the base in `settings`"
    )


def test_a_value_that_does_not_go_with_the_base_names_the_setting_to_change() -> None:
    assert mistake({"model.encoder": {"grid": ["mind", "mean"]}}) == (
        f"space: model.encoder='mean': base: {K}=4: must be 1 with encoder: mean, which has a single user vector; "
        "keep such points out with `when`, or change the base in `settings`"
    )
    sharded = trial_config(BASE, {"train.shard_items": True})
    assert mistake({"loss.kind": {"grid": ["full"]}}, sharded) == (
        "space: loss.kind='full': train.shard_items=true: must be false with loss.kind: full, which scores every item; "
        "keep such points out with `when`, or change the base in `settings`"
    )


def test_conditions_keep_a_bad_pair_out() -> None:
    one = trial_config(BASE, {K: 1})
    check_space(
        campaign({"model.encoder": {"grid": ["mind", "mean"]}, K: {"grid": [1, 2], "when": {"model.encoder": "mind"}}}),
        one,
        "c.yaml",
    )


def test_a_bad_value_in_a_large_space_is_found_though_it_matters_seldom() -> None:
    space = {
        "optim.learning_rate": {"log_uniform": [1e-4, 1e-1]},
        "model.dim": {"choice": [8, 16, 32, 64]},
        K: {"choice": [2, 4, 8], "when": {"model.dim": 64}},
        R: {"choice": [*range(1, 60), 0], "when": {K: 8}},
    }
    assert mistake(space, method="random") == f"space: {R}=0: must be an integer >= 1"


def test_a_domain_names_the_way_out_itself() -> None:
    with pytest.raises(ValidationError, match="give exactly one of grid, choice, uniform, log_uniform, integer"):
        campaign({K: {"grid": [1], "choice": [2]}})
