"""Which model a command means: a folder, an MLflow URI, a run's name, a preset's newest, or just "the newest"."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.home_location import shown
from pipelines.config.load import available_presets
from pipelines.config.names import file_name, is_name
from pipelines.config.redact import redact
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.models.artifact import ModelCard, load_card
from pipelines.models.runs import run_stem
from pipelines.progress import console
from pipelines.storage.home_files import changed_at, exists, names
from pipelines.storage.publish import Mark, published
from pipelines.storage.tables import write_text
from pipelines.tracking.store import store_of

if TYPE_CHECKING:  # imports MLflow
    from pipelines.tracking.registry import RegisteredVersion


def find_model(config: Config, dataset: Dataset, given: str | None = None) -> Path:
    """Find the folder of the model artifact to use.

    Parameters
    ----------
    given : a folder; an MLflow URI (``models:/...``, ``runs:/...``), which is downloaded into the home folder; the name
        of a model in the home folder; or a preset. A preset, or None for the configuration's own, means the newest
        model that was trained with it on this dataset: of exactly these settings if there is one, else of any, which
        the console then says.

    Raises
    ------
    UserError
        If there is none, or it was trained on another dataset.
    """
    if given is None or (given in available_presets() and not (Path(given) / "config.json").is_file()):
        return _newest(config, dataset, given or config.preset)
    if re.match(r"[a-z][a-z0-9+.-]+:/", given):
        folder = _downloaded(config, given)
    elif is_name(given) and exists(config.place("models", given) / "config.json"):
        folder = config.place("models", given)
    else:
        folder = Path(given).expanduser().resolve()
        if not (folder / "config.json").is_file():
            models = shown(config.home_path / "models")
            raise UserError(f"{given}: no model: must be a folder, a models:/ URI, the name of a model in {models}, or "
                            f"one of {', '.join(available_presets())}")  # fmt: skip
    card = load_card(folder)
    if card.dataset_fingerprint != dataset.manifest.fingerprint:
        raise UserError(f"{given}: trained on another dataset ({_differs(card, dataset)}): its item indices mean other "
                        f"items; train again with: {_train_command(config, config.preset)}")  # fmt: skip
    return folder


def find_version(config: Config, version: RegisteredVersion) -> Path:
    """Find the folder of a registered version: where it was trained, if that still holds it, else a download.

    Raises
    ------
    UserError
        If it cannot be fetched.
    """
    return version_folder(version) or _downloaded(config, version.uri)


def version_folder(version: RegisteredVersion) -> Path | None:
    """Find the folder that a registered version was trained into; None if that does not hold this model any more."""
    folder = version.folder
    if folder is not None and exists(folder / "config.json") and load_card(folder).run_id == version.run_id:
        return folder
    return None


def _newest(config: Config, dataset: Dataset, preset: str) -> Path:
    name = re.compile(rf"{re.escape(f'{config.name}-{preset}')}-[0-9a-f]+(-\d+)?")
    files = [config.home_path / "models" / each / "config.json" for each in names(config.home_path / "models")]
    files = [file for file in files if name.fullmatch(file.parent.name) and exists(file)]
    own = re.compile(rf"{re.escape(run_stem(config, dataset))}(-\d+)?")
    found = sorted(files, key=changed_at)
    found.sort(key=lambda file: own.fullmatch(file.parent.name) is not None)  # these last: they come first
    for file in reversed(found):
        if load_card(file.parent).dataset_fingerprint == dataset.manifest.fingerprint:
            if not own.fullmatch(file.parent.name):
                differs = "; its settings are not those of this command" if preset == config.preset else ""
                console.print(f"Taking {file.parent.name}, the newest model of preset {preset}{differs}")
            return file.parent
    command = _train_command(config, preset)
    if not found:
        raise UserError(f"{config.name}: no model of preset {preset} yet; make one with: {command}")
    card = load_card(found[-1].parent)
    raise UserError(f"{found[-1].parent}: the newest model of preset {preset} was trained on another dataset "
                    f"({_differs(card, dataset)}); train again with: {command}")  # fmt: skip


def _downloaded(config: Config, uri: str) -> Path:
    from pipelines.tracking.run import download_model  # imports MLflow, which a folder does not need

    target = config.home_path / "downloads" / file_name(redact(uri))
    with published(target, Mark("source.json")) as folder:
        write_text(json.dumps({"name": target.name, "uri": redact(uri)}), folder / "source.json")
        place = download_model(store_of(config), uri, folder).relative_to(folder)
    return target / place


def _differs(card: ModelCard, dataset: Dataset) -> str:
    return f"fingerprint {card.dataset_fingerprint[:12]}, {dataset} has {dataset.manifest.fingerprint[:12]}"


def _train_command(config: Config, preset: str) -> str:
    return "mind train CONF" + ("" if preset == "default" else f" --preset {preset}")
