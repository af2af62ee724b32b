"""Behaviour sequences as flat arrays, and the training samples that lie in them.

A sample is a position in a sequence: its item is the label, the newest L items before it are the history. Samples are
never materialised; a batch finds its samples by their numbers and gathers their windows from the flat arrays, in a few
vectorised steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from mind_core.features import Bags
from mind_core.repeats import TRAITS, Repeats, find_repeats, traits_of
from mind_core.shuffle import draw

REACH = 4  # a history of L distinct items is looked for among the newest REACH * L events


@dataclass(frozen=True)
class Sequences:
    """n users' sequences, oldest first.

    items : (total,) item indices, flat.
    offsets : (n + 1,) int64; user u owns items[offsets[u]:offsets[u + 1]].
    profile : bags of the profile table, bag u * F + f, or None without profile features.
    moments : (total,) int32, how many events back the user's first event of the same moment is, 0 at that event: of a
        basket, say. A history then ends before the moment of its label. None: it ends at its label.
    past : (n,) int64, how many of a user's oldest events are too old to be labels. None: none of them.
    """

    items: Tensor
    offsets: Tensor
    profile: Bags | None = None
    moments: Tensor | None = None
    past: Tensor | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    @property
    def before_labels(self) -> Tensor:
        """Count the oldest events of each user that are no labels, (n,); all events where none is too old to be one."""
        return self.lengths if self.past is None else self.past

    def first_labels(self, users: Tensor | slice = slice(None)) -> Tensor:
        """Where the first label of some users may stand, (B,): never at the first event, which nothing comes before."""
        return self.offsets[:-1][users] + (1 if self.past is None else self.past[users].clamp(min=1))

    def choices(self) -> Tensor:
        """Count the events of each user that may be labels, (n,)."""
        return (self.offsets[1:] - self.first_labels()).clamp_(min=0)

    @cached_property
    def repeats(self) -> Repeats:
        """Where each event's item comes again; found once, when it is first asked for."""
        return find_repeats(self.items, self.offsets)

    def to(self, device: torch.device | str) -> Sequences:
        profile = None if self.profile is None else self.profile.to(device)
        of_labels = (None if each is None else each.to(device) for each in (self.moments, self.past))
        return Sequences(self.items.to(device), self.offsets.to(device), profile, *of_labels)

    def profile_of(self, users: Tensor) -> Bags | None:
        """The profile bags of `users` (B,): B * F bags."""
        if self.profile is None or len(self) == 0:
            return None
        features = len(self.profile) // len(self)
        index = users.unsqueeze(1) * features + torch.arange(features, device=users.device)
        return self.profile.select(index.flatten())


@dataclass(frozen=True)
class View:
    """What of a sequence a model sees.

    max_history : L, behaviours at most.
    distinct : a behaviour is an item, at its newest event; otherwise it is an event.
    traits : behaviours come with what `traits_of` says of their items.
    """

    max_history: int
    distinct: bool = False
    traits: bool = False


@dataclass(frozen=True)
class Histories:
    """A batch of padded histories, oldest first, padding at the end.

    items : (B, L) int64, 0 at padding.  mask : (B, L) bool.  profile : B * F bags or None.
    newest : (B, L) bool, the newest event of its item; all of the mask with View.distinct. None without View.traits.
    traits : (B, L, T) float32, of the items at their newest events, 0 elsewhere; None without View.traits.
    """

    items: Tensor
    mask: Tensor
    profile: Bags | None
    newest: Tensor | None = None
    traits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.items)


def windows(sequences: Sequences, users: Tensor, ends: Tensor, view: View, width: int | None = None) -> Histories:
    """Cut out the newest behaviours before position `ends` of each user's sequence.

    Parameters
    ----------
    users : (B,) int64.
    ends : (B,) int64, absolute positions in `sequences.items`; the item there is not part of the window.
    width : L of the result; None: the longest window in the batch (at least 1).

    Notes
    -----
    The newest L distinct items are looked for among the newest REACH * L events. What is said of an item (`traits_of`)
    counts all of its events before `ends`.
    """
    most = min(view.max_history, width or view.max_history)
    index, mask = _newest_events(sequences, users, ends, REACH * most if view.distinct else most)
    if view.distinct:
        index, mask = _distinct(sequences.repeats, index, mask, ends, most)
    if width is not None:
        index, mask = (functional.pad(each, (0, width - each.shape[1])) for each in (index, mask))
    items = torch.where(mask, sequences.items[index].long(), 0) if len(sequences.items) else torch.zeros_like(index)
    profile = sequences.profile_of(users)
    if not view.traits:
        return Histories(items, mask, profile)
    return Histories(items, mask, profile, *_remembered(sequences, users, index, mask, ends))


def _remembered(
    sequences: Sequences, users: Tensor, index: Tensor, mask: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """Say which of the behaviours at `index` (B, L) are the newest of their items before `ends`, and their traits.

    Returns
    -------
    newest (B, L) bool, traits (B, L, T), 0 elsewhere: as in `Histories`.
    """
    newest = mask & _is_newest(sequences.repeats, index, ends)
    if not len(sequences.items):
        return newest, torch.zeros(*mask.shape, len(TRAITS), device=mask.device)
    age, length = ends.unsqueeze(1) - 1 - index, (ends - sequences.offsets[users]).unsqueeze(1)
    traits = traits_of(sequences.repeats, index, age.clamp(min=0), length)
    return newest, torch.where(newest.unsqueeze(-1), traits, 0.0)


def _newest_events(sequences: Sequences, users: Tensor, ends: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Places (B, width) of the newest `most` events before `ends`, oldest first, and which of them there are."""
    starts = torch.maximum(sequences.offsets[users], ends - most)
    lengths = ends - starts
    width = max(1, int(lengths.max())) if len(users) else 1
    place = torch.arange(width, device=users.device)
    mask = place < lengths.unsqueeze(1)
    return torch.where(mask, starts.unsqueeze(1) + place, 0), mask


def _is_newest(repeats: Repeats, index: Tensor, ends: Tensor) -> Tensor:
    """(B, L) bool: no event of the same user and item lies between the event and `ends`."""
    if not len(repeats.until):
        return torch.zeros_like(index, dtype=torch.bool)
    return index + repeats.until[index] >= ends.unsqueeze(1)


def _distinct(repeats: Repeats, index: Tensor, mask: Tensor, ends: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Of some events (B, E) those that are the newest of their items, at most `most` of them, in order."""
    kept = mask & _is_newest(repeats, index, ends)
    rank = kept.sum(1, keepdim=True) - kept.cumsum(1)  # 0 for the newest
    row, column = (kept & (rank < most)).nonzero(as_tuple=True)
    sizes = torch.bincount(row, minlength=len(index))
    width = max(1, int(sizes.max())) if len(index) else 1
    slot = sizes[row] - 1 - rank[row, column]
    found = index.new_zeros(len(index), width)
    found[row, slot] = index[row, column]
    return found, torch.arange(width, device=index.device) < sizes.unsqueeze(1)


@dataclass(frozen=True)
class Packed:
    """Windows of users, and P labels drawn in each: sample (w, p) sees the behaviours of window w before its label.

    items : (W, L) int64, of the windows, oldest first, 0 at padding.
    positions : (W * P,) absolute positions of the labels; any where not `real`.
    real : (W * P,) bool; a window with fewer than P labels has each of them once.
    mask : (W * P, L) bool, what a sample sees.
    profile, newest, traits : as in `Histories`; profile of the W windows, the others of the W * P samples.
    """

    items: Tensor
    positions: Tensor
    real: Tensor
    mask: Tensor
    profile: Bags | None
    newest: Tensor | None = None
    traits: Tensor | None = None


def ends_before(
    sequences: Sequences, users: Tensor, positions: Tensor, horizon: int, generator: torch.Generator
) -> Tensor:
    """Where the histories of labels end, so that a label is any of the next `horizon` events, each equally likely.

    positions : (B,), of the labels.  Returns (B,), positions - 0 .. horizon - 1, then back to where that event's moment
    begins, if the sequences know it; but after a user's first event.
    """
    ends = positions
    if horizon > 1:
        back = torch.randint(0, horizon, positions.shape, generator=generator, device=positions.device)
        ends = torch.maximum(positions - back, sequences.offsets[users])
    if sequences.moments is not None:
        ends = ends - sequences.moments[ends]
    return torch.minimum(positions, torch.maximum(ends, sequences.offsets[users] + 1))


def packed(
    sequences: Sequences, samples: Samples, view: View, labels: int, generator: torch.Generator, horizon: int = 1
) -> Packed:
    """Cut out a window that ends before each of `samples`, and draw `labels` of its own in it, without replacement.

    The label of a sample is any event of the window but its first, or the event at the sample's own position; with a
    `horizon`, a label is any of so many events from there on.

    Raises
    ------
    ValueError
        For a view of distinct items: which they are differs from label to label.
    """
    if view.distinct:
        raise ValueError("a window of distinct items cannot be shared by several labels")
    index, inside = _newest_events(sequences, samples.users, samples.positions, view.max_history)
    may_be = inside & (index + 1 >= sequences.first_labels(samples.users).unsqueeze(1))
    keys = torch.rand(index.shape, generator=generator, device=index.device).masked_fill(~may_be, -1.0)
    if missing := max(0, labels - index.shape[1]):
        keys = functional.pad(keys, (0, missing), value=-1.0)
    drawn, newest_seen = keys.topk(labels, dim=1)  # (W, P), the place of the newest behaviour that a sample sees
    real, newest_seen = drawn >= 0, newest_seen.clamp(max=index.shape[1] - 1)
    ends = (index.gather(1, newest_seen) + 1).flatten()
    ahead = torch.randint(0, horizon, ends.shape, generator=generator, device=ends.device) if horizon > 1 else 0
    positions = torch.minimum(ends + ahead, (sequences.offsets[samples.users + 1] - 1).repeat_interleave(labels))
    if sequences.moments is not None:
        ends = torch.maximum(ends - sequences.moments[ends], index[:, 0].repeat_interleave(labels) + 1)
    mask = ((index.unsqueeze(1) < ends.view(-1, labels, 1)) & inside.unsqueeze(1)).flatten(0, 1)  # (W * P, L)
    items = torch.where(inside, sequences.items[index].long(), 0)
    profile = sequences.profile_of(samples.users)
    if not view.traits:
        return Packed(items, positions, real.flatten(), mask, profile)
    users, index = (each.repeat_interleave(labels, 0) for each in (samples.users, index))
    remembered = _remembered(sequences, users, index, mask, ends)
    return Packed(items, positions, real.flatten(), mask, profile, *remembered)


def full_histories(sequences: Sequences, users: Tensor, view: View, width: int | None = None) -> Histories:
    """Each user's newest behaviours: what serving sees."""
    return windows(sequences, users, sequences.offsets[users + 1], view, width)


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
    """Every event that may be a label is one: these samples by number, in file order, none of them stored."""

    def __init__(self, sequences: Sequences):
        self.sequences = sequences
        self.first = functional.pad(sequences.choices().cumsum(0), (1, 0))  # (n + 1,) of each user

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, numbers: Tensor) -> Samples:
        """Samples `numbers` (S,) int64."""
        users = torch.searchsorted(self.first, numbers, right=True) - 1
        return Samples(users, self.sequences.first_labels(users) + numbers - self.first[users])


class DrawnTargets:
    """`per_user` labels drawn uniformly, with replacement, from those of each user who has any; the draws are fixed by
    `key`. These samples by number, in file order, none of them stored."""

    def __init__(self, sequences: Sequences, per_user: int, *key: object):
        self.sequences, self.per_user, self.key = sequences, per_user, key
        self.users = sequences.choices().nonzero().squeeze(1)

    def __len__(self) -> int:
        return self.per_user * len(self.users)

    def __getitem__(self, numbers: Tensor) -> Samples:
        """Samples `numbers` (S,) int64."""
        users = self.users[numbers.div(self.per_user, rounding_mode="floor")]
        start = self.sequences.first_labels(users)
        return Samples(users, start + draw(numbers, self.sequences.offsets[users + 1] - start, *self.key))


class WindowEnds:
    """The last label of each window that a sequence is cut into, the newest window first to be full: these samples by
    number, in file order, none of them stored. Every event that may be a label is that of one window.

    Parameters
    ----------
    longest : labels of a full window.
    """

    def __init__(self, sequences: Sequences, longest: int):
        self.sequences, self.longest = sequences, longest
        windows_of = (sequences.choices() + longest - 1).div_(longest, rounding_mode="floor")
        self.first = functional.pad(windows_of.cumsum(0), (1, 0))  # (n + 1,) of each user

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, numbers: Tensor) -> Samples:
        """Samples `numbers` (S,) int64."""
        users = torch.searchsorted(self.first, numbers, right=True) - 1
        back = self.first[users + 1] - 1 - numbers  # windows of the user that are newer
        return Samples(users, self.sequences.offsets[users + 1] - 1 - self.longest * back)


def hide_behaviours(mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Behaviour dropout: each behaviour is hidden with probability `share`, but a user's newest always stays."""
    newest = mask.sum(1, keepdim=True) - 1
    keep = torch.rand(mask.shape, generator=generator, device=mask.device) >= share
    return mask & (keep | (torch.arange(mask.shape[1], device=mask.device) == newest))
