"""A configuration file with settings of a call on top: the same validation and the same messages as of a command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.config.explain import Layer
from pipelines.config.load import load_config, merge
from pipelines.config.schema import Config
from pipelines.errors import UserError

FIXED = ("name", "home", "data")  # of a dataset: a model cannot change them


@dataclass(frozen=True)
class Settings:
    """Where a configuration comes from.

    conf : the file.  home : in place of the file's.  preset : as ``--preset``.  over : sections of settings on top.
    """

    conf: Path
    home: str | None = None
    preset: str | None = None
    over: Mapping[str, Any] = field(default_factory=dict)

    def with_more(self, call: str, settings: Mapping[str, Any], preset: str | None = None) -> Settings:
        """Put the settings of a call on top; `call` names it in a message.

        Raises
        ------
        UserError
            For a setting that belongs to the dataset.
        """
        settings = {name: value for name, value in settings.items() if value is not None}
        for name in FIXED:
            if name in settings:
                raise UserError(f"{call}: {name}: belongs to the dataset; give it to Dataset.from_frame or from_config")
        return replace(self, preset=preset or self.preset, over=merge(dict(self.over), settings))

    def config(self, call: str) -> Config:
        """Read and validate all of it.

        Raises
        ------
        UserError
            One line, for the first mistake.
        """
        sets = [] if self.home is None else [f"home={json.dumps(self.home)}"]
        return load_config(self.conf, sets, self.preset, Layer(call, plain(self.over)))


def plain(values: Any) -> Any:
    """Copy settings with lists for tuples and dicts for mappings, as YAML would give them.

    >>> plain({"model": {"hidden": (64, 32)}})
    {'model': {'hidden': [64, 32]}}
    """
    if isinstance(values, Mapping):
        return {str(name): plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    return values.item() if hasattr(values, "item") else values
