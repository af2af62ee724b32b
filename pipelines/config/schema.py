"""The configuration tree: YAML + ``--set a.b=c`` over a preset, validated before anything heavy is imported.

Where a setting may come from, and what wins: pipelines.config.load.
Imports neither Ray, torch nor MLflow: ``mind --help`` and a typing error must answer at once.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mind_core.config import SEED_END, LossConfig, ModelConfig, OptimConfig
from pipelines.config.home_location import home_folder
from pipelines.config.names import FeatureName, Kind, Name, home_place
from pipelines.config.where import parse_where

Cutoff = Annotated[int, Field(ge=1, le=100_000)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
ShelfName = Literal["all", "again", "new"]  # mind_core.inference.Shelf, which brings torch
Seed = Annotated[int, Field(ge=0, lt=SEED_END)]
Quota = Annotated[int, Field(ge=0, le=10_000)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# what pandas takes for missing, and MySQL's and Hive's \\N
NULL_WORDS: tuple[str, ...] = (
    "\\N", "NULL", "null", "None", "NA", "<NA>", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA",
    "NaN", "nan", "-NaN", "-nan", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND",
)  # fmt: skip


class TableSource(Section):
    """Where a table lies and how to read it. `path` may be a file, a folder or a glob; local or any pyarrow.fs URI.

    Folders named ``key=value`` (Hive partitions) are columns as those in the file are.
    """

    path: str
    format: Literal["parquet", "csv", "jsonl", "sessions", "recbole"] | None = None  # None: from the file's suffix.
    # sessions: one session a line, item ids separated by blanks; the line number is the user, the place the time.
    # recbole: .inter, .item and .user; its columns are named without their types
    delimiter: str = ","  # csv; may be several characters, as MovieLens' "::"
    columns: list[str] | None = None  # csv without a header line: the names
    encoding: str = "utf-8"
    max_row_bytes: int = Field(2**20, ge=1)  # jsonl: a longer line is set aside as unreadable. No line of csv or
    # sessions may be longer than 16 MiB
    max_expansion: int = Field(200, ge=1)  # a compressed file of more than 64 MiB may hold so many times its bytes
    quote: str = '"'  # csv; "" where a quote is a character like any other
    null_values: list[str | int | float] = list(NULL_WORDS)  # what stands for a missing value, in any format, beside
    # blanks; replaces the list of the usual words: [NA, -1], or [] for none

    @field_validator("quote")
    @classmethod
    def quote_is_a_character(cls, value: str) -> str:
        if len(value.encode()) > 1 or value in ("\n", "\r"):
            raise ValueError(f"quote={value!r}: must be one character, or empty where nothing is quoted")
        return value

    @field_validator("delimiter")
    @classmethod
    def delimiter_splits_a_line(cls, value: str) -> str:
        if not value or (len(value) == 1 and not value.isascii()) or set(value) & set('\0\n\r"'):
            raise ValueError(f"delimiter={value!r}: must be one ASCII character or several of any kind, without line "
                             "ends and quotes")  # fmt: skip
        return value

    @field_validator("encoding")
    @classmethod
    def encoding_is_known(cls, value: str) -> str:
        try:
            "a".encode(value)
        except (LookupError, ValueError):  # UnicodeError, or a NUL in the name
            raise ValueError(f"encoding={value!r}: must be a text encoding of Python's, as utf-8 or latin-1") from None
        return value


class Exclusion(Section):
    """Rows set aside: those whose `column` starts with `prefix`, is one of `values`, or lies below `below`."""

    column: str
    reason: str
    prefix: str | None = None
    values: list[str | int | float] | None = None
    below: float | None = None

    @model_validator(mode="after")
    def one_test(self) -> Exclusion:
        if sum(test is not None for test in (self.prefix, self.values, self.below)) != 1:
            raise ValueError(f"exclusion {self.reason!r}: give exactly one of prefix, values, below")
        return self


class EventSource(TableSource):
    user: str = "user"  # the column of user ids
    item: str = "item"  # the column of item ids
    time: str = "time"  # timestamp, date, number (see time_unit), or ISO text; without a zone it is UTC
    time_unit: Literal["s", "ms", "us", "ns"] | None = None  # numbers count these since 1970 UTC, and the dataset has
    # microseconds. None: numbers are a mere order, a fraction is cut off
    time_format: str | None = None  # of text that is not ISO, as strptime has it: "%d.%m.%Y %H:%M". None: the usual
    # ones are tried, and what might be two of them is refused
    tie_break: str | None = None  # orders events of equal time: numbers, times or text; what is still tied goes by item
    event_type: str | None = None
    keep_types: list[str] | None = None  # of event_type; None keeps all
    type_weights: dict[str, Annotated[float, Field(gt=0)]] | None = None  # of event_type, 1 for others; sequences get
    # a column `weights`
    exclude: list[Exclusion] = []
    duplicates: Literal["drop", "keep"] = "drop"  # rows equal in user, item, time, tie_break and event type
    repeats: Literal["keep", "collapse"] = "keep"  # collapse: a run of one item in a row becomes its first event

    @field_validator("time_format")
    @classmethod
    def time_format_reads_what_it_writes(cls, value: str | None) -> str | None:
        if value is not None:
            moment = datetime(2001, 2, 3, 4, 5, 6)
            try:
                if "%" not in value or datetime.strptime(moment.strftime(value), value).year != moment.year:
                    raise ValueError
            except (ValueError, re.error):  # the same twice is a mistake of a pattern's
                raise ValueError(
                    f"time_format={value!r}: must say at least year, month and day as strptime has it, such as "
                    "'%d.%m.%Y %H:%M'"
                ) from None
        return value

    @model_validator(mode="after")
    def types_need_a_column(self) -> EventSource:
        for key in ("keep_types", "type_weights"):
            if getattr(self, key) is not None and self.event_type is None:
                raise ValueError(f"{key} is set but event_type names no column")
        return self


class Feature(Section):
    kind: Literal["categorical", "multi", "numeric", "bucket"] = "categorical"
    # numeric: standardised, then projected. bucket: quantile buckets, then categorical.
    separator: str | None = Field(None, min_length=1)  # multi stored as text, e.g. "Action|Comedy"
    min_count: int = Field(1, ge=1)  # rarer values share the unknown row
    buckets: int = Field(16, ge=2)  # of kind: bucket
    null_values: list[str | int | float] = []  # what else stands for a missing value in this column, as 999 or 1e300


class FeatureTable(TableSource):
    id: str  # the item's or user's column, of the same type as in the log
    features: dict[FeatureName, Feature] = {}  # by column name
    show: list[str] = []  # columns kept as they are, to print beside an id (names, titles)
    duplicates: Literal["refuse", "first", "last", "newest"] = "refuse"  # which row of an id counts, if it has several,
    # as where the table is the log itself: by the order of files and rows, or by `time`. A row without a value counts
    # only where there is no other
    time: str | None = None  # column that says which row is the newest

    @model_validator(mode="after")
    def newest_needs_a_time(self) -> FeatureTable:
        if (self.duplicates == "newest") != (self.time is not None):
            raise ValueError("duplicates: newest needs time:, a column, and time: belongs to it")
        return self


class ItemTable(FeatureTable):
    cold_start: bool = False  # items that the log never names are part of the catalogue, with vectors from features

    @model_validator(mode="after")
    def cold_start_needs_features(self) -> ItemTable:
        if self.cold_start and not self.features:
            raise ValueError("cold_start=true: must be false without `features`, of which such items are made")
        return self


class Split(Section):
    protocol: Literal["leave_one_out", "temporal", "user_holdout"] = "leave_one_out"
    validation_from: str | float | None = None  # temporal: events from here on are validation targets ...
    test_from: str | float | None = None  # ... and from here on test targets; in the log's own time unit, or ISO text
    held_out: Fraction = 0.1  # user_holdout: share of users for validation, and again for test
    observed: Fraction = 0.8  # user_holdout: share of a held-out user's events that infer; the rest is to be found
    seed: Seed = 0  # user_holdout: of the hash that picks the users

    @field_validator("validation_from", "test_from", mode="before")
    @classmethod
    def date_as_text(cls, value: Any) -> Any:
        """YAML reads an unquoted 2017-12-04 as a date."""
        return value.isoformat() if isinstance(value, date) else value

    @model_validator(mode="after")
    def temporal_needs_dates(self) -> Split:
        dates = (self.validation_from, self.test_from)
        if self.protocol == "temporal" and None in dates:
            raise ValueError("protocol: temporal needs validation_from and test_from")
        if self.protocol != "temporal" and dates != (None, None):
            raise ValueError("validation_from and test_from belong to protocol: temporal")
        if self.held_out >= 0.5:
            raise ValueError(f"held_out={self.held_out}: must be below 0.5, it is taken twice (validation and test)")
        return self


class DataConfig(Section):
    events: EventSource
    items: ItemTable | None = None
    profile: FeatureTable | None = None
    min_user_events: int = Field(1, ge=1)  # users with fewer are left out; both minima hold together (k-core)
    min_item_events: int = Field(1, ge=1)  # items with fewer are left out
    split: Split = Split()
    max_user_events: int | None = Field(None, ge=1)  # a user's newest that many events are kept; None: all
    session_gap: float | None = Field(None, gt=0)  # a behaviour after so many seconds (of the log's own unit, if its
    # times are plain numbers) of inactivity opens a session; sequences get a column `sessions`
    time_gaps: bool = False  # sequences get a column `gaps`: the time since the behaviour before, in buckets
    max_bad_fraction: float = Field(1.0, ge=0, le=1)  # rows that cannot be read, of all; more stops the job


class TrainConfig(Section):
    workers: int = Field(1, ge=1, le=100_000)
    min_workers: int | None = Field(None, ge=1)  # elastic: a run that loses nodes goes on with that many at least, and
    # takes new ones up to `workers`; batches are then cut and drawn otherwise. None: it waits for all of them
    batch_size: int = Field(1024, ge=1, le=2**24)  # labels of a step, over all workers
    epochs: int = Field(20, ge=1)
    labels_per_window: int | None = Field(None, ge=1)  # a sample is a window of a user's sequence, and so many of its
    # events are labels, drawn anew each epoch: what the user encoder reads once serves them all. Fewer where users have
    # fewer, so that a step is full. None: one label each
    horizon: int | None = Field(
        None, ge=1
    )  # a label is any of the next so many events: what a user comes back for, not
    # only what follows in a basket. None: as many as a validation user has targets, so 1 with leave_one_out
    cut: Literal["event", "moment"] | None = None  # where the history before a label ends: at the label, or before all
    # events of its time, such as a basket's. None: moment with the temporal protocol, whose test histories end so
    label_share: float = Field(1.0, gt=0, le=1)  # labels are among the newest share of the train events, by time: what
    # is bought changes with the season. Older events are history
    targets_per_user: int | None = Field(None, ge=1)  # drawn anew each epoch; None: every position is a target
    behaviour_dropout: float = Field(0.2, ge=0, lt=1)  # share of behaviours hidden from the user encoder
    input: Literal["auto", "memory", "stream"] = "auto"  # how a worker holds the train split: all of it in memory, or
    # a window at a time. Both train on every sample once an epoch. auto: memory where it fits, see docs/design.md
    shuffle_events: int = Field(5_000_000, ge=1)  # of a window when streaming, at least one part of the dataset (about
    # 0.5 M events); a worker holds two windows. Samples are shuffled within a window, parts over the whole log
    shard_items: bool = False  # each worker owns every W-th row of the item table, for tables too large for one device;
    # the same results, see docs/training.md
    include_validation: bool = False  # the validation split is trained on as well: all epochs, none is chosen by it
    refit: bool = False  # what is published is trained once more from its start, on the validation split too, for as
    # many epochs as validated best: twice the time, and the model has seen the newest events
    validate_every_steps: int | None = Field(None, ge=1)  # None: once an epoch
    validation_users: int | None = Field(None, ge=1)  # a fixed sample of that many; None: all
    metric: str = Field(
        "ndcg@20", pattern=r"^(hit_rate|recall|ndcg|mrr)@[1-9][0-9]*$"
    )  # that early stopping and the best checkpoint go by
    patience: int | None = Field(3, ge=1)  # validations without a better metric before the run stops; None: never
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 autocast on a GPU, float32 on a CPU
    threads: int | None = Field(
        None, ge=1, le=4096
    )  # per worker; None: cores / workers, 1 on a cluster, which gives it
    # as many CPUs
    use_gpu: bool | None = None  # None: when the cluster has one
    profile: bool = False  # measure where a step's time goes; --profile
    on_divergence: Literal["stop", "rollback"] = "stop"  # rollback: a training whose loss or weights are no longer
    # finite goes on from its last checkpoint at half the rates, five times at most
    max_failures: int = Field(3, ge=0)  # worker crashes survived by going back to the last checkpoint
    seed: Seed = 0

    def cuts_by_moment(self, protocol: str) -> bool:
        """Say whether histories end before their label's moment: as set, or as those of a split of `protocol` do."""
        return self.cut == "moment" or (self.cut is None and protocol == "temporal")

    def uses_times(self, protocol: str) -> bool:
        """Say whether a training on a split of `protocol` reads the times of events."""
        return self.cuts_by_moment(protocol) or self.label_share < 1

    @property
    def ends_on_validation(self) -> bool:
        """Whether the model that is published was trained on the validation split too."""
        return self.include_validation or self.refit

    @property
    def epochs_in_all(self) -> int:
        """How many there are at most."""
        return 2 * self.epochs if self.refit else self.epochs

    @property
    def samples_per_step(self) -> int:
        """Over all workers: of `batch_size` labels, so many lie in each sample."""
        return max(1, self.batch_size // (self.labels_per_window or 1))


class EvaluateConfig(Section):
    cutoffs: list[Cutoff] = [10, 20, 50]  # the N of every metric@N
    seen: Literal["filter", "keep"] = "filter"  # items of the history in the candidate list
    top_n: int = Field(20, ge=1, le=100_000)  # of mind recommend
    again: Quota | None = None  # in place of top_n: so many items of the user's history. None: 0 if `new` is set
    new: Quota | None = None  # in place of top_n: so many items that the user never had. None: 0 if `again` is set
    category: FeatureName | None = None  # an item feature: what kinds of things lists hold is told by it. None: the
    # categorical one whose number of values is nearest to 100
    diversity: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = [0.003, 0.01, 0.03, 0.1, 0.3]  # lambdas of
    # `lists.diversity` that are tried for it; []: none

    @model_validator(mode="after")
    def quotas_fill_a_list(self) -> EvaluateConfig:
        if self.seen == "filter" and self.again:
            raise ValueError(f"again={self.again}: must be left out with seen: filter, which shows new items alone")
        if (self.again, self.new) != (None, None) and not (self.again or self.new):
            raise ValueError("again and new are both 0: a list must have places")
        return self

    @property
    def shelves(self) -> dict[ShelfName, int]:
        """How many places a user's list has on each shelf."""
        if self.again is None and self.new is None:
            return {"new" if self.seen == "filter" else "all": self.top_n}
        places: dict[ShelfName, int] = {"again": self.again or 0, "new": self.new or 0}
        return {shelf: n for shelf, n in places.items() if n}


class StockTable(TableSource):
    """A table with a row an item, made after the model: what is in stock, today's prices."""

    id: str | None = None  # its column of item ids; None: named as in data.items or data.events, or id, item, item_id


class ListsConfig(Section):
    """What lists hold, in `mind recommend`, `export` and `similar`: docs/lists.md."""

    where: str | None = None  # items that may stand in a list, e.g. "department != 'FUEL' and price < 5"
    allow: list[str] = []  # files of item ids; other items may not
    deny: list[str] = []  # files of item ids; these may not
    stock: StockTable | None = None  # whose columns `where`, `cap` and `category` may name, too
    cap: dict[FeatureName, Annotated[int, Field(ge=1)]] = {}  # column -> so many items of one of its values at most
    policy: Literal["best", "quota", "round_robin", "greedy"] = "best"  # mind_core.diversity.Policy
    quota: int = Field(2, ge=1)  # policy: quota; places for each interest, the rest goes to the highest scores
    diversity: float = Field(0.0, ge=0, allow_inf_nan=False)  # policy: greedy; lambda of ComiRec's eq. 8, in units of
    # the score, for each item of another category in the list
    category: FeatureName | None = None  # policy: greedy; a column. None: as evaluate.category

    @field_validator("where")
    @classmethod
    def where_can_be_read(cls, value: str | None) -> str | None:
        if value is not None:
            parse_where(value)
        return value

    @model_validator(mode="after")
    def lambda_is_of_greedy(self) -> ListsConfig:
        if self.diversity and self.policy != "greedy":
            raise ValueError(f"diversity={self.diversity}: must be left out without policy: greedy")
        return self


class TrackingConfig(Section):
    uri: str | None = None  # any MLflow tracking URI; None: MLFLOW_TRACKING_URI, else sqlite in the home folder
    experiment: str | None = None  # None: the config's name
    system_metrics: bool = True


class RayConfig(Section):
    address: str | None = None  # None: RAY_ADDRESS, else a local cluster
    num_cpus: int | None = Field(None, ge=1)  # of a local cluster; None: the cores, and at least workers + 1
    autoscaling: bool = False  # the cluster at the address gets nodes as they are asked for: more may be asked for than
    # it has now


class ServeConfig(Section):
    host: str = "127.0.0.1"  # 0.0.0.0 answers other machines too: put something before it that asks who they are
    port: int = Field(8000, ge=1, le=65535)
    replicas: int = Field(1, ge=1)  # processes that hold the model and answer
    max_replicas: int | None = Field(None, ge=1)  # more of them while they are busy, up to so many; None: never
    busy_requests: float = Field(8.0, gt=0)  # at a time and replica, beyond which there are more replicas
    cpus: float = Field(1.0, gt=0)  # of a replica, and its threads
    batch: int = Field(32, ge=1, le=128)  # requests that are answered together
    batch_wait_ms: float = Field(2.0, ge=0, le=1000)  # for more of them
    queue: int = Field(256, ge=1)  # requests that wait or are answered; beyond it the answer is 503
    timeout_s: float = Field(30.0, gt=0)  # of a request
    max_n: int = Field(1_000, ge=1, le=100_000)  # items of a list
    max_history: int = Field(10_000, ge=1, le=1_000_000)  # ids of a history; of exclude and of only, too
    max_body: int = Field(2**20, ge=1_000, le=2**28)  # bytes of a request
    registered: str | None = None  # model of MLflow's registry whose alias is followed; None: the config's name
    alias: str = "champion"
    poll_s: float = Field(10.0, ge=0.1)  # between two looks at the alias

    @model_validator(mode="after")
    def scaled_between_bounds(self) -> ServeConfig:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas={self.max_replicas}: must be >= replicas, {self.replicas}")
        return self


class Config(Section):
    name: Name  # of the dataset and of what is made of it: folders, runs, the registered model
    preset: str = "default"  # what a setting is where this file does not say
    home: str = "mind_home"  # of datasets, models, run state and the MLflow store: a folder, which all nodes of a
    # cluster must share, or s3://bucket/prefix or gs://bucket/prefix; MIND_HOME overrides it
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    lists: ListsConfig = ListsConfig()
    tracking: TrackingConfig = TrackingConfig()
    ray: RayConfig = RayConfig()
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="before")
    @classmethod
    def trained_as_lists_are_made(cls, raw: Any) -> Any:
        """Without a word on `repeat`, a model with context does not train on items that lists leave out."""
        if not isinstance(raw, dict):
            return raw
        model, evaluate = raw.get("model", {}), raw.get("evaluate", {})
        if not (isinstance(model, dict) and isinstance(evaluate, dict)) or "repeat" in model:
            return raw
        if model.get("context", "none") == "none" or evaluate.get("seen", "filter") != "filter":
            return raw
        return {**raw, "model": {**model, "repeat": "never"}}

    @field_validator("home")
    @classmethod
    def home_is_a_place(cls, value: str) -> str:
        home_folder(value)
        return value

    @model_validator(mode="after")
    def elastic_between_bounds(self) -> Config:
        least, most = self.train.min_workers, self.train.workers
        if least is not None and least > most:
            raise ValueError(f"train.min_workers={least}: must be <= train.workers, {most}")
        return self

    @model_validator(mode="after")
    def full_softmax_needs_the_whole_table(self) -> Config:
        if self.train.shard_items and self.loss.kind != "sampled":
            raise ValueError(
                f"train.shard_items=true: must be false with loss.kind: {self.loss.kind}, which scores every item"
                + (" where there are few" if self.loss.kind == "auto" else "")
            )
        return self

    @model_validator(mode="after")
    def validation_is_trained_on_in_memory(self) -> Config:
        if self.train.include_validation and self.train.refit:
            raise ValueError("train.refit=true: must be false with include_validation, which trains on the validation "
                             "split from the start")  # fmt: skip
        for name in ("include_validation", "refit"):
            if getattr(self.train, name) and self.train.input == "stream":
                raise ValueError(f"train.{name}=true: must be false with train.input: stream")
        if self.train.include_validation and self.model.encoder == "popularity":
            raise ValueError("train.include_validation=true: must be false with encoder: popularity")
        return self

    @model_validator(mode="after")
    def windows_are_cut_as_they_are_read(self) -> Config:
        if self.train.labels_per_window is None:
            if self.model.context != "none":
                raise ValueError("model.context=transformer: needs train.labels_per_window, such as 16")
            return self
        if self.model.history == "distinct":
            raise ValueError("train.labels_per_window: must be empty with model.history: distinct")
        if self.train.targets_per_user is not None:
            raise ValueError("train.labels_per_window: must be empty with train.targets_per_user")
        return self

    def begins_with_factors(self, items: int) -> bool:
        """Say whether the item table, of so many items, begins with their factors: what `model.init` means here."""
        return self.model.begins_with_factors(items, labels_are_all=self.train.label_share == 1)

    @property
    def metric_cutoffs(self) -> list[int]:
        """The N of every metric@N that is computed: those asked for, and the one that early stopping goes by."""
        return sorted({*self.evaluate.cutoffs, int(self.train.metric.split("@")[1])})

    @property
    def home_path(self) -> Path:
        return home_folder(self.home)

    @property
    def dataset_path(self) -> Path:
        return self.place("datasets", self.name)

    def place(self, kind: Kind, name: str) -> Path:
        """Where what is called `name` lies in the home; a UserError for a name that would lead elsewhere."""
        return home_place(self.home_path, kind, name)
