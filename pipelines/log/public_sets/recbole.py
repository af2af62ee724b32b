"""RecBole's atomic files: tables with tabs, whose header has a type for each column."""

from __future__ import annotations

from pipelines.config.redact import redact
from pipelines.config.yaml_text import quoted
from pipelines.errors import UserError
from pipelines.log.proposal.first_look import Column, look_at
from pipelines.log.proposal.tables import MANY, SHOWN
from pipelines.log.public_sets.files import LAST, Files, Lines


def recbole(files: Files) -> Lines:
    """Write NAME.inter with NAME.item and NAME.user: tables with tabs, whose header has a type for each column."""
    logs = files.all(".inter")
    if not logs:
        raise files.none("NAME.inter, RecBole's file of interactions")
    if len(logs) > 1:
        raise UserError(
            f"{redact(files.folder)}: several files of interactions ({', '.join(logs)}); give the folder of one. "
            "RecBole's own splits are not read: mind splits by itself"
        )
    (log,) = logs
    types = _types(files, log)
    listed = ", ".join(f"{name}:{kind}" for name, kind in types.items())
    found = {}
    for role, kind in (("user", "token"), ("item", "token"), ("time", "float")):
        names = [name for name, its in types.items() if its == kind and _is_role(role, name)]
        if not names:
            lists = [name for name, its in types.items() if its.endswith("_seq") and _is_role(role, name)]
            why = (
                f"; {lists[0]} holds lists, as RecBole augments its sequences: use the file from before"
                if lists
                else ""
            )
            raise UserError(f"{log}: no column of the {role}s ({role}_id:token or timestamp:float) in {listed}{why}")
        found[role] = names[0]
    yield from ("data:", "  events:", f"    path: {quoted(log)}", f"    user: {quoted(found['user'])}")
    yield from (f"    item: {quoted(found['item'])}", f"    time: {quoted(found['time'])}")
    unit = next((each.unit for each in look_at(log).columns if each.name == found["time"]), None)
    yield f"    time_unit: {unit} # by their size, since 1970" if unit else "    # its numbers only order"
    for side, ending, role in (("items", ".item", "item"), ("profile", ".user", "user")):
        table = log.removesuffix(".inter") + ending
        if table in files.all(ending):
            yield from (f"  {side}:", f"    path: {quoted(table)}")
            yield from _recbole_table(table, _types(files, table), found[role])
    yield LAST


def _recbole_table(table: str, types: dict[str, str], key: str) -> Lines:
    if key not in types:
        raise UserError(f"{table}: no column {key!r}, as the interactions have it; there is {', '.join(types)}")
    looked = {each.name: each for each in look_at(table).columns}
    yield f"    id: {quoted(key)}"
    features = []
    shown = [name for name in types if any(word in looked[name].words for word in SHOWN) and name != key]
    for name, kind in types.items():
        column = looked[name]
        if name == key or name in shown or column.distinct < 2:
            continue
        if kind == "token_seq":
            features.append(f'{quoted(name)}: {{kind: multi, separator: "{_separator(column)}"}}')
        elif kind == "token" and column.distinct <= MANY:
            features.append(f"{quoted(name)}: {{min_count: 5}}" if column.distinct > 50 else f"{quoted(name)}: {{}}")
        elif kind == "float":
            features.append(f"{quoted(name)}: {{kind: bucket}}")
    if features:
        yield from ("    features:", *(f"      {each}" for each in features))
    if shown:
        yield f"    show: [{', '.join(map(quoted, shown))}]"


def _separator(column: Column) -> str:
    """RecBole's own is a blank; of values with commas it is a comma and a blank."""
    commas = sum(", " in str(value) for value in column.values.drop_null().slice(0, 1000).to_pylist())
    return ", " if commas > 0.2 * min(1000, max(1, len(column.values))) else " "


def _is_role(role: str, name: str) -> bool:
    return any(word in name.lower() for word in {"user": ["user"], "item": ["item"], "time": ["time"]}[role])


def _types(files: Files, path: str) -> dict[str, str]:
    """Read the header: type by name."""
    header = files.text(path, 2**16).decode("utf-8-sig", "replace").splitlines()[0]
    parts = [each.rpartition(":") for each in header.split("\t")]
    if not all(name and kind in ("token", "token_seq", "float", "float_seq") for name, _, kind in parts):
        raise UserError(f"{path}: its first line must name columns as name:type, of token, token_seq, float and "
                        f"float_seq; it is {header[:200]!r}")  # fmt: skip
    return {name: kind for name, _, kind in parts}
