"""What follows from how users behave: the split, what lists hold, how much of a history is read, how it is learned."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.log.proposal.first_look import Look
from pipelines.log.proposal.habits import RARE, Cuts, Habits
from pipelines.log.proposal.roles import Roles
from pipelines.words import counted

AGAIN = 0.1  # share of rows of an item that the user had before, from which on lists may hold such items
TESTED = 0.05  # of the users, from which on a test by time says something
AGAIN_SEEN = 0.01  # of the late users, those seen early as well among a few of all rows, from which on users come back
STRETCH = 0.5  # of a log's days that the rows looked at must have, to tell how users behave
SEASONS = 180  # days from which on what is bought changes with the season
FEW_USERS = 20_000
WEEKS = 14  # days that a log must span to be cut by time
LENGTHS = (50, 100, 200)  # of histories; the first is the default, and a step costs more with each
ORDERED = 20  # items of the median user, from which on their order can be learned
SOFTMAX = 50_000  # items that an exact softmax takes on a CPU


def rare_lines(habits: Habits) -> Iterator[str]:
    """Say how to leave out the long tail, where it is most of the catalogue and hardly any of the events."""
    items, share = habits.rare
    if items >= 0.2 * habits.items and share <= 0.1:
        few = f"{items:,} of {habits.items:,} items have fewer than {RARE} events"
        yield f"  # {few}, {share:.1%} of all; to leave them out:"
        yield f"  # min_item_events: {RARE}"


def split_lines(log: Look, roles: Roles, habits: Habits) -> Iterator[str]:
    """Propose the last days of the log if users come back; else each user's last event, or other users."""
    last = "each user's last event is the test, the one before the validation"
    if roles.are_sessions:
        yield "  # a session ends and does not come back: the model is tested on sessions that it has not seen"
        yield "  split: {protocol: user_holdout, held_out: 0.1, observed: 0.8}"
    elif (cuts := cut_by_time(log, roles, habits)) is not None:
        last_tenth = f"the last tenth of {cuts.span:,.0f} days' events: validation, then test"
        if log.is_whole:
            yield f"  # {last_tenth}, of {counted(cuts.tested, 'user')}"
        else:
            yield f"  # {last_tenth}. The days are a guess, from {cuts.rows:,} rows at places all over the log"
        yield f"  split: {{protocol: temporal, validation_from: {cuts.days[0]}, test_from: {cuts.days[1]}}}"
    elif habits.short >= 0.5:
        yield f"  # {habits.short:.0%} of the users have fewer than 3 events: the model is tested on other users"
        yield "  split: {protocol: user_holdout}"
    elif habits.one_day is not None and habits.one_day > 0.5:
        yield f"  # {habits.one_day:.0%} of the users came on one day only, which time does not split:"
        yield f"  # {last}"
        yield "  split: {protocol: leave_one_out}"
    elif habits.one_day is not None and habits.cuts is None and not log.is_whole:
        yield f"  # {last}. Nearer to production, of a log of some"
        yield "  # weeks, which its first rows do not tell: {protocol: temporal, validation_from: DAY, test_from: DAY}"
        yield "  split: {protocol: leave_one_out}"
    else:
        yield f"  # {last}"
        yield "  split: {protocol: leave_one_out}"


def cut_by_time(log: Look, roles: Roles, habits: Habits) -> Cuts | None:
    """Return the days that split the log, if it is one that time splits."""
    cuts = habits.cuts
    if cuts is None or roles.are_sessions or cuts.span <= WEEKS:
        return None
    if cuts.over >= STRETCH and (habits.short >= 0.5 or (habits.one_day or 0.0) > 0.5):
        return None  # rows of a few days of many do not tell whether users come back
    return cuts if cuts.tested >= (TESTED * habits.users if log.is_whole else AGAIN_SEEN * cuts.late) else None


def preset_lines(roles: Roles, habits: Habits) -> Iterator[str]:
    """Propose the model that reads the order of events, where lists show new items and histories have an order."""
    if habits.again < AGAIN and habits.typical >= ORDERED and habits.items <= SOFTMAX and not roles.are_sessions:
        yield f"# users seldom come back to an item, and half of them have {habits.typical:,.0f} or more: their order"
        yield "# says most. preset: default trains in a fraction of the time"
        yield "preset: context"


def training_lines(log: Look, roles: Roles, habits: Habits) -> Iterator[str]:
    """Propose how far back a history is read, and how habits of many months are learned."""
    length = next((length for length in LENGTHS if habits.many <= length), LENGTHS[-1])
    if length > LENGTHS[0]:
        yield f"model: {{max_history: {length}}} # a tenth of the users have more than {habits.many:,.0f} items"
    cuts = cut_by_time(log, roles, habits)
    if cuts is None or habits.again < AGAIN or cuts.span < SEASONS:
        return
    seasons = "label_share: 0.3, metric: recall@20"
    if log.is_whole and habits.users <= FEW_USERS:
        yield "# few users with long habits, as in conf/complete-journey.yaml: a faster rate of the table overfits"
        yield "optim: {table_learning_rate: 0.001, schedule: linear}"
        seasons = f"epochs: 6, targets_per_user: 20, {seasons}"
    yield "# many months: what the newest third has is learned, all of it is history"
    yield f"train: {{{seasons}}}"


def evaluate_lines(habits: Habits) -> Iterator[str]:
    """Propose that lists may hold what a user had before, where users come back to items."""
    if habits.again >= AGAIN:
        yield f"# {habits.again:.0%} of the rows are of an item that their user had before: lists may hold it again"
        yield "evaluate: {seen: keep}"
