from pathlib import Path

import pytest

from pipelines.plan import preprocessing
from pipelines.plan.workload import Workload
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.synthetic import generate
from tests.pipelines.plan.given import config


def test_a_dataset_has_the_parts_and_takes_the_bytes_that_are_planned(tmp_path: Path) -> None:
    log = generate(tmp_path / "log", events=800_000, users=8_000, items=16_000, features=False)
    source = {"path": str(log.events), "user": "user_id", "item": "item_id"}
    made = preprocess(config(home=str(tmp_path / "home"), data={"events": source}))
    planned = Workload(800_000, 16_000, 8_000, config())
    assert len(made.split_files("train")) == preprocessing.parts(planned) == 2
    real = sum(file.stat().st_size for file in Path(made.path).rglob("*") if file.is_file())
    assert sum(preprocessing.dataset(planned).values()) == pytest.approx(real, rel=0.15)
