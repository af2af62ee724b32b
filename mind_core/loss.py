"""Sampled softmax over a label and shared negatives, with logQ correction and accidental hits masked.

Two ways to score a user with several interests in training. The paper attends to the interests with the label and
scores everything with the one vector that results (`label_attention_scores`). Serving has no label: there an item's
score is its best match over the interests, and `best_match_scores` trains exactly that, so that no interest may score
a negative highly just because another one matched the label.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mind_core.attention import label_aware_attention


def label_attention_scores(
    interests: Tensor, own: Tensor, label: Tensor, negatives: Tensor, power: float, normalize: bool
) -> tuple[Tensor, Tensor]:
    """v_u . e with v_u from label-aware attention.  Source: eq. 8 and 9 of Li et al. 2019.

    Parameters
    ----------
    interests : (B, K, d), v_j.  own : (B, K) bool.
    label : (B, d), e of the labels.  negatives : (N, d), shared.
    power : p of the attention.
    normalize : scale v_u to norm 1.

    Returns
    -------
    (B,) scores of the labels, (B, N) of the negatives.
    """
    user, _ = label_aware_attention(interests, label, own, power)
    if normalize:
        user = functional.normalize(user, dim=-1)
    return (user * label).sum(1), user @ negatives.T


def best_match_scores(interests: Tensor, own: Tensor, label: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """max_j v_j . e over the user's own interests: the score at serving.  Source: section 4.6 of Li et al. 2019.

    Parameters and returns as in `label_attention_scores`.
    """
    others = torch.zeros(own.shape, dtype=interests.dtype, device=own.device).masked_fill(~own, float("-inf"))
    positive = (interests @ label.unsqueeze(-1)).squeeze(-1) + others  # (B, K)
    return positive.max(1).values, (interests @ negatives.T + others.unsqueeze(-1)).max(1).values


def sampled_softmax_loss(
    positive: Tensor,
    negative: Tensor,
    label_ids: Tensor,
    negative_ids: Tensor,
    log_expected: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """-log softmax of the label among itself and the shared negatives, one value per sample.

    A negative's logit is score / temperature - log E[count of i among the negatives], so that the sum over the
    negatives estimates the sum over the catalogue without bias. The label is not drawn, it is always there: its
    expected count is 1 and its correction 0. A negative that is the sample's own label is left out. With every item
    as a negative once and zero corrections this is the exact full softmax.

    Parameters
    ----------
    positive : (B,) scores of the labels.
    negative : (B, N) scores of the negatives.
    label_ids, negative_ids : (B,), (N,) item indices.
    log_expected : (N,) log expected counts of the negatives under the proposal.

    Returns
    -------
    (B,) float32.  Source: eq. 10 of Li et al. 2019; Bengio & Senecal 2008 for the correction, which many code bases
    also apply to the label: see Khrylchenko et al. 2025, "Correcting the LogQ Correction".
    """
    positive = positive.float() / temperature
    negative = negative.float() / temperature - log_expected
    negative = negative.masked_fill(label_ids.unsqueeze(1) == negative_ids, float("-inf"))
    return torch.cat([positive.unsqueeze(1), negative], 1).logsumexp(1) - positive
