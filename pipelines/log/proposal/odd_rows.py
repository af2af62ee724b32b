"""What looks odd in a log, as exclusions that are written down but not acted upon."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.schema import NULL_WORDS
from pipelines.config.yaml_text import quoted
from pipelines.log.normalise import text_numbers
from pipelines.log.proposal.first_look import Column, Look
from pipelines.log.proposal.roles import Roles
from pipelines.log.times import number_of
from pipelines.words import counted

HEAVY = 50  # times the median of events: may be a bot
OPINIONS = ("rating", "ratings", "stars", "score", "overall")
BEYOND = 1e15  # no rating and no quantity is so large: neither counted nor summed
ODD_SHOWN = 20  # ids that are no products


def odd_lines(log: Look, roles: Roles) -> Iterator[str]:
    """Say what is set aside, what may be a duplicate, and what else one may want to leave out."""
    for role, column in (("user", roles.user.column), ("item", roles.item.column)):
        if share := column.missing:
            yield f"    # {share:.1%} of the rows have no {role}: they are set aside and counted"
        yield from _negative_id(role, column)
    if equal := _equal_rows(roles):
        rows = counted(equal, "row is", "rows are")
        yield f"    # {rows} equal to another in user, item, time and type: one counts (duplicates: drop);"
        yield "    #   duplicates: keep keeps them all"
    rules = [*_heavy_user(roles.user.column), *_words_among_codes(roles.item.column), *_signs(log, roles)]
    if rules:
        yield "    # Nothing is left out unasked. To leave out what looks odd, take the '# ' away from its lines:"
        yield "    # exclude:"
        yield from (f"    #   - {rule}" for rule in rules)


def _negative_id(role: str, column: Column) -> Iterator[str]:
    """Say that a number below 0 among ids that are not may stand for nothing."""
    if column.kind != "ints":
        return
    distinct = pc.unique(column.values.drop_null())
    below = distinct.filter(pc.less(number_of(distinct)[0], 0))
    if len(below) == 1 and len(distinct) > 2:
        rows = pc.sum(pc.equal(column.values, below[0])).as_py()
        number = int(number_of(below)[0][0].as_py())
        yield f"    # CHECK: {counted(rows, 'row has', 'rows have')} the {role} {number}; if that stands for none, set:"
        yield f"    # null_values: {quoted([*NULL_WORDS, number])}"


def _equal_rows(roles: Roles) -> int:
    columns = [roles.user.column, roles.item.column, roles.time.column, roles.tie_break, roles.event_type]
    values = pa.table({each.name: each.values for each in columns if each is not None})
    whole = values.filter(pc.and_(pc.is_valid(values[0]), pc.and_(pc.is_valid(values[1]), pc.is_valid(values[2]))))
    codes = np.zeros(whole.num_rows, np.int64)
    for column in whole.columns:  # renumbered after each column, so that they never grow beyond 64 bits
        own = column.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
        codes = np.unique(codes * (own.max(initial=0) + 1) + own, return_inverse=True)[1]
    return len(codes) - (int(codes.max()) + 1 if len(codes) else 0)


def _heavy_user(user: Column) -> Iterator[str]:
    counted = user.values.drop_null().value_counts()
    counts = counted.field("counts").to_numpy()
    if len(counts) > 10 and counts.max() > HEAVY * max(1.0, float(np.median(counts))):
        heaviest = counted.field("values")[int(counts.argmax())].as_py()
        yield _rule(user, f"values: [{quoted(heaviest)}], reason: bot") + (
            f" # a bot? {counts.max():,} of {len(user.values):,} rows; the median user has {int(np.median(counts)):,}"
        )


def _words_among_codes(item: Column) -> Iterator[str]:
    """Name the ids without a digit where nine in ten have one."""
    if not pa.types.is_string(item.values.type):
        return
    distinct = pc.unique(item.values.drop_null())
    words = distinct.filter(pc.invert(pc.match_substring_regex(distinct, "[0-9]")))
    if 0 < 10 * len(words) < len(distinct):
        shown = ", ".join(map(quoted, words.to_pylist()[:ODD_SHOWN]))
        yield _rule(item, f"values: [{shown}], reason: no product") + (
            f" # no products? {counted(len(words), 'item is a word', 'items are words')} where most have digits"
        )


def _signs(log: Look, roles: Roles) -> Iterator[str]:
    """Name columns that seem to mark a row as undone: negative numbers, and numbers with a letter before them."""
    for column in filter(roles.is_free, log.columns):
        if column.kind in ("ints", "floats"):
            is_text = pa.types.is_string(column.values.type)
            numbers = text_numbers(column.values) if is_text else column.values.cast(pa.float64(), safe=False)
            numbers = numbers.filter(pc.less(pc.abs(numbers), BEYOND))
            below = pc.sum(pc.less(numbers, 0.0)).as_py() or 0
            if 0 < 5 * below < len(column.values):
                rows = counted(below, "row is", "rows are")
                yield _rule(column, "below: 0, reason: below 0") + f" # returns? {rows} below 0"
            elif len(numbers) and column.words in OPINIONS and 2 < column.distinct <= 100:
                middle = round(pc.mean(numbers).as_py())
                share = pc.mean(pc.less(numbers, middle).cast(pa.float64())).as_py()
                yield _rule(column, f"below: {middle}, reason: rated low") + (
                    f" # every rating counts as a wish; {share:.0%} are below {middle}"
                )
        elif column.kind == "text" and column.distinct > 10:
            text = column.values.drop_null()
            for letter in "CRX":
                share = pc.sum(pc.match_substring_regex(text, f"^{letter}[0-9]+$")).as_py() / len(text)
                plain = pc.sum(pc.match_substring_regex(text, "^[0-9]+$")).as_py() / len(text)
                if 0 < share < 0.2 and share + plain > 0.95:
                    yield _rule(column, f"prefix: {letter}, reason: cancellation") + (
                        f" # cancellations? {share:.1%} begin with {letter}"
                    )


def _rule(column: Column, rule: str) -> str:
    return f"{{column: {quoted(column.name)}, {rule}}}"
