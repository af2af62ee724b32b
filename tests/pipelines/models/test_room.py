"""Absurd settings are refused with the bytes that they would take, before anything is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind_core.config import ModelConfig
from mind_core.features import FeatureSpec
from mind_core.model import MIND
from mind_core.sizes import model_parts, stored_bytes
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.models.room import require_room
from pipelines.training.data import require_room_to_train
from tests.pipelines.local_data import local_data
from tests.pipelines.planted import configure


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 30), st.lists(st.integers(1, 3), max_size=2), st.booleans(),
    st.sampled_from(["position", "item"]), st.sampled_from(["mind", "mean"]), st.booleans(),
)  # fmt: skip
def test_weights_are_counted_to_the_byte(
    interests: int, width: int, history: int, hidden: list[int], recency: bool, logits: Any, encoder: Any, shared: bool
) -> None:
    config = ModelConfig(
        encoder=encoder, interests=interests if encoder == "mind" else 1, dim=4 * width, heads=1, max_history=history,
        hidden=tuple(4 * each for each in hidden), recency=recency, initial_logits=logits, shared=shared,
    )  # fmt: skip
    items, profile = (
        [FeatureSpec("a", "numeric", 0), FeatureSpec("b", "categorical", 7)],
        [FeatureSpec("c", "multi", 5)],
    )
    built = MIND(config, 20, items, profile).state_dict()
    assert stored_bytes(model_parts(config, 20, items, profile)) == sum(value.nbytes for value in built.values())


def test_what_is_too_much_is_named_with_its_bytes() -> None:
    require_room("x", {"a (b)": 60}, have=60)
    with pytest.raises(
        UserError, match=r"x: would take 5.00 GB, and there are 1.00 GB; most of it, 4.00 GB, is for the d"
    ):
        require_room("x", {"a (b)": 10**9, "d (e)": 4 * 10**9}, have=10**9)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, planted_log: Path) -> Path:
    from pipelines.preprocess.preprocess import preprocess

    home = tmp_path_factory.mktemp("home")
    with local_data():
        preprocess(configure(home, planted_log))
    return home


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [
        ("model", "interests", 10**9),
        ("model", "dim", 10**9),
        ("model", "max_history", 10**9),
        ("model", "hidden", (4 * 10**9,)),
        ("model", "hidden", (4, 10**22, 4)),
        ("loss", "uniform_negatives", 10**10),
    ],
)
def test_a_training_that_nothing_could_hold_is_refused(
    home: Path, planted_log: Path, section: str, setting: str, value: Any
) -> None:
    config = configure(home, planted_log)
    require_room_to_train(config, Dataset.open(config.dataset_path))
    changed = replace(getattr(config, section), **{setting: value})
    absurd = config.model_copy(update={section: changed})
    with pytest.raises(UserError, match=rf"would take .*{setting}"):
        require_room_to_train(absurd, Dataset.open(config.dataset_path))


@pytest.mark.parametrize("key", ["train.seed", "model.logits_seed", "data.split.seed"])
def test_a_seed_that_no_generator_takes_is_refused(key: str) -> None:
    values: dict[str, Any] = {"name": "x", "data": {"events": {"path": "x"}}}
    *sections, name = key.split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
    for seed in (10**22, -1):
        place[name] = seed
        with pytest.raises(ValueError, match="seed"):
            Config.model_validate(values)
