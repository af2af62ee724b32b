"""Which model is served: one that was named, or the one that an alias of MLflow's registry points at, as it moves.

A process that answers looks at the alias every few seconds. Another version is loaded beside the one that answers; only
then, between two batches, does it take over. A version that cannot be loaded is said once, and the old one stays.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.home_location import shown
from pipelines.config.redact import redact
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.lists.rules import rules_of
from pipelines.models.answers import Answerer
from pipelines.models.artifact import load_model
from pipelines.models.find import find_model, find_version
from pipelines.models.limits import Limits
from pipelines.tracking.store import store_of

logger = logging.getLogger("ray.serve")  # whose lines carry the replica and the request


@dataclass(frozen=True)
class Source:
    """A model's folder.

    version : of the registered model whose alias pointed at it; None for a model that was named, or is not registered.
    follows : whether the alias is looked at again.
    """

    folder: Path
    version: str | None = None
    follows: bool = False

    def __str__(self) -> str:
        return shown(self.folder) + ("" if self.version is None else f" (version {self.version})")


@dataclass(frozen=True)
class Current:
    """The model that answers."""

    source: Source
    answerer: Answerer


def limits_of(config: Config) -> Limits:
    """Take the limits of a request from the settings."""
    serve = config.serve
    return Limits(body=serve.max_body, n=serve.max_n, history=serve.max_history, items=serve.max_history)


def find_source(config: Config, model: str | None = None) -> Source:
    """Find the model to serve.

    Parameters
    ----------
    model : a folder, or as `find_model` takes it; it is served until the end. None: the version that the alias points
        at, or as long as there is none the newest model of the configuration; the alias is followed.

    Raises
    ------
    UserError
        If there is none.
    """
    if model is not None and (Path(model).expanduser() / "config.json").is_file():
        return Source(Path(model).expanduser().resolve())
    if model is not None:
        return Source(find_model(config, Dataset.open(config.dataset_path), model))
    if (found := aliased(config)) is not None:
        return found
    return Source(find_model(config, Dataset.open(config.dataset_path)), follows=True)


def aliased(config: Config) -> Source | None:
    """Find the version that the alias points at now; None without any.

    Raises
    ------
    UserError
        If the registry, or the model, cannot be reached.
    """
    from pipelines.tracking.registry import model_by_alias  # imports MLflow, which a named model does not need

    name = config.serve.registered or config.name
    version = model_by_alias(store_of(config), name, config.serve.alias)
    return None if version is None else Source(find_version(config, version), version.version, follows=True)


def opened(config: Config, source: Source) -> Current:
    """Load a model, and answer once with it, so that the first request does not wait for what is made but once."""
    model = load_model(source.folder)
    answerer = Answerer(model, limits_of(config), rules_of(config, model.columns()).rules)
    request = answerer.reader.read({"history": answerer.ids[:1].to_pylist(), "n": 1})
    answerer.answer([request])
    return Current(source, answerer)


class Follower:
    """Looks at the alias, in a thread of its own.

    Parameters
    ----------
    current : what answers now.
    switch : is called with the model that shall answer from now on.
    failed : is called for each look or load that failed.
    """

    def __init__(
        self, config: Config, current: Current, switch: Callable[[Current], None], failed: Callable[[], None]
    ) -> None:
        self.config, self.current, self.switch, self.failed = config, current, switch, failed
        self.said = ""
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="follow-alias", daemon=True)

    def start(self) -> None:
        """Begin; `stop` ends it."""
        self.thread.start()

    def stop(self) -> None:
        """End the thread after what it is doing."""
        self.ended.set()

    def look(self) -> None:
        """Look once, and switch if the alias points at another version."""
        try:
            found = aliased(self.config)
            if found is None or found.version == self.current.source.version:
                self.said = ""
                return
            self.current = opened(self.config, found)
        except Exception as error:  # whatever it is, the model that answers goes on
            self.failed()
            self._say_once(error)
            return
        self.said = ""
        self.switch(self.current)

    def _say_once(self, error: Exception) -> None:
        line = redact(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        if line != self.said:
            logger.warning("the alias %s cannot be followed: %s", self.config.serve.alias, line)
        self.said = line

    def _run(self) -> None:
        while not self.ended.wait(self.config.serve.poll_s):
            self.look()
