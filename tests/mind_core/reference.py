"""MIND in float64 NumPy, written from the specification (algorithm.md) and the paper, never from the code under test.

Plain loops wherever a loop is the clearest form. Names and symbols are the paper's: e_i item vectors, S the shared map,
b_ij routing logits, w_ij coupling coefficients, u_j capsules, v_j interests. Axes: B users, L behaviours, K interests,
d dimension, V item indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FIRST_REAL_ITEM = 2  # 0 is padding, 1 is unknown
PAD, UNKNOWN, MISSING = 0, 1, 2  # of a feature's values


# --- interests -------------------------------------------------------------------------------------------------------


def adaptive_interest_count(behaviours: int, interests: int) -> int:
    """K'_u = max(1, min(K, floor(log2 |I_u|))), by integer arithmetic: log2 rounded down is the bit length less one."""
    log2 = max(behaviours, 1).bit_length() - 1
    return max(1, min(interests, log2))


def squash(z: Floats) -> Floats:
    """(|z|^2 / (1 + |z|^2)) * z / |z|; the zero vector stays zero."""
    norm = math.sqrt(float(z @ z))
    if norm == 0.0:
        return np.zeros_like(z)
    return (norm**2 / (1 + norm**2)) * z / norm


def softmax(x: Floats) -> Floats:
    """Along the only axis; -inf entries get exactly 0."""
    e = np.exp(x - x.max())
    return e / e.sum()


def coupling(logits: Floats, real: Sequence[bool], own: int) -> Floats:
    """w (K, L): at each real behaviour a softmax over the first `own` interests; 0 everywhere else."""
    w = np.zeros_like(logits)
    for i in range(logits.shape[1]):
        if real[i]:
            w[:own, i] = softmax(logits[:own, i])
    return w


def b2i_routing(
    mapped: Floats,
    real: Sequence[bool],
    own: int,
    initial_logits: Floats,
    iterations: int,
    scale: float = 1.0,
    cosine: bool = False,
    importance: Sequence[float] | None = None,
) -> tuple[Floats, Floats]:
    """One user's capsules (K, d) and the last coupling coefficients (K, L).

    mapped : (L, d), S e_i.  real : (L,).  own : K'_u.  initial_logits : (K, L).
    importance : (L,) amount of each behaviour that goes into a capsule; where it goes does not depend on it.
    """
    amount = [1.0] * len(mapped) if importance is None else importance
    interests, behaviours = initial_logits.shape
    b = initial_logits.astype(np.float64).copy()
    u = np.zeros((interests, mapped.shape[1]))
    w = np.zeros_like(b)
    for iteration in range(iterations):
        w = coupling(b, real, own)
        for j in range(interests):
            z = np.zeros(mapped.shape[1])
            for i in range(behaviours):
                z += amount[i] * w[j, i] * mapped[i]
            u[j] = squash(z)
        if iteration < iterations - 1:
            for j in range(interests):
                for i in range(behaviours):
                    agreement = float(u[j] @ mapped[i])
                    if cosine:
                        norms = float(np.linalg.norm(u[j]) * np.linalg.norm(mapped[i]))
                        agreement = agreement / norms if norms > 0 else 0.0
                    b[j, i] += scale * agreement
    return u, w


def interests_from_capsules(
    capsules: Floats, profile: Floats, hidden: Sequence[tuple[Floats, Floats]], output: tuple[Floats, Floats]
) -> Floats:
    """v_j = W [ReLU layers]([u_j ; p_u]) + b for one user; weights are (out, in), as torch stores them."""
    v = np.zeros((len(capsules), len(output[1])))
    for j, u in enumerate(capsules):
        x = np.concatenate([u, profile])
        for weight, bias in hidden:
            x = np.maximum(weight @ x + bias, 0.0)
        v[j] = output[0] @ x + output[1]
    return v


def label_aware_attention(v: Floats, label: Floats, own: int, p: float) -> tuple[Floats, Floats]:
    """v_u (d,) and the weights (K,) of one user: softmax over own j of p * (v_j . e); inf = the first best match."""
    dots = v[:own] @ label
    weights = np.zeros(len(v))
    if math.isinf(p):
        weights[int(np.argmax(dots))] = 1.0
    else:
        weights[:own] = softmax(p * dots)
    return weights @ v, weights


# --- features --------------------------------------------------------------------------------------------------------


def feature_vector(kind: str, value: Any, table: Floats) -> Floats:
    """The embedding of one value of one feature.

    table : the feature's own rows: for a categorical or multi-valued feature row i is value i, for a number the rows
    are slope, intercept, missing.
    """
    if kind == "categorical":
        return table[value]
    if kind == "multi":
        if len(value) == 0:
            return np.zeros(table.shape[1])
        return np.mean([table[v] for v in value], axis=0)
    if math.isnan(value):
        return table[2]
    return value * table[0] + table[1]


def item_vector(identity: Floats, features: Sequence[Floats]) -> Floats:
    """e_i: the average of the id's embedding and of each feature's."""
    return np.mean([identity, *features], axis=0)


def profile_vector(features: Sequence[Floats]) -> Floats:
    """p_u: concatenation."""
    return np.concatenate(features)


# --- loss ------------------------------------------------------------------------------------------------------------


def log_expected_count(
    item: int,
    counts: Floats,
    labels: Floats,
    *,
    uniform: int,
    popular: int,
    alpha: float,
    in_batch: int,
) -> float:
    """log of n_u / V + n_p * count^alpha / sum + B * P(label = item); counts and labels over all V item indices."""
    catalogue = len(counts) - FIRST_REAL_ITEM
    expected = uniform / catalogue
    expected += popular * counts[item] ** alpha / sum(c**alpha for c in counts[FIRST_REAL_ITEM:])
    expected += in_batch * labels[item] / labels.sum()
    return math.log(expected)


def best_match(v: Floats, item: Floats, own: int) -> float:
    """f(u, i) = max_j v_j . e_i over the user's own interests."""
    return max(float(v[j] @ item) for j in range(own))


def sampled_softmax(
    scores: Floats,
    label: int,
    negatives: Sequence[int],
    log_expected: Floats,
    temperature: float = 1.0,
) -> float:
    """One sample's loss from the scores of all V items; log_expected over all V.

    The partition function is the label's own term, which is always there once, and an unbiased estimate of the others':
    each negative that is not the label, divided by how often it is expected.
    """
    label_term = math.exp(float(scores[label]) / temperature)
    others = [
        math.exp(float(scores[n]) / temperature) / math.exp(float(log_expected[n])) for n in negatives if n != label
    ]
    return math.log(label_term + sum(others)) - math.log(label_term)


def full_softmax(user: Floats, items: Floats, label: int, temperature: float = 1.0) -> float:
    """-log P(label) over the whole catalogue, item indices 2 and up."""
    logits = [float(user @ items[i]) / temperature for i in range(FIRST_REAL_ITEM, len(items))]
    return math.log(sum(math.exp(x) for x in logits)) - float(user @ items[label]) / temperature


# --- optimisers ------------------------------------------------------------------------------------------------------


class LazyAdamW:
    """AdamW on rows: a row's moments, decay and bias correction know only the steps that touched the row."""

    def __init__(self, weight: Floats, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999)):
        self.weight, self.decay, self.betas = weight.astype(np.float64).copy(), weight_decay, betas
        self.m, self.v = np.zeros_like(self.weight), np.zeros_like(self.weight)
        self.t = np.zeros(len(weight), dtype=int)

    def update(self, rows: Sequence[int], grad: Floats, rate: float) -> None:
        for row, g in zip(rows, grad, strict=True):
            if row == PAD:
                continue
            self.t[row] += 1
            self.m[row] = self.betas[0] * self.m[row] + (1 - self.betas[0]) * g
            self.v[row] = self.betas[1] * self.v[row] + (1 - self.betas[1]) * g * g
            m_hat = self.m[row] / (1 - self.betas[0] ** self.t[row])
            v_hat = self.v[row] / (1 - self.betas[1] ** self.t[row])
            self.weight[row] -= rate * self.decay * self.weight[row]
            self.weight[row] -= rate * m_hat / (np.sqrt(v_hat) + 1e-8)


class RowwiseAdagrad:
    """One accumulator per row: the running sum of the mean squared gradient."""

    def __init__(self, weight: Floats, weight_decay: float = 0.0):
        self.weight, self.decay = weight.astype(np.float64).copy(), weight_decay
        self.total = np.zeros(len(weight))

    def update(self, rows: Sequence[int], grad: Floats, rate: float) -> None:
        for row, g in zip(rows, grad, strict=True):
            if row == PAD:
                continue
            self.total[row] += float(np.mean(g * g))
            self.weight[row] -= rate * self.decay * self.weight[row]
            self.weight[row] -= rate * g / (math.sqrt(self.total[row]) + 1e-8)


# --- retrieval and metrics -------------------------------------------------------------------------------------------


def top_items(items: Floats, v: Floats, own: int, n: int, seen: Sequence[int] = ()) -> list[tuple[int, float, int]]:
    """[(item, score, interest)]: max_j v_j . e_i over own interests, by falling score, ties by item index."""
    found = []
    for i in range(FIRST_REAL_ITEM, len(items)):
        if i not in seen:
            scores = [float(v[j] @ items[i]) for j in range(own)]
            found.append((i, max(scores), int(np.argmax(scores))))
    return sorted(found, key=lambda x: (-x[1], x[0]))[:n]


def merge(items: NDArray[np.int64], scores: Floats, n: int) -> list[tuple[int, float, int]]:
    """[(item, best score, interest that gave it)] of one user's candidate lists (K, M); ties by item, then interest."""
    best: dict[int, tuple[float, int]] = {}
    for j in range(items.shape[0]):
        for item, score in zip(items[j].tolist(), scores[j].tolist(), strict=True):
            if item > 0 and score > -math.inf and (item not in best or score > best[item][0]):
                best[item] = (score, j)
    return sorted(((i, s, j) for i, (s, j) in best.items()), key=lambda x: (-x[1], x[0]))[:n]


def pessimistic_rank(scores: Sequence[float], target: int) -> int:
    """1 + the number of other items that score at least as high."""
    return 1 + sum(1 for i, s in enumerate(scores) if i != target and s >= scores[target])


def user_metrics(ranks: Sequence[int], n: int) -> dict[str, float]:
    """One user's metrics from the ranks of all of the user's targets."""
    in_top = [r for r in ranks if r <= n]
    ideal = sum(1 / math.log2(1 + r) for r in range(1, min(n, len(ranks)) + 1))
    return {
        f"hit_rate@{n}": 1.0 if in_top else 0.0,
        f"recall@{n}": len(in_top) / len(ranks),
        f"ndcg@{n}": sum(1 / math.log2(1 + r) for r in in_top) / ideal,
        f"mrr@{n}": 1 / min(in_top) if in_top else 0.0,
    }
