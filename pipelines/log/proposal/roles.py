"""Which columns of a log are the user, the item and the time: by their names, then by what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.yaml_text import in_a_comment, quoted
from pipelines.errors import UserError
from pipelines.log.formats import names_in_words
from pipelines.log.ids import as_array, canonical
from pipelines.log.proposal.first_look import Column, Look, distinct_texts
from pipelines.log.times import ACCEPTED, parse_times, time_formats

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
NEEDED = ("user", "item", "time")
IDS = "ids must be integers, text or UUIDs"
AHEAD = 86_400e6  # microseconds that a clock elsewhere may be ahead of this one
SESSIONS = ("session", "sessionid", "visit", "visitid")


@dataclass(frozen=True)
class Guess:
    """A column for a role, and why."""

    column: Column
    why: str


@dataclass(frozen=True)
class Roles:
    """What the columns of a log are; the others are free to say something of items and users."""

    user: Guess
    item: Guess
    time: Guess
    tie_break: Column | None = None
    event_type: Column | None = None
    are_sessions: bool = False  # a user is a session, which ends and does not come back

    def is_free(self, column: Column) -> bool:
        """Say whether a column has no role."""
        taken = [self.user.column, self.item.column, self.time.column, self.tie_break, self.event_type]
        return all(other is None or other.name != column.name for other in taken)

    @property
    def are_instants(self) -> bool:
        """Say whether times are more than an order."""
        column = self.time.column
        return column.kind == "times" or column.unit is not None or column.form is not None


def guess_roles(log: Look, given: Mapping[str, str] | None = None) -> Roles:
    """Find the columns of user, item and time, the tie break and the event types.

    given : the columns that are known, by role.

    Raises
    ------
    UserError
        If no column can be the user, the item or the time; the text lists the columns and the option to name one. Or if
        a column that is given cannot be it.
    """
    if log.settings.get("format") == "sessions":
        user, item, time = (Guess(log.column(role), "") for role in ("user", "item", "time"))
        return Roles(user, item, time, are_sessions=True)
    found = {role: Guess(column, "as you said") for role, column in _given(log, given or {}).items()}
    if (said := log.time_format) is not None and "time" not in found:
        read = [column for column in log.columns if column.forms == (said,)]
        if len(read) == 1:
            found["time"] = Guess(read[0], "the only column of the form that you said")
    for role in ("time", "user", "item"):
        if role in found:
            continue
        free = [column for column in log.columns if column.name not in {guess.column.name for guess in found.values()}]
        guess = _guess(role, free)
        if guess is None:
            raise _none_is(log, role, free)
        found[role] = guess
    if log.time_format is not None and found["time"].column.form != log.time_format:
        raise _not_of_the_form(log, found["time"].column)
    roles = Roles(found["user"], found["item"], found["time"])
    free = [column for column in log.columns if roles.is_free(column)]
    tie = next((each for each in free if each.words in ORDERS and each.kind in ("ints", "floats")), None)
    kinds = [each for each in free if each is not tie and each.words in NAMES["type"].split()]
    words = [each for each in kinds if each.kind in ("text", "ints", "bools")]
    event_type = next((each for each in words if 1 < each.distinct <= 30), None)
    return replace(roles, tie_break=tie, event_type=event_type, are_sessions=roles.user.column.words in SESSIONS)


def settled(roles: Roles, rows: pa.Table | None) -> Roles:
    """Settle which of several forms the times have by rows from all over the log, as far as these tell."""
    column = roles.time.column
    if rows is None or len(column.forms) < 2:
        return roles
    left = time_formats([column.values, as_array(rows["time"])])[0]
    forms = tuple(form for form in column.forms if form in left) or column.forms
    return replace(roles, time=replace(roles.time, column=replace(column, forms=forms)))


def _given(log: Look, given: Mapping[str, str]) -> dict[str, Column]:
    """Find the columns that are said, and refuse what they cannot be."""
    found: dict[str, Column] = {}
    for role, name in given.items():
        if name not in (names := [column.name for column in log.columns]):
            raise UserError(f"{log.path}: no column {name!r} for --{role}; there is {names_in_words(names)}")
        if twin := next((other for other, column in found.items() if column.name == name), None):
            raise UserError(f"{log.path}: column {name!r} is given for --{twin} and --{role}; each needs its own")
        column = log.column(name)
        taken = column if may_be(role, column) else _as_id(role, column)
        if taken is None:
            raise _cannot_be(log, role, column)
        found[role] = taken
    return found


def _as_id(role: str, column: Column) -> Column | None:
    """Take values that a dataset takes for ids, though none is guessed to be one, as bytes or dates in text."""
    if role == "time":
        return None
    try:
        values = canonical(column.values, column.name)
    except UserError:
        return None
    distinct = len(pc.unique(values.drop_null()))
    missing = values.null_count / max(1, len(values))
    return replace(column, values=values, distinct=distinct, missing=missing) if distinct else None


def _cannot_be(log: Look, role: str, column: Column) -> UserError:
    name = names_in_words([column.name])
    kind = names_in_words([str(column.values.type)])
    texts = [in_a_comment(each, 20) for each in distinct_texts(column, 2)]
    held = f"{kind} such as {', '.join(texts)}" if texts else kind
    held = held if column.missing < 1 else "no value in the rows looked at"
    accepted = f"a time is one of: {ACCEPTED}" if role == "time" else IDS
    return UserError(f"{log.path}: --{role} {name} holds {held}; {accepted}")


def _none_is(log: Look, role: str, free: Sequence[Column]) -> UserError:
    """Word that no column can be guessed to be one, and what there is to choose from."""
    why = f"; {names_in_words(log.twice)} stands several times in the file and counts for none" if log.twice else ""
    if len(log.columns) < len(NEEDED):
        names = names_in_words([column.name for column in log.columns]) or "no column"
        return UserError(f"{log.path}: has {names}; a log needs a user, an item and a time{why}")
    if any(column.words in NAMES[role].split() for column in free):  # named so, and no such thing
        why += f"; a time is one of: {ACCEPTED}" if role == "time" else f"; {IDS}"
    listed = ", ".join(map(_in_words, free))
    return UserError(f"{log.path}: no column seems to be the {role}; give --{role} COLUMN, one of {listed}{why}")


def _not_of_the_form(log: Look, time: Column) -> UserError:
    texts = " and ".join(in_a_comment(each, 40) for each in distinct_texts(time, 2))
    return UserError(
        f"{log.path}: --time-format {log.time_format!r} is not the form of the times in {names_in_words([time.name])}, "
        f"which holds {texts or 'none'}"
    )


def _in_words(column: Column) -> str:
    examples = "".join(f"{in_a_comment(each, 20)}, " for each in distinct_texts(column, 2))
    return f"{names_in_words([column.name])} ({column.kind}, {column.distinct:,} values: {examples}...)"


def _guess(role: str, columns: Sequence[Column]) -> Guess | None:
    """Prefer the names in their order, then what looks like it."""
    fits = list(filter(None, (_fitting(role, column) for column in columns)))
    by_name = {column.words: column for column in reversed(fits)}
    if role == "time":  # an instant is worth more than an order
        instants = [column for column in fits if column.kind == "times" or column.unit or column.form]
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


def _fitting(role: str, column: Column) -> Column | None:
    """Return a column that may be guessed to be the role: not one that is called as another role is."""
    own = column.words in NAMES[role].split()
    if not own and any(column.words in NAMES[other].split() for other in NEEDED if other != role):
        return None
    if may_be(role, column):
        return column
    return _as_id(role, column) if own else None


def may_be(role: str, column: Column) -> bool:
    """Say whether what a column holds can be that role."""
    if role == "time":
        return column.kind in ("times", "ints", "floats")
    return column.kind in ("ints", "text") and column.distinct > 0


def role_lines(roles: Roles, said: str | None = None) -> Iterator[str]:
    """Yield the settings that name the columns. said : the form of the times, where it is known."""
    for role, guess in (("user", roles.user), ("item", roles.item)):
        yield f"    {role}: {quoted(guess.column.name)} # {guess.why}"
        if guess.column.distinct == 1 and len(guess.column.values) > 1:
            yield f"    # CHECK: all rows looked at have one {role}, which nothing can be learned of: another column?"
    time = roles.time.column
    yield f"    time: {quoted(time.name)} # {roles.time.why}"
    if time.form is not None:
        example = in_a_comment(next(distinct_texts(time, 1)), 40)
        others = " or ".join(map(quoted, time.forms[1:]))
        why = f"CHECK, a guess: {example} may be {others} too; --time-format says it" if others else f"as in {example}"
        yield f"    time_format: {quoted(time.form)} # {'as you said' if said else why}"
    elif time.unit is not None:
        yield f"    time_unit: {time.unit} # a guess: by their size, since 1970"
    elif time.kind != "times":
        yield "    # its numbers only order"
    yield from _odd_times(time)
    if roles.tie_break is not None:
        yield f"    tie_break: {quoted(roles.tie_break.name)} # a guess: named so; it orders events of equal time"
    if roles.event_type is not None:
        yield f"    event_type: {quoted(roles.event_type.name)} # a guess: named so"
        values = ", ".join(map(quoted, distinct_texts(roles.event_type, 30)))
        yield f"    # keep_types: [{values}] # all that were seen, the commonest first; all are kept"


def _odd_times(time: Column) -> Iterator[str]:
    """Say what times can hardly be."""
    if time.distinct == 1 and len(time.values) > 1:
        yield "    # CHECK: all rows looked at have one time, which orders nothing: is it another column?"
    elif time.distinct > 1 and (time.kind == "times" or time.unit is not None or time.form is not None):
        instants = parse_times(time.values, "us", "", time.unit, time.form)
        last = pc.max(instants).as_py()
        if last is not None and last > datetime.now(UTC).timestamp() * 1e6 + AHEAD:
            shown = np.datetime64(last, "us").astype("datetime64[D]")
            yield f"    # CHECK: the last of these times, {shown}, is yet to come"
