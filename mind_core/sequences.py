"""Behaviour sequences as flat arrays, and the training samples that lie in them.

A sample is a position in a sequence: its item is the label, the newest L items before it are the history. Samples are
never materialised; a batch finds its samples by their numbers and gathers their windows from the flat arrays, in a few
vectorised steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mind_core.features import Bags
from mind_core.shuffle import draw


@dataclass(frozen=True)
class Sequences:
    """n users' sequences, oldest first.

    items : (total,) item indices, flat.
    offsets : (n + 1,) int64; user u owns items[offsets[u]:offsets[u + 1]].
    profile : bags of the profile table, bag u * F + f, or None without profile features.
    """

    items: Tensor
    offsets: Tensor
    profile: Bags | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def to(self, device: torch.device | str) -> Sequences:
        profile = None if self.profile is None else self.profile.to(device)
        return Sequences(self.items.to(device), self.offsets.to(device), profile)

    def profile_of(self, users: Tensor) -> Bags | None:
        """The profile bags of `users` (B,): B * F bags."""
        if self.profile is None or len(self) == 0:
            return None
        features = len(self.profile) // len(self)
        index = users.unsqueeze(1) * features + torch.arange(features, device=users.device)
        return self.profile.select(index.flatten())


@dataclass(frozen=True)
class Histories:
    """A batch of padded histories, oldest first, padding at the end.

    items : (B, L) int64, 0 at padding.  mask : (B, L) bool.  profile : B * F bags or None.
    """

    items: Tensor
    mask: Tensor
    profile: Bags | None

    def __len__(self) -> int:
        return len(self.items)


def windows(sequences: Sequences, users: Tensor, ends: Tensor, max_history: int, width: int | None = None) -> Histories:
    """The newest `max_history` items before position `ends` of each user's sequence.

    Parameters
    ----------
    users : (B,) int64.
    ends : (B,) int64, absolute positions in `sequences.items`; the item there is not part of the window.
    width : L of the result; None: the longest window in the batch (at least 1).
    """
    starts = torch.maximum(sequences.offsets[users], ends - min(max_history, width or max_history))
    lengths = ends - starts
    if width is None:
        width = max(1, int(lengths.max())) if len(users) else 1
    place = torch.arange(width, device=users.device)
    mask = place < lengths.unsqueeze(1)
    index = torch.where(mask, starts.unsqueeze(1) + place, 0)
    items = torch.where(mask, sequences.items[index].long(), 0) if len(sequences.items) else torch.zeros_like(index)
    return Histories(items, mask, sequences.profile_of(users))


def full_histories(sequences: Sequences, users: Tensor, max_history: int, width: int | None = None) -> Histories:
    """Each user's newest `max_history` items: what serving sees."""
    return windows(sequences, users, sequences.offsets[users + 1], max_history, width)


@dataclass(frozen=True)
class Samples:
    """Where the training samples lie: `users` (S,) and `positions` (S,) of the labels in the flat items."""

    users: Tensor
    positions: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index: Tensor) -> Samples:
        return Samples(self.users[index], self.positions[index])


class AllTargets:
    """Every position but a sequence's first is a label: these samples by number, in file order, none of them stored."""

    def __init__(self, sequences: Sequences):
        self.sequences = sequences
        self.first = functional.pad((sequences.lengths - 1).clamp_(min=0).cumsum(0), (1, 0))  # (n + 1,) of each user

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, numbers: Tensor) -> Samples:
        """Samples `numbers` (S,) int64."""
        users = torch.searchsorted(self.first, numbers, right=True) - 1
        return Samples(users, self.sequences.offsets[users] + 1 + numbers - self.first[users])


class DrawnTargets:
    """`per_user` labels drawn uniformly, with replacement, from each user with at least two events; the draws are fixed
    by `key`. These samples by number, in file order, none of them stored."""

    def __init__(self, sequences: Sequences, per_user: int, *key: object):
        self.sequences, self.per_user, self.key = sequences, per_user, key
        self.users = (sequences.lengths >= 2).nonzero().squeeze(1)

    def __len__(self) -> int:
        return self.per_user * len(self.users)

    def __getitem__(self, numbers: Tensor) -> Samples:
        """Samples `numbers` (S,) int64."""
        users = self.users[numbers.div(self.per_user, rounding_mode="floor")]
        start = self.sequences.offsets[users]
        choices = self.sequences.offsets[users + 1] - start - 1
        return Samples(users, start + 1 + draw(numbers, choices, *self.key))


def hide_behaviours(mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Behaviour dropout: each behaviour is hidden with probability `share`, but a user's newest always stays."""
    newest = mask.sum(1, keepdim=True) - 1
    keep = torch.rand(mask.shape, generator=generator, device=mask.device) >= share
    return mask & (keep | (torch.arange(mask.shape[1], device=mask.device) == newest))
