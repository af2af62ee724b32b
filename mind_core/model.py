"""The whole model, in the order data flows: rows -> item vectors -> routing -> interests (then loss.py).

Axes: B users, L behaviours, K interests, d dimension, N negatives, V item indices. Notable:

- one embedding table serves behaviours, labels and negatives; e_i pools the id's row and its features' rows;
- the model is fixed at serving: what routing starts from is saved with it (logits made of the item, or drawn once), so
  an unchanged history has the same interests on every call; training may resample drawn ones;
- `forward` takes item *vectors*, not ids: where the vectors come from (a step's distinct rows, or the whole table at
  inference) is the caller's business, and the same forward serves both.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mind_core.config import ModelConfig
from mind_core.context import ContextEncoder
from mind_core.embeddings import WHOLE, EmbeddingTable, Shard
from mind_core.features import FeatureSpec, unknown_rows
from mind_core.memory import RepeatMemory
from mind_core.repeats import TRAITS
from mind_core.routing import adaptive_interest_count, b2i_routing, evenly, item_logits, taken_in
from mind_core.sequences import View
from mind_core.special_rows import UNKNOWN

SHARED_GATE = 0.5  # g_j at the start: an interest is two parts of what the user's interests share, one of its own
PROFILE_STD = 0.1  # of the profile rows: they enter an MLP, not the routing, so their scale hardly matters


class UserEncoder(nn.Module):
    """Behaviours and profile to K interest vectors ("Multi-Interest Extractor Layer" of Li et al. 2019)."""

    routing_logits: Tensor  # (K, L), with initial_logits: position
    directions: Tensor  # (K, d) of norm 1, with initial_logits: item

    def __init__(self, config: ModelConfig, profile_features: int):
        super().__init__()
        self.config = config
        if config.encoder == "mind":
            self.shared_map = nn.Parameter(torch.eye(config.dim))  # S; capsules start in the items' own space
            fixed = torch.Generator().manual_seed(config.logits_seed)
            if config.initial_logits == "position":
                logits = config.sigma * torch.randn(config.interests, config.max_history, generator=fixed)
                self.register_buffer("routing_logits", logits)  # b_ij, behaviour 0 the oldest seen; never trained
            else:
                self.register_buffer("directions", _orthonormal(config.interests, config.dim, fixed))
            if config.shared:
                self.gate = nn.Parameter(torch.full((config.interests, 1), SHARED_GATE))  # g_j
        if config.recency:
            ranks = torch.arange(1.0, config.max_history + 1).unsqueeze(1)
            self.recency = nn.Parameter(-ranks.log())  # log weight by rank from the newest: starts at 1 / (1 + rank)
        if config.history == "distinct":
            self.weight_of_traits = nn.Linear(len(TRAITS), 1, bias=False)  # adds to the log weight of a behaviour
            nn.init.zeros_(self.weight_of_traits.weight)
        if config.context == "transformer":
            self.context = ContextEncoder(config.dim, config.context_layers, config.heads, config.context_dropout)
        if config.repeat == "memory":
            self.memory = RepeatMemory(config.dim)
        widths = [config.dim + profile_features * config.profile_dim, *config.hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.output = nn.Linear(widths[-1], config.dim)  # linear: a last ReLU would force scores to be positive

    def forward(
        self,
        behaviours: Tensor,
        mask: Tensor,
        profile: Tensor | None,
        logits: Tensor | None = None,
        traits: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Interests of each user.

        Parameters
        ----------
        behaviours : (W, L, d), e_i of the behaviours, oldest first. B = W, but for `Packed` windows with P labels each:
            there B = W * P, and rows w * P to w * P + P - 1 of all else look at window w.
        mask : (B, L) bool, False at padding and at behaviours hidden by dropout.
        profile : (W, F * profile_dim), or None without profile features.
        logits : (B, K, L) or (K, L) initial routing logits; None: those of `initial_logits`.
        traits : (B, L, T) of the behaviours' items, with history: distinct.

        Returns
        -------
        interests : (B, K, d), v_j.
        own : (B, K) bool, which of them are the user's (j < K'_u).
        weights : (B, K, L), coupling coefficients of the last routing iteration (uniform for encoder: mean).
        """
        config = self.config
        importance = self._importance(mask, traits)
        if profile is not None:
            profile = profile.repeat_interleave(mask.shape[0] // behaviours.shape[0], 0)
        if config.encoder == "mind":
            own = self.own_interests(mask)
            capsules, weights = b2i_routing(
                behaviours,
                mask,
                own,
                self.initial_logits(behaviours, mask) if logits is None else logits,
                config.iterations,
                shared_map=self.shared_map,
                scale=config.routing_scale,
                update=config.routing_update,
                importance=importance,
            )
        else:
            own = torch.ones(mask.shape[0], 1, dtype=torch.bool, device=mask.device)
            weights = evenly(mask)
            capsules = _pooled(behaviours, weights, importance)
        interests = self._finished(capsules, profile)
        if config.shared and config.encoder == "mind":
            pooled = self._finished(_pooled(behaviours, evenly(mask), importance), profile)  # (B, 1, d), v_0
            interests = pooled + self.gate * interests
        if config.context == "transformer":
            interests = interests + self._context(behaviours, mask).unsqueeze(1)
        if config.normalize_interests and (config.shared or config.context == "transformer"):
            interests = functional.normalize(interests, dim=-1)
        return interests, own, weights

    def _context(self, behaviours: Tensor, mask: Tensor) -> Tensor:
        """(B, d), what the context encoder says at each sample's newest behaviour; 0 without any."""
        said = self.context(behaviours)
        place = torch.arange(mask.shape[1], device=mask.device)
        newest = (mask * place).amax(1)
        window = torch.arange(mask.shape[0], device=mask.device).div(
            mask.shape[0] // behaviours.shape[0], rounding_mode="floor"
        )
        at_newest: Tensor = said[window, newest] * mask.any(1, keepdim=True)
        return at_newest

    def _importance(self, mask: Tensor, traits: Tensor | None) -> Tensor | None:
        """(B, L) g, how much of a behaviour is taken in; None: equally much of each."""
        log_weight: Tensor | None = None
        if self.config.recency:
            log_weight = functional.embedding(_rank_from_newest(mask), self.recency).squeeze(-1)
        if self.config.history == "distinct" and traits is not None:
            learned = self.weight_of_traits(traits).squeeze(-1)
            log_weight = learned if log_weight is None else log_weight + learned
        return None if log_weight is None else log_weight.exp()

    def initial_logits(self, behaviours: Tensor, mask: Tensor) -> Tensor:
        """(K, L) or (B, K, L), b_ij of the behaviours (W, L, d) that mask (B, L) shows."""
        if self.config.initial_logits == "item":
            config = self.config
            return item_logits(behaviours, mask, self.directions, config.sigma, config.logits_pseudocount)
        return self.routing_logits[:, : behaviours.shape[1]]

    def _finished(self, capsules: Tensor, profile: Tensor | None) -> Tensor:
        interests = self._transform(capsules, profile)
        return functional.normalize(interests, dim=-1) if self.config.normalize_interests else interests

    def own_interests(self, mask: Tensor) -> Tensor:
        """(B, K) bool: interest j is the user's if j < K'_u."""
        count = self.config.interests
        if not self.config.adaptive_interests:
            return torch.ones(mask.shape[0], count, dtype=torch.bool, device=mask.device)
        number = adaptive_interest_count(mask.sum(1), count)
        return torch.arange(count, device=mask.device) < number.unsqueeze(1)

    def _transform(self, capsules: Tensor, profile: Tensor | None) -> Tensor:
        """v_j = ReLU layers([u_j ; p_u]), plus u_j itself with `residual`."""
        x = capsules
        if profile is not None:
            x = torch.cat([x, profile.unsqueeze(1).expand(-1, x.shape[1], -1)], -1)
        for layer in self.hidden:
            x = functional.relu(layer(x))
        out: Tensor = self.output(x)
        return capsules + out if self.config.residual else out


class MIND(nn.Module):
    """Tables and user encoder.

    Parameters
    ----------
    items : V, item indices including padding (0) and unknown (1).
    item_features, profile_features : specs, in the order of their columns.
    seed : of all initial weights except the routing logits (config.logits_seed).
    shard : the rows of the item table that are held here; the profile table is always whole.
    """

    def __init__(
        self,
        config: ModelConfig,
        items: int,
        item_features: list[FeatureSpec],
        profile_features: list[FeatureSpec],
        seed: int = 0,
        shard: Shard = WHOLE,
    ):
        super().__init__()
        self.config, self.items = config, items
        self.item_features, self.profile_features = item_features, profile_features
        generator = torch.Generator().manual_seed(seed)
        item_rows = items + sum(spec.rows for spec in item_features)
        unknown_items = [UNKNOWN, *unknown_rows(item_features, items)]
        self.item_table = EmbeddingTable(item_rows, config.dim, config.init_std, generator, unknown_items, shard)
        profile_rows = 1 + sum(spec.rows for spec in profile_features)
        unknown_profiles = unknown_rows(profile_features, 1)
        self.profile_table = EmbeddingTable(profile_rows, config.profile_dim, PROFILE_STD, generator, unknown_profiles)
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global generator
            torch.manual_seed(seed)
            self.encoder = UserEncoder(config, len(profile_features))

    @property
    def view(self) -> View:
        """What of a sequence this model sees."""
        return View(self.config.max_history, self.config.history == "distinct", self.config.uses_traits)

    def score_vectors(self, item_vectors: Tensor) -> Tensor:
        """Item vectors as they are scored: L2-normalised if the model says so.  (..., d) to (..., d)."""
        return functional.normalize(item_vectors, dim=-1) if self.config.normalize_items else item_vectors


def _pooled(behaviours: Tensor, weights: Tensor, importance: Tensor | None) -> Tensor:
    """(B, 1, d) of behaviours (W, L, d) by weights (B, 1, L), each times its importance (B, L)."""
    amount = weights if importance is None else weights * importance.unsqueeze(1)
    return taken_in(amount.to(behaviours.dtype), behaviours)


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) directions of norm 1, at right angles as far as there are dimensions for it."""
    drawn = torch.randn(max(rows, columns), columns, generator=generator, dtype=torch.float64)
    if rows <= columns:
        drawn = torch.linalg.qr(drawn[:columns].T).Q.T
    return functional.normalize(drawn[:rows], dim=-1).float()


def _rank_from_newest(mask: Tensor) -> Tensor:
    """(B, L) int64: 0 for the newest behaviour that is shown; padding gets 0, and no weight anyway."""
    order = mask.cumsum(1)
    return (order[:, -1:] - order).clamp(min=0)
