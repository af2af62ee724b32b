"""null is a value like any other in a space: of settings that may be null, such as train.patience."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.errors import UserError
from pipelines.tuning.config import Domain
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.load import load_campaign
from pipelines.tuning.report.figures import campaign_figures
from pipelines.tuning.report.html import campaign_html
from pipelines.tuning.space import draw, grid_points, holds
from pipelines.tuning.wording import values_text
from tests.pipelines.tuning.ledgers import METRIC, RANDOM, campaign, grid_ledger, random_ledger

SPACE = {"train.patience": {"grid": [None, 2]}, "model.interests": {"grid": [1, 2], "when": {"train.patience": None}}}


def load(conf: Path, space: dict[str, object], method: str = "grid") -> dict[str, Domain]:
    file, search = conf.with_name("few.yaml"), {"method": method}
    file.write_text(yaml.safe_dump({"campaign": "few", "base": conf.name, "search": search, "space": space}))
    return load_campaign(file).campaign.space


def test_a_grid_with_null_is_a_grid_of_points(conf: Path) -> None:
    space = load(conf, SPACE)
    points = grid_points(space)
    assert len(points) == 3
    for point in (
        {"train.patience": None, "model.interests": 1},
        {"train.patience": None, "model.interests": 2},
        {"train.patience": 2},
    ):
        assert point in points
    assert values_text({"train.patience": None}) == "train.patience=null"
    assert holds(None, None)
    drawn = [
        draw(load(conf, {"train.patience": {"choice": [None, 3]}}, "random"), {}, np.random.default_rng(n))
        for n in range(9)
    ]
    assert {point["train.patience"] for point in drawn} == {None, 3}


def test_null_where_a_setting_has_no_null_is_one_line(conf: Path) -> None:
    with pytest.raises(UserError, match=r"train\.epochs"):
        load(conf, {"train.epochs": {"grid": [None, 2]}})


def test_a_report_has_null_among_its_values() -> None:
    nulls = [None, 2, 5]
    records = [
        replace(each, values=each.values | {"train.patience": nulls[each.point % 3]}) for each in random_ledger()
    ]
    space = RANDOM["space"] | {"train.patience": {"choice": nulls}}
    wide = campaign(**RANDOM | {"space": space})
    assert "null" in campaign_html(records, METRIC, wide, campaign_figures(records, METRIC, wide))


def test_a_trial_with_null_comes_back_from_its_file() -> None:
    record = replace(grid_ledger()[0], values={"train.patience": None})
    read = json.loads(json.dumps(asdict(record)))
    assert TrialRecord(**read | {"reports": tuple(read["reports"])}) == record
