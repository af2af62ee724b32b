"""Ledgers to test with: single trials with given validations, and two campaigns as they come out of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import Status, TrialRecord

METRIC = "ndcg@20"
GRID = {
    "campaign": "k-by-r",
    "base": "ml-1m.yaml",
    "space": {
        "model.interests": {"grid": [1, 2, 4, 6, 8]},
        "model.iterations": {"grid": [1, 2, 3, 4], "when": {"model.interests": [2, 4, 6, 8]}},
    },
}
RANDOM = {
    "campaign": "wide",
    "base": "ml-1m.yaml",
    "space": {
        "model.interests": {"choice": [1, 2, 4, 8]},
        "optim.learning_rate": {"log_uniform": [1e-4, 1e-2]},
        "model.hidden": {"choice": [[], [64], [128, 64], [256, 128, 64]]},
        "loss.kind": {"choice": ["sampled_softmax", "full_softmax"]},
        "loss.negatives": {"integer": [16, 1024], "log": True, "when": {"loss.kind": "sampled_softmax"}},
    },
    "search": {"method": "random", "trials": 60, "seeds": 3, "finalists": 4},
}


def campaign(**changes: Any) -> Campaign:
    """Make a campaign of GRID's space unless told otherwise."""
    return Campaign.model_validate({**GRID, **changes})


def trial(
    number: int,
    validations: Sequence[float],
    values: dict[str, Any] | None = None,
    *,
    point: int | None = None,
    seed: int = 0,
    status: Status = "finished",
    epochs: int = 10,
    pace: float = 10.0,
    lookups: float | None = None,
    finalist: bool = False,
    reason: str | None = None,
) -> TrialRecord:
    """Validated once an epoch, each of `pace` seconds."""
    values = {"model.interests": number} if values is None else values
    wide = float(values.get("model.interests", 1)) if lookups is None else lookups
    reports = tuple(
        {
            "step": 100.0 * epoch,
            "epoch": float(epoch),
            "seconds": pace * epoch,
            f"validation/{METRIC}": value,
            "train/loss": 5 / epoch,
            "serving/lookups": wide,
            "serving/multiply_adds": 64 * wide,
        }
        for epoch, value in enumerate(validations, start=1)
    )
    return TrialRecord(
        number,
        point or number,
        seed,
        values,
        epochs,
        finalist=finalist,
        status=status,
        reason=reason,
        reports=reports,
    )


def seeds(point: int, *best: float, first: int = 1, values: dict[str, Any] | None = None) -> list[TrialRecord]:
    """A finished trial a seed, each best at epoch 2."""
    values = values or {"model.interests": point}
    return [trial(first + n, [0.01, b, 0.0], values, point=point, seed=n) for n, b in enumerate(best)]


def curve(top: float, length: int, generator: np.random.Generator, rate: float = 0.35) -> list[float]:
    noise = generator.normal(0, 0.0008, length)
    return [top * (1 - 0.6 * math.exp(-rate * (1 + epoch))) + noise[epoch] for epoch in range(length)]


def grid_ledger() -> list[TrialRecord]:
    """GRID with one seed; the worse two thirds are stopped at epoch 2, then again at 6."""
    generator, records = np.random.default_rng(1), []
    points: list[dict[str, Any]] = [{"model.interests": 1}]
    points += [{"model.interests": k, "model.iterations": r} for k in (2, 4, 6, 8) for r in (1, 2, 3, 4)]
    tops = [0.118 - 0.0012 * (p["model.interests"] - 4) ** 2 / 2 + 0.003 * min(p.get("model.iterations", 0), 3)
            for p in points]  # fmt: skip
    order = np.argsort(np.argsort([-top for top in tops]))
    for number, (values, top) in enumerate(zip(points, tops, strict=True), start=1):
        length = 16 if order[number - 1] < 2 else 6 if order[number - 1] < 6 else 2
        status: Status = "finished" if length == 16 else "stopped"
        records.append(trial(number, curve(top, length, generator), values, status=status, epochs=16))
    return records


def random_ledger(points: int = 60) -> list[TrialRecord]:
    """RANDOM: stopped ones, three failures, and three seeds for the best four."""
    generator, drawn, records = np.random.default_rng(2), [], []
    for _ in range(points):
        values: dict[str, Any] = {
            "model.interests": int(generator.choice([1, 2, 4, 8])),
            "optim.learning_rate": float(10 ** generator.uniform(-4, -2)),
            "model.hidden": [[], [64], [128, 64], [256, 128, 64]][generator.integers(4)],
            "loss.kind": str(generator.choice(["sampled_softmax", "full_softmax"])),
        }
        if values["loss.kind"] == "sampled_softmax":
            values["loss.negatives"] = int(2 ** generator.uniform(4, 10))
        drawn.append(values)
    tops = [0.12 - 0.03 * (math.log10(v["optim.learning_rate"]) + 2.8) ** 2 + 0.004 * math.log2(v["model.interests"])
            + 0.001 * math.log2(v.get("loss.negatives", 2048)) for v in drawn]  # fmt: skip
    order = np.argsort(np.argsort([-top for top in tops]))
    for number, (values, top) in enumerate(zip(drawn, tops, strict=True), start=1):
        if number % 23 == 7:
            records.append(trial(number, curve(top, 1, generator), values, status="failed", epochs=16,
                                 reason="RuntimeError: CUDA out of memory <tried 2 GiB>"))  # fmt: skip
            continue
        length = 16 if order[number - 1] < 8 else int(generator.choice([2, 2, 6]))
        status: Status = "finished" if length == 16 else "stopped"
        records.append(trial(number, curve(top, length, generator), values, status=status, epochs=16))
    finalists = [n for n in np.argsort([-top for top in tops]) if records[n].status == "finished"][:4]
    for n in finalists:
        for seed in (1, 2):
            found = curve(tops[n] + generator.normal(0, 0.001), 16, generator)
            records.append(trial(len(records) + 1, found, drawn[n], point=n + 1, seed=seed, epochs=16, finalist=True))
    return records
