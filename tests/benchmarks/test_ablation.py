"""The ablation: each setting of the recipe is left out once and stands alone once, on the data sets that have it."""

from __future__ import annotations

import pytest

from benchmarks.ablation import PARTS, SETS, contestants, variants
from benchmarks.quality.data import conf_of
from benchmarks.quality.ours import config_of
from pipelines.config.load import load_config


@pytest.mark.parametrize("name", SETS)
def test_every_contestant_is_a_valid_configuration_of_its_own(name: str) -> None:
    config = load_config(conf_of(name))
    resolved = {}
    for label, sets in variants(config).items():
        settings = {"preset": "default", "quick": False, "sets": sets}
        resolved[label] = config_of(conf_of(name), settings).model_dump_json()
    assert len(set(resolved.values())) == len(resolved)
    assert [each.label for each in contestants(config)] == list(resolved)
    applied = [part.name for part in PARTS if part.applies(config)]
    assert [label for label in resolved if label.startswith("without ")] == [f"without {part}" for part in applied]
    assert [label for label in resolved if label.endswith(" alone")] == [f"{part} alone" for part in applied]


def test_what_a_setting_needs_stands_beside_it() -> None:
    alone = variants(load_config(conf_of("online-retail")))["table of factors alone"]
    assert "model.init=normal" not in alone
    assert "train.label_share=1" not in alone
    assert "model.repeat=none" in alone
