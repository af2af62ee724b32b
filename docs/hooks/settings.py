"""The pages of the settings of configurations and campaigns (pipelines.config.manual)."""

from __future__ import annotations

from typing import Any

from docs.hooks.markdown import cell, code
from pipelines.config.manual import as_yaml, parts, preset_values
from pipelines.config.schema import Config
from pipelines.tuning.config import Campaign


def settings_page() -> str:
    """Write the page of a configuration's settings."""
    return _page(
        "Settings of a configuration",
        "A configuration is a YAML file (`conf/` has examples). Every name below is a key of it, and the same dotted "
        "name works on the command line: `--set train.epochs=3`. What wins, lowest first: the default, the preset of "
        "the file, the file, `MIND_HOME`, `--preset`, `--set`. An unknown name is one line of error before anything "
        "starts.",
        Config,
        preset_values(),
    )


def campaign_page() -> str:
    """Write the page of a tuning campaign's settings."""
    return _page(
        "Settings of a campaign",
        "A campaign is a YAML file for `mind tune`. [How a campaign works](../tuning.md) explains them in order.",
        Campaign,
        {},
    )


def _page(title: str, intro: str, root: type, presets: dict[str, dict[str, Any]]) -> str:
    lines = [f"# {title}", "", intro, ""]
    for part in parts(root):
        lines += [f"## {part.name or 'The file itself'}", "", cell(part.text), ""]
        if part.settings:
            lines += ["| setting | accepts | default | what it does |", "|---|---|---|---|"]
        for setting in part.settings:
            values = {name: f"`{as_yaml(value)}`" for name, value in presets.get(setting.name, {}).items()}
            elsewhere = [cell(f"{name} {value}") for name, value in values.items() if value != setting.default]
            manual = cell(setting.manual.rstrip(".") + "." if setting.manual else "")
            manual += f" Preset: {', '.join(elsewhere)}." if elsewhere else ""
            lines.append(
                f"| {code(setting.name)} | {cell(setting.accepts)} | {cell(setting.default)} | {manual.strip()} |"
            )
        lines.append("")
    return "\n".join(lines)
