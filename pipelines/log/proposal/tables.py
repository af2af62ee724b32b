"""Tables of items and users: their id by what it shares with the log, their features by what the columns hold.

A log whose rows say something of the item or the user is such a table itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.names import is_feature_name
from pipelines.config.yaml_text import in_a_comment, quoted
from pipelines.errors import UserError
from pipelines.log.proposal.first_look import Column, Look, distinct_texts
from pipelines.log.proposal.roles import Roles, may_be
from pipelines.words import counted

SHOWN = ("title", "name", "description", "productname", "movietitle", "label")
QUANTITIES = ("price", "cost", "age", "count", "year", "rating", "score", "weight", "duration", "length", "amount")
MANY = 5000  # distinct whole numbers that are no codes: a quantity
FEW = 50  # values of which none is rare
BUCKETS = 16  # a quantity of fewer values is as good as a category
COMMON = 5  # rows of a value from which on something can be learned of it
MOST_SHOWN = 4  # columns beside an id
SAID_OF = 0.9  # agreement, beyond chance, of an id's rows in a column that says something of the id
ROWS = 2**19  # of the log in which it is looked for
SEPARATORS = "|;,"
MANY_FEATURES = 30
MAX_KEY = 1000  # characters; YAML takes no longer one in a line


def table_lines(side: str, role: str, table: Look, ids: Column) -> Iterator[str]:
    """Yield the section of an item or profile table.

    Raises
    ------
    UserError
        If no column of it shares a value with the log's ids.
    """
    matches = {column.name: _shared(column, ids) for column in table.columns if may_be(role, column)}
    if not matches or max(matches.values()) == 0:
        raise UserError(
            f"{table.path}: no column shares a value with the log's {ids.name!r}; is it the table of another log?"
        )
    named = {name: matches[name] > 0 and name == ids.name for name in matches}
    own = max(map(table.column, matches), key=lambda each: (named[each.name], matches[each.name] * each.distinct))
    name = own.name
    if name in table.settings.get("columns", []) and ids.name not in table.settings["columns"]:
        name = ids.name  # as the log calls it, where the file gives no names
    yield f"  {side}:"
    yield from setting_lines(table, {own.name: name})
    known = f"{matches[own.name]:.0%} of its values are in the log's {in_a_comment(ids.name, 40)}"
    yield f"    id: {quoted(name)} # {known}"
    if own.distinct < len(own.values) - own.values.null_count:
        yield "    duplicates: last # an id stands on several rows"
    yield from _column_lines(side, [column for column in table.columns if column.name != own.name])


def lines_of_the_log(side: str, log: Look, roles: Roles) -> Iterator[str]:
    """Yield a table that is the log itself, where its rows say something of their item or user."""
    if log.unrolled:  # a row is of several items
        return
    ids = (roles.item if side == "items" else roles.user).column
    other = (roles.user if side == "items" else roles.item).column
    columns = []
    for column in filter(roles.is_free, log.columns):
        if column.words in SHOWN and column.kind == "text":
            is_said = side == "items"
        else:
            agreement = said_of(column, ids)
            is_said = agreement >= SAID_OF and agreement >= said_of(column, other)
        if is_said:
            columns.append(column)
    lines = list(_column_lines(side, by_id(columns, ids)))
    if any(not line.lstrip().startswith("#") for line in lines):
        yield f"  {side}: # the log itself: its rows say this of the {'item' if side == 'items' else 'user'}"
        yield from setting_lines(log)
        yield f"    id: {quoted(ids.name)}"
        yield "    duplicates: last # an id stands on several rows"
        yield from lines


def setting_lines(table: Look, renamed: Mapping[str, str] | None = None) -> Iterator[str]:
    """Say where a table lies and how it is written, with its first row where its columns have no names."""
    yield f"    path: {quoted(table.path)}"
    for key, value in table.settings.items():
        if key != "columns":
            yield f"    {key}: {quoted(value)}"
            continue
        row = ", ".join(in_a_comment(str(column.values[0].as_py()), 40) for column in table.columns)
        names = [(renamed or {}).get(name, name) for name in value]
        yield f"    columns: {quoted(names)} # no header: names of your choice; the first row: {row}"


def said_of(column: Column, ids: Column) -> float:
    """Tell how far the rows of an id agree in a column, beyond what chance does: 1 = always, 0 = as any rows.

    Ids of one row say nothing, so that each id's first row does not count.
    """
    if column.kind not in ("ints", "floats", "text", "bools") or column.distinct < 2:
        return 0.0
    values, owners = column.values.slice(0, ROWS), ids.values.slice(0, ROWS)
    there = pc.and_(pc.is_valid(values), pc.is_valid(owners))
    codes = [each.filter(there).dictionary_encode().indices.to_numpy().astype(np.int64) for each in (owners, values)]
    if not len(codes[0]):
        return 0.0
    kinds = codes[1].max() + 1
    pairs, counts = np.unique(codes[0] * kinds + codes[1], return_counts=True)
    first = np.flatnonzero(np.diff(pairs // kinds, prepend=-1))  # pairs of an id stand together
    most = np.maximum.reduceat(counts, first)
    beyond = len(codes[0]) - len(most)
    if beyond < len(most):  # fewer than two rows an id
        return 0.0
    by_chance = np.bincount(codes[1]).max() / len(codes[1])
    return float(((most.sum() - len(most)) / beyond - by_chance) / max(1e-9, 1 - by_chance))


def by_id(columns: Sequence[Column], ids: Column) -> list[Column]:
    """Take one row of each id, as a table of these columns does that has `duplicates: last`.

    That is the last one in which any of them has a value, see pipelines.dataset.one_row.
    """
    there = pc.is_valid(ids.values).to_numpy(zero_copy_only=False)
    says = np.zeros(len(there), bool)
    for column in columns:
        says |= pc.is_valid(column.values).to_numpy(zero_copy_only=False)
    codes = ids.values.filter(pa.array(there)).dictionary_encode().indices.to_numpy()
    order = np.lexsort([says[there], codes])  # stable: the later of two rows stands behind
    last = np.flatnonzero(np.append(codes[order][1:] != codes[order][:-1], True)[: len(order)])
    rows = pa.array(np.sort(np.flatnonzero(there)[order[last]]))
    found = []
    for column in columns:
        values = column.values.take(rows)
        missing = values.null_count / max(1, len(values))
        found.append(replace(column, values=values, distinct=len(pc.unique(values.drop_null())), missing=missing))
    return found


def _column_lines(side: str, columns: Sequence[Column]) -> Iterator[str]:
    """Yield features, what is shown beside an item, and what is neither."""
    features, shown, telling, left = [], [], [], []
    for column in columns:
        if not is_feature_name(column.name) or len(quoted(column.name)) > MAX_KEY:
            left.append(f"    # {in_a_comment(column.name, 40)} is left out: no feature can have its name")
            continue
        is_rare = _separator(column) is None and _is_rare(column)
        if column.words in SHOWN or (is_rare and column.kind == "text" and side == "items"):
            shown.append(column.name)
        elif is_rare:
            left.append(
                f"    # {in_a_comment(column.name, 40)} is left out: most of its {column.distinct:,} values are rare"
                + _examples(column)
            )
        elif (feature := _feature(side, column)) is not None:
            features.append(f"      {quoted(column.name)}: {feature}")
            if column.kind == "text" and column.missing < 0.5:
                telling.append(column)
    if features:
        if len(features) > MANY_FEATURES:
            yield f"    # CHECK: {len(features):,} features, and each costs time in every step: keep those that matter"
        yield "    features:"
        yield from features
    yield from left
    telling.sort(key=lambda column: (column.missing >= 0.05, -column.distinct))  # the more values, the more is told
    shown += [column.name for column in telling]
    if shown and side == "items":
        yield f"    show: [{', '.join(map(quoted, shown[:MOST_SHOWN]))}]"


def _is_rare(column: Column) -> bool:
    """Say whether most rows have a value that hardly any other row has."""
    return column.kind in ("text", "ints") and not _is_quantity(column) and _are_rare(column.values)


def _are_rare(values: pa.Array) -> bool:
    counts = values.drop_null().value_counts().field("counts").to_numpy()
    return len(counts) > FEW and bool(counts[counts >= COMMON].sum() < 0.5 * counts.sum())


def _is_quantity(column: Column) -> bool:
    if column.kind == "floats":
        return True
    is_code = column.words.endswith(("id", "code", "number"))
    named = column.words.endswith(QUANTITIES) and column.distinct > BUCKETS
    return column.kind == "ints" and (named or (column.distinct > MANY and not is_code))


def _feature(side: str, column: Column) -> str | None:
    """Guess what a feature is: None if nothing can be learned of it."""
    missing = f", {column.missing:.0%} missing" if column.missing >= 0.005 else ""
    said = f"# {counted(column.distinct, 'value')}{missing}"
    if column.kind == "lists":
        return f"{{kind: multi}} {said}"
    if column.distinct < 2:
        return None
    if (mark := _separator(column)) is not None:
        return f"{{kind: multi, separator: {quoted(mark)}}} {said}, a guess: many have a {mark}{_examples(column)}"
    if _is_quantity(column):
        return f"{{kind: bucket}} {said}, numbers{_examples(column)}"
    if column.kind in ("text", "ints", "bools"):
        # A brand of two items is learned from all the events of both, and adds a row to the thousands of theirs: it
        # stays. A user has no vector but the profile's, so that what two users share would be them by heart.
        is_cut = side == "profile" and column.distinct > FEW
        return (f"{{min_count: {COMMON}}} " if is_cut else "{} ") + said + _examples(column)
    return None


def _separator(column: Column) -> str | None:
    """Find what separates the values of a text, where they are shared by many rows and it is no prose."""
    if column.kind != "text":
        return None
    text = column.values.drop_null()
    for mark in SEPARATORS:
        has = pc.match_substring(text, mark)
        prose = pc.match_substring_regex(text, rf"{re.escape(mark)}\s")  # a comma in a title has a blank behind it
        count = pc.sum(has).as_py()
        is_prose = 10 * pc.sum(prose).as_py() > count
        if count > 0.2 * len(text) and not is_prose and not _are_rare(pc.split_pattern(text, mark).flatten()):
            return mark
    return None


def _examples(column: Column) -> str:
    """Show the commonest values, so that a column without a name can be told."""
    texts = [in_a_comment(text, 20) for text in distinct_texts(column, 3)]
    return f": {', '.join(texts)}" + (", ..." if column.distinct > 3 else "") if texts else ""


def _shared(column: Column, ids: Column) -> float:
    """Return the share of a table's ids that the log has, as text."""
    mine, theirs = (pc.unique(each.values.drop_null()).cast(pa.string()) for each in (column, ids))
    return float(pc.mean(pc.is_in(mine, value_set=theirs).cast(pa.float64())).as_py() or 0.0) if len(mine) else 0.0
