"""Sampled softmax over a label and shared negatives, with logQ correction and accidental hits masked."""

from __future__ import annotations

import torch
from torch import Tensor


def sampled_softmax_loss(
    user: Tensor,
    label: Tensor,
    negatives: Tensor,
    label_ids: Tensor,
    negative_ids: Tensor,
    *,
    log_expected: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """-log softmax of the label among itself and the shared negatives, one value per sample.

    A negative's logit is v_u . e_i / temperature - log E[count of i among the negatives], so that the sum over the
    negatives estimates the sum over the catalogue without bias. The label is not drawn, it is always there: its
    expected count is 1 and its correction 0. A negative that is the sample's own label is left out. With every item
    as a negative once and zero corrections this is the exact full softmax.

    Parameters
    ----------
    user : (B, d), v_u.
    label : (B, d), e of the labels.
    negatives : (N, d).
    label_ids, negative_ids : (B,), (N,) item indices.
    log_expected : (N,) log expected counts of the negatives under the proposal.

    Returns
    -------
    (B,) float32.  Source: eq. 10 of Li et al. 2019; Bengio & Senecal 2008 for the correction, which many code bases
    also apply to the label: see Khrylchenko et al. 2025, "Correcting the LogQ Correction".
    """
    positive = (user * label).sum(1).float() / temperature  # (B,)
    others = (user @ negatives.T).float() / temperature - log_expected  # (B, N)
    others = others.masked_fill(label_ids.unsqueeze(1) == negative_ids, float("-inf"))
    return torch.cat([positive.unsqueeze(1), others], 1).logsumexp(1) - positive
