"""What the tests start from: sequences from lists, small models, planted interests. No assertions here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mind_core.config import LossConfig, ModelConfig, OptimConfig
from mind_core.embeddings import WHOLE, Shard
from mind_core.features import Bags, FeatureColumn, FeatureSpec, item_bags, profile_bags
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.sequences import AllTargets, Samples, Sequences
from mind_core.training import Trainer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sequences_of(lists: list[list[int]], profile: Bags | None = None) -> Sequences:
    sizes = torch.tensor([0, *(len(x) for x in lists)])
    flat = torch.tensor([i for x in lists for i in x], dtype=torch.int64)
    return Sequences(flat, sizes.cumsum(0), profile)


def all_targets(sequences: Sequences) -> Samples:
    targets = AllTargets(sequences)
    return targets[torch.arange(len(targets))]


def random_sequences(users: int, items: int, longest: int, seed: int = 0, shortest: int = 2) -> list[list[int]]:
    g = generator(seed)
    sizes = torch.randint(shortest, longest + 1, (users,), generator=g).tolist()
    return [torch.randint(2, items, (n,), generator=g).tolist() for n in sizes]


def prefix_mask(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def own_mask(counts: list[int], interests: int) -> Tensor:
    return torch.arange(interests) < torch.tensor(counts).unsqueeze(1)


def item_columns(items: int, seed: int = 0) -> list[FeatureColumn]:
    """One feature of each kind for the `items - 2` real items, with unknown and missing values among them."""
    g, n = generator(seed), items - 2
    category = torch.randint(1, 7, (n,), generator=g)
    sizes = torch.randint(0, 4, (n,), generator=g)
    tags = torch.randint(3, 9, (int(sizes.sum()),), generator=g)
    price = torch.randn(n, generator=g)
    price[::5] = float("nan")
    return [
        FeatureColumn(FeatureSpec("category", "categorical", 7), category),
        FeatureColumn(FeatureSpec("tags", "multi", 9), tags, torch.cat([torch.zeros(1).long(), sizes.cumsum(0)])),
        FeatureColumn(FeatureSpec("price", "numeric", 0), price),
    ]


def profile_columns(users: int, seed: int = 0) -> list[FeatureColumn]:
    g = generator(seed + 100)
    sizes = torch.randint(0, 3, (users,), generator=g)
    hobbies = torch.randint(1, 6, (int(sizes.sum()),), generator=g)
    age = torch.randn(users, generator=g)
    age[::4] = float("nan")
    return [
        FeatureColumn(FeatureSpec("gender", "categorical", 5), torch.randint(1, 5, (users,), generator=g)),
        FeatureColumn(FeatureSpec("hobbies", "multi", 6), hobbies, torch.cat([torch.zeros(1).long(), sizes.cumsum(0)])),
        FeatureColumn(FeatureSpec("age", "numeric", 0), age),
    ]


def model_config(**changes: Any) -> ModelConfig:
    settings: dict[str, Any] = {
        "dim": 8,
        "interests": 3,
        "max_history": 8,
        "hidden": (12,),
        "profile_dim": 4,
        # the paper's choices, whatever the defaults of the day are
        "routing_scale": 1.0,
        "residual": False,
        "attention_power": 1.0,
        "normalize_items": False,
        "normalize_interests": False,
        "temperature": 1.0,
        "recency": False,
        "history": "newest",
        "repeat": "none",
        "initial_logits": "position",
        "init_std": 1.0,
    }
    return ModelConfig(**(settings | changes))


@dataclass(frozen=True)
class World:
    """A catalogue, users with profiles, and a model over them."""

    model: MIND
    bags: Bags
    sequences: Sequences
    counts: Tensor
    config: ModelConfig = field(repr=False)


def world(
    lists: list[list[int]],
    items: int,
    *,
    features: bool = True,
    profile: bool = True,
    seed: int = 0,
    shard: Shard = WHOLE,
    **changes: Any,
) -> World:
    config = model_config(**changes)
    columns = item_columns(items) if features else []
    people = profile_columns(len(lists)) if profile else []
    model = MIND(config, items, [c.spec for c in columns], [c.spec for c in people], seed, shard)
    sequences = sequences_of(lists, profile_bags(people) if people else None)
    counts = torch.bincount(sequences.items, minlength=items)
    return World(model, item_bags(columns, items), sequences, counts, config)


def trainer(
    w: World, loss: LossConfig | None = None, optim: OptimConfig | None = None, *, seed: int = 0, **more: Any
) -> Trainer:
    loss = loss or LossConfig(uniform_negatives=16, popularity_negatives=16)
    optim = optim or OptimConfig(learning_rate=0.01, table_learning_rate=0.05)
    total = more.pop("total_steps", 100)
    return Trainer(w.model, w.bags, NegativeSampler(loss, w.counts), optim, total_steps=total, seed=seed, **more)


def batches(sequences: Sequences, size: int, steps: int, seed: int = 0) -> list[Samples]:
    samples, g = all_targets(sequences), generator(seed)
    return [samples[torch.randint(0, len(samples), (size,), generator=g)] for _ in range(steps)]


def planted_interests(
    users: int, clusters: int, per_cluster: int, length: int, seed: int = 0
) -> tuple[list[list[int]], int]:
    """Users who mix two clusters of items each; returns their sequences and V. Item 2 + c * per_cluster + k is of c."""
    g = generator(seed)
    lists = []
    for _ in range(users):
        mine = torch.randperm(clusters, generator=g)[:2]
        which = mine[torch.randint(0, 2, (length,), generator=g)]
        lists.append((2 + which * per_cluster + torch.randint(0, per_cluster, (length,), generator=g)).tolist())
    return lists, 2 + clusters * per_cluster
