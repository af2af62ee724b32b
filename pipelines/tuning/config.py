"""A tuning campaign as YAML: a configuration to vary, the space to search, and how to end with a decision.

    campaign: ml-1m-k-by-r
    base: ml-1m.yaml                 # beside this file; what the trials vary
    settings: {train: {epochs: 16}}  # on top of it, for every trial
    space:
      model.interests: {grid: [1, 2, 4, 6, 8]}
      model.iterations: {grid: [1, 2, 3, 4], when: {model.interests: [2, 4, 6, 8]}}

Imports neither Ray, torch nor MLflow: a typing error must answer at once.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pipelines.config.names import Name
from pipelines.config.schema import Section

Value = bool | int | float | str | list[int] | None  # list: model.hidden; null: of a setting that may be null


class Domain(Section):
    """What one setting may be: exactly one of the first five.

    `grid` values are all tried, crossed with those of the other grids; the rest is drawn. `when` names the values that
    other settings of the space must have for this one to matter; elsewhere it keeps what the base says.
    """

    grid: list[Value] | None = None
    choice: list[Value] | None = None
    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None  # both ends included
    step: int = Field(1, ge=1)  # of integer
    log: bool = False  # integer: draw uniformly in the logarithm
    when: dict[str, Value | list[Value]] = Field({})

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def one_kind(self) -> Domain:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}, found {', '.join(given) or 'none'}")
        bounds = getattr(self, given[0])
        if not bounds:
            raise ValueError(f"{given[0]}=[]: must name at least one value")
        if given[0] in ("grid", "choice"):
            if any(a == b and type(a) is type(b) for n, a in enumerate(bounds) for b in bounds[:n]):
                raise ValueError(f"{given[0]}={bounds}: must not name a value twice")
        elif bounds[0] >= bounds[1]:
            raise ValueError(f"{given[0]}={list(bounds)}: must be [low, high] with low < high")
        if given[0] == "log_uniform" and bounds[0] <= 0:
            raise ValueError(f"log_uniform={list(bounds)}: must begin above 0")
        if given[0] != "integer" and (self.step != 1 or self.log):
            raise ValueError("step and log belong to integer")
        if self.log and (self.step != 1 or (self.integer is not None and self.integer[0] < 1)):
            raise ValueError("log=true: must go with step: 1 and numbers from 1 on")
        return self


KINDS = ("grid", "choice", "uniform", "log_uniform", "integer")


class Search(Section):
    method: Literal["grid", "random", "optuna"] = "grid"
    # grid: every domain is a grid. random: `trials` draws for each point of the grids. optuna: TPE, no grids
    trials: int = Field(20, ge=1)  # points to draw; with method: grid the grid says how many
    seeds: int = Field(1, ge=1)  # trainings of a point, with train.seed, train.seed + 1, ...
    finalists: int | None = Field(None, ge=1)  # only the best so many points get all the seeds, once the search is
    # over and without early stopping; None: every point does, from the start
    seed: int = Field(0, ge=0)  # of the draws
    cost: Literal["lookups", "multiply_adds"] | None = None  # second objective of optuna, to be small: what serving a
    # user takes, as mean lookups (interests), or those times the width


class Stopping(Section):
    """When the scheduler ends a trial early; `train.patience` goes on to end those that no longer improve."""

    method: Literal["asha", "median", "none"] = "asha"
    grace_epochs: int = Field(1, ge=1)  # no trial is ended before
    reduction: float = Field(3.0, gt=1)  # asha: 1 of so many goes on at each rung; rungs at grace * reduction ** n
    min_trials: int = Field(4, ge=1)  # median: others to compare with


class Resources(Section):
    workers: int = Field(1, ge=1)  # of a trial; takes the place of train.workers in the trials
    cpus: float = Field(1.0, gt=0)  # of a worker; fractions share a core
    gpus: float = Field(0.0, ge=0)  # of a worker; fractions share a GPU
    concurrent: int | None = Field(None, ge=1)  # trials at a time; None: as many as the cluster has room for
    max_failures: int = Field(2, ge=0)  # crashes of its workers that a trial survives


class Finish(Section):
    """What follows the search."""

    choose: Literal["best", "cheapest_within"] = "best"
    tolerance: float = Field(0.01, ge=0, lt=1)  # cheapest_within: share of the best metric that may be given up for
    # a cheaper model (fewer lookups, then fewer multiply-adds, a user)
    refit: Literal["train", "train_validation", "none"] = "train"  # on what the winner is trained again;
    # train_validation: for as many epochs as were best in the search, since nothing is left to stop by
    against: dict[str, Value] | None = None  # the best point with these values, e.g. {model.interests: 1}, or the best
    # without them where the winner has them, is trained again too and compared with it on the test set
    register_as: str | None = None  # name in the MLflow Model Registry; None: the base's name


class Campaign(Section):
    campaign: Name
    base: str
    preset: str | None = None  # takes the place of the base's
    settings: dict[str, Any] = Field({})  # as in a configuration file; `resources` says the workers
    space: dict[str, Domain] = Field(min_length=1)
    search: Search = Search()
    stopping: Stopping = Stopping()
    resources: Resources = Resources()
    finish: Finish = Finish()
