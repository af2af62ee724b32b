"""What watches a cluster names metrics that the code has, and its alerts fire when they should."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.training.gauges import NAMES, REPORTED, VALIDATION, TrainGauges

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jobs/monitoring"
METRIC = re.compile(r"ray_(mind_\w+)")
KINDS = ("_total", "_bucket", "_sum", "_count")  # what Prometheus makes of a counter and of a histogram


def made() -> set[str]:
    """Names of the metrics in the code."""
    served = re.findall(r'metrics\.\w+\(\s*"(mind_\w+)"', (ROOT / "pipelines/endpoint/replica.py").read_text())
    return {*served, VALIDATION[0], REPORTED[0], *(name for name, _ in NAMES.values())}


def expressions() -> Iterator[str]:
    for panel in json.loads((FOLDER / "grafana.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def plain(name: str) -> str:
    return next((name.removesuffix(kind) for kind in KINDS if name.endswith(kind)), name)


def test_dashboard_and_rules_name_metrics_that_there_are() -> None:
    named = {plain(name) for expression in expressions() for name in METRIC.findall(expression)}
    assert named <= made()
    assert len(named) > 9


def test_every_metric_of_a_training_is_on_the_dashboard_or_in_a_rule() -> None:
    named = {plain(name) for expression in expressions() for name in METRIC.findall(expression)}
    assert {name for name, _ in NAMES.values()} - named <= {"mind_train_epoch"}
    documented = set(METRIC.findall((ROOT / "docs/monitoring.md").read_text()))
    assert {name for name in made() if name.startswith("mind_train")} <= documented


def test_panels_have_titles_and_words_and_do_not_overlap() -> None:
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and (panel["type"] == "row" or panel["description"]) for panel in panels)
    places = [panel["gridPos"] for panel in panels]
    cells = [(each["x"] + x, each["y"] + y) for each in places for x in range(each["w"]) for y in range(each["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("arguments", [("check", "rules", "rules.yaml"), ("test", "rules", "rules-test.yaml")])
def test_promtool_takes_the_rules_and_they_fire_when_they_should(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
              for rule in group["rules"]}  # fmt: skip
    cases = [case for each in yaml.safe_load((FOLDER / "rules-test.yaml").read_text())["tests"]
             for case in each["alert_rule_test"]]  # fmt: skip
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} >= alerts - {"MindTrainingWaitsForData"}


class FakeGauge:
    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.keys, self.value = name, tag_keys, None
        self.tags: dict[str, str] = {}

    def set_default_tags(self, tags: dict[str, str]) -> None:
        self.tags = tags

    def set(self, value: float) -> None:
        self.value = value  # type: ignore[assignment]


def test_gauges_are_what_a_report_says_and_keep_what_it_does_not() -> None:
    gauges: dict[str, Any] = {}

    def make(name: str, **more: Any) -> FakeGauge:
        gauges[name] = FakeGauge(name, **more)
        return gauges[name]

    told = TrainGauges("m", "default", "ndcg@20", make, clock=lambda: 7.0)
    told.set({"step": 10, "total_steps": 40, "epoch": 1.0, "train/loss": 2.5, "validation/ndcg@20": 0.25, "other": 1})
    told.set({"step": 20, "train/loss": 2.0})
    values = {name: gauge.value for name, gauge in gauges.items()}
    assert values["mind_train_step"] == 20
    assert values["mind_train_total_steps"] == 40
    assert values["mind_train_validation"] == 0.25
    assert values["mind_train_last_report_timestamp_seconds"] == 7.0
    assert values["mind_train_samples_per_second"] is None
    assert gauges["mind_train_validation"].tags == {"model": "m", "preset": "default", "metric": "ndcg@20"}
    assert all(set(gauge.keys) == set(gauge.tags) for gauge in gauges.values())
