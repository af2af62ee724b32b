"""Names for models that outlive their runs: in MLflow's Model Registry a name has versions, and aliases point at some.

mind tune ──register_model──▶ version n @challenger ──mind promote──▶ @champion, the one before it @previous

A serving process that asks for ``models:/<name>@champion`` follows the alias. Here a store that fails is an error, not
a warning as in pipelines.tracking.run: the entry itself is what was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipelines.config.home_location import home_folder
from pipelines.errors import UserError
from pipelines.tracking.client import global_uri, in_short, store_client, unusable
from pipelines.tracking.notes import NOTE, with_decision
from pipelines.tracking.store import database_of, is_file

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
ABOUT = (
    "Multi-interest retrieval by mind. `mind tune` registers its winner with the alias challenger; `mind promote` "
    "makes it the champion if it does better on the test set, and the one before it is previous. `mind serve` answers "
    "with the champion, and follows the alias."
)


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    model_uri : ``models:/m-...``, what was registered.  run_id : of the training.
    folder, fingerprint : of the model artifact where it was made and of its dataset, by the tags ``mind.model`` and
        ``mind.dataset``; None for a version that somebody registered by hand.
    """

    name: str
    version: str
    model_uri: str
    run_id: str | None = None
    folder: Path | None = None
    fingerprint: str | None = None
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """``models:/<name>/<version>``, which `find_model` and MLflow take."""
        return f"models:/{self.name}/{self.version}"


def register_model(uri: str, model_uri: str, name: str, alias: str, tags: Mapping[str, str]) -> str:
    """Make a stored model a version of a registered one, under an alias.

    Parameters
    ----------
    uri : str
        Of the store.
    model_uri : str
        ``models:/m-...``, as `Tracker.log_model` returned it. A model that is a version of `name` already stays that
        version, so that a resumed campaign registers nothing twice.
    name : str
        Of the registered model, which is made if the store does not have it.
    alias : str
        Is taken from the version that had it.
    tags : mapping of str to str
        Of the version; ``mind.model`` (the artifact's folder), ``mind.dataset`` (fingerprint) and ``mind.run`` are what
        `mind promote` goes by.

    Returns
    -------
    str
        The version.

    Raises
    ------
    UserError
        The store has no such model or cannot be used.
    """
    _check_name(name)
    with _store(uri) as client:
        found = client.search_model_versions(f"source_path = '{model_uri}'")
        versions = [str(version.version) for version in found if version.name == name]
        version = versions[0] if versions else _new_version(client, uri, model_uri, name)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        client.set_registered_model_alias(name, alias, version)
    return version


def model_by_alias(uri: str, name: str, alias: str) -> RegisteredVersion | None:
    """Find the version that an alias points at, None if there is none.

    Raises
    ------
    UserError
        The store cannot be used.
    """
    _check_name(name)
    if is_file(uri) and not database_of(uri).exists():
        return None  # asking would make an empty database
    with _store(uri) as client:
        try:
            version = client.get_registered_model(name).aliases.get(alias)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return None if version is None else _described(client.get_model_version(name, str(version)))


def move_alias(uri: str, name: str, alias: str, version: str | None) -> None:
    """Point an alias at another version, or at none.

    Raises
    ------
    UserError
        The store cannot be used.
    """
    with _store(uri) as client:
        if version is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, version)


def tag_version(uri: str, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
    """Set tags; later values replace earlier ones.

    Raises
    ------
    UserError
        The store cannot be used.
    """
    with _store(uri) as client:
        for key, value in tags.items():
            client.set_model_version_tag(version.name, version.version, key, value)


def tell_decision(uri: str, version: RegisteredVersion, decision: str) -> None:
    """Put a decision at the head of a version's description, in place of an earlier one.

    Raises
    ------
    UserError
        The store cannot be used.
    """
    with _store(uri) as client:
        description = client.get_model_version(version.name, version.version).description or ""
        client.update_model_version(version.name, version.version, with_decision(description, decision))


def _new_version(client: mlflow.MlflowClient, uri: str, model_uri: str, name: str) -> str:
    """Do what ``mlflow.register_model`` does, but in this store whatever MLFLOW_REGISTRY_URI says, and in silence."""
    model_id = model_uri.removeprefix("models:/")
    try:
        model = client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        raise UserError(f"{model_uri}: cannot be registered as {name} ({in_short(error)})") from error
    try:
        client.create_registered_model(name, description=ABOUT)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
    with global_uri(uri):
        made = client.create_model_version(
            name, model_uri, run_id=model.source_run_id, model_id=model_id, description=model.tags.get(NOTE)
        )
    # the dashboard's link from the model, and from its run, to the version
    links = [*json.loads(model.tags.get("mlflow.modelVersions", "[]")), {"name": name, "version": made.version}]
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(links)})
    return str(made.version)


def _described(version: ModelVersion) -> RegisteredVersion:
    tags = dict(version.tags)
    folder = tags.get("mind.model")
    return RegisteredVersion(
        name=str(version.name),
        version=str(version.version),
        model_uri=str(version.source),
        run_id=tags.get("mind.run") or version.run_id or None,
        folder=None if folder is None else home_folder(folder),
        fingerprint=tags.get("mind.dataset"),
        tags=tags,
    )


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[^/:]*[^/:\s.][^/:]*", name):  # MLflow's own rule
        raise UserError(
            f"{name!r}: no name for a registered model; it must have letters or digits, and neither / nor :"
        )


@contextmanager
def _store(uri: str) -> Iterator[mlflow.MlflowClient]:
    """Make a client whose every failure is one line."""
    try:
        yield store_client(uri)
    except UserError:
        raise
    except Exception as error:
        raise unusable(uri, error) from error
