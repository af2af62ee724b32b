"""How much memory a model takes, counted from its settings before anything is built: absurd settings can be refused.

Axes: V item indices, L behaviours, K interests, d dimension. float32 throughout. Imports no torch, so that
`mind plan` answers at once; a test compares the constants.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from mind_core.config import LossConfig, ModelConfig

if TYPE_CHECKING:
    from mind_core.features import FeatureSpec

FLOAT = 4  # bytes
STORED = ("item table", "profile table", "dense layers")  # how parts begin that are weights
TILE_USERS = 128  # mind_core.inference
TRAITS = 7  # of an item; mind_core.repeats
MEMORY_HIDDEN = 16  # mind_core.memory
SPARE = 16  # mind_core.factors


def dense_parameters(config: ModelConfig, profile_features: int) -> int:
    """Count the trained numbers beside the tables: routing, recency, the MLP over [u ; p], memory, context encoder.

    Source: mind_core.model.UserEncoder, mind_core.memory.RepeatMemory, mind_core.context.ContextEncoder.
    """
    dim, traits = config.dim, TRAITS
    mlp = sum(a * b + b for a, b in pairwise(mlp_widths(config, profile_features)))
    routing = dim**2 + (config.interests if config.shared else 0) if config.encoder == "mind" else 0
    weights = (config.max_history if config.recency else 0) + (traits if config.history == "distinct" else 0)
    memory = traits + 1 + (traits + 1) * MEMORY_HIDDEN + MEMORY_HIDDEN + dim + 1 if config.repeat == "memory" else 0
    block = 12 * dim**2 + 13 * dim
    context = config.context_layers * block + 5 * dim if config.context == "transformer" else 0
    return mlp + routing + weights + memory + context


def mlp_widths(config: ModelConfig, profile_features: int) -> list[int]:
    """Return the widths of [u ; p], the hidden layers, and an interest."""
    return [config.dim + profile_features * config.profile_dim, *config.hidden, config.dim]


def fixed_numbers(config: ModelConfig) -> int:
    """Count what is drawn once and never trained: what routing starts from, (K, L) or (K, d)."""
    if config.encoder != "mind":
        return 0
    return config.interests * (config.max_history if config.initial_logits == "position" else config.dim)


def model_parts(
    config: ModelConfig, items: int, item_features: list[FeatureSpec], profile_features: list[FeatureSpec]
) -> dict[str, int]:
    """Count the bytes of a model that has been built, and of ranking 128 users with it, by the settings they go to.

    Parameters
    ----------
    items : V, with padding and unknown.

    Returns
    -------
    By what takes them: the tables, the dense layers, the histories of a tile, its scores. Popularity has none of them.
    """
    if config.encoder == "popularity":
        return {"scores of 128 users (items)": FLOAT * TILE_USERS * items}
    item_rows = items + sum(spec.rows for spec in item_features)
    profile_rows = 1 + sum(spec.rows for spec in profile_features)
    dense = dense_parameters(config, len(profile_features)) + fixed_numbers(config)
    behaviours = TILE_USERS * config.max_history * (config.dim + TRAITS * config.uses_traits)
    return {
        "item table (dim)": FLOAT * config.dim * item_rows,
        "profile table (profile_dim)": FLOAT * config.profile_dim * profile_rows,
        "dense layers (dim, hidden, context_layers, max_history)": FLOAT * dense,
        "histories of 128 users (max_history, dim)": FLOAT * behaviours,
        "their interests (interests, max_history, dim)": FLOAT
        * TILE_USERS
        * config.interests
        * (config.max_history + config.dim),
        "their scores (interests, items)": FLOAT * TILE_USERS * (config.interests + 1) * items,
    }


def stored_bytes(parts: dict[str, int]) -> int:
    """Count those of `model_parts` that are weights, which a file of them holds."""
    return sum(size for name, size in parts.items() if name.startswith(STORED))


def factor_bytes(dim: int, items: int) -> int:
    """Count the bytes of finding the factors of the items: eight arrays of V x (d + SPARE); 7.2 were measured.

    Source: mind_core.factors.item_factors: directions, their image, the part of a portion, and what QR copies.
    """
    return 8 * FLOAT * items * (dim + SPARE)


def training_parts(
    config: ModelConfig, loss: LossConfig, parts: dict[str, int], *, optimizer: str, ranks: int, factored: int = 0
) -> dict[str, int]:
    """Add to `model_parts` what a training worker holds beside the model.

    Parameters
    ----------
    optimizer : of the tables.
    ranks : among which the item table's optimiser state is shared out.
    factored : items whose factors the table begins with; 0 where it is drawn.
    """
    if config.encoder == "popularity":
        return parts
    tables = sum(size for name, size in parts.items() if name.startswith(STORED[:2]))
    negatives = loss.uniform_negatives + loss.popularity_negatives if loss.kind != "full" else 0
    return {
        **parts,
        f"moments of the tables ({optimizer}, dim)": (2 * tables if optimizer == "adam" else tables // config.dim)
        // ranks,
        "moments of the dense layers (dim, hidden, context_layers, max_history)": 3
        * sum(size for name, size in parts.items() if name.startswith(STORED[2])),
        "negatives (uniform_negatives, popularity_negatives, dim)": 2 * FLOAT * negatives * (config.dim + 2),
        "factors at the start (init, dim)": factor_bytes(config.dim, factored),
    }
