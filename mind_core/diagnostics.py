"""Is the routing doing anything? Figures that tell a working multi-interest model from a collapsed one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from mind_core.inference import MINDRetriever
from mind_core.sequences import Histories

COLLAPSED_ABOVE = 0.9  # mean cosine between a user's interests at which K vectors are one vector in disguise


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether no number in any of the tensors is infinite or NaN.

    >>> all_finite([torch.ones(2), torch.tensor([1, 2])]), all_finite([torch.tensor([1.0, float("nan")])])
    (True, False)
    """
    found = [torch.isfinite(tensor).all() for tensor in tensors]
    return not found or bool(torch.stack(found).all())  # one wait for the device


def pairwise_cosine(interests: Tensor, own: Tensor) -> Tensor:
    """Average the cosine between different own interests of each user, (B,); NaN for users with a single one.

    interests : (B, K, d).  own : (B, K) bool.
    """
    unit = functional.normalize(interests, dim=-1)
    cosine = unit @ unit.transpose(1, 2)  # (B, K, K)
    pairs = (own.unsqueeze(1) & own.unsqueeze(2)).float()
    pairs.diagonal(dim1=1, dim2=2).zero_()
    return (cosine * pairs).sum((1, 2)) / pairs.sum((1, 2))


def coupling_entropy(weights: Tensor, mask: Tensor, own: Tensor) -> Tensor:
    """Average a behaviour's coupling entropy over log K'_u, (B,): 1 = spread evenly, 0 = one interest each.

    weights : (B, K, L).  NaN for users with a single interest.
    """
    entropy: Tensor = -torch.special.xlogy(weights, weights).sum(1)  # (B, L)
    mean = (entropy * mask).sum(1) / mask.sum(1).clamp(min=1)
    return mean / own.sum(1).float().log()


def unmoved_share(weights: Tensor, initial_logits: Tensor, mask: Tensor, own: Tensor) -> Tensor:
    """Return (B,) the share of a user's behaviours whose interest the initial logits alone would have picked.

    1 = routing changed nothing, the interests go by position; 1 / K'_u = chance. NaN for users with a single interest.

    weights : (B, K, L), of the last iteration.  initial_logits : (K, L).
    """
    initial = initial_logits.masked_fill(~own.unsqueeze(-1), float("-inf")).argmax(1)  # (B, L)
    same = (weights.argmax(1) == initial) & mask
    return torch.where(own.sum(1) > 1, same.sum(1) / mask.sum(1), float("nan"))


def cluster_agreement(weights: Tensor, mask: Tensor, clusters: Tensor) -> Tensor:
    """Compare a user's behaviours by interest and by true cluster: the adjusted Rand index, (B,).

    A behaviour belongs to the interest with its largest coupling coefficient. 1 = the interests are the clusters,
    0 = no better than chance (always so for one interest). NaN where all behaviours are of one cluster, or fewer than
    two: there is nothing to tell apart.

    Parameters
    ----------
    weights : (B, K, L) coupling coefficients.  mask : (B, L) bool.
    clusters : (B, L) int64 true cluster of each behaviour; any value at padding.

    Source: Hubert & Arabie 1985, eq. 5.
    """
    interest = functional.one_hot(weights.argmax(1), weights.shape[1]) * mask.unsqueeze(-1)  # (B, L, K)
    truth = functional.one_hot(clusters, int(clusters.max()) + 1) * mask.unsqueeze(-1)  # (B, L, C)
    table = (interest.transpose(1, 2) @ truth).double()  # (B, K, C) behaviours by interest and cluster

    def pairs(counts: Tensor) -> Tensor:
        return counts * (counts - 1) / 2

    together = pairs(table).sum((1, 2))
    by_interest, by_cluster = pairs(table.sum(2)).sum(1), pairs(table.sum(1)).sum(1)
    total = pairs(table.sum((1, 2)))
    chance = by_interest * by_cluster / total
    possible = (by_interest + by_cluster) / 2 - chance
    agreement = torch.where(possible == 0, 1.0, (together - chance) / possible)  # all apart in both groupings
    return torch.where(by_cluster == total, float("nan"), agreement)


def routing_diagnostics(retriever: MINDRetriever, histories: Histories) -> dict[str, float]:
    """Average, over users with several interests, what section 2 of the model's specification says to watch.

    Returns
    -------
    routing/map_norm : mean |S e_i| of the behaviours; routing moves logits by at most that much per iteration.
    routing/coupling_entropy : see `coupling_entropy`.
    routing/unmoved_share : see `unmoved_share`.
    routing/interest_cosine : see `pairwise_cosine`.
    routing/interest_collapse : 1 if the cosine is above COLLAPSED_ABOVE.
    routing/interests_per_user : mean K'_u over all users.
    """
    interests, own, weights = retriever.route(histories)
    mask = torch.zeros(weights.shape[0], weights.shape[2], dtype=torch.bool, device=weights.device)
    mask[:, : histories.mask.shape[1]] = histories.mask
    encoder = retriever.model.encoder
    norms = (retriever.behaviour_vectors[histories.items[histories.mask]] @ encoder.shared_map).norm(dim=1)
    cosine = pairwise_cosine(interests, own).nanmean().item()
    return {
        "routing/map_norm": norms.mean().item(),
        "routing/coupling_entropy": coupling_entropy(weights, mask, own).nanmean().item(),
        "routing/unmoved_share": unmoved_share(weights, encoder.routing_logits, mask, own).nanmean().item(),
        "routing/interest_cosine": cosine,
        "routing/interest_collapse": float(cosine > COLLAPSED_ABOVE),
        "routing/interests_per_user": own.sum(1).float().mean().item(),
    }
