"""What Locust runs: users who ask one after the other, and compare each list with the one that the batch gave.

Part of benchmarks/serve.py, which says by the environment where the requests are and which server is asked.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

from locust import events, task
from locust.contrib.fasthttp import FastHttpUser

ASKED = [json.loads(line) for line in Path(os.environ["MIND_LOAD"]).read_text().splitlines()]
OF_MLFLOW = os.environ["MIND_LOAD_KIND"] == "mlflow"
VERSIONS: Counter[str] = Counter()


class Caller(FastHttpUser):  # type: ignore[misc]
    """Asks without a pause."""

    def wait_time(self) -> float:
        return 0.0

    @task  # type: ignore[misc]
    def ask(self) -> None:
        asked = random.choice(ASKED)
        path = "/invocations" if OF_MLFLOW else "/recommend"
        with self.client.post(path, json=asked["mlflow" if OF_MLFLOW else "serve"], catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}: {answer.text[:200]}")
            elif _ids(answer.json()) != asked["ids"]:
                answer.failure("another list than in batch")


def _ids(content: dict[str, Any]) -> list[Any]:
    if OF_MLFLOW:
        return list(content["predictions"][0]["items"])
    VERSIONS[str(content["version"])] += 1
    return [item["id"] for item in content["items"]]


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def tell(environment: Any, **_: Any) -> None:
    """Write what was measured: milliseconds and their counts, failures, versions that answered."""
    total = environment.stats.total
    told = {
        "requests": total.num_requests,
        "failures": total.num_failures,
        "errors": [str(each.error) for each in environment.stats.errors.values()],
        "p50": total.get_response_time_percentile(0.5),
        "p99": total.get_response_time_percentile(0.99),
        "per_second": total.total_rps,
        "versions": dict(VERSIONS),
    }
    Path(os.environ["MIND_LOAD_OUT"]).write_text(json.dumps(told))
