"""Sampled softmax over a label and shared negatives, with logQ correction and accidental hits masked.

Two ways to score a user with several interests in training. The paper attends to the interests with the label and
scores everything with the one vector that results (`label_attention_vector`). Serving has no label: there an item's
score is its best match over the interests, and training on `own_vectors` trains exactly that, so that no interest may
score a negative highly just because another one matched the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from mind_core.attention import label_aware_attention

TILE_SCORES = 2**20  # scores computed at a time: 4 MB stay in a core's cache, and full softmax in bounded memory


@dataclass(frozen=True)
class OwnItems:
    """The distinct items of the users' histories, each scored exactly because the model remembers them.

    ids : (B, L) item indices; 0 where there is none.
    scores : (B, L), max_j v_j . e_i, the best match alone.
    memory : (B, L), r(u, i).
    """

    ids: Tensor
    scores: Tensor
    memory: Tensor

    def rows(self, index: Tensor) -> OwnItems:
        """Those of some users (B',)."""
        return OwnItems(self.ids[index], self.scores[index], self.memory[index])


def own_vectors(interests: Tensor, own: Tensor) -> Tensor:
    """The user's own interests, each foreign one replaced by the first, which changes no maximum over them.

    interests : (B, K, d), v_j.  own : (B, K) bool, the first column all True.  Returns (B, K, d).
    """
    return torch.where(own.unsqueeze(-1), interests, interests[:, :1])


def label_attention_vector(interests: Tensor, own: Tensor, label: Tensor, power: float, normalize: bool) -> Tensor:
    """Make v_u of the interests as the label attends to them.  Source: Li et al. 2019, "Label-aware Attention Layer".

    Parameters
    ----------
    interests : (B, K, d), v_j.  own : (B, K) bool.
    label : (B, d), e of the labels.
    power : p of the attention.
    normalize : scale v_u to norm 1.

    Returns
    -------
    (B, 1, d).
    """
    user, _ = label_aware_attention(interests, label, own, power)
    return (functional.normalize(user, dim=-1) if normalize else user).unsqueeze(1)


def sampled_softmax_loss(
    vectors: Tensor,
    label: Tensor,
    negatives: Tensor,
    label_ids: Tensor,
    negative_ids: Tensor,
    log_expected: Tensor,
    temperature: float = 1.0,
    own: OwnItems | None = None,
    left_out: Tensor | None = None,
) -> Tensor:
    """Average over the batch -log softmax of the label among itself and the shared negatives.

    loss = -log( exp s / (exp s + sum_n exp(s_n - log E[count of n])) ), with s = max_k v_k . e / temperature

    An item's score is max_k v_k . e. A negative's logit is score / temperature - log E[count of i among the
    negatives], so that the sum over the negatives estimates the sum over the catalogue without bias. The label is not
    drawn, it is always there: its expected count is 1 and its correction 0. A negative that is the sample's own label
    is left out. With every item as a negative once and zero corrections this is the exact full softmax.

    With `own`, f = max_k v_k . e + r, and the user's own items are all there too, each once: the negatives estimate the
    sum over the rest of the catalogue, and a negative that is one of the user's own items is left out.

    Parameters
    ----------
    vectors : (B, K, d), what scores a user: `own_vectors` or `label_attention_vector`.
    label : (B, d), e of the labels.  negatives : (N, d), shared.
    label_ids, negative_ids : (B,), (N,) item indices.
    log_expected : (N,) log expected counts of the negatives under the proposal.
    own : the users' own items, for a model with a memory of them.
    left_out : (B, E) item indices that are no candidates of the sample, 0 where there is none: negatives that are one
        of them are left out. A label stays in.

    Returns
    -------
    A scalar, at least float32.  Source: Li et al. 2019, "Training & Serving"; Bengio & Senecal 2008 for the correction,
    which many code bases also apply to the label: see Khrylchenko et al. 2025, "Correcting the LogQ Correction".

    Examples
    --------
    A negative of the label's own score, expected twice among the negatives, counts as half of it: log(1 + 1 / 2).

    >>> user, same = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[1.0, 1.0]])
    >>> ids, expected = (torch.tensor([2]), torch.tensor([3])), torch.tensor([2.0]).log()
    >>> round(float(sampled_softmax_loss(user, same, same, *ids, expected).exp()), 4)
    1.5
    """
    device = vectors.device.type
    if torch.is_autocast_enabled(device):  # a custom function does not take part in autocast by itself
        dtype = torch.get_autocast_dtype(device)
        vectors, label, negatives = vectors.to(dtype), label.to(dtype), negatives.to(dtype)
    positive = (vectors @ label.unsqueeze(-1)).squeeze(-1).amax(1, keepdim=True)  # (B, 1)
    exact, exact_ids = positive.to(torch.promote_types(positive.dtype, torch.float32)), label_ids.unsqueeze(1)
    if own is not None:
        is_label = own.ids == exact_ids
        exact = exact + (own.memory * is_label).sum(1, keepdim=True)
        scores = (own.scores + own.memory).masked_fill(is_label | (own.ids == 0), float("-inf"))
        exact, exact_ids = torch.cat([exact, scores.to(exact.dtype)], 1), torch.cat([exact_ids, own.ids], 1)
    if left_out is not None:
        exact_ids = torch.cat([exact_ids, left_out], 1)
    slot, place, count = places(negative_ids, exact_ids)
    loss: Tensor = _BestMatchSoftmax.apply(  # type: ignore[no-untyped-call]
        vectors / temperature, exact / temperature, slot, place, count, negatives, log_expected
    )
    return loss


def places(negative_ids: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, int]:
    """Find `ids` among the negatives: what `contained` asks, for all rows at once.

    Returns
    -------
    slot (B, E), which of the distinct negatives each of `ids` is, or their number D if it was not drawn; place (N,),
    which of them each negative is; D.
    """
    distinct, place = negative_ids.unique(return_inverse=True)
    count = len(distinct)
    if count and int(distinct[-1] - distinct[0]) == count - 1:  # all of a range: nothing to search
        slot = ids - distinct[0]
        return torch.where((slot < 0) | (slot >= count), count, slot), place, count
    slot = torch.searchsorted(distinct, ids).clamp_(max=count - 1)
    return torch.where(distinct[slot] == ids, slot, count), place, count


def contained(slot: Tensor, place: Tensor, count: int) -> Tensor:
    """(B, N) bool: negative n is one of the items of row b.

    slot, place, count : as `places` finds them.

    Examples
    --------
    >>> contained(*places(torch.tensor([5, 7, 5]), torch.tensor([[7, 0], [3, 5]]))).tolist()
    [[False, True, False], [True, False, True]]
    """
    if slot.shape[1] == 1:
        return slot == place
    found = torch.zeros(len(slot), count + 1, dtype=torch.bool, device=slot.device)
    return found.scatter_(1, slot, True)[:, place]


class _BestMatchSoftmax(torch.autograd.Function):
    """mean_b( log(sum_e exp x_be + sum_n exp s_bn) - x_b0 ), s_bn = max_k v_bk . e_n - c_n, -inf where n is left out.

    x_b0 is the score of the label, the other x_be those of the user's own items, if the model remembers them.

    The gradient is made in the forward pass, one tile of users at a time: the (B, K, N) scores are never held, and
    what is left beside three matrix products stays in the cache. Equal best matches share the gradient, as in amax.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        vectors: Tensor,
        exact: Tensor,
        slot: Tensor,
        place: Tensor,
        drawn: int,
        negatives: Tensor,
        log_expected: Tensor,
    ) -> Tensor:
        users, count, dim = vectors.shape
        tile = max(1, TILE_SCORES // (count * len(negatives)))
        grad_vectors, grad_negatives = [], torch.zeros(negatives.shape, dtype=exact.dtype, device=negatives.device)
        losses, shares = [], []
        for start in range(0, users, tile):
            part = slice(start, start + tile)
            own = vectors[part].transpose(0, 1).reshape(-1, dim)  # (K * tile, d)
            scores = (own @ negatives.T).view(count, -1, len(negatives))  # (K, tile, N)
            best = scores.amax(0)
            logits = (best.to(exact.dtype) - log_expected).masked_fill_(
                contained(slot[part], place, drawn), float("-inf")
            )
            top = torch.maximum(logits.amax(1), exact[part].amax(1))
            exponents, exact_exponents = logits.sub_(top.unsqueeze(1)).exp_(), (exact[part] - top.unsqueeze(1)).exp()
            total = exponents.sum(1) + exact_exponents.sum(1)
            losses.append(top + total.log() - exact[part, 0])
            shares.append(exact_exponents / total.unsqueeze(1))
            slope = exponents.mul_((1 / (users * total)).unsqueeze(1))  # d loss / d s_bn
            winners = scores.eq_(best)  # 1 where interest k is the best match
            if count > 1:
                slope.div_(winners.sum(0))
            grad_scores = winners.mul_(slope).view(-1, len(negatives))
            grad_vectors.append((grad_scores @ negatives).view(count, -1, dim).transpose(0, 1))
            grad_negatives += grad_scores.T @ own
        grad_exact = torch.cat(shares)
        grad_exact[:, 0] -= 1
        ctx.save_for_backward(torch.cat(grad_vectors), grad_exact / users, grad_negatives.to(negatives.dtype))
        return torch.cat(losses).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        vectors, exact, negatives = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * vectors, grad * exact, None, None, None, grad * negatives, None
