"""Label-aware attention: which of a user's interests should learn from this label (training only)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def label_aware_attention(interests: Tensor, label: Tensor, own: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Compute v_u = sum_j softmax_j(p * v_j . e_label) v_j over the user's own interests.

    The paper writes softmax(pow(v_j . e, p)), which is NaN for a negative dot and a fractional p, and underflows.
    This product has the same limits: p = 0 is the plain mean, p = inf picks the best match (ties: the first).

    Parameters
    ----------
    interests : (B, K, d), v_j.
    label : (B, d), e of the label item.
    own : (B, K) bool, at least one True per user.
    power : p >= 0.

    Returns
    -------
    user : (B, d), v_u.
    weights : (B, K), 0 for interests that are not the user's own.

    Source: Li et al. 2019, "Label-aware Attention Layer".

    Examples
    --------
    >>> interests = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> label, own = torch.tensor([[2.0, 1.0]]), torch.tensor([[True, True]])
    >>> [label_aware_attention(interests, label, own, power)[1].tolist() for power in (0, math.inf)]
    [[[0.5, 0.5]], [[1.0, 0.0]]]
    """
    agreement = (interests @ label.unsqueeze(-1)).squeeze(-1).masked_fill(~own, float("-inf"))  # (B, K)
    if math.isinf(power):
        weights = torch.zeros_like(agreement).scatter_(1, agreement.argmax(1, keepdim=True), 1.0)
    else:
        # p * -inf would be NaN at p = 0, so scale first and mask again
        scaled = (power * agreement.masked_fill(~own, 0.0)).masked_fill(~own, float("-inf"))
        weights = scaled.softmax(1)
    return (weights.unsqueeze(1) @ interests).squeeze(1), weights
