"""What a person calls a run: the preset and what differs from it, in the letters of the paper where it has one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.config.load import PRESETS, read_yaml, resolved
from pipelines.config.schema import Config

LETTERS = {
    "model.interests": "K",
    "model.iterations": "r",
    "model.dim": "d",
    "model.max_history": "L",
    "train.workers": "W",
}
SECTIONS = ("model", "loss", "optim", "train")  # what makes a model
MOST = 4  # settings of a title


def values_title(values: Mapping[str, Any]) -> str:
    """Write settings in short.

    >>> values_title({"model.interests": 2, "model.iterations": 2, "optim.learning_rate": 0.003})
    'K=2, r=2, learning_rate=0.003'
    """
    return ", ".join(f"{short_name(name)}={_text(value)}" for name, value in values.items())


def short_name(setting: str) -> str:
    """Return the letter that the paper has for a setting, else its last word.

    >>> short_name("model.interests"), short_name("loss.kind"), short_name("model.init_std")
    ('K', 'loss', 'init_std')
    """
    section, _, name = setting.rpartition(".")
    return LETTERS.get(setting) or (section if name == "kind" else name)


def run_title(config: Config) -> str:
    """Write the preset, and in what the settings differ from it.

    Returns
    -------
    For example ``default: K=2, r=2``; the first four differences, and how many more there are.
    """
    differs = _differences(config)
    shown = dict(list(differs.items())[:MOST])
    more = f" and {len(differs) - MOST} more" if len(differs) > MOST else ""
    return f"{config.preset}: {values_title(shown)}{more}" if differs else config.preset


def _differences(config: Config) -> dict[str, Any]:
    values = {"name": config.name, "preset": config.preset, "data": {"events": {"path": "none"}}}
    plain = read_yaml(PRESETS / f"{config.preset}.yaml") if (PRESETS / f"{config.preset}.yaml").is_file() else {}
    base = resolved(Config.model_validate({**plain, **values}))
    mine = resolved(config)
    found: dict[str, Any] = {}
    for section in SECTIONS:
        for name, value in mine[section].items():
            if value != base[section][name]:
                found[f"{section}.{name}"] = value
    letters = list(LETTERS)
    return dict(sorted(found.items(), key=lambda pair: letters.index(pair[0]) if pair[0] in letters else len(letters)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)
