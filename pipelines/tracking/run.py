"""The module that calls MLflow: a run for every stage, with settings, metrics, lineage, files and the model. Names for
models that outlive their runs are in pipelines.tracking.registry.

Runs are addressed by id through MlflowClient, never through MLflow's thread-local "active run": a training has its
driver, Ray's controller and worker callbacks in different processes. A `Tracker` is therefore an address that pickles,
and a process that has one imports MLflow when it first tells it something.

At its start a run needs the store, and says so in one line. Later on the store may fail: the training goes on, and what
could not be written is kept in the home and delivered at the run's end or, if the store is away then too, by the next
command (pipelines.tracking.outbox).
"""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import yaml

from pipelines.config.home_location import origin
from pipelines.config.load import HASHED, config_hash, resolved
from pipelines.config.redact import redact
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.progress import console
from pipelines.stopping import exit_code
from pipelines.tracking.client import global_uri, in_short, store_client, unusable
from pipelines.tracking.notes import NOTE
from pipelines.tracking.outbox import MAX_DIGEST_LENGTH, Item, Outbox, outbox_of, outboxes
from pipelines.tracking.postman import Postman
from pipelines.tracking.processes import is_dead, this_process
from pipelines.tracking.store import artifact_root, database_of, is_file, is_server, store_of
from pipelines.tracking.versions import git_state, versions

if TYPE_CHECKING:
    import mlflow
    from matplotlib.figure import Figure
    from mlflow.models import ModelSignature
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

P = ParamSpec("P")
T = TypeVar("T")
Status = Literal["FINISHED", "FAILED", "KILLED"]

MAX_PARAM_LENGTH = 6000  # these limits are MLflow's
MAX_PARAM_NAME = 250
MAX_PARAMS = 100
KIND = {"mlflow.experimentKind": "custom_model_development"}  # of an experiment: the page opens on runs, not on traces
FAILURE = "mind.failure"  # tag of a run
PROCESS = "mind.process"  # tag of a run: which process writes it
SYSTEM_METRICS_INTERVAL_S = 5  # MLflow's own 10 s leave a run of half a minute with one or two points
PAUSE_S = 30  # without a try after a failed one, which may have cost the time-outs below, or after a slow one
SLOW_S = 5.0  # of an answer to what has no files with it
PATIENCE_S = 30.0  # for all that waits, with a store that is slow

logger = logging.getLogger(__name__)


class Tracker:
    """One MLflow run. As a context manager it ends the run by how the block ends.

    Parameters
    ----------
    uri : str
        Of the store.
    run_id : str
        Of an existing run.
    outbox : Outbox, optional
        Keeps what the store does not take. Without it that is lost.

    Attributes
    ----------
    lost, kept : int
        Calls that the store did not take; that are in the outbox.

    Notes
    -----
    It pickles as these three, so it can be sent to Ray's processes. Only the process that opened the run ends it.
    """

    def __init__(self, uri: str, run_id: str, outbox: Outbox | None = None) -> None:
        self.uri = uri
        self.run_id = run_id
        self.outbox = outbox
        self.lost = self.kept = 0
        self._silent_until = self._slow_until = 0.0
        self._system: SystemMetricsMonitor | None = None

    @cached_property
    def _client(self) -> mlflow.MlflowClient:
        return store_client(self.uri)

    @cached_property
    def _postman(self) -> Postman:
        return Postman(self._deliver)

    def __reduce__(self) -> tuple[type[Tracker], tuple[str, str, Outbox | None]]:
        return Tracker, (self.uri, self.run_id, self.outbox)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.finish()
        elif exit_code(error) is not None or isinstance(error, SystemExit):
            self.finish("KILLED")
        else:
            self.fail(f"{type(error).__name__}: {error}")

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers at a step; ``hitrate@20`` is named ``hitrate_at_20``, as MLflow takes no ``@``."""
        self._tell(_metrics_item(metrics, step))

    def post_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the same without waiting for the store: they go to the outbox, and a thread delivers that.

        Who posts tells nothing else from this process. Of what is not delivered when the process ends, the next call
        of the run or of another command is.
        """
        item = _metrics_item(metrics, step)
        try:
            if self.outbox is not None:
                self.outbox.keep(item)
                self._postman.wake()
                return
        except OSError:  # the store may take what the disk did not
            pass
        self._tell(item)

    def log_model_metrics(self, metrics: Mapping[str, float], step: int, dataset: tuple[str, str]) -> None:
        """Record numbers of the run's model at a step, measured on a dataset of this name and fingerprint."""
        self._tell(_metrics_item(metrics, step) | {"dataset": list(dataset)})

    def describe(self, text: str) -> None:
        """Set what the run's page says at its top, Markdown: see `pipelines.tracking.notes`."""
        self.log_tags({NOTE: text})

    def describe_model(self, card: str) -> None:
        """Set the model card of the run's model, and of the versions that it is registered as."""
        self._tell({"kind": "card", "text": card})
        self.log_text(card, "model_card.md")

    def last_step(self, metric: str) -> int:
        """Find the last step at which `metric` was logged, -1 if never: where a resumed run goes on."""
        return max(self.steps(metric), default=-1)

    def tag(self, key: str) -> str | None:
        """Return the value of a tag; None without it."""
        run = self._ask(self._client.get_run, self.run_id)
        return None if run is None else run.data.tags.get(key)

    def steps(self, metric: str) -> set[int]:
        """Return the steps at which `metric` was logged."""
        return set(self.history(metric))

    def history(self, metric: str) -> dict[int, float]:
        """Return what was logged of `metric`, by step; of a step that was logged twice, the last."""
        history = self._ask(self._client.get_metric_history, self.run_id, metric_name(metric))
        return {point.step: point.value for point in history or ()}

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; later values replace earlier ones."""
        self._tell({"kind": "tags", "tags": dict(tags)})

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
        dataset = {
            "name": name,
            "digest": fingerprint[:MAX_DIGEST_LENGTH],
            "source_type": "local" if "://" not in source else source.split("://")[0],
            "source": json.dumps({"uri": redact(source)}),
            "profile": json.dumps(dict(counts or {})),
        }
        self._tell({"kind": "dataset", "dataset": dataset, "context": context})
        self.log_tags({"mind.dataset": fingerprint})

    def log_table(self, columns: Mapping[str, Sequence[Any]], file: str) -> None:
        """Store a table as ``file`` (.json), which the dashboard shows; a second call appends rows."""
        self._tell({"kind": "table", "columns": {key: list(col) for key, col in columns.items()}, "file": file})

    def log_figure(self, figure: Figure, file: str) -> None:
        """Store a Matplotlib figure as ``file`` (.png, .svg)."""
        folder, _, name = file.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch:
            figure.savefig(Path(scratch, name))
            self._tell({"kind": "files", "folder": folder or None}, Path(scratch, name))

    def log_text(self, text: str, file: str) -> None:
        """Store text as ``file``, replacing what was there."""
        self._tell({"kind": "text", "text": text, "file": file})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a local file, or all that is in a local folder, under ``folder`` of the run."""
        self._tell({"kind": "files", "folder": folder}, path)

    def log_model(
        self,
        name: str,
        folder: Path,
        code: Path,
        signature: ModelSignature,
        input_example: Any,
        requirements: Sequence[str] = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch"),
        step: int = 0,
        card: str | None = None,
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
        card : str, optional
            What its page says, Markdown.

        Returns
        -------
        str or None
            ``models:/m-...``, which the run's tag ``mind.model_uri`` says too; None if the store did not take it.
        """
        from pipelines.tracking.delivery import model_item

        return self._tell(model_item(name, folder, code, signature, input_example, requirements, step, card))

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run."""
        if self._system is not None:
            self._system.finish()
            self._system = None
        self._silent_until = self._slow_until = 0.0  # the last chance
        self._tell({"kind": "end", "status": status, "at": int(time.time() * 1000)})
        if self.outbox is not None and (waiting := self.outbox.waiting()):
            console.print(f"MLflow did not take {len(waiting)} of the run's records; they are kept in "
                          f"{self.outbox.folder}, and the next command delivers them")  # fmt: skip
        if self.lost:
            logger.warning("MLflow: %d calls were lost; the run %s is incomplete", self.lost, self.run_id)

    def fail(self, reason: str) -> None:
        """End the run as failed, with the reason as a tag."""
        self.log_tags({FAILURE: redact(reason)})
        self.finish("FAILED")

    def _tell(self, item: Item, files: Path | None = None) -> str | None:
        """Tell the store, after what it did not take before; or keep it: no dashboard may end a training."""
        from pipelines.tracking.delivery import told

        if time.monotonic() >= max(self._silent_until, self._slow_until):
            try:
                if self.outbox is not None:
                    deliver(self._client, self.uri, self.outbox, PATIENCE_S)
                began = time.monotonic()
                answer = told(self._client, self.uri, self.run_id, item, files)
                self._slow_until = _slow_until(began, files) if self.outbox is not None else 0.0
                return answer
            except Exception as error:
                self._failed(error)
        self._keep(item, files)
        return None

    def _deliver(self) -> None:
        if self.outbox is not None and time.monotonic() >= self._silent_until:
            try:
                deliver(self._client, self.uri, self.outbox)
            except Exception as error:
                self._failed(error)

    def _keep(self, item: Item, files: Path | None) -> None:
        try:
            if self.outbox is not None:
                self.outbox.keep(item, files)
                self.kept += 1
                return
        except OSError as error:
            logger.warning("MLflow: nor can it be kept in the home (%s)", in_short(error))
        self.lost += 1

    def _failed(self, error: Exception) -> None:
        """Take in that the store does not answer: say it once, and leave it in peace for a while."""
        if not self.lost and not self.kept:
            logger.warning("MLflow: %s; the run goes on without it", in_short(error))
        self._silent_until = time.monotonic() + PAUSE_S

    def _ask(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Ask the store; None if it does not answer."""
        if time.monotonic() >= self._silent_until:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                self._failed(error)
        return None


def _metrics_item(metrics: Mapping[str, float], step: int) -> Item:
    now = int(time.time() * 1000)
    return {
        "kind": "metrics",
        "metrics": [[metric_name(name), float(each), now, step] for name, each in metrics.items()],
    }


def _slow_until(began: float, files: Path | None) -> float:
    """Say until when nothing more is told to a store that took so long; 0 if it is not slow, files apart."""
    now = time.monotonic()
    return now + PAUSE_S if files is None and now - began > SLOW_S else 0.0


def deliver(client: mlflow.MlflowClient, uri: str, outbox: Outbox, patience_s: float = math.inf) -> int:
    """Tell the store what is in an outbox, in order; how much that was.

    patience_s : for all of it, with a store that is slow; one that is not takes what time it takes.

    Raises
    ------
    TimeoutError
        If a store that is slow has not taken all by then.
    Exception
        What MLflow raised at the first item that it did not take and may take later; that one and the rest are kept.
    """
    if not (waiting := outbox.waiting()):
        return 0
    from pipelines.tracking.delivery import is_pointless, told

    ends = time.monotonic() + patience_s
    for kept, item in waiting:
        began, found = time.monotonic(), kept / "files"
        files = None if not found.is_dir() else next(found.iterdir()) if item.get("one") else found
        try:
            told(client, uri, outbox.run_id, item, files)
        except Exception as error:
            if not is_pointless(error):
                raise
            logger.warning("MLflow: a record of run %s is dropped (%s)", outbox.run_id, in_short(error))
        outbox.delivered(kept)
        if _slow_until(began, files) and time.monotonic() > ends:
            raise TimeoutError(f"it takes {time.monotonic() - began:.0f} s to answer")
    outbox.close()
    return len(waiting)


def open_run(
    config: Config,
    stage: str,
    name: str,
    run_id: str | None = None,
    parent: str | None = None,
    without: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    keep: bool = True,
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
    keep : bool
        Keep what the store does not take, and see to what earlier commands have left, see `catch_up`. For a run whose
        caller knows what is missing and says it again, False.

    Raises
    ------
    UserError
        The store cannot be used.
    """
    uri = store_of(config)
    settings = {key: value for key, value in resolved(config).items() if key not in without}
    try:
        if is_file(uri):
            database_of(uri).parent.mkdir(parents=True, exist_ok=True)
        digest = config_hash(config, [section for section in HASHED if section not in without])
        client = store_client(uri)
        if keep:
            catch_up(client, config, run_id)
        own = _run(client, config, digest, stage, name, run_id, parent, tags or {})
        tracker = Tracker(uri, own, outbox_of(config.home_path, uri, own) if keep else None)
        _log_params(tracker, settings)
    except UserError:
        raise
    except Exception as error:
        raise unusable(uri, error) from error
    tracker.log_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "config.yaml")
    if config.tracking.system_metrics:
        tracker._system = _system_metrics(tracker, resume=run_id == tracker.run_id)
    return tracker


def catch_up(client: mlflow.MlflowClient, config: Config, own: str | None = None) -> None:
    """Deliver what earlier commands of this home could not, and end the runs of processes that were killed.

    Parameters
    ----------
    own : id of a run that the caller is about to go on with.

    Raises
    ------
    Exception
        Whatever MLflow raises.
    """
    uri = store_of(config)
    count = 0
    with suppress(TimeoutError):  # the rest is for the next command
        for each in outboxes(config.home_path, uri):
            count += deliver(client, uri, each, PATIENCE_S)
    if count:
        console.print(f"MLflow: delivered {count} records that earlier commands could not")
    known = client.get_experiment_by_name(config.tracking.experiment or config.name)
    running = [] if known is None else client.search_runs([known.experiment_id], "attributes.status = 'RUNNING'")
    for run in running:
        if run.info.run_id != own and is_dead(run.data.tags.get(PROCESS)):
            client.set_tag(run.info.run_id, FAILURE, "its process was killed")
            client.set_terminated(run.info.run_id, "KILLED")


def known_run(config: Config, run_id: str | None) -> Tracker | None:
    """Open a run of this store to write to beside its owner, or None if the store does not have it."""
    uri = store_of(config)
    try:
        if run_id is None or not _is_alive(store_client(uri), run_id):
            return None
        return Tracker(uri, run_id, outbox_of(config.home_path, uri, run_id))
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
    import mlflow.artifacts
    from mlflow.models import Model

    try:
        with global_uri(uri):
            local = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=str(folder)))
        artifacts = Model.load(str(local)).flavors["python_function"]["artifacts"]
        return local / str(artifacts["model"]["path"])
    except KeyError:
        raise UserError(f"{model_uri}: a model of another program (no artifact named model)") from None
    except Exception as error:
        raise UserError(f"{model_uri}: cannot be fetched from {redact(uri)} ({in_short(error)})") from error


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
        if FAILURE in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, FAILURE)  # of the start before this one
        client.set_tag(run_id, PROCESS, this_process())
        return run_id
    tags = {
        "mind.stage": stage,
        "mind.preset": config.preset,
        "mind.config": digest,
        "mlflow.source.name": f"mind {stage}",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        PROCESS: this_process(),
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
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _about(experiment: str) -> dict[str, str]:
    """Give the tags of an experiment: what its page opens on, and its description."""
    return KIND | {NOTE: f"Datasets, trainings, tests and campaigns of {experiment}. The newest run is at the top."}


def _experiment(client: mlflow.MlflowClient, config: Config) -> str:
    from mlflow.exceptions import MlflowException

    name = config.tracking.experiment or config.name
    if (found := client.get_experiment_by_name(name)) is not None:
        if found.lifecycle_stage == "deleted":
            uri = redact(store_of(config))
            raise UserError(
                f"MLflow's experiment {name!r} was deleted in {uri}: bring it back (MLFLOW_TRACKING_URI={uri} mlflow "
                f"experiments restore --experiment-id {found.experiment_id}), or set tracking.experiment to a new name"
            )
        for key, value in _about(name).items():
            if key not in found.tags:  # made by an earlier version, or by hand
                client.set_experiment_tag(found.experiment_id, key, value)
        return str(found.experiment_id)
    # A server has a place for artifacts; a database must be told one, or it takes the folder we happen to stand in.
    root = artifact_root(config.home_path) / name
    location = None if is_server(store_of(config)) else origin(root) or root.as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=_about(name)))
    except MlflowException:  # another process was faster
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _log_params(tracker: Tracker, settings: Mapping[str, Any]) -> None:
    """Record the settings, once: MLflow lets nobody change a param, so a continued run keeps its first values."""
    from mlflow.entities import Param

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
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # "started", "no GPU", "stopping", "stopped"
    monitor = SystemMetricsMonitor(
        tracker.run_id,
        sampling_interval=SYSTEM_METRICS_INTERVAL_S,
        resume_logging=resume,
        tracking_uri=tracker.uri,
    )
    monitor.start()
    return monitor
