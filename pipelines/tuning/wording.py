"""Settings and numbers as the terminal, the report and its figures spell them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def text_of(value: Any) -> str:
    """Write a value as it would stand in YAML."""
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value)


def values_text(values: Mapping[str, Any]) -> str:
    """Write values as ``model.interests=4, model.iterations=2``."""
    return ", ".join(f"{setting}={text_of(value)}" for setting, value in values.items()) or "the base's settings"


def number(value: float) -> str:
    """Write a number with at most three digits that tell, and none that do not; whole numbers whole."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def epochs_text(epochs: float) -> str:
    """Write a number of epochs.

    >>> epochs_text(1), epochs_text(2.5)
    ('1 epoch', '2.5 epochs')
    """
    return f"{number(epochs)} epoch{'' if epochs == 1 else 's'}"
