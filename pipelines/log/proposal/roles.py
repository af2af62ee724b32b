"""Which columns of a log are the user, the item and the time: by their names, then by what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow.compute as pc

from pipelines.config.yaml_text import in_a_comment, quoted
from pipelines.errors import UserError
from pipelines.log.formats import names_in_words
from pipelines.log.ids import canonical
from pipelines.log.proposal.first_look import Column, Look, distinct_texts
from pipelines.log.times import ACCEPTED

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
    for role in ("time", "user", "item"):
        if role in found:
            continue
        free = [column for column in log.columns if column.name not in {guess.column.name for guess in found.values()}]
        guess = _guess(role, free)
        if guess is None:
            listed = ", ".join(map(_in_words, free))
            raise UserError(f"{log.path}: no column seems to be the {role}; give --{role} COLUMN, one of {listed}")
        found[role] = guess
    roles = Roles(found["user"], found["item"], found["time"])
    free = [column for column in log.columns if roles.is_free(column)]
    tie = next((each for each in free if each.words in ORDERS and each.kind in ("ints", "floats")), None)
    kinds = [each for each in free if each is not tie and each.words in NAMES["type"].split()]
    words = [each for each in kinds if each.kind in ("text", "ints", "bools")]
    event_type = next((each for each in words if 1 < each.distinct <= 30), None)
    return replace(roles, tie_break=tie, event_type=event_type, are_sessions=roles.user.column.words in SESSIONS)


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
    accepted = f"a time is one of: {ACCEPTED}" if role == "time" else "ids must be integers, text or UUIDs"
    return UserError(f"{log.path}: --{role} {name} holds {held}; {accepted}")


def _in_words(column: Column) -> str:
    examples = "".join(f"{in_a_comment(each, 20)}, " for each in distinct_texts(column, 2))
    return f"{names_in_words([column.name])} ({column.kind}, {column.distinct:,} values: {examples}...)"


def _guess(role: str, columns: Sequence[Column]) -> Guess | None:
    """Prefer the names in their order, then what looks like it."""
    fits = [column for column in columns if may_be(role, column)]
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


def may_be(role: str, column: Column) -> bool:
    """Say whether what a column holds can be that role."""
    if role == "time":
        return column.kind in ("times", "ints", "floats")
    return column.kind in ("ints", "text") and column.distinct > 0


def role_lines(roles: Roles) -> Iterator[str]:
    """Yield the settings that name the columns."""
    for role, guess in (("user", roles.user), ("item", roles.item)):
        yield f"    {role}: {quoted(guess.column.name)} # {guess.why}"
    time = roles.time.column
    yield f"    time: {quoted(time.name)} # {roles.time.why}"
    if time.form == "?":
        yield '    time_format: "%d/%m/%Y" # CHECK: days could be months here, and hours may be missing in this form'
    elif time.form is not None:
        yield f"    time_format: {quoted(time.form)} # as in {in_a_comment(next(distinct_texts(time, 1)), 40)}"
    elif time.unit is not None:
        yield f"    time_unit: {time.unit} # a guess: by their size, since 1970"
    elif time.kind != "times":
        yield "    # its numbers only order"
    if roles.tie_break is not None:
        yield f"    tie_break: {quoted(roles.tie_break.name)} # a guess: named so; it orders events of equal time"
    if roles.event_type is not None:
        yield f"    event_type: {quoted(roles.event_type.name)} # a guess: named so"
        values = ", ".join(map(quoted, distinct_texts(roles.event_type, 30)))
        yield f"    # keep_types: [{values}] # all that were seen, the commonest first; all are kept"
