"""Is the routing doing anything? Figures that tell a working multi-interest model from a collapsed one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from mind_core.inference import MINDRetriever
from mind_core.sequences import Histories, Sequences, full_histories, windows

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

    weights : (B, K, L), of the last iteration.  initial_logits : (K, L) or (B, K, L).
    """
    initial = initial_logits.masked_fill(~own.unsqueeze(-1), float("-inf")).argmax(1)  # (B, L)
    same = (weights.argmax(1) == initial) & mask
    return torch.where(own.sum(1) > 1, same.sum(1) / mask.sum(1), float("nan"))


def moved_share(before: Tensor, after: Tensor, mask: Tensor, interests: int) -> Tensor:
    """(B,) share of behaviours whose interest is another one than before, interests being matched to move the fewest.

    before, after : (B, L) int64, the interest of each behaviour.  mask : (B, L) bool.  NaN without behaviours.

    Examples
    --------
    Interests that merely swap their numbers have moved nothing:

    >>> before = torch.tensor([[0, 0, 1]])
    >>> moved_share(before, 1 - before, torch.ones(1, 3, dtype=torch.bool), interests=2).tolist()
    [0.0]
    """
    one, other = (functional.one_hot(each, interests) * mask.unsqueeze(-1) for each in (before, after))
    table = one.transpose(1, 2) @ other  # (B, K, K) behaviours by their interest before and after
    # the best matching of the first |S| interests to those in S, for all sets S: K 2^K steps, not K!
    best = [table.new_zeros(len(table))] + [table.new_full((len(table),), -1) for _ in range(2**interests - 1)]
    for chosen in range(1, 2**interests):
        row = chosen.bit_count() - 1
        for column in range(interests):
            if chosen >> column & 1:
                best[chosen] = torch.maximum(best[chosen], best[chosen ^ (1 << column)] + table[:, row, column])
    total = mask.sum(1)
    return torch.where(total > 0, 1 - best[-1] / total, float("nan"))


def moved_by_one_event(retriever: MINDRetriever, sequences: Sequences, users: Tensor) -> Tensor:
    """(B,) `moved_share` of the behaviours that are in the window both before and after the user's newest event.

    NaN for users with a single interest, or without a behaviour that is in both. A behaviour belongs to the interest
    with its largest coupling coefficient.
    """
    view, ends = retriever.view, sequences.offsets[users + 1]
    now = full_histories(sequences, users, view, view.max_history)
    earlier = torch.maximum(ends - 1, sequences.offsets[users])
    then = windows(sequences, users, earlier, view, view.max_history)
    (_, own, weights), (_, _, weights_then) = retriever.route(now), retriever.route(then)
    if view.distinct:
        same = (then.items.unsqueeze(2) == now.items.unsqueeze(1)) & then.mask.unsqueeze(2) & now.mask.unsqueeze(1)
        kept, place = same.any(2), same.int().argmax(2)
        # the newest event's own item stands elsewhere now, with other traits: it is not a behaviour that was left alone
        kept &= then.items != sequences.items[ends - 1].long().unsqueeze(1)
    else:
        gone = then.mask.sum(1) + 1 - now.mask.sum(1)  # 1 where the window was full
        place = torch.arange(view.max_history, device=users.device) - gone.unsqueeze(1)
        kept = then.mask & (place >= 0)
    after = weights.argmax(1).gather(1, place.clamp(min=0))
    moved = moved_share(weights_then.argmax(1), after, kept, weights.shape[1])
    return torch.where(own.sum(1) > 1, moved, float("nan"))


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

    `moved_by_one_event`, which needs the sequences, is not among them.
    """
    interests, own, weights = retriever.route(histories)
    mask = torch.zeros(weights.shape[0], weights.shape[2], dtype=torch.bool, device=weights.device)
    mask[:, : histories.mask.shape[1]] = histories.mask
    encoder = retriever.model.encoder
    items = functional.pad(histories.items, (0, mask.shape[1] - histories.items.shape[1]))
    initial = encoder.initial_logits(functional.embedding(items, retriever.behaviour_vectors), mask)
    norms = (retriever.behaviour_vectors[histories.items[histories.mask]] @ encoder.shared_map).norm(dim=1)
    cosine = pairwise_cosine(interests, own).nanmean().item()
    return {
        "routing/map_norm": norms.mean().item(),
        "routing/coupling_entropy": coupling_entropy(weights, mask, own).nanmean().item(),
        "routing/unmoved_share": unmoved_share(weights, initial, mask, own).nanmean().item(),
        "routing/interest_cosine": cosine,
        "routing/interest_collapse": float(cosine > COLLAPSED_ABOVE),
        "routing/interests_per_user": own.sum(1).float().mean().item(),
    }
