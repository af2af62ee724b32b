import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tuning.check_space import CANNOT_VARY, check_space
from pipelines.tuning.config import Campaign
from pipelines.tuning.space import trial_config

BASE = Config.model_validate({"name": "tiny", "data": {"events": {"path": "a.csv"}}})


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
        ("train.include_validation", "finish.refit"),
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
        ({"loss.kind": {"grid": ["full", "ful"]}}, "loss.kind='ful': must be 'sampled', 'full' or 'auto'"),
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
        "space: loss.kind='full': base: train.shard_items=true: must be false with loss.kind: full, which scores every "
        "item; keep such points out with `when`, or change the base in `settings`"
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
        K: {"choice": [2, 4, 5], "when": {"model.dim": 64}},
        R: {"choice": [*range(1, 60), 0], "when": {K: 5}},
    }
    assert mistake(space, method="random") == f"space: {R}=0: must be an integer >= 1"


def test_a_domain_names_the_way_out_itself() -> None:
    with pytest.raises(ValidationError, match="give exactly one of grid, choice, uniform, log_uniform, integer"):
        campaign({K: {"grid": [1], "choice": [2]}})


def test_points_of_more_interests_than_a_history_allows_are_refused() -> None:
    text = mistake({"model.interests": {"grid": [1, 4, 6]}})
    assert "model.interests=6: must be <= 5 with model.max_history=50" in text
    base = BASE.model_copy(update={"model": replace(BASE.model, adaptive_interests=False)})
    check_space(campaign({"model.interests": {"grid": [1, 4, 6]}}), base, "search.yaml")
