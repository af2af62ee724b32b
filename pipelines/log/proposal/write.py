"""A configuration for a log that nobody has described, as YAML in which every guess is said to be one.

The guesses are made from the first rows and from the columns' names. Nothing is left out of the log without being
asked for: what looks like a bot, a cancellation or a non-product is a comment.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.config.yaml_text import in_a_comment, quoted
from pipelines.log.proposal.all_over import rows_all_over
from pipelines.log.proposal.first_look import Look
from pipelines.log.proposal.habits import habits_of, with_all_of_it
from pipelines.log.proposal.odd_rows import odd_lines
from pipelines.log.proposal.recipe import evaluate_lines, preset_lines, rare_lines, split_lines, training_lines
from pipelines.log.proposal.roles import guess_roles, role_lines, settled
from pipelines.log.proposal.tables import lines_of_the_log, setting_lines, table_lines
from pipelines.words import counted


def propose(
    name: str,
    log: Look,
    items: Look | None = None,
    profile: Look | None = None,
    columns: Mapping[str, str] | None = None,
) -> str:
    """Write the configuration.

    columns : of the log that are known to be the user, the item or the time, by role.

    Raises
    ------
    UserError
        If no column of the log can be the user, the item or the time; the text lists the columns.
    """
    roles = guess_roles(log, columns)
    if log.is_whole or not roles.are_instants:
        habits = habits_of(log, roles)
    else:
        rows = rows_all_over(log, roles.user.column.name, roles.item.column.name, roles.time.column.name)
        roles = settled(roles, rows)
        habits = with_all_of_it(roles, habits_of(log, roles), rows)
    seen = f"{'all' if log.is_whole else 'the first'} {counted(log.rows, 'row')}"
    if log.not_rows:
        no_rows = counted(log.not_rows, "line among them is no row and is", "lines among them are no rows and are")
        seen += f"; {no_rows} set aside"
    lines = [f"# Written by `mind init` from {seen}. Each guess says so.", f"name: {quoted(name)}"]
    lines += [*preset_lines(roles, habits), "data:", "  events:", *setting_lines(log)]
    if log.settings.get("format") == "sessions":
        lines.append("    # one session a line: its line is the user, the place in it the time")
    else:
        if log.twice:
            twice = ", ".join(in_a_comment(each, 40) for each in log.twice)
            lines.append(f"    # left out, as it stands several times in the file: {twice}")
        if log.unrolled:
            lists = ", ".join(in_a_comment(each, 40) for each in log.unrolled)
            lines.append(f"    # a row has lists ({lists}): each of their values is an event")
        lines += role_lines(roles, log.time_format)
    lines += odd_lines(log, roles)
    for side, role, table, ids in (
        ("items", "item", items, roles.item.column),
        ("profile", "user", profile, roles.user.column),
    ):
        lines += table_lines(side, role, table, ids) if table is not None else lines_of_the_log(side, log, roles)
    lines += [
        *rare_lines(habits),
        *split_lines(log, roles, habits),
        *training_lines(log, roles, habits),
        *evaluate_lines(habits),
    ]
    return "\n".join(lines) + "\n"
