"""What of Ray Train is left out where there is no dashboard."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.train.torch import TorchTrainer

from pipelines.training.ray_trainer import ASKS_THE_DASHBOARD, HANDS_OUT_DATASETS, Trainer


@pytest.mark.parametrize("url", [None, "", "127.0.0.1:8265"])
def test_the_cleaner_is_there_where_a_dashboard_answers_it(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray._private.worker, "get_dashboard_url", lambda: url)
    whole = [type(each).__name__ for each in TorchTrainer(print)._create_default_callbacks()]
    found = [type(each).__name__ for each in Trainer(print)._create_default_callbacks()]
    assert ASKS_THE_DASHBOARD in whole
    assert found == (whole if url else [name for name in whole if name != ASKS_THE_DASHBOARD])


def test_without_datasets_no_actor_is_started_to_hand_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray._private.worker, "get_dashboard_url", lambda: None)
    without = _hands_out_datasets(Trainer(print))
    sent = cloudpickle.loads(cloudpickle.dumps(without))  # as it goes to the controller
    assert sent.before_init_train_context(["a worker"]) == {}
    with_some = Trainer(print)
    with_some.datasets = {"train": print}
    assert "before_init_train_context" not in vars(_hands_out_datasets(with_some)), "Ray's own method starts it"


def _hands_out_datasets(trainer: Trainer) -> Any:
    (found,) = [each for each in trainer._create_default_callbacks() if type(each).__name__ == HANDS_OUT_DATASETS]
    return found
