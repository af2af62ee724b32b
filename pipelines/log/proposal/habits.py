"""How the users of a log behave: how long their histories are, whether they come back, and to what."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.log.ids import Int64s, as_array
from pipelines.log.proposal.first_look import Look
from pipelines.log.proposal.roles import Roles
from pipelines.log.times import parse_times

RARE = 5  # events of an item from which on something can be learned of it
DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Cuts:
    """Two days that cut the last tenth of the events off, and then its half.

    Of a log that was not looked at whole, they are of rows from all over it.
    """

    days: tuple[str, str]
    span: float  # days of the whole log
    tested: int  # users with events before the second and after it
    late: int  # users with events after it
    rows: int  # that they are of
    over: float = 1.0  # share of the days that the rows looked at have


@dataclass(frozen=True)
class Habits:
    """What is known of all users, from the rows looked at."""

    users: int
    items: int
    again: float  # share of the rows that are of an item which their user had before
    typical: float  # distinct items of the median user
    many: float  # ... of a user of whom a tenth has more
    short: float  # share of the users with fewer than 3 events
    rare: tuple[int, float]  # items with fewer than RARE events, and their share of the rows
    one_day: float | None  # share of the users with events on one day only; None: times are only an order
    cuts: Cuts | None


def habits_of(log: Look, roles: Roles) -> Habits:
    """Count."""
    columns = pa.table({"user": roles.user.column.values, "item": roles.item.column.values, "time": _times(roles)})
    columns = columns.filter(pc.and_(pc.is_valid(columns["user"]), pc.is_valid(columns["item"])))
    user, item = (_codes(columns[name]) for name in ("user", "item"))
    users, items = (int(codes.max(initial=-1)) + 1 for codes in (user, item))
    if not users:
        return Habits(0, 0, 0.0, 0.0, 0.0, 1.0, (0, 0.0), None, None)
    distinct = np.bincount(_distinct(user * items + item) // items, minlength=users)
    events = np.bincount(item)
    rare = events < RARE
    when = columns["time"]
    is_known = when.null_count < 0.1 * len(when)
    there = pc.is_valid(when).to_numpy()
    days = when.filter(pc.is_valid(when)).to_numpy() // DAY if is_known else np.zeros(0, np.int64)
    return Habits(
        users,
        items,
        1 - distinct.sum() / len(user),
        float(np.median(distinct)),
        float(np.quantile(distinct, 0.9)),
        float(np.mean(np.bincount(user) < 3)),
        (int(rare.sum()), float(events[rare].sum() / len(item))),
        _share_of_one_day(user[there], days) if is_known else None,
        _cuts(user[there], days) if is_known else None,
    )


def _times(roles: Roles) -> pa.Array:
    """Microseconds since 1970, null where they are no instants."""
    column = roles.time.column
    if not roles.are_instants:
        return pa.nulls(len(column.values), pa.int64())
    return parse_times(column.values, "us", "", column.unit, column.form).cast(pa.int64())


def _codes(column: pa.ChunkedArray) -> Int64s:
    codes = column.combine_chunks().dictionary_encode().indices
    return np.asarray(codes.to_numpy(), np.int64)


def _distinct(codes: Int64s) -> Int64s:
    """Return each value once, in any order; NumPy takes ten times as long for millions of products of codes."""
    return np.asarray(pc.unique(pa.array(codes)).to_numpy(), np.int64)


def _share_of_one_day(user: Int64s, days: Int64s) -> float:
    width = int(days.max()) - int(days.min()) + 1
    visits = _distinct(user * width + (days - days.min())) // width
    return float(np.mean(np.bincount(visits)[_distinct(user)] == 1))


def _cuts(user: Int64s, days: Int64s) -> Cuts | None:
    """Cut by time, if there are days enough."""
    first, second = (int(np.quantile(days, share)) for share in (0.9, 0.95))
    if first == second or first == days.min():
        return None
    before, late = _distinct(user[days < second]), _distinct(user[days >= second])
    names = [str(np.datetime64(day, "D")) for day in (first, second)]
    span = float(days.max() - days.min())
    return Cuts((names[0], names[1]), span, len(np.intersect1d(before, late)), len(late), len(days))


def with_all_of_it(roles: Roles, habits: Habits, rows: pa.Table | None) -> Habits:
    """Put the days in that cut the whole of a log of which only the first rows were looked at.

    rows : from all over it; without them nobody knows the days.
    """
    cuts = None if rows is None else _cuts_all_over(roles, rows)
    if cuts is not None:
        days = _times(roles).drop_null().to_numpy() // DAY
        cuts = replace(cuts, over=float(days.max() - days.min()) / cuts.span)
    return replace(habits, cuts=cuts)


def _cuts_all_over(roles: Roles, rows: pa.Table) -> Cuts | None:
    column = roles.time.column
    try:
        times = parse_times(rows["time"], "us", "", column.unit, column.form)
    except UserError:  # of another type than in the first rows
        return None
    there = pc.and_(pc.is_valid(times), pc.is_valid(as_array(rows["user"])))
    known = times.filter(there)
    if len(known) < 0.9 * len(times) * (1 - column.missing - roles.user.column.missing):
        return None
    return _cuts(_codes(rows["user"].filter(there)), known.to_numpy() // DAY) if len(known) else None
