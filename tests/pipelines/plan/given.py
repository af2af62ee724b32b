"""What the tests of planning start from."""

from __future__ import annotations

from typing import Any

from pipelines.config.schema import Config
from pipelines.plan.workload import Workload


def config(**sections: Any) -> Config:
    """The defaults, with other settings by section: ``config(train={"workers": 2})``."""
    return Config.model_validate({"name": "plan", "data": {"events": {"path": "none"}}, **sections})


def workload(events: float = 1e6, items: float = 20_000, users: float = 10_000, **sections: Any) -> Workload:
    """Make the workload of a log, with other settings by section."""
    return Workload(events, items, users, config(**sections))
