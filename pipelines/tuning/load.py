"""From a campaign's file to a validated `Campaign` and the configuration that its trials vary, or one line of error.

Imports neither Ray, torch nor MLflow: a typing error must answer at once.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.config.explain import Layer, explain, show
from pipelines.config.home_location import shown
from pipelines.config.load import available_presets, config_hash, load_config, merge, parse_sets, read_yaml, resolved
from pipelines.config.names import ALLOWED, home_place, is_name
from pipelines.config.redact import redact
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.storage.atomic import whole
from pipelines.storage.home_files import names, renew
from pipelines.tuning.check_space import check_space
from pipelines.tuning.config import Campaign
from pipelines.tuning.space import allows

READY = Path(__file__).parent / "ready"  # campaigns that want nothing but a configuration
EXTENSIBLE = ("trials", "finalists")  # of `search`: a campaign may be continued with another value


@dataclass(frozen=True)
class Loaded:
    """campaign, and the configuration `base` with `settings` on top.  source : the file, for messages."""

    campaign: Campaign
    base: Config
    source: str

    @property
    def base_source(self) -> str:
        """The base's file, for messages."""
        return str(Path(self.source).parent / self.campaign.base)

    @property
    def folder(self) -> Path:
        return self.base.place("campaigns", self.campaign.campaign)

    @property
    def trials(self) -> Config:
        """The base as trials train it: with the campaign's workers, and in memory."""
        resources = self.campaign.resources
        change = {"workers": resources.workers, "use_gpu": resources.gpus > 0, "input": "memory", "profile": False}
        tracking = self.base.tracking.model_copy(update={"system_metrics": False})  # one machine, many trials
        return self.base.model_copy(update={"train": self.base.train.model_copy(update=change), "tracking": tracking})


def ready_campaigns() -> list[str]:
    """List the names that ``mind tune --preset`` accepts, sorted."""
    return sorted(file.stem for file in READY.glob("*.yaml"))


def load_campaign(path: Path, sets: Sequence[str] = (), home: str | None = None, ready: str | None = None) -> Loaded:
    """Read, merge and validate a campaign.

    Parameters
    ----------
    path : the YAML file.
    sets : ``key.subkey=value`` each, e.g. ``search.trials=40`` or ``settings.train.epochs=8``.
    home : in place of the base's.
    ready : one of `ready_campaigns`; `path` is then a configuration of data and model, and the campaign's base.

    Raises
    ------
    UserError
        One line, for the first mistake.
    """
    values = read_yaml(path) if ready is None else _ready(path, ready)
    if "data" in values:
        raise UserError(f"{path}: a configuration of data and model, not a campaign; search what matters most with "
                        f"`mind tune {path} --preset quick`, or write a campaign with `base: {path.name}` and a "
                        "`space`, as conf/beauty-tune.yaml does")  # fmt: skip
    campaign = _validated(str(path), values, sets)
    if "preset" in campaign.settings:
        raise UserError(f"{path}: settings.preset: is ignored within settings; give the campaign itself `preset`")
    if campaign.preset is not None and campaign.preset not in available_presets():
        presets = ", ".join(available_presets())
        raise UserError(f"{path}: preset={show(campaign.preset)}: must be one of {presets}")
    over = Layer(f"{path}: settings", campaign.settings)
    base_path = path.parent / campaign.base
    if not base_path.is_file():
        raise UserError(f"{path}: base={campaign.base}: no such file ({base_path}); it is looked for "
                        "beside the campaign")  # fmt: skip
    home_set = [] if home is None else [f"home={json.dumps(home)}"]
    base = load_config(base_path, home_set, campaign.preset, over)
    return _checked(Loaded(campaign, base, str(path)))


def _ready(path: Path, name: str) -> dict[str, Any]:
    """Make the campaign `name` for the configuration at `path`: without several interests where its encoder has one."""
    if name not in ready_campaigns():
        raise UserError(f"--preset {show(name)}: must be one of {', '.join(ready_campaigns())}")
    if "data" not in read_yaml(path):
        raise UserError(f"{path}: a campaign of its own; leave out --preset {name}, or give the configuration that "
                        "it varies")  # fmt: skip
    base = load_config(path)
    values: dict[str, Any] = read_yaml(READY / f"{name}.yaml")
    if base.model.encoder != "mind":
        del values["space"]["model.interests"], values["finish"]
    return {"campaign": f"{base.name}-{name}", "base": path.name, **values}


def stored_campaign(name: str, home: Path, sets: Sequence[str] = ()) -> Loaded:
    """Load the campaign as it was last started, with `sets` on top.

    Raises
    ------
    UserError
        If there is none of that name in `home`, or `sets` are wrong.
    """
    if not is_name(name):
        raise UserError(f"--resume {show(name)}: a campaign's name must be {ALLOWED}")
    file = home_place(home, "campaigns", name) / "campaign.json"
    if not renew(file).is_file():
        known = names(home / "campaigns")
        there = f"there are {', '.join(known)}" if known else "give --home, or start it: mind tune CONF"
        raise UserError(f"--resume {name}: no such campaign in {home / 'campaigns'}; {there}")
    stored = json.loads(file.read_text("utf-8"))
    if "***" in (stored["base"]["tracking"]["uri"] or ""):
        raise UserError(f"--resume {name}: its tracking.uri has a password, which is not kept; resume it by its file: "
                        f"mind tune {stored['source']}")  # fmt: skip
    for text in sets:
        if text.partition("=")[0].strip() in ("base", "preset"):
            raise UserError(f"--resume {name}: --set {redact(text)}: cannot change; start another one: mind tune CONF "
                            "--set campaign=NAME")  # fmt: skip
    campaign = _validated(f"campaign {name}", stored["campaign"], sets)
    settings = parse_sets(sets).get("settings", {})
    values = merge(merge(stored["base"], settings), {"home": str(home)})
    try:
        base = Config.model_validate(values)
    except ValidationError as error:
        layers = [Layer("defaults", {}), Layer(f"campaign {name}", stored["base"]), Layer("--set settings", settings)]
        raise UserError(explain(error, values, layers)) from None
    return _checked(Loaded(campaign, base, stored["source"]))


def store_campaign(loaded: Loaded, fingerprint: str) -> dict[str, Any]:
    """Write ``campaign.json``, if the campaign is new or goes on with what it began.

    Returns
    -------
    dict
        All that it holds: ``id`` names the campaign for ever, ``run_id`` is its MLflow run, if there is one yet.

    Raises
    ------
    UserError
        If a campaign of that name searched something else.
    """
    file = loaded.folder / "campaign.json"
    identity = _identity(loaded, fingerprint)
    values = {
        "source": loaded.source,
        "identity": identity,
        "campaign": plain(loaded.campaign),
        "base": resolved(loaded.base),
    }
    before: dict[str, Any] = json.loads(file.read_text("utf-8")) if renew(file).is_file() else {}
    if before:
        for part, value in identity.items():
            if before["identity"].get(part) != value:
                name = loaded.campaign.campaign
                stored = "" if part == "dataset" else f"go on with it as it was: mind tune --resume {name}, or "
                where = shown(loaded.folder)
                raise UserError(f"{loaded.source}: campaign {name} exists with another {part} ({where}); {stored}"
                                "begin a new one: --set campaign=NAME")  # fmt: skip
    state = {"id": uuid.uuid4().hex} | before | values
    write_state(loaded.folder, state)
    return state


def plain(campaign: Campaign, only_given: bool = False) -> dict[str, Any]:
    """Return a campaign as plain values, passwords removed; pydantic's own JSON would make infinite numbers null.

    only_given : without the defaults.
    """
    values = _redacted(campaign.model_dump(exclude_unset=only_given))
    assert isinstance(values, dict)
    return values


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def write_state(folder: Path, values: dict[str, Any]) -> None:
    """Replace ``campaign.json`` in one step."""
    with whole(folder / "campaign.json") as aside:
        aside.write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def _identity(loaded: Loaded, fingerprint: str) -> dict[str, Any]:
    """Return what makes trials of two starts comparable; by the name that a message gives it."""
    campaign = plain(loaded.campaign)
    search = {key: value for key, value in campaign["search"].items() if key not in EXTENSIBLE}
    return {
        "dataset": fingerprint,
        "number of workers, or GPUs": [campaign["resources"]["workers"], campaign["resources"]["gpus"] > 0],
        "base configuration or settings": config_hash(loaded.trials, ("model", "loss", "optim", "train", "evaluate")),
        "space": campaign["space"],
        "search": search,
    }


def _validated(source: str, values: dict[str, Any], sets: Sequence[str]) -> Campaign:
    over = parse_sets(sets)
    layers = [Layer("defaults", {}), Layer(source, values), Layer("--set", over)]
    merged = merge(values, over)
    try:
        return Campaign.model_validate(merged)
    except ValidationError as error:
        raise UserError(explain(error, merged, layers, Campaign)) from None


def _checked(loaded: Loaded) -> Loaded:
    campaign, base, source = loaded.campaign, loaded.base, loaded.source
    if base.train.input == "stream":
        raise UserError(f"{source}: train.input=stream: trials share the train split in memory; "
                        "leave it out of the base")  # fmt: skip
    if base.train.include_validation:
        raise UserError(f"{source}: train.include_validation=true: trials are compared on the validation split; "
                        "finish.refit: train_validation does it for the winner")  # fmt: skip
    if base.model.encoder == "popularity":
        raise UserError(f"{source}: model.encoder=popularity: nothing is trained, so there is nothing to search")
    check_space(campaign, loaded.trials, source)
    if campaign.finish.against is not None:
        for name, value in campaign.finish.against.items():
            if name not in campaign.space or not allows(campaign.space[name], value):
                raise UserError(f"{source}: finish.against: {name}={value}: no trial has it; name a value of the space")
    return loaded
