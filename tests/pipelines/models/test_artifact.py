"""A model folder is taken only as it was written: whatever was done to it ends in one line that names the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.models.artifact import SavedModel, load_card, load_model
from tests.pipelines.local_data import local_data
from tests.pipelines.planted import configure, reseal, save_untrained

FILES = ("config.json", "item_vectors.safetensors", "items.parquet", "profile_features/group.parquet",
         "weights.safetensors")  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, planted_log: Path) -> Config:
    """The planted dataset, made without Ray."""
    from pipelines.preprocess.preprocess import preprocess

    config = configure(tmp_path_factory.mktemp("home"), planted_log)
    with local_data():
        preprocess(config)
    return config


@pytest.fixture(scope="module")
def saved(config: Config) -> Path:
    return save_untrained(config)


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(saved, tmp_path / saved.name))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_model_is_loaded_as_it_was_saved(model: Path) -> None:
    loaded = load_model(model)
    assert isinstance(loaded, SavedModel)
    assert sorted(json.loads((model / "config.json").read_text())["files"]) == sorted(set(FILES) - {"config.json"})
    assert {str(file.relative_to(model)) for file in model.rglob("*") if file.is_file()} == set(FILES)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_one_flipped_bit_of_any_file_is_refused_by_name(saved: Path, name: str, place: float, bit: int) -> None:
    file = saved / name
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[int(place * len(whole))] ^= 1 << bit
    try:
        file.write_bytes(changed)
        with pytest.raises(UserError, match=name) as caught:
            load_model(saved)
        assert "\n" not in str(caught.value)
    except pytest.fail.Exception:  # between two values of config.json, a blank may become another
        assert name == "config.json"
        assert json.loads(bytes(changed)) == json.loads(whole)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "cut", "longer", "empty", "reversed"])
def test_a_damaged_file_is_named(model: Path, name: str, damage: str) -> None:
    file = model / name
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(
            {"cut": whole[: len(whole) // 2], "longer": whole + b"x", "empty": b"", "reversed": whole[::-1]}[damage]
        )
    assert name in refused(model)


def test_a_file_of_nobodys_is_named(model: Path) -> None:
    (model / "profile_features" / "more.parquet").write_bytes(b"x")
    assert "profile_features/more.parquet: is no file of this model" in refused(model)


def forged(change: Callable[[Path], Any]) -> Callable[[Path], str]:
    def done(model: Path) -> str:
        change(model)
        reseal(model)
        return refused(model)

    return done


def change_tensors(file: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def done(model: Path) -> None:
        tensors = load_file(model / file)
        change(tensors)
        save_file(tensors, model / file)

    return done


def change_items(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def done(model: Path) -> None:
        pq.write_table(change(pq.read_table(model / "items.parquet")), model / "items.parquet")

    return done


def set_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["item_table.weight"][5, 3] = float("nan")


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (change_tensors("weights.safetensors", set_nan), "weights.safetensors: holds numbers that are not finite"),
        (change_tensors("weights.safetensors", lambda t: t.pop("encoder.shared_map")), "weights.safetensors"),
        (
            change_tensors("weights.safetensors", lambda t: t.update({"item_table.weight": torch.zeros(3, 16)})),
            "weights.safetensors",
        ),
        (change_tensors("item_vectors.safetensors", lambda t: t.pop("behaviour_vectors")), "item_vectors.safetensors"),
        (
            change_tensors("item_vectors.safetensors", lambda t: t.update(behaviour_vectors=torch.zeros(3, 16))),
            "item_vectors.safetensors",
        ),
        (change_items(lambda table: table.slice(1)), "items.parquet"),
        (change_items(lambda table: table.drop_columns("id")), "items.parquet"),
        (lambda model: (model / "items.parquet").write_bytes(b"PAR1 no"), "items.parquet: cannot be read"),
        (lambda model: (model / "weights.safetensors").write_bytes(b"no"), "weights.safetensors: cannot be read"),
    ],
)
def test_files_that_were_vouched_for_anew_must_still_fit(model: Path, change: Callable[[Path], Any], file: str) -> None:
    assert file in forged(change)(model)


@pytest.mark.parametrize("name", ["iterations", "interests", "dim", "exclude_seen", "metrics", "dataset_fingerprint"])
def test_a_changed_setting_is_refused(model: Path, name: str) -> None:
    file = model / "config.json"
    card = json.loads(file.read_text("utf-8"))
    (card["model"] if name in card["model"] else card)[name] = 1
    file.write_text(json.dumps(card), "utf-8")
    assert "config.json: its content does not match its digest" in refused(model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"interests": 10**9}}, "would take"),
        ({"model": {"dim": 4 * 10**9}}, "would take"),
        ({"model": {"max_history": 10**9}}, "would take"),
        ({"model": {"hidden": [4 * 10**9]}}, "would take"),
        ({"model": {"iterations": 10**9}}, "iterations"),
        ({"model": {"logits_seed": 10**22}}, "logits_seed"),
        ({"items": 10**12}, "would take"),
        ({"items": 10**5}, "items.parquet: does not fit"),
        ({"items": -5}, "items.parquet: does not fit"),
        ({"model": 5}, "model"),
        ({"item_features": [{"name": "x"}]}, "item_features"),
        ({"metrics": []}, "metrics"),
        ({"more": 1}, "more"),
        ({"name": "../x"}, "name="),
        ({"format_version": 2}, "model of format 2"),
    ],
)
def test_absurd_settings_are_refused_before_anything_is_built(model: Path, changes: dict[str, Any], said: str) -> None:
    card = json.loads((model / "config.json").read_text("utf-8"))
    if isinstance(changes.get("model"), dict):
        changes = {"model": card["model"] | changes["model"]}
    reseal(model, **changes)
    assert said in refused(model)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 5000, "null", '{"format_version": 3}', "\x00", '{"a": 1'])
def test_any_text_as_config_is_one_line(model: Path, text: str) -> None:
    (model / "config.json").write_text(text)
    assert "config.json" in refused(model)
    with pytest.raises(UserError):
        load_card(model)


def test_a_config_of_any_size_is_not_read(model: Path) -> None:
    with (model / "config.json").open("wb") as file:
        os.truncate(file.fileno(), 10**11)
    assert "config.json: has 100 GB" in refused(model)
