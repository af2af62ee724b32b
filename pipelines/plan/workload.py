"""The workload that is planned: how large the log is, how it will be trained on, and what follows for its sequences.

Symbols, here and in docs/scaling.md: E events, V items, U users, m = E / U events a user. Lengths are taken to be
geometric, P(n > k) = q^k with q = 1 - 1 / m, and items of rank up to x to be seen in proportion to the integral of
(h + x)^-s from 0: both as in `mind generate`, where s = 1 and h = 20, the clusters, whose first items are equals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mind_core.sizes import dense_parameters, mlp_widths
from pipelines.config.schema import Config
from pipelines.errors import UserError

LONGEST = 2_000  # lengths above are taken for this one where targets are drawn per user


@dataclass(frozen=True)
class Workload:
    """events, items, users : E, V, U.  zipf, head : s and h of the items' popularity; s = 0: all alike.

    Raises
    ------
    UserError
        If users have no second event to predict.
    """

    events: float
    items: float
    users: float
    config: Config
    zipf: float = 1.0
    head: float = 20.0

    def __post_init__(self) -> None:
        if self.events <= self.users:
            raise UserError(
                f"--events {self.events:,.0f}: must be more than --users {self.users:,.0f}; of a user with one event "
                "nothing can be predicted"
            )

    @property
    def workers(self) -> int:
        """W."""
        return self.config.train.workers

    @property
    def rank_batch(self) -> int:
        """B / W, samples of a worker in a step.  Source: pipelines.training.memory_input.rank_batch."""
        return max(1, self.config.train.batch_size // self.workers)

    @property
    def negatives(self) -> float:
        """N, shared by a worker's batch.  Source: mind_core.negatives."""
        loss = self.config.loss.of_items(self.items)
        if loss.kind == "full":
            return self.items
        drawn = loss.uniform_negatives + loss.popularity_negatives
        return drawn + (self.rank_batch if loss.in_batch else 0)

    @property
    def item_features(self) -> int:
        items = self.config.data.items
        return 0 if items is None else len(items.features)

    @property
    def profile_features(self) -> int:
        profile = self.config.data.profile
        return 0 if profile is None else len(profile.features)

    @property
    def length(self) -> float:
        """m, events a user."""
        return self.events / self.users

    @property
    def going_on(self) -> float:
        """q, the chance that a user with k events has one more."""
        return 1 - 1 / self.length

    @property
    def held_out(self) -> float:
        """Users of the test split, and as many again of validation: n >= 3, or a share of all (user_holdout)."""
        split = self.config.data.split
        if split.protocol == "user_holdout":
            return self.users * split.held_out
        return self.users * self.going_on**2

    @property
    def train_users(self) -> float:
        """Users with a row in the train split."""
        split = self.config.data.split
        return self.users * (1 - 2 * split.held_out) if split.protocol == "user_holdout" else self.users

    @property
    def train_events(self) -> float:
        """Events in the train split: E less two for each user of at least three; temporal is taken for the same."""
        if self.config.data.split.protocol == "user_holdout":
            return self.train_users * self.length
        return self.events - 2 * self.held_out

    @property
    def samples(self) -> float:
        """S of an epoch: every event but a user's first, or `targets_per_user` of users with two in the train split.
        Of those, `label_share`.

        leave_one_out: U (m q^3 + q (1 - q)), as n >= 4 leaves n - 3 samples and n = 2 leaves one.
        Source: mind_core.sequences.AllTargets and DrawnTargets.
        """
        q, drawn = self.going_on, self.config.train.targets_per_user
        if self.config.data.split.protocol == "user_holdout":
            each = self.length - 1 if drawn is None else drawn * q
        else:
            each = self.length * q**3 + q * (1 - q) if drawn is None else drawn * (q**3 + q * (1 - q))
        return self.train_users * each * (self.config.train.label_share if drawn is None else 1)

    @property
    def steps(self) -> int:
        """Steps of an epoch.  Source: pipelines.training.memory_input.epoch_steps."""
        return max(1, math.ceil(self.samples / (self.workers * self.rank_batch)))

    @property
    def history(self) -> float:
        """Mean behaviours before a sample, at most L: m (1 - q^L), as every position is one.

        With `targets_per_user` a short sequence counts as much as a long one: the mean over users with n - 2 >= 2
        events in the train split (user_holdout: n >= 2), or with 2 of 2, is summed up.
        """
        most, q = self.config.model.max_history, self.going_on
        if self.config.train.targets_per_user is None:
            return -self.length * math.expm1(most * math.log1p(-1 / self.length))
        lengths = np.arange(2, LONGEST)
        chance = q ** (lengths - 2.0)
        if self.config.data.split.protocol != "user_holdout":
            chance[0] += 1 / q**2  # n = 2 keeps both: q (1 - q) of the users beside q^(l + 1) (1 - q) of length l
        before = np.cumsum(np.minimum(np.arange(1, LONGEST - 1), most)) / np.arange(1, LONGEST - 1)
        return float((chance * before).sum() / chance.sum())

    @property
    def width(self) -> float:
        """Cells of a padded history: the longest of a batch, min(L, 1 + ln(B / W) / -ln q)."""
        if self.going_on <= 0:
            return 1.0
        longest = 1 + math.log(self.rank_batch) / -math.log(self.going_on)
        return min(self.config.model.max_history, max(1.0, longest))

    @property
    def validated(self) -> float:
        """Users that each validation ranks, all workers together."""
        return min(self.held_out, self.config.train.validation_users or self.held_out)

    @property
    def validations(self) -> float:
        """In an epoch."""
        every = self.config.train.validate_every_steps
        return 1.0 if every is None else self.steps / every

    @property
    def mlp_widths(self) -> list[int]:
        """Widths of [u ; p], the hidden layers, and an interest."""
        return mlp_widths(self.config.model, self.profile_features)

    @property
    def parameters(self) -> int:
        """P, dense ones, of all layers beside the tables.  Source: mind_core.sizes.dense_parameters."""
        return dense_parameters(self.config.model, self.profile_features)
