"""A training in Ray's Prometheus endpoint: what it reported last, and when. Labels: `model`, `preset`, `metric`.

Ray adds ``ray_`` to the names. The gauges are those of the process that takes the reports, and go when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

NAMES = {  # of a report: the gauge, and what it is
    "step": ("mind_train_step", "Steps that were reported."),
    "total_steps": ("mind_train_total_steps", "Steps of the whole training, if nothing stops it."),
    "epoch": ("mind_train_epoch", "Epochs that were reported."),
    "train/loss": ("mind_train_loss", "Mean loss since the report before."),
    "train/samples_per_second": ("mind_train_samples_per_second", "Labels a second, of all workers."),
    "train/wait_share": ("mind_train_wait_share", "Part of the time that a worker waited for data."),
}
VALIDATION = ("mind_train_validation", "The metric that early stopping goes by.")
REPORTED = ("mind_train_last_report_timestamp_seconds", "When the last report came, in seconds since 1970.")


class TrainGauges:
    """Sets gauges to what a training reports; made where Ray runs.

    model : name of the run.  metric : the headline's.  make, clock : of a test.
    """

    def __init__(
        self,
        model: str,
        preset: str,
        metric: str,
        make: Callable[..., Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if make is None:
            from ray.util.metrics import Gauge

            make = Gauge
        self._metric, self._clock = metric, clock
        labels = {"model": model, "preset": preset}
        self._gauges = {key: _gauge(make, *told, labels) for key, told in NAMES.items()}
        self._validation = _gauge(make, *VALIDATION, labels | {"metric": metric})
        self._reported = _gauge(make, *REPORTED, labels)

    def set(self, report: Mapping[str, Any]) -> None:
        """Take in a report."""
        for key, gauge in self._gauges.items():
            if key in report:
                gauge.set(float(report[key]))
        if (value := report.get(f"validation/{self._metric}")) is not None:
            self._validation.set(float(value))
        self._reported.set(self._clock())


def _gauge(make: Callable[..., Any], name: str, what: str, labels: Mapping[str, str]) -> Any:
    gauge = make(name, description=what, tag_keys=tuple(labels))
    gauge.set_default_tags(dict(labels))
    return gauge
