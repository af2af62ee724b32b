"""A configuration for a log that nobody has described, as YAML in which every guess is said to be one. No Ray.

The guesses are made from the first rows (`pipelines.log.first_look`) and from the columns' names. Nothing is left
out of the log without being asked for: what looks like a bot, a cancellation or a non-product is a comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.log.first_look import Column, Look, distinct_texts
from pipelines.log.normalise import text_numbers
from pipelines.log.times import parse_times

NAMES = {  # of the roles, the likeliest first, in lower case and without what stands between words
    "user": "user userid uid customer customerid visitor visitorid household householdid member memberid account "
    "accountid reviewerid client clientid session sessionid person",
    "item": "item itemid iid product productid stockcode sku movie movieid parentasin asin article articleid song "
    "songid track trackid video videoid book bookid content contentid business businessid merchant",
    "time": "time timestamp ts datetime eventtime invoicedate transactiontimestamp unixreviewtime createdat date at "
    "pos position order step",
    "type": "event eventtype behavior behaviour behaviortype action actiontype type",
}
ORDERS = ("pos", "position", "order", "step", "sequence", "seq", "index", "rank")
SHOWN = ("title", "name", "description", "productname", "movietitle", "label")
MANY = 5000  # distinct values of a categorical feature
AGAIN = 0.1  # share of rows of an item that the user had before, from which on lists may hold such items
HEAVY = 50  # times the median of events: may be a bot
SEPARATORS = "|;,"
YAML_WORDS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
Lines = list[str]


@dataclass(frozen=True)
class Guess:
    """A column for a role, and why."""

    column: Column
    why: str


def propose(name: str, log: Look, items: Look | None = None, profile: Look | None = None) -> str:
    """Write the configuration.

    Raises
    ------
    UserError
        If no column of the log can be the user, the item or the time; the text lists the columns.
    """
    seen = f"{'all' if log.is_whole else 'the first'} {log.rows:,} rows"
    lines = [f"# Written by `mind init` from {seen}. Each guess says so.", f"name: {name}", "data:", "  events:"]
    lines += [f"    path: {quoted(log.path)}"]
    lines += [f"    {key}: {quoted(value)}" for key, value in log.settings.items()]
    if log.settings.get("format") == "sessions":
        lines.append("    # one session a line: its line is the user, the place in it the time")
        roles = {role: Guess(log.column(role), "") for role in ("user", "item", "time")}
    else:
        roles = guess_roles(log)
        if log.unrolled:
            lines.append(f"    # a row has lists ({', '.join(log.unrolled)}): each of their values is an event")
        for role in ("user", "item"):
            lines.append(f"    {role}: {quoted(roles[role].column.name)} # {roles[role].why}")
        lines += _time_lines(roles["time"])
        lines += _tie_lines(log, roles)
        lines += _type_lines(log, roles)
    lines += _remarks(log, roles)
    for side, key, table, kind in (
        ("items", "item", items, roles["item"]),
        ("profile", "user", profile, roles["user"]),
    ):
        if table is not None:
            lines += _table_lines(side, key, table, kind.column)
    if items is None:
        lines += _named_in_the_log(log, roles)
    lines += _split_lines(roles)
    lines += _again_lines(roles)
    return "\n".join(lines) + "\n"


def guess_roles(log: Look) -> dict[str, Guess]:
    """Find the columns of user, item and time, by their names and what they hold."""
    found: dict[str, Guess] = {}
    for role in ("time", "user", "item"):
        free = [column for column in log.columns if column.name not in {guess.column.name for guess in found.values()}]
        guess = _guess(role, free)
        if guess is None:
            listed = ", ".join(f"{column.name} ({column.kind})" for column in log.columns)
            raise UserError(f"{log.path}: no column seems to be the {role}; name it yourself, of {listed}")
        found[role] = guess
    return found


def _guess(role: str, columns: Sequence[Column]) -> Guess | None:
    """Prefer the names in their order, then what looks like it."""
    fits = [column for column in columns if _may_be(role, column)]
    by_name = {column.words: column for column in reversed(fits)}
    if role == "time":  # an instant is worth more than an order
        instants = [column for column in fits if column.kind == "times" or column.unit]
        named = next((column for word in NAMES[role].split() for column in instants if column.words == word), None)
        if named is not None or len(instants) == 1:
            column = named or instants[0]
            return Guess(column, "named so" if named is not None else "the only column that holds times")
    for word in NAMES[role].split():
        if word in by_name:
            return Guess(by_name[word], f"a guess: named so, {by_name[word].distinct:,} values")
    for word in NAMES[role].split():
        if len(word) > 3 and (near := next((column for column in fits if word in column.words), None)) is not None:
            return Guess(near, f"a guess: its name has {word!r} in it, {near.distinct:,} values")
    if len(fits) == 1:
        return Guess(fits[0], "a weak guess: the only column that can be it")
    return None


def _may_be(role: str, column: Column) -> bool:
    if role == "time":
        return column.kind in ("times", "ints", "floats")
    return column.kind in ("ints", "text") and column.distinct > 0


def _time_lines(time: Guess) -> Iterator[str]:
    column = time.column
    yield f"    time: {quoted(column.name)} # {time.why}"
    if column.form == "?":
        yield '    time_format: "%d/%m/%Y" # CHECK: days could be months here, and hours may be missing in this form'
    elif column.form is not None:
        yield f"    time_format: {quoted(column.form)} # as in {quoted(next(distinct_texts(column, 1)))}"
    elif column.unit is not None:
        yield f"    time_unit: {column.unit} # a guess: by their size, since 1970"
    elif column.kind != "times":
        yield "    # its numbers only order"


def _tie_lines(log: Look, roles: dict[str, Guess]) -> Iterator[str]:
    taken = {guess.column.name for guess in roles.values()}
    for column in log.columns:
        if column.name not in taken and column.words in ORDERS and column.kind in ("ints", "floats"):
            yield f"    tie_break: {quoted(column.name)} # a guess: named so; it orders events of equal time"
            return


def _type_lines(log: Look, roles: dict[str, Guess]) -> Iterator[str]:
    taken = {guess.column.name for guess in roles.values()}
    for column in log.columns:
        if column.name not in taken and column.words in NAMES["type"].split() and 1 < column.distinct <= 30:
            yield f"    event_type: {quoted(column.name)} # a guess: named so"
            values = ", ".join(map(quoted, distinct_texts(column, 30)))
            yield f"    # keep_types: [{values}] # all that were seen, the commonest first; all are kept"
            return


def _remarks(log: Look, roles: dict[str, Guess]) -> Iterator[str]:
    """Say what looks odd; nothing of it is acted upon."""
    user, item = roles["user"].column, roles["item"].column
    for role in ("user", "item"):
        if share := roles[role].column.missing:
            yield f"    # {share:.1%} of the rows have no {role}: they are set aside and counted"
    yield "    # rows equal in user, item, time and type are one (duplicates: drop); duplicates: keep keeps them"
    counted = user.values.drop_null().value_counts()
    counts = counted.field("counts").to_numpy()
    if len(counts) > 10 and counts.max() > HEAVY * max(1.0, float(np.median(counts))):
        heaviest = counted.field("values")[int(counts.argmax())].as_py()
        yield f"    # a bot? user {heaviest!r} has {counts.max():,} of {len(user.values):,} rows; the median user has"
        yield f"    #   {int(np.median(counts)):,}; {_leave_out(user, f'values: [{quoted(heaviest)}], reason: bot')}"
    if odd := list(_odd_items(item)):
        shown = ", ".join(map(quoted, odd[:8]))
        yield f"    # no products? {len(odd):,} items are words where most have digits: {shown}"
        yield f"    #   {_leave_out(item, 'values: [...], reason: no product')}"
    yield from _signs(log, roles)


def _odd_items(item: Column) -> Iterator[str]:
    """Yield ids without a digit where nine in ten have one."""
    if not pa.types.is_string(item.values.type):
        return
    distinct = pc.unique(item.values.drop_null())
    words = distinct.filter(pc.invert(pc.match_substring_regex(distinct, "[0-9]")))
    if 0 < 10 * len(words) < len(distinct):
        yield from words.to_pylist()


def _signs(log: Look, roles: dict[str, Guess]) -> Iterator[str]:
    """Name columns that seem to mark a row as undone: negative numbers, and numbers with a letter before them."""
    taken = {guess.column.name for guess in roles.values()}
    for column in log.columns:
        if column.name in taken:
            continue
        if column.kind in ("ints", "floats"):
            is_text = pa.types.is_string(column.values.type)
            numbers = text_numbers(column.values) if is_text else column.values.cast(pa.float64(), safe=False)
            below = pc.sum(pc.less(numbers, 0.0)).as_py() or 0
            if 0 < 5 * below < len(column.values):
                yield f"    # returns? {column.name} is below 0 in {below:,} rows;"
                yield f"    #   {_leave_out(column, 'below: 0, reason: return')}"
        elif column.kind == "text" and column.distinct > 10:
            text = column.values.drop_null()
            for letter in "CRX":
                share = pc.sum(pc.match_substring_regex(text, f"^{letter}[0-9]+$")).as_py() / len(text)
                plain = pc.sum(pc.match_substring_regex(text, "^[0-9]+$")).as_py() / len(text)
                if 0 < share < 0.2 and share + plain > 0.95:
                    yield f"    # cancellations? {share:.1%} of {column.name} begin with {letter};"
                    yield f"    #   {_leave_out(column, f'prefix: {letter}, reason: cancellation')}"


def _leave_out(column: Column, rule: str) -> str:
    return f"to leave them out: exclude: [{{column: {quoted(column.name)}, {rule}}}]"


def _table_lines(side: str, key: str, table: Look, ids: Column) -> Iterator[str]:
    """Yield the section of an item or profile table."""
    matches = {column.name: _shared(column, ids) for column in table.columns if _may_be(key, column)}
    if not matches or max(matches.values()) == 0:
        raise UserError(
            f"{table.path}: no column shares a value with the log's {ids.name!r}; is it the table of another log?"
        )
    own = table.column(max(matches, key=lambda name: matches[name]))
    yield f"  {side}:"
    yield f"    path: {quoted(table.path)}"
    yield from (f"    {name}: {quoted(value)}" for name, value in table.settings.items())
    yield f"    id: {quoted(own.name)} # {matches[own.name]:.0%} of its values are in the log's {ids.name}"
    if own.distinct < len(own.values) - own.values.null_count:
        yield "    duplicates: last # an id stands on several rows"
    features, shown = [], []
    for column in table.columns:
        if column.name == own.name:
            continue
        given = len(column.values) - column.values.null_count
        is_name = column.kind == "text" and (column.distinct > MANY or 50 < 0.9 * given < column.distinct)
        if column.words in SHOWN or is_name:
            shown.append(column.name)
        elif (feature := _feature(column)) is not None:
            features.append(f"      {quoted(column.name)}: {feature}")
    if features:
        yield "    features:"
        yield from features
    if shown:
        yield f"    show: [{', '.join(map(quoted, shown))}]"


def _named_in_the_log(log: Look, roles: dict[str, Guess]) -> Iterator[str]:
    """Yield an item table that is the log itself, where its rows name the items."""
    taken = {guess.column.name for guess in roles.values()}
    named = [
        each.name for each in log.columns if each.name not in taken and each.words in SHOWN and each.kind == "text"
    ]
    if named:
        yield "  items: # the log itself: its rows name the items"
        yield f"    path: {quoted(log.path)}"
        yield from (f"    {name}: {quoted(value)}" for name, value in log.settings.items())
        yield f"    id: {quoted(roles['item'].column.name)}"
        yield "    duplicates: last # an id stands on several rows"
        yield f"    show: [{', '.join(map(quoted, named))}]"


def _again_lines(roles: dict[str, Guess]) -> Iterator[str]:
    """Propose that lists may hold what a user had before, where users come back to items."""
    user, item = (roles[role].column.values for role in ("user", "item"))
    there = pc.and_(pc.is_valid(user), pc.is_valid(item))
    codes = [each.filter(there).dictionary_encode().indices.to_numpy().astype(np.int64) for each in (user, item)]
    if not len(codes[0]):
        return
    again = 1 - len(np.unique(codes[0] * (codes[1].max() + 1) + codes[1])) / len(codes[0])
    if again >= AGAIN:
        yield f"# {again:.0%} of the rows are of an item that their user had before: lists may hold it again"
        yield "evaluate: {seen: keep}"


def _feature(column: Column) -> str | None:
    """Guess what a feature is: None if nothing can be learned of it."""
    said = f"# {column.distinct:,} values" + (f", {column.missing:.0%} missing" if column.missing >= 0.005 else "")
    if column.distinct < 2 and column.kind != "lists":
        return None
    if column.kind == "lists":
        return f"{{kind: multi}} {said}"
    if column.kind == "text":
        for separator in SEPARATORS:
            share = pc.mean(pc.match_substring(column.values.drop_null(), separator).cast(pa.float64())).as_py()
            if share > 0.2 and not re.search(rf"{re.escape(separator)}\s", next(distinct_texts(column, 1))):
                return (
                    f"{{kind: multi, separator: {quoted(separator)}}} {said}, a guess: {share:.0%} have a {separator}"
                )
    is_code = column.words.endswith(("id", "code", "number"))
    if column.kind == "floats" or (column.kind == "ints" and column.distinct > MANY and not is_code):
        return f"{{kind: bucket}} {said}, numbers"
    if column.kind in ("text", "ints", "bools"):
        return f"{{min_count: 5}} {said}" if column.distinct > 50 else f"{{}} {said}"
    return None


def _shared(column: Column, ids: Column) -> float:
    """Return the share of a table's ids that the log has, as text."""
    mine, theirs = (pc.unique(each.values.drop_null()).cast(pa.string()) for each in (column, ids))
    return float(pc.mean(pc.is_in(mine, value_set=theirs).cast(pa.float64())).as_py() or 0.0) if len(mine) else 0.0


def _split_lines(roles: dict[str, Guess]) -> Iterator[str]:
    """Propose the last days of the log if it has days, and users stand on both sides; else the last event of each."""
    user, time = roles["user"].column, roles["time"].column
    counts = user.values.drop_null().value_counts().field("counts").to_numpy()
    if (time.kind == "times" or time.unit) and time.form != "?":
        times = parse_times(time.values, "us", "", time.unit, time.form)
        there = pc.and_(pc.is_valid(times), pc.is_valid(user.values))
        when = times.filter(there).to_numpy()
        codes = user.values.filter(there).dictionary_encode().indices.to_numpy()
        cuts = [np.datetime64(int(np.quantile(when, share)), "us").astype("datetime64[D]") for share in (0.9, 0.95)]
        days = [str(cut) for cut in cuts]
        first, second = (int(cut.astype("datetime64[us]").astype(np.int64)) for cut in cuts)
        both = np.intersect1d(codes[when < first], codes[when >= second])
        span = (when.max() - when.min()) / 86_400e6
        if days[0] < days[1] and span > 14 and len(both) >= 0.05 * len(counts):
            yield f"  # the last tenth of the events, over {span:,.0f} days: validation, then test"
            yield f"  split: {{protocol: temporal, validation_from: {days[0]}, test_from: {days[1]}}}"
            return
    if np.mean(counts >= 3) > 0.5:
        yield "  split: {protocol: leave_one_out} # each user's last event is the test, the one before the validation"
    else:
        yield "  split: {protocol: user_holdout} # half of the users have fewer than 3 events: other users are tested"


def quoted(value: Any) -> str:
    """Write a value as YAML reads it back."""
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_./][\w./-]*", value) and value.lower() not in YAML_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
