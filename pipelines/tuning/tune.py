"""`mind tune`: a campaign of trials, from a space to a decision: a winner that is trained, tested and registered.

Ray Tune runs the trials and stops the hopeless ones (pipelines.tuning.trial, schedulers), the ledger hands them out and
remembers (search): whatever is killed, the same command goes on.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours: Tune's handler would stay after its end
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a failed trial's last result has no metric
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # a trial's record has its reason

import ray
import yaml
from ray import tune as ray_tune
from ray.tune.logger import JsonLoggerCallback

from pipelines.cluster.address import cluster_address, local_cpus
from pipelines.cluster.nodes import free_nodes, free_resources
from pipelines.cluster.session import ray_session
from pipelines.cluster.template import OF_TRAINING
from pipelines.config.home_location import shown
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.progress import console
from pipelines.storage.home_files import names, storage
from pipelines.storage.locks import exclusive
from pipelines.tracking.run import Tracker, find_run, open_run
from pipelines.training.train import check_data
from pipelines.tuning.concurrency import concurrent_trials
from pipelines.tuning.config import Campaign, Stopping
from pipelines.tuning.finish import finish
from pipelines.tuning.ledger import Ledger, TrialRecord
from pipelines.tuning.live_table import LiveTable
from pipelines.tuning.load import Loaded, plain, store_campaign, write_state
from pipelines.tuning.recorder import Recorder
from pipelines.tuning.schedulers import prime, scheduler_of
from pipelines.tuning.search import LedgerCallback, LedgerSearch, Trials
from pipelines.tuning.space import grid_points
from pipelines.tuning.trial.one_worker import OneWorkerTrial
from pipelines.tuning.trial.shared_data import share_data
from pipelines.tuning.trial.training import Common
from pipelines.tuning.trial.worker_group import Group, WorkerGroupTrial
from pipelines.words import counted

IDENTITY = "mind.campaign_id"  # tag of the campaign's MLflow run
# Of an actor that only starts workers: Tune wants it to take something, and the workers may need every CPU
NEXT_TO_NOTHING = {"CPU": 0.0, "memory": 1.0}


def tune(loaded: Loaded, retry_failed: bool = False) -> Path:
    """Run a campaign, or go on with it; the path of its HTML report.

    Parameters
    ----------
    retry_failed : train those trials again that have failed before.

    Raises
    ------
    UserError
        Without a dataset, without room for a trial, if a campaign of that name searched something else, while another
        process runs it, or if no trial's process could be kept running.
    """
    dataset = Dataset.open(loaded.base.dataset_path)
    check_data(loaded.base, dataset)
    refits = loaded.base.train.workers if loaded.campaign.finish.refit != "none" else 1
    if cluster_address(loaded.base.ray) is None and not loaded.campaign.resources.gpus:  # Ray knows the GPUs, we do not
        concurrent_trials(loaded.campaign.resources, _local(loaded, 0.0), loaded.source)
    loaded.folder.mkdir(parents=True, exist_ok=True)
    name = loaded.campaign.campaign
    busy = f"{name}: another mind tune runs this campaign ({shown(loaded.folder)}); wait for it or end it"
    with exclusive(loaded.folder / "lock", busy):
        state = store_campaign(loaded, dataset.manifest.fingerprint)
        tags = {"mind.campaign": name, IDENTITY: state["id"]}
        run_id = state.get("run_id") or find_run(loaded.base, IDENTITY, state["id"])  # a kill may have come between
        with open_run(loaded.base, "tune", name, run_id=run_id, tags=tags) as parent:
            write_state(loaded.folder, state | {"run_id": parent.run_id})
            parent.log_text(yaml.safe_dump(plain(loaded.campaign), sort_keys=False), "campaign.yaml")
            manifest = dataset.manifest
            parent.log_dataset(manifest.name, manifest.fingerprint, manifest.sources["events"][0]["path"], "training")
            home = loaded.base.home_path
            with ray_session(loaded.base.ray, workers=refits, dashboard=True, home=home, preload=OF_TRAINING):
                cpus = int(free_resources()["CPU"])
                if refits > cpus and not loaded.base.ray.autoscaling:
                    raise UserError(f"{loaded.source}: train.workers={refits}, with which the winner is trained: the "
                                    f"cluster has {cpus} CPUs; --set settings.train.workers={cpus}")  # fmt: skip
                records = _search(loaded, dataset, parent, retry_failed)
                return finish(loaded, dataset, parent, records)


def _search(loaded: Loaded, dataset: Dataset, parent: Tracker, retry_failed: bool) -> list[TrialRecord]:
    """Train whatever trials are left; all of them."""
    campaign, base = loaded.campaign, loaded.trials
    nodes = free_nodes()
    if cluster_address(base.ray) is None:  # its logical CPUs may be more than the cores, for the refit's sake
        nodes = _local(loaded, ray.cluster_resources().get("GPU", 0.0))
    if base.ray.autoscaling and campaign.resources.concurrent is not None:  # nodes come as they are asked for
        concurrent = campaign.resources.concurrent
    else:
        concurrent = concurrent_trials(campaign.resources, nodes, loaded.source)
    ledger = Ledger(loaded.folder)
    if retry_failed:
        ledger.reset_failed()
    known = ledger.read()
    planned = planned_trials(campaign)
    table = LiveTable(campaign.campaign, base.train.metric, known, planned)
    with Recorder(parent, base, campaign.campaign) as recorder:
        trials = Trials(campaign, base, ledger, [recorder, table])
        recorder.settle(known)
        if not trials.any_left():
            return trials.all()
        done = sum(record.ended for record in known)
        concurrent = min(concurrent, max(planned - done, len(trials.left(False)) + len(trials.left(True))))
        workers = counted(campaign.resources.workers, "worker")
        console.print(f"{campaign.campaign}: {counted(concurrent, 'trial')} at a time, {workers} each"
                      + (f"; {done} of {planned} had ended before" if done else f"; {planned} in all"))  # fmt: skip
        with table:
            trainable = _trainable(loaded, dataset)
            _run(loaded, trials, trainable, concurrent, finalist=False)
            trials.add_finalists()
            _run(loaded, trials, trainable, concurrent, finalist=True)
        trials.sweep()
        return trials.all()


def _local(loaded: Loaded, gpus: float) -> list[dict[str, float]]:
    """This machine, as a cluster of its own."""
    return [{"CPU": float(local_cpus(loaded.base.ray)), "GPU": gpus}]


def _trainable(loaded: Loaded, dataset: Dataset) -> Any:
    """Make what Tune runs as a trial, with what all of them have in common and the resources of one."""
    resources, base = loaded.campaign.resources, loaded.trials
    silent = base.tracking.model_copy(update={"uri": None})  # trials report to us alone; it may hold a password
    threads = base.train.threads or max(1, int(resources.cpus))
    common = Common(base.model_copy(update={"tracking": silent}), str(dataset.path), threads)
    data = share_data(dataset, base.train)
    if resources.workers == 1:
        one = ray_tune.with_parameters(OneWorkerTrial, common=common, data=data)
        return ray_tune.with_resources(one, {"CPU": resources.cpus, "GPU": resources.gpus})
    group = Group(resources, loaded.folder / "ray", local=cluster_address(base.ray) is None)
    several = ray_tune.with_parameters(WorkerGroupTrial, common=common, group=group, data=[data])
    return ray_tune.with_resources(several, NEXT_TO_NOTHING)


def _run(loaded: Loaded, trials: Trials, trainable: Any, concurrent: int, finalist: bool) -> None:
    """Run Ray Tune over the trials of the search, or over those of the finalists: once, unless one was not started."""
    campaign = loaded.campaign
    # nobody reads the state that Tune keeps; of a full disk it prints the trace every few seconds
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    while trials.left(finalist) or (not finalist and trials.add_point()):
        scheduler = scheduler_of(Stopping(method="none") if finalist else campaign.stopping, loaded.trials.train.epochs)
        prime(scheduler, [each for each in trials.all() if each.ended and not each.finalist], trials.metric)
        number = len([name for name in names(loaded.folder / "ray") if name.startswith("tune-")]) + 1
        ray_tune.Tuner(
            trainable,
            tune_config=ray_tune.TuneConfig(
                search_alg=LedgerSearch(trials, finalist),
                scheduler=scheduler,
                num_samples=-1,  # until the searcher has no more
                max_concurrent_trials=concurrent,
                reuse_actors=campaign.resources.workers == 1,  # a run of Ray Train ends with its actor
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']:05d}",
            ),
            run_config=ray_tune.RunConfig(
                name=f"tune-{number}",
                **storage(loaded.folder / "ray"),
                callbacks=[LedgerCallback(trials), JsonLoggerCallback()],
                checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),  # trials see to theirs
                failure_config=ray_tune.FailureConfig(max_failures=campaign.resources.max_failures),
                verbose=0,
            ),
        ).fit()
        if trials.refused is not None:
            raise UserError(trials.refused)
        if trials.lost is not None:
            raise UserError(
                f"no workers could be kept running ({trials.lost}); then: mind tune --resume {campaign.campaign}"
            )


def planned_trials(campaign: Campaign) -> int:
    """Say how many trainings a campaign is, unless a discrete space is exhausted before."""
    search = campaign.search
    points = len(grid_points(campaign.space)) * (1 if search.method == "grid" else search.trials)
    return points * search.seeds if search.finalists is None else points + search.finalists * (search.seeds - 1)
