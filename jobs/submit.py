"""From a stage's command line to what is sent to a cluster: checked here, before anything leaves this machine.

A job is the same command on another machine: `python -m jobs.cli STAGE CONF ...` in a copy of the code. Data do not
travel, so every place that it names must be one that the nodes have too.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.client import ATTEMPT, COMMIT, CONF, STAGE, Submission
from jobs.options import home_without_conf, loaded_config, require_campaign
from jobs.package import code_files, conf_places
from jobs.secrets import local_secrets, refuse_files_with_secrets, refuse_secret
from pipelines.cluster.nodes import DRIVER_CPUS
from pipelines.config.home_location import home_folder
from pipelines.config.load import parse_sets
from pipelines.config.redact import redact
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tracking.versions import git_state
from pipelines.tuning.load import load_campaign

STAGES = ("preprocess", "train", "evaluate", "report", "recommend", "tune", "promote", "export", "pipeline")
READS_LOG = ("preprocess", "pipeline")  # the other stages read the dataset
PATHS = ("append", "out")  # options of stages that name a file or folder
MODELS = ("model", "against")  # options that may name one
FORWARDED = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION")  # from here, where set
SHARED = "s3://bucket/prefix, gs://bucket/prefix or an absolute path that all nodes mount alike"
OWN_METADATA = "mind_"


@dataclass(frozen=True)
class Asked:
    """What a cluster is asked beside the stage's command line. `env` : NAME or NAME=VALUE. `metadata` : KEY=VALUE."""

    env: Sequence[str] = ()
    metadata: Sequence[str] = ()
    submission_id: str | None = None
    num_cpus: float = 0.1
    num_gpus: float = 0.0
    memory: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What a stage works on. `confs` : the file and those that it refers to."""

    name: str
    home: str
    confs: Sequence[Path] = ()


def prepare(
    stage: str,
    words: Sequence[str],
    options: Mapping[str, Any],
    asked: Asked,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Submission, dict[str, Path]]:
    """Check a stage's command line and make of it what is sent.

    Parameters
    ----------
    words : what follows ``mind STAGE``.
    options : the same as the stage's command reads them, by parameter.

    Returns
    -------
    Submission, and the package's files by their place.

    Raises
    ------
    UserError
        For what the stage itself would refuse, what the nodes could not reach, and what must not be sent.
    """
    if asked.submission_id is not None and not re.fullmatch(r"[\w.-]+", asked.submission_id, re.ASCII):
        raise UserError(f"--submission-id {redact(asked.submission_id)}: must be letters, digits and . _ - alone")
    subject = _subject(stage, options, environment)
    _require_shared_options(options)
    env = _env(asked.env, subject.home, environment)
    metadata = _metadata(asked.metadata)
    if asked.num_cpus:
        env[DRIVER_CPUS] = f"{asked.num_cpus:g}"
    files = code_files()
    _refuse_secrets(words, env, metadata, asked, subject.confs, files, environment)

    places = conf_places(subject.confs, Path.cwd())
    files |= dict(zip(places, subject.confs, strict=True))
    words = list(words)
    if subject.confs:
        given = next(number for number, word in enumerate(words) if Path(word) == options["conf"])
        words[given] = places[0]
        metadata[CONF] = places[0]
    metadata |= {STAGE: stage, ATTEMPT: secrets.token_hex(8)}
    if state := git_state():
        metadata[COMMIT] = state[0][:12] + ("+changes" if state[1] else "")
    return (
        Submission(
            id=asked.submission_id or _new_id(stage, subject.name),
            entrypoint=shlex.join(["python", "-m", "jobs.cli", stage, *words]),
            env=env,
            metadata=metadata,
            resources=_resources(asked),
        ),
        files,
    )


def _subject(stage: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> Subject:
    """Load what the stage's own command would load."""
    conf, sets, home = options.get("conf"), options.get("sets") or [], options.get("home")
    if stage == "tune":
        require_campaign(conf, options.get("resume"), options.get("preset"))
    if conf is None:
        parse_sets(sets)
        place = home_without_conf(home, environment)
        _require_shared_home(place)
        return Subject(str(options["resume"]), place)
    if stage == "tune":
        loaded = load_campaign(conf, sets, home, options.get("preset"))
        _require_shared_home(loaded.base.home)
        _require_no_address(loaded.base)
        confs = (conf,) if options.get("preset") else (conf, Path(loaded.base_source))
        return Subject(loaded.campaign.campaign, loaded.base.home, confs)
    config = loaded_config(conf, sets, options.get("preset"), home)
    _require_shared_home(config.home)
    _require_no_address(config)
    if stage in READS_LOG:
        _require_shared_data(config)
    return Subject(config.name, config.home, (conf,))


def _require_shared_home(home: str) -> None:
    if not _is_shared(home):
        raise UserError(f"home={home}: a relative path, and each node has its own; give {SHARED} (--home, MIND_HOME or "
                        "home: in CONF)")  # fmt: skip
    try:
        home_folder(home)
    except ValueError as error:
        raise UserError(str(error)) from None


def _require_no_address(config: Config) -> None:
    if config.ray.address not in (None, "auto"):
        raise UserError(f"ray.address={config.ray.address}: a job joins the cluster that it runs on; leave it out")


def _require_shared_data(config: Config) -> None:
    tables = {"events": config.data.events, "items": config.data.items, "profile": config.data.profile}
    for name, table in tables.items():
        if table is not None and not _is_shared(table.path):
            raise UserError(f"data.{name}.path={table.path}: a relative path, and data do not travel with a job; give "
                            f"{SHARED} (--set data.{name}.path=...)")  # fmt: skip


def _require_shared_options(options: Mapping[str, Any]) -> None:
    for name in PATHS:
        if options.get(name) is not None and not _is_shared(str(options[name])):
            raise UserError(f"--{name} {options[name]}: a relative path, which a job would look for in its own folder; "
                            f"give {SHARED}")  # fmt: skip
    for name in MODELS:
        given = options.get(name) or ()
        for model in [given] if isinstance(given, str) else given:
            if not _is_shared(model) and Path(model).expanduser().is_dir():
                raise UserError(f"--{name} {model}: a folder of this machine, which a job does not have; give a "
                                "models:/ URI, the name of a model in home or an absolute path")  # fmt: skip


def _is_shared(place: str) -> bool:
    """Say whether it may mean the same on every node; whether it does, a stage sees when it begins."""
    return "://" in place or PurePosixPath(place).is_absolute()


def _env(asked: Sequence[str], home: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of the job; the home as it was checked, whatever the nodes have."""
    env = {name: environment[name] for name in FORWARDED if environment.get(name)}
    env["MIND_HOME"] = home
    for text in asked:
        name, equals, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(f"--env {name}: must be NAME, a variable that is set here, or NAME=VALUE")
        if not equals and name not in environment:
            raise UserError(f"--env {name}: is not set here; give {name}=VALUE")
        env[name] = value if equals else environment[name]
    return env


def _metadata(asked: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in asked:
        key, equals, value = text.partition("=")
        if not equals or not key or key.startswith(OWN_METADATA):
            raise UserError(f"--metadata {key}: must be KEY=VALUE, and KEY not begin with {OWN_METADATA}")
        found[key] = value
    return found


def _refuse_secrets(
    words: Sequence[str],
    env: Mapping[str, str],
    metadata: Mapping[str, str],
    asked: Asked,
    confs: Sequence[Path],
    code: Mapping[str, Path],
    environment: Mapping[str, str],
) -> None:
    """See that nothing of what is sent is secret."""
    known = local_secrets(environment)
    for word in words:  # of settings none is secret by its name, and features have names of the user's
        setting, equals, _ = word.partition("=")
        named = setting if setting.startswith("-") else f"--set {setting}"
        refuse_secret(named if equals else "the command line", word, known)
    explicit = {text.partition("=")[0] for text in asked.env}
    for name, value in env.items():
        refuse_secret(f"--env {name}" if name in explicit else name, value, known, name)
    for key, value in metadata.items():
        refuse_secret(f"--metadata {key}", value, known, key)
    if asked.submission_id is not None:
        refuse_secret("--submission-id", asked.submission_id, known)
    for conf in confs:
        for number, line in enumerate(conf.read_text("utf-8").splitlines(), start=1):
            refuse_secret(f"{conf}, line {number}", line, known)
    refuse_files_with_secrets(code, known)


def _resources(asked: Asked) -> dict[str, Any]:
    """Return the entrypoint's resources as Ray's submit_job takes them; what is not asked for is left out."""
    found = {
        "entrypoint_num_cpus": asked.num_cpus,
        "entrypoint_num_gpus": asked.num_gpus,
        "entrypoint_memory": asked.memory,
        "entrypoint_resources": dict(asked.resources),
    }
    return {name: value for name, value in found.items() if value}


def _new_id(stage: str, name: str) -> str:
    return f"mind-{stage}-{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
