"""What of Ray Train is left out where there is no dashboard."""

from __future__ import annotations

import pytest
import ray
from ray.train.torch import TorchTrainer

from pipelines.training.ray_trainer import ASKS_THE_DASHBOARD, Trainer


@pytest.mark.parametrize("url", [None, "", "127.0.0.1:8265"])
def test_the_cleaner_is_there_where_a_dashboard_answers_it(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray._private.worker, "get_dashboard_url", lambda: url)
    whole = [type(each).__name__ for each in TorchTrainer(print)._create_default_callbacks()]
    found = [type(each).__name__ for each in Trainer(print)._create_default_callbacks()]
    assert ASKS_THE_DASHBOARD in whole
    assert found == (whole if url else [name for name in whole if name != ASKS_THE_DASHBOARD])
