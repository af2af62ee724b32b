"""The user tower by itself: histories in, interest vectors out, as one graph that other runtimes can load.

Everything that depends on data is an input of fixed meaning (`TowerInputs`), so that the graph holds tensors and sums
alone. What a user's vectors are is what `MINDRetriever` makes of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mind_core.inference import MINDRetriever
from mind_core.loss import own_vectors
from mind_core.repeats import TRAITS
from mind_core.routing import products
from mind_core.sequences import Histories


class TowerInputs(NamedTuple):
    """B users. The names are those of the graph's inputs.

    items : (B, L) int64, item indices, oldest first, 0 at padding, which stands at the end.
    newest : (B, L) bool, the newest event of its item: what the memory scores. All False without a memory.
    traits : (B, L, T) float32, as mind_core.repeats.traits_of says, 0 where not `newest`.
    profile_rows : (B, F, M) int64, rows of the profile table of each feature, 0 where there are no more.
    profile_weights : (B, F, M) float32: 1 for a category, 1/n for each of n values, x and 1 for a number.
    """

    items: Tensor
    newest: Tensor
    traits: Tensor
    profile_rows: Tensor
    profile_weights: Tensor


class UserTower(nn.Module):
    """Gives interests (B, K, d), 0 where not the user's own, own (B, K) bool, and memory (B, L): what each item of the
    history scores on top."""

    behaviour_vectors: Tensor
    profile: Tensor

    def __init__(self, retriever: MINDRetriever) -> None:
        super().__init__()
        self.encoder = retriever.model.encoder
        self.register_buffer("profile", retriever.model.profile_table.weight.detach())
        self.register_buffer("behaviour_vectors", retriever.behaviour_vectors)
        config = retriever.model.config
        self.uses_traits, self.remembers = config.uses_traits, config.repeat == "memory"
        self.normalizes = config.normalize_items
        self.features = len(retriever.model.profile_features)

    def forward(
        self, items: Tensor, newest: Tensor, traits: Tensor, profile_rows: Tensor, profile_weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take `TowerInputs`."""
        behaviours, mask = functional.embedding(items, self.behaviour_vectors), items > 0
        profile = None
        if self.features:
            each = functional.embedding(profile_rows, self.profile) * profile_weights.unsqueeze(-1)
            profile = each.sum(2).flatten(1)
        traits_of = traits if self.uses_traits else None
        interests, own, _ = self.encoder(behaviours, mask, profile, traits=traits_of)
        shown = interests.masked_fill(~own.unsqueeze(-1), 0.0)
        if not self.remembers:
            return shown, own, torch.zeros_like(items, dtype=interests.dtype)
        vectors = functional.normalize(behaviours, dim=-1) if self.normalizes else behaviours
        best = products(own_vectors(interests, own), vectors).amax(1)
        memory = self.encoder.memory
        return shown, own, memory(memory.of_items(behaviours), traits, best).masked_fill(~newest, 0.0)


def tower_inputs(histories: Histories, width: int) -> TowerInputs:
    """Make the inputs of histories (B, at most `width`) that mind_core.sequences cut out; L is `width`."""
    missing = width - histories.items.shape[1]
    items = functional.pad(histories.items, (0, missing))
    newest, traits = torch.zeros_like(items, dtype=torch.bool), torch.zeros(*items.shape, len(TRAITS))
    if histories.newest is not None and histories.traits is not None:
        newest = functional.pad(histories.newest, (0, missing))
        traits = functional.pad(histories.traits, (0, 0, 0, missing))
    return TowerInputs(items, newest, traits, *_profile(histories, len(items)))


def _profile(histories: Histories, users: int) -> tuple[Tensor, Tensor]:
    """(B, F, M) rows and weights of the profile's bags, padded."""
    if histories.profile is None:
        return torch.zeros(users, 1, 1, dtype=torch.int64), torch.zeros(users, 1, 1)
    bags = histories.profile
    sizes = bags.offsets.diff()
    most = max(1, int(sizes.max())) if len(sizes) else 1
    place = torch.arange(most)
    inside = place < sizes.unsqueeze(1)
    index = torch.where(inside, bags.offsets[:-1].unsqueeze(1) + place, 0)
    rows = torch.where(inside, bags.rows[index], 0)
    weights = torch.where(inside, bags.weights[index], 0.0)
    features = len(sizes) // users
    return rows.view(users, features, most), weights.view(users, features, most)
