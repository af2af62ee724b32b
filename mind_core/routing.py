"""B2I dynamic routing: behaviours vote for interest capsules ("B2I Dynamic Routing" and algorithm 1 of Li et al. 2019).

Axes: B users, L behaviours, K interests, d dimension. What to notice:

- one map S is shared by all behaviours and interests, so equal initial logits would give equal capsules for ever:
  they start from noise of standard deviation sigma, and are never trained;
- the softmax runs over **interests**: every behaviour hands out one unit of attention among the user's capsules;
- logits accumulate over the iterations; gradients flow through the last one only;
- padding and interests beyond K'_u get exactly nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHORTEST = 1e-12  # norm that is divided by, at least
SPREAD = 1e-2  # of behaviours about their mean, at least: less is the rounding of equal ones


def adaptive_interest_count(history_length: Tensor, interests: int) -> Tensor:
    """K'_u = max(1, min(K, floor(log2 |I_u|))).

    Parameters
    ----------
    history_length : (B,) integer, number of behaviours; 0 counts as 1.
    interests : K.

    Returns
    -------
    (B,) int64.  Source: Li et al. 2019, "Dynamic Interest Number"; the paper gives no rounding, we use floor.

    Examples
    --------
    >>> adaptive_interest_count(torch.tensor([0, 1, 7, 8, 1000]), interests=4).tolist()
    [1, 1, 2, 3, 4]
    """
    # exact where log2 in float32 rounds: log2(8) must be 3, not 2.9999998; and every runtime can compare
    powers = 2 ** torch.arange(1, min(interests, 62) + 1, device=history_length.device)
    return (history_length.unsqueeze(-1) >= powers).sum(-1).clamp(1, interests)


def squash(z: Tensor) -> Tensor:
    """Shorten vectors to a norm below 1: (|z|^2 / (1 + |z|^2)) * z / |z| along the last axis; 0 maps to 0.

    Source: Sabour et al. 2017, "Dynamic Routing Between Capsules", eq. 1; in Li et al. 2019, "B2I Dynamic Routing".

    Examples
    --------
    >>> squash(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))  # of norm 5: 25 / 26 is left
    tensor([[0.5769, 0.7692],
            [0.0000, 0.0000]])
    """
    square = z.square().sum(-1, keepdim=True)
    return z * (square / (1 + square) * torch.rsqrt(square + 1e-12))


def item_logits(behaviours: Tensor, mask: Tensor, directions: Tensor, sigma: float, pseudocount: float = 0.0) -> Tensor:
    """Make initial routing logits of the items: b_ij = sigma * sqrt(d) * w_j . (ê_i - m) / s, with ê = e / |e|.

    m is the mean ê of the user's behaviours and s = sqrt(1 - |m|^2) their spread about it: what all of them have in
    common sends none of them anywhere, so that no interest gets them all, and logits have about the deviation sigma,
    as a normal draw has, however alike the items are. Which of two items is nearer to an interest depends neither on
    where they stand nor on whose history it is. Nothing is differentiated: the logits start the routing, no more.

    Parameters
    ----------
    behaviours : (W, L, d).
    mask : (B, L) bool, False at padding; rows w * B / W to (w + 1) * B / W - 1 look at window w.
    directions : (K, d), w_j of norm 1.
    pseudocount : c, behaviours without a direction that m counts beside the user's n: m = sum_i ê_i / (n + c).

    Returns
    -------
    (B, K, L), 0 at padding.

    Examples
    --------
    >>> item_logits(torch.tensor([[[3.0, 0.0], [0.0, 0.5]]]), torch.ones(1, 2, dtype=torch.bool), torch.eye(2), sigma=1)
    tensor([[[ 1.0000, -1.0000],
             [-1.0000,  1.0000]]])
    """
    still, samples = behaviours.detach(), mask.shape[0] // behaviours.shape[0]
    inverse = 1 / torch.linalg.vector_norm(still, dim=-1).clamp(min=SHORTEST).unsqueeze(1)  # (W, 1, L); no copy of ê
    weights = evenly(mask, pseudocount).to(still.dtype) * inverse.repeat_interleave(samples, 0)
    mean = taken_in(weights, still).squeeze(1)  # (B, d), m
    spread = (1 - mean.square().sum(1)).clamp(min=SPREAD**2).sqrt()
    logits: Tensor = directions @ still.transpose(1, 2) * inverse  # (W, K, L)
    logits = logits.repeat_interleave(samples, 0) - (mean @ directions.T).unsqueeze(2)
    scale = sigma * behaviours.shape[-1] ** 0.5 / spread
    centred: Tensor = logits * scale.view(-1, 1, 1) * mask.unsqueeze(1)
    return centred


def coupling(logits: Tensor, mask: Tensor, own: Tensor) -> Tensor:
    """Coupling coefficients w_ij: softmax of the routing logits over a user's own interests j.

    Parameters
    ----------
    logits : (B, K, L).
    mask : (B, L) bool, False at padding.
    own : (B, K) bool, False for interests beyond K'_u; at least one per user.

    Returns
    -------
    (B, K, L): w_ij = exp(b_ij) / sum_k exp(b_ik) over K at real behaviours, 0 at padding.

    Examples
    --------
    >>> logits = torch.tensor([[[0.0, 2.0], [0.0, 2.0], [9.0, 9.0]]])  # K = 3, of which the user has 2; L = 2
    >>> coupling(logits, torch.tensor([[True, False]]), torch.tensor([[True, True, False]])).tolist()
    [[[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]]
    """
    weights = logits.masked_fill(~own.unsqueeze(-1), float("-inf")).softmax(dim=1)
    return weights * mask.unsqueeze(1)


def b2i_routing(
    behaviours: Tensor,
    mask: Tensor,
    own: Tensor,
    initial_logits: Tensor,
    iterations: int,
    *,
    shared_map: Tensor | None = None,
    scale: float = 1.0,
    update: str = "dot",
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Route behaviours to interest capsules.

    Parameters
    ----------
    behaviours : (W, L, d), e_i, oldest first. With B = W * P, rows w * P to w * P + P - 1 of all else look at w.
    mask : (B, L) bool, False at padding.
    own : (B, K) bool, the user's own interests.
    initial_logits : (K, L) or (B, K, L), b_ij, of deviation sigma.
    iterations : r >= 1.
    shared_map : (d, d), S as it stands right of a row vector; None: the identity.
    scale : multiplies the agreement added to the logits; 1 is the paper.
    update : "dot" adds u_j . S e_i, "cosine" its cosine.
    importance : (B, L), how much of a behaviour a capsule takes in: z_j = sum_i g_i w_ij S e_i. It has no part in
        where the behaviour goes. None is the paper: 1 for all.

    Returns
    -------
    capsules : (B, K, d), u_j, each of norm < 1.
    weights : (B, K, L), the coupling coefficients of the last iteration, for diagnosis.

    Source: algorithm 1 of Li et al. 2019.
    """
    if importance is None:
        importance = behaviours.new_ones(mask.shape)
    still, amount = behaviours.detach(), importance.detach().unsqueeze(1)
    still_map = None if shared_map is None else shared_map.detach()
    logits = initial_logits.expand(mask.shape[0], -1, -1)
    with torch.no_grad():
        for _ in range(iterations - 1):
            capsules = squash(_mapped(taken_in(amount * coupling(logits, mask, own), still), still_map))  # (B, K, d)
            logits = logits + scale * _agreement(capsules, still, still_map, update)  # (B, K, L), accumulated
        weights = coupling(logits, mask, own)
    taken = taken_in((importance.unsqueeze(1) * weights).to(behaviours.dtype), behaviours)
    return squash(_mapped(taken, shared_map)), weights


def evenly(mask: Tensor, pseudocount: float = 0.0) -> Tensor:
    """Weigh each of a user's n behaviours with 1 / (n + pseudocount).  mask (B, L) to (B, 1, L)."""
    return (mask / (mask.sum(1, keepdim=True).clamp(min=1) + pseudocount)).unsqueeze(1)


def taken_in(weights: Tensor, behaviours: Tensor) -> Tensor:
    """Sum behaviours (W, L, d) by weights (B, K, L), of which B / W rows share a window.  (B, K, d).

    Examples
    --------
    One window, and two samples of it with one interest each:

    >>> taken_in(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
    [[[1.0, 2.0]], [[4.0, 6.0]]]
    """
    windows, length, _ = behaviours.shape
    return (weights.reshape(windows, -1, length) @ behaviours).view(*weights.shape[:2], -1)


def products(vectors: Tensor, behaviours: Tensor) -> Tensor:
    """Multiply vectors (B, K, d) with the behaviours (W, L, d) of their window.  (B, K, L)."""
    windows, length, dim = behaviours.shape
    # this way round the gradient of the behaviours lies in memory as they do: the other one is as long a copy more
    found = behaviours @ vectors.reshape(windows, -1, dim).transpose(1, 2)  # (W, L, B / W * K)
    return found.transpose(1, 2).reshape(*vectors.shape[:2], length)


def _mapped(vectors: Tensor, shared_map: Tensor | None) -> Tensor:
    """S is linear: mapping the K sums instead of the L behaviours gives the same and costs a K / L of it."""
    return vectors if shared_map is None else vectors @ shared_map


def _agreement(capsules: Tensor, behaviours: Tensor, shared_map: Tensor | None, update: str) -> Tensor:
    """u_j . S e_i = S^T u_j . e_i, or the cosine.  (B, K, L)."""
    if update == "cosine":
        capsules = torch.nn.functional.normalize(capsules, dim=-1)
        return products(capsules, torch.nn.functional.normalize(_mapped(behaviours, shared_map), dim=-1))
    return products(capsules if shared_map is None else capsules @ shared_map.T, behaviours)
