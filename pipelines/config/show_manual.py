"""`mind config`: every setting, or a part of them, with what it accepts, its default, and what it does."""

from __future__ import annotations

import difflib
from functools import cache

from rich.markup import escape
from rich.padding import Padding

from pipelines.config.manual import Part, Setting, as_yaml, parts, preset_values
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.progress import output


def show_manual(asked: str | None = None) -> list[Part]:
    """Print the manual of a section (``data.events``), of a setting (``train.epochs``), or of all; what was printed.

    Raises
    ------
    UserError
        If there is no section or setting of that name.
    """
    presets = preset_values()
    found = chosen(asked)
    for part in found:
        if part.settings:
            output.print(f"\n[bold]{escape(part.name or 'the file itself')}[/bold]", highlight=False)
        for setting in part.settings:
            output.print(f"[cyan]{escape(setting.name)}[/cyan]: {escape(_told(setting))}", highlight=False)
            text = " ".join([setting.manual, *_in_presets(setting, presets.get(setting.name, {}))]).strip()
            if text:
                output.print(Padding(escape(text), (0, 0, 0, 4), expand=False), highlight=False)
    return found


def chosen(asked: str | None) -> list[Part]:
    """Choose the parts, and within them the settings, that a dotted name means; None: all.

    Raises
    ------
    UserError
        If it means nothing.
    """
    every = _every()
    if asked is None:
        return every
    found = []
    for part in every:
        inside = f"{part.name}.".startswith(f"{asked}.")
        settings = [each for each in part.settings if inside or each.name == asked]
        if settings:
            found.append(Part(part.name, part.text, settings))
    if not found:
        names = [name for part in every for name in (part.name, *(each.name for each in part.settings)) if name]
        near = difflib.get_close_matches(asked, names, 3, 0.4) or ["data", "model", "train"]
        raise UserError(f"config {asked}: no such setting or section; some that are near: {', '.join(near)}")
    return found


@cache
def _every() -> list[Part]:
    return list(parts(Config))


def _told(setting: Setting) -> str:
    default = setting.default.replace("`", "")
    accepts = setting.accepts.replace("`", "")
    return f"{accepts}; {default}" if default == "must be given" else f"{accepts}; default {default}"


def _in_presets(setting: Setting, values: dict[str, object]) -> list[str]:
    told = [f"{name} {as_yaml(value)}" for name, value in values.items() if f"`{as_yaml(value)}`" != setting.default]
    return [f"Preset: {', '.join(told)}."] if told else []
