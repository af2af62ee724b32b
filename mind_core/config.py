"""Every knob of the model, its loss and its optimiser: plain frozen dataclasses, so that mind_core needs only torch.

The defaults are the best general recipe found so far; pipelines/config/presets/paper.yaml holds the paper's own
choices. The comment beside a field is its manual. ``pipelines.config.schema`` nests these in the YAML tree and turns a
ValueError raised here into one line for the user.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

SEED_END = 2**63  # seeds from 0 to below: what generators take
MOST_ITERATIONS = 1000
MOST_FACTORED = 1_000_000  # items whose table begins with their factors if nothing is said
MOST_FULL = 20_000  # items over which the softmax is exact if its kind is auto
FORBID_UNKNOWN = {"extra": "forbid"}  # read by pydantic when it validates these classes; plain Python ignores it


def _check(ok: bool, field: str, value: Any, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{field}={value!r}: must be {allowed}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    __pydantic_config__ = FORBID_UNKNOWN

    encoder: Literal["mind", "mean", "popularity"] = "mind"
    # mind: B2I dynamic routing. mean: one vector, mean-pooled behaviours + MLP (YouTube-DNN style).
    # popularity: one constant user vector against log-count item vectors; nothing is trained.
    dim: int = 64  # d, of items and interests
    interests: int = 4  # K
    iterations: int = 3  # r; gradients flow through the last one only
    routing_scale: float = 10.0  # multiplies the agreement added to the logits; 1 = the paper
    routing_update: Literal["dot", "cosine"] = "dot"  # agreement: u_j . S e_i (paper), or its cosine (EasyRec)
    sigma: float = 3.0  # std of the initial routing logits b_ij; large: behaviours stay where they begin
    context: Literal["none", "transformer"] = "none"  # transformer: v_j = norm(v_j + a * h), h of causal attention over
    # the behaviours in their order; a is learned from 0 on. Needs train.labels_per_window
    context_layers: int = 2
    heads: int = 2
    context_dropout: float = 0.2
    initial_logits: Literal["position", "item"] = "item"  # position: one draw for each place in the window (paper).
    # item: made of the item, so that a behaviour keeps its interest when the window slides
    logits_pseudocount: float = 0.0  # of initial_logits: item: the mean that is taken off counts so many behaviours
    # without a direction beside the user's. For short histories, of which one event more would change it, such as 8
    shared: bool = False  # v_j = norm(v_0 + g_j v_j): interests share v_0, pooled over the whole history; g_j learned
    resample_logits: bool = False  # draw fresh logits at every training step; serving always uses the fixed buffer
    adaptive_interests: bool = True  # K'_u = max(1, min(K, floor(log2 |I_u|)))
    max_history: int = 50  # L: the newest L behaviours are seen
    history: Literal["newest", "distinct"] = (
        "distinct"  # newest: a behaviour is an event. distinct: it is an item at its
    )
    # newest event, so that L reaches back further; how often, how lately and how regularly it came enters its weight
    repeat: Literal["none", "memory", "never"] = "memory"  # memory: an item of the user's history scores r(u, i) more,
    # learned from the same; r is 0 for all other items, so that serving asks the index for K vectors as before. never:
    # what lists leave out (evaluate.seen: filter) is left out of the softmax as well; a file that filters, with
    # context: transformer, has never if it does not say `repeat`. none: items of the history are as any other (paper)
    profile_dim: int = 16  # of each profile feature's embedding
    hidden: tuple[int, ...] = (128,)  # ReLU layers over [u_j ; p_u]; the last, linear layer to d is implied
    residual: bool = True  # v_j = u_j + MLP([u_j ; p_u])
    attention_power: float = 1.0  # p of label-aware attention (loss.scoring): 0 = mean, inf = argmax
    normalize_items: bool = True  # L2-normalise e_i where it is scored
    normalize_interests: bool = True  # L2-normalise v_j; scores are then cosines / temperature
    temperature: float = 0.1  # tau, divides every score in the loss
    recency: bool = True  # weigh a behaviour by exp(g), g learned for its rank from the newest
    init: Literal["normal", "svd"] | None = None  # of the item table. normal: drawn, as all else. svd: items that the
    # same users had begin side by side (mind_core.factors), by the events that are no labels if there are such. Empty:
    # svd where there are (train.label_share below 1), up to 1,000,000 items; normal elsewhere
    init_std: float = 0.1  # std of the embedding rows; with routing_scale it decides how far routing moves the logits
    logits_seed: int = 0  # of the fixed routing-logits buffer

    def __post_init__(self) -> None:
        for name in ("interests", "iterations", "max_history", "context_layers", "heads"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "an integer >= 1")
        _check(self.iterations <= MOST_ITERATIONS, "iterations", self.iterations, f"at most {MOST_ITERATIONS}")
        _check(0 <= self.logits_seed < SEED_END, "logits_seed", self.logits_seed, "an integer from 0 to below 2^63")
        # matrix kernels round a leftover of fewer than 4 by the row's place in the batch, on which nothing may depend
        for name in ("dim", "profile_dim"):
            width = getattr(self, name)
            _check(width >= 4 and width % 4 == 0, name, width, "a multiple of 4")
        widths_fit = all(width >= 4 and width % 4 == 0 for width in self.hidden)
        _check(widths_fit, "hidden", list(self.hidden), "a list of multiples of 4")
        for name in ("routing_scale", "sigma", "attention_power", "logits_pseudocount"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        for name in ("temperature", "init_std"):
            _check(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "a number > 0")
        _check(
            self.encoder == "mind" or self.interests == 1,
            "interests",
            self.interests,
            f"1 with encoder: {self.encoder}, which has a single user vector",
        )
        _check(0 <= self.context_dropout < 1, "context_dropout", self.context_dropout, "a number from 0 to below 1")
        _check(
            self.dim % (2 * self.heads) == 0,
            "heads",
            self.heads,
            f"such that dim ({self.dim}) / heads is even",
        )
        _check(
            self.context == "none" or self.history == "newest",
            "history",
            self.history,
            "newest with context: transformer, which reads the behaviours in their order",
        )
        _check(
            self.initial_logits == "position" or not self.resample_logits,
            "resample_logits",
            self.resample_logits,
            "false with initial_logits: item, which draws none",
        )
        _check(
            self.encoder != "popularity" or self.init != "svd",
            "init",
            self.init,
            "normal with encoder: popularity, which has no table that is trained",
        )
        _check(
            self.encoder != "mind" or self.interests == 1 or self.sigma > 0,
            "sigma",
            self.sigma,
            "> 0 with several interests: equal logits give equal capsules for ever",
        )

    def begins_with_factors(self, items: int, *, labels_are_all: bool) -> bool:
        """Say what `init` means for a table of so many items, and a training whose labels are all events or the newest.

        Where they are all, the factors have seen them, and a training that begins there may fit them too well.
        """
        if self.init is None:
            return self.encoder != "popularity" and not labels_are_all and items <= MOST_FACTORED
        return self.init == "svd"

    @property
    def uses_traits(self) -> bool:
        """Whether behaviours come with what is known of their repeats (mind_core.repeats)."""
        return self.history == "distinct" or self.repeat == "memory"


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    __pydantic_config__ = FORBID_UNKNOWN

    scoring: Literal["best_match", "label_attention"] = "best_match"
    # best_match: the serving score, max over the interests, for label and negatives alike. label_attention: the paper
    kind: Literal["sampled", "full", "auto"] = "sampled"
    # full: exact softmax over all items but the cold. auto: full if these are 20,000 at most, else sampled
    uniform_negatives: int = 512  # shared by the batch, drawn uniformly from all items but the cold
    popularity_negatives: int = 512  # shared by the batch, drawn with probability ~ count ** popularity_power
    popularity_power: float = 0.75  # alpha
    in_batch: bool = False  # the batch's other labels are negatives too
    logq: bool = True  # subtract the log of the expected count under the mixture really drawn

    def __post_init__(self) -> None:
        for name in ("uniform_negatives", "popularity_negatives", "popularity_power"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        _check(
            self.kind == "full" or self.in_batch or self.uniform_negatives + self.popularity_negatives > 0,
            "uniform_negatives",
            self.uniform_negatives,
            "> 0 (or popularity_negatives > 0, or in_batch: true): a sampled softmax needs negatives",
        )

    def of_items(self, items: float) -> LossConfig:
        """Return what is meant for so many items that can be negatives: `kind` is sampled or full.

        >>> LossConfig(kind="auto").of_items(20_000).kind, LossConfig(kind="auto").of_items(20_001).kind
        ('full', 'sampled')
        """
        if self.kind != "auto":
            return self
        return replace(self, kind="full" if items <= MOST_FULL else "sampled")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    __pydantic_config__ = FORBID_UNKNOWN

    learning_rate: float = 2e-3  # of the dense parameters (Adam)
    table_learning_rate: float = 5e-3  # of the embedding rows
    table_optimizer: Literal["adam", "adagrad"] = "adam"  # row-sparse: only a step's distinct rows are touched
    weight_decay: float = 0.0  # decoupled (AdamW); on rows it is applied when a row is touched
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # decay from the peak to 0 over the run
    warmup_steps: int = 0  # linear warm-up to the peak
    clip_norm: float | None = None  # gradients of a step, dense and rows together, are scaled down to this norm

    def __post_init__(self) -> None:
        for name in ("learning_rate", "table_learning_rate"):
            _check(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "a number > 0")
        _check(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "a number > 0, or empty")
        for name in ("weight_decay", "warmup_steps"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
