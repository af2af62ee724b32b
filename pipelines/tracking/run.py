"""The module that calls MLflow: a run for every stage, with settings, metrics, lineage, files and the model. Names for
models that outlive their runs are in pipelines.tracking.registry.

Runs are addressed by id through MlflowClient, never through MLflow's thread-local "active run": a training has its
driver, Ray's controller and worker callbacks in different processes. A `Tracker` is therefore an address that pickles.

At its start a run needs the store, and says so in one line. Later on the store may fail: what could not be written is
counted and warned about, and the training goes on.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import mlflow
import mlflow.artifacts
import mlflow.pyfunc
import yaml
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipelines.config.home_location import origin
from pipelines.config.load import HASHED, config_hash, resolved
from pipelines.config.redact import redact
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tracking.store import artifact_root, is_server, store_of
from pipelines.tracking.versions import git_state, versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")
Status = Literal["FINISHED", "FAILED", "KILLED"]

PACKAGES = Path(__file__).parents[2]
MAX_PARAM_LENGTH = 6000  # these limits are MLflow's
MAX_PARAM_NAME = 250
MAX_TAG_LENGTH = 8000
MAX_PARAMS = 100
MAX_METRICS = 1000
MAX_DIGEST_LENGTH = 36
SYSTEM_METRICS_INTERVAL_S = 5  # MLflow's own 10 s leave a run of half a minute with one or two points
PAUSE_S = 30  # without a try after a failed one: each may cost the time-outs below
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  # MLflow's own: minutes
QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}  # a bar a file, among our own

logger = logging.getLogger(__name__)


class Tracker:
    """One MLflow run. As a context manager it ends the run by how the block ends.

    Parameters
    ----------
    uri : str
        Of the store.
    run_id : str
        Of an existing run.

    Notes
    -----
    It pickles as these two, so it can be sent to Ray's processes. Only the process that opened the run ends it.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri = uri
        self.run_id = run_id
        self.lost = 0  # calls that the store did not take
        self._client = store_client(uri)
        self._silent_until = 0.0
        self._system: SystemMetricsMonitor | None = None

    def __reduce__(self) -> tuple[type[Tracker], tuple[str, str]]:
        return Tracker, (self.uri, self.run_id)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish("KILLED")
        else:
            self.fail(f"{type(error).__name__}: {error}")

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers at a step; ``hitrate@20`` is named ``hitrate_at_20``, as MLflow takes no ``@``."""
        now = int(time.time() * 1000)
        entities = [Metric(metric_name(name), float(value), now, step) for name, value in metrics.items()]
        for start in range(0, len(entities), MAX_METRICS):
            chunk = entities[start : start + MAX_METRICS]
            self._try(self._client.log_batch, self.run_id, metrics=chunk)

    def last_step(self, metric: str) -> int:
        """Find the last step at which `metric` was logged, -1 if never: where a resumed run goes on."""
        return max(self.steps(metric), default=-1)

    def tag(self, key: str) -> str | None:
        """Return the value of a tag; None without it."""
        run = self._try(self._client.get_run, self.run_id)
        return None if run is None else run.data.tags.get(key)

    def steps(self, metric: str) -> set[int]:
        """Return the steps at which `metric` was logged."""
        return set(self.history(metric))

    def history(self, metric: str) -> dict[int, float]:
        """Return what was logged of `metric`, by step; of a step that was logged twice, the last."""
        history = self._try(self._client.get_metric_history, self.run_id, metric_name(metric))
        return {point.step: point.value for point in history or ()}

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; later values replace earlier ones."""
        entities = [RunTag(key, value[:MAX_TAG_LENGTH]) for key, value in tags.items()]
        self._try(self._client.log_batch, self.run_id, tags=entities)

    def log_dataset(
        self, name: str, fingerprint: str, source: str, context: str, counts: Mapping[str, int] | None = None
    ) -> None:
        """Record what the run read.

        Parameters
        ----------
        name, fingerprint : str
            Of the dataset's manifest; MLflow shows the first 36 characters of the fingerprint as its digest.
        source : str
            Path or URI of the log that it was made from.
        context : str
            ``training``, ``test``, ...
        counts : mapping of str to int, optional
            Users, items, events, ...: shown beside it.
        """
        dataset = Dataset(
            name=name,
            digest=fingerprint[:MAX_DIGEST_LENGTH],
            source_type="local" if "://" not in source else source.split("://")[0],
            source=json.dumps({"uri": redact(source)}),
            profile=json.dumps(dict(counts or {})),
        )
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
        self._try(self._client.log_inputs, self.run_id, inputs)
        self.log_tags({"mind.dataset": fingerprint})

    def log_table(self, columns: Mapping[str, Sequence[Any]], file: str) -> None:
        """Store a table as ``file`` (.json), which the dashboard shows; a second call appends rows."""
        self._try(self._client.log_table, self.run_id, {key: list(col) for key, col in columns.items()}, file)

    def log_figure(self, figure: Figure, file: str) -> None:
        """Store a Matplotlib figure as ``file`` (.png, .svg)."""
        self._try(self._client.log_figure, self.run_id, figure, file)

    def log_text(self, text: str, file: str) -> None:
        """Store text as ``file``, replacing what was there."""
        self._try(self._client.log_text, self.run_id, text, file)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a local file, or all that is in a local folder, under ``folder`` of the run."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._try(log, self.run_id, str(path), folder)

    def log_model(
        self,
        name: str,
        folder: Path,
        code: Path,
        signature: ModelSignature,
        input_example: Any,
        requirements: Sequence[str] = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch"),
        step: int = 0,
    ) -> str | None:
        """Store a model that ``mlflow models serve`` can run, without pickle and without Ray.

        Parameters
        ----------
        name : str
            In the dashboard.
        folder : Path
            The model artifact; `code` finds it as ``context.artifacts["model"]``.
        code : Path
            A Python file that ends with ``mlflow.models.set_model(...)``. It is run now, and its example tried.
        signature, input_example
            Of the model.
        requirements : sequence of str
            Distributions that `code` needs; the installed versions are recorded.
        step : int
            The metrics logged at this step are shown beside the model.

        Returns
        -------
        str or None
            ``models:/m-...``, or None if the store did not take it.
        """

        def log() -> str:
            run = self._client.get_run(self.run_id)
            model = self._client.create_logged_model(
                run.info.experiment_id, name, source_run_id=self.run_id, params=run.data.params
            )
            with global_uri(self.uri):
                info = Model.log(
                    artifact_path=None,
                    name=name,
                    flavor=mlflow.pyfunc,
                    flavor_name="python_function",
                    run_id=self.run_id,
                    model_id=model.model_id,
                    step=step,
                    python_model=str(code),
                    artifacts={"model": str(folder)},
                    code_paths=[str(PACKAGES / "mind_core"), str(PACKAGES / "pipelines")],
                    signature=signature,
                    input_example=input_example,
                    pip_requirements=[_pinned(requirement) for requirement in requirements],
                )
            return str(info.model_uri)

        return self._try(log)

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run."""
        if self._system is not None:
            self._system.finish()
            self._system = None
        self._silent_until = 0.0  # the last chance
        self._try(self._client.set_terminated, self.run_id, status)
        if self.lost:
            logger.warning("MLflow: %d calls were lost; the run %s is incomplete", self.lost, self.run_id)

    def fail(self, reason: str) -> None:
        """End the run as failed, with the reason as a tag."""
        self.log_tags({"mind.failure": redact(reason)})
        self.finish("FAILED")

    def _try(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call, or count what is lost: nothing that happens to a dashboard may end a training."""
        if time.monotonic() < self._silent_until:
            self.lost += 1
            return None
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not self.lost:
                logger.warning("MLflow: %s; the run goes on without it", first_line(error))
            self.lost += 1
            self._silent_until = time.monotonic() + PAUSE_S
            return None


def open_run(
    config: Config,
    stage: str,
    name: str,
    run_id: str | None = None,
    parent: str | None = None,
    without: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
) -> Tracker:
    """Start a run, or go on with one.

    Parameters
    ----------
    config : Config
        Recorded as params and as ``config.yaml``; names the store and the experiment.
    stage : str
        ``preprocess``, ``train``, ...
    name : str
        In the dashboard.
    run_id : str, optional
        A run to go on with; a new one is made if the store does not know it (any more).
    parent : str, optional
        Id of the run under which the dashboard shows this one.
    without : sequence of str
        Sections of `config` that are not recorded, as they did not shape this run.
    tags : mapping of str to str, optional
        To tell a new run by.

    Raises
    ------
    UserError
        The store cannot be used.
    """
    uri = store_of(config)
    settings = {key: value for key, value in resolved(config).items() if key not in without}
    try:
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        digest = config_hash(config, [section for section in HASHED if section not in without])
        tracker = Tracker(uri, _run(store_client(uri), config, digest, stage, name, run_id, parent, tags or {}))
        _log_params(tracker, settings)
    except Exception as error:
        raise unusable(uri, error) from error
    tracker.log_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "config.yaml")
    if config.tracking.system_metrics:
        tracker._system = _system_metrics(tracker, resume=run_id == tracker.run_id)
    return tracker


def known_run(config: Config, run_id: str | None) -> Tracker | None:
    """Open a run of this store to write to beside its owner, or None if the store does not have it."""
    uri = store_of(config)
    try:
        return Tracker(uri, run_id) if run_id is not None and _is_alive(store_client(uri), run_id) else None
    except Exception:  # a store that cannot be used: `open_run`, which every stage calls, says so in one line
        return None


def find_run(config: Config, tag: str, value: str) -> str | None:
    """Find the id of the run of a configuration's experiment that carries a tag; None if the store has or is none."""
    try:
        client = store_client(store_of(config))
        found = client.search_runs([_experiment(client, config)], f"tags.`{tag}` = '{value}'", max_results=1)
        return str(found[0].info.run_id) if found else None
    except Exception:  # `open_run` says it in one line
        return None


def find_child(parent: Tracker, tag: str, value: str, status: Status | None = None) -> str | None:
    """Find the id of the run under `parent` that carries a tag and, if given, ended so; None if the store has none."""
    client = store_client(parent.uri)
    where = f"tags.`mlflow.parentRunId` = '{parent.run_id}' and tags.`{tag}` = '{value}'"
    where += "" if status is None else f" and attributes.status = '{status}'"
    found = client.search_runs([client.get_run(parent.run_id).info.experiment_id], where, max_results=1)
    return str(found[0].info.run_id) if found else None


def last_evaluation(config: Config, model: str) -> Tracker | None:
    """Find the newest evaluation's run of a model, by the folder that it was read from; None if the store has none."""
    try:
        client = store_client(store_of(config))
        runs = client.search_runs([_experiment(client, config)], "tags.`mind.stage` = 'evaluate'", max_results=50)
        ids = [run.info.run_id for run in runs if run.data.tags.get("mind.model") == model]  # newest first
        return Tracker(store_of(config), ids[0]) if ids else None
    except Exception:  # as above
        return None


def download_model(uri: str, model_uri: str, folder: Path) -> Path:
    """Fetch a model that `Tracker.log_model` stored.

    Parameters
    ----------
    uri : str
        Of the store.
    model_uri : str
        ``models:/m-...``, ``models:/name@alias``, ``runs:/<run id>/<name>``.
    folder : Path
        Where to put it.

    Returns
    -------
    Path
        The model artifact inside `folder`.

    Raises
    ------
    UserError
        The store has no such model, or it is none of ours.
    """
    store_client(uri)  # quietens MLflow
    try:
        with global_uri(uri):
            local = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=str(folder)))
        artifacts = Model.load(str(local)).flavors["python_function"]["artifacts"]
        return local / str(artifacts["model"]["path"])
    except KeyError:
        raise UserError(f"{model_uri}: a model of another program (no artifact named model)") from None
    except Exception as error:
        raise UserError(f"{model_uri}: cannot be fetched from {redact(uri)} ({first_line(error)})") from error


def metric_name(name: str) -> str:
    """Make a name that MLflow takes, for metrics and params.

    >>> metric_name("hitrate@20")
    'hitrate_at_20'
    """
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))


def _run(
    client: mlflow.MlflowClient,
    config: Config,
    digest: str,
    stage: str,
    name: str,
    run_id: str | None,
    parent: str | None,
    more_tags: Mapping[str, str],
) -> str:
    """Id of the run to write to."""
    if run_id is not None and _is_alive(client, run_id):
        client.update_run(run_id, status="RUNNING")
        return run_id
    tags = {
        "mind.stage": stage,
        "mind.preset": config.preset,
        "mind.config": digest,
        "mlflow.source.name": f"mind {stage}",
        "mlflow.user": _user(),
        **{f"version.{package}": number for package, number in versions().items()},
        **more_tags,
    }
    if (state := git_state()) is not None:
        tags |= {"mlflow.source.git.commit": state[0], "mind.git.dirty": str(state[1]).lower()}
    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    return str(client.create_run(_experiment(client, config), tags=tags, run_name=name).info.run_id)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())


def _is_alive(client: mlflow.MlflowClient, run_id: str) -> bool:
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _experiment(client: mlflow.MlflowClient, config: Config) -> str:
    name = config.tracking.experiment or config.name
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    # A server has a place for artifacts; a database must be told one, or it takes the folder we happen to stand in.
    root = artifact_root(config.home_path) / name
    location = None if is_server(store_of(config)) else origin(root) or root.as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:  # another process was faster
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _log_params(tracker: Tracker, settings: Mapping[str, Any]) -> None:
    """Record the settings, once: MLflow lets nobody change a param, so a continued run keeps its first values."""
    client = tracker._client
    known = client.get_run(tracker.run_id).data.params
    params = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in _flat(settings).items() if key not in known]
    for start in range(0, len(params), MAX_PARAMS):
        client.log_batch(tracker.run_id, params=params[start : start + MAX_PARAMS])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{metric_name(key).replace('/', '_')}"  # of a feature, say, whose column is ../x or price/unit
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name[:MAX_PARAM_NAME]] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _system_metrics(tracker: Tracker, resume: bool) -> SystemMetricsMonitor:
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # "started", "no GPU", "stopping", "stopped"
    monitor = SystemMetricsMonitor(
        tracker.run_id,
        sampling_interval=SYSTEM_METRICS_INTERVAL_S,
        resume_logging=resume,
        tracking_uri=tracker.uri,
    )
    monitor.start()
    return monitor


def store_client(uri: str) -> mlflow.MlflowClient:
    """Make a client of the store and of its registry that says little and gives up soon."""
    for name, value in {**PATIENCE, **QUIET}.items():
        os.environ.setdefault(name, value)
    for talkative in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):  # every table and check that they make
        logging.getLogger(talkative).setLevel(logging.WARNING)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def global_uri(uri: str) -> Iterator[None]:
    """Point MLflow's process-wide store at `uri`: storing a model offers no other way."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # which also removes the variable
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def unusable(uri: str, error: Exception) -> UserError:
    """Make the error to raise when the store failed at the start."""
    return UserError(
        f"MLflow's store {redact(uri)} cannot be used ({first_line(error)}): "
        "start it, or set tracking.uri, or leave tracking.uri out for a database in the home folder"
    )


def _pinned(distribution: str) -> str:
    return f"{distribution}=={version(distribution).split('+')[0]}"


def first_line(error: Exception) -> str:
    """Say what an exception says, for a message of one line: short and without secrets."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return textwrap.shorten(redact(lines[0]), 200, placeholder=" ...")
