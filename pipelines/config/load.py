"""From a YAML file, a preset and ``--set a.b=c`` to one validated :class:`~pipelines.config.schema.Config`.

Precedence, lowest first: the defaults in code, the file's preset (pipelines/config/presets/*.yaml), the file,
``MIND_HOME``, the command line's ``--preset``, ``--set``. A preset that is asked for on the command line thus means
what it says whatever the file has tuned: ``--preset paper`` is the paper's choices only. Every mistake becomes one line
(explain.py).
Imports neither Ray, torch nor MLflow: a typing error must answer at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.config import yaml_text
from pipelines.config.explain import Layer, Values, explain, show, show_text
from pipelines.config.redact import redact
from pipelines.config.schema import Config
from pipelines.config.yaml_text import MAX_BYTES
from pipelines.errors import UserError
from pipelines.progress import console

PRESETS = Path(__file__).parent / "presets"
# Neither home, tracking nor ray, which say where a campaign runs: a move keeps the hash. Nor the preset's name, as its
# values count.
HASHED = ("name", "data", "model", "loss", "optim", "train", "evaluate")
# Nor what changes no number of a run: a crash may be a reason to change it before going on. train.workers does.
UNHASHED = (
    ("data", "max_bad_fraction"),
    ("train", "threads"),
    ("train", "min_workers"),
    ("train", "max_failures"),
    ("train", "profile"),
    ("train", "shard_items"),
    ("evaluate", "top_n"),
    ("evaluate", "again"),
    ("evaluate", "new"),
    ("evaluate", "category"),
    ("evaluate", "diversity"),
)


def load_config(
    path: str | Path,
    sets: Sequence[str] = (),
    preset: str | None = None,
    over: Layer | None = None,
    text: str | None = None,
) -> Config:
    """Read, merge and validate a configuration.

    Parameters
    ----------
    path : str or Path
        The YAML file.
    sets : sequence of str
        ``key.subkey=value`` each, the value in YAML; a later one wins.
    preset : str, optional
        Takes the place of the file's ``preset``.
    over : Layer, optional
        Another file's settings, on top of this file's.
    text : str, optional
        What the file is going to hold; it need not be there.

    Raises
    ------
    UserError
        One line, for the first mistake, with the number of others.
    """
    file = Layer(
        str(path), read_yaml(Path(path)) if text is None else _values(text.encode(errors="surrogateescape"), path)
    )
    merged_commands = parse_sets(sets)
    asked = merged_commands.get("preset") if preset is None else preset
    chosen = file.values.get("preset", "default") if asked is None else asked
    if chosen not in available_presets():
        source = f"{file.name}: preset=" if asked is None else "--set preset=" if preset is None else "--preset "
        raise UserError(f"{source}{show(chosen)}: must be one of {', '.join(available_presets())}")

    preset_layer = Layer(f"preset {chosen}", read_yaml(PRESETS / f"{chosen}.yaml"))
    layers = [preset_layer, file] if asked is None else [file, preset_layer]
    layers += [] if over is None else [over]
    if home := os.environ.get("MIND_HOME"):
        layers.append(Layer("MIND_HOME", {"home": home}))
    layers.append(Layer("--set", merged_commands))
    merged: Values = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    merged["preset"] = chosen
    try:
        return with_interests_that_count(Config.model_validate(merged))
    except ValidationError as error:
        raise UserError(explain(error, merged, layers)) from None


def most_interests(config: Config) -> int:
    """Return the most interests that any user of the model has: more of them would change nothing."""
    model = config.model
    if model.encoder != "mind" or not model.adaptive_interests:
        return model.interests
    return max(1, model.max_history.bit_length() - 1)


def with_interests_that_count(config: Config) -> Config:
    """Lower `model.interests` to `most_interests`, and say so."""
    most = most_interests(config)
    if config.model.interests <= most:
        return config
    console.print(
        f"model.interests={config.model.interests}: {most} are trained, as a user has at most floor(log2(max_history)) "
        f"and model.max_history={config.model.max_history}; raise that, or set model.adaptive_interests=false",
        markup=False,
        soft_wrap=True,
    )
    return config.model_copy(update={"model": dataclasses.replace(config.model, interests=most)})


def available_presets() -> list[str]:
    """List the names that ``preset:`` and ``--preset`` accept, sorted."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def resolved(config: Config) -> Values:
    """Return every setting as plain JSON values, in order of declaration, passwords removed.

    An infinite number becomes the text "inf", which JSON can hold and which validation reads back:
    ``Config.model_validate(resolved(config)) == config`` where there was no password.
    """
    values = _plain(config)
    assert isinstance(values, dict)
    return values


def config_hash(config: Config, sections: Sequence[str] = HASHED) -> str:
    """Name, in twelve hex digits, what these sections of the configuration compute, e.g. ``("data",)`` a dataset."""
    values = {key: value for key, value in resolved(config).items() if key in sections}
    for section, key in UNHASHED:
        if section in values:
            del values[section][key]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return redact(value) if isinstance(value, str) else value


def read_yaml(path: Path) -> Values:
    """Read the mapping in a file; a UserError names the file and, where it is no YAML, the line."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return _values(data, path)


def _values(data: bytes, path: str | Path) -> Values:
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: more than {MAX_BYTES // 2**10} KiB, which no configuration needs")
    try:
        values = yaml_text.parse(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {yaml_text.problem(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold `key: value` lines, found {show(values)}")
    return values


def parse_sets(texts: Sequence[str]) -> Values:
    """Parse ``a.b=c`` each into nested sections; a later one wins."""
    merged: Values = {}
    for values in [_parse_set(text) for text in texts]:
        merged = merge(merged, values)
    return merged


def _parse_set(text: str) -> Values:
    key, equals, value_text = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {show_text(text)}: must be key=value, for example model.dim=32")
    try:
        value = yaml_text.parse(value_text)
    except yaml.YAMLError:
        raise UserError(f"--set {show_text(text)}: the value is not valid YAML; put it in quotes") from None
    for part in reversed(parts):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def merge(base: Values, over: Values) -> Values:
    """Put `over` on top of `base`: mappings are merged key by key, everything else (lists too) is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
