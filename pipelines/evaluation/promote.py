"""`mind promote`: does the challenger of the model registry do better than the champion? If so, it takes its place.

Both rank the same test users (pipelines.evaluation.evaluate), and the difference of each user is resampled: the
challenger wins if the whole interval lies above zero. What was decided, and why, is kept as tags ``mind.decision*`` of
its version and of the evaluation's run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.evaluation.evaluate import POPULARITY, evaluate
from pipelines.evaluation.report import Difference, Report
from pipelines.models.find import version_folder
from pipelines.progress import output
from pipelines.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RegisteredVersion,
    model_by_alias,
    move_alias,
    tag_version,
    tell_decision,
)
from pipelines.tracking.run import last_evaluation
from pipelines.tracking.store import store_of

FIGURES = tuple(f"mind.decision.{name}" for name in ("against", "metric", "mean", "low", "high", "run"))


@dataclass(frozen=True)
class Promotion:
    """What was decided.

    champion : before the decision, None if there was none.
    difference : challenger minus champion, or minus popularity where there was no champion; None if nothing was
        compared.
    """

    promoted: bool
    reason: str
    challenger: RegisteredVersion
    champion: RegisteredVersion | None
    difference: Difference | None = None


def promote(config: Config, name: str | None = None, replace: bool = False) -> Promotion:
    """Compare the challenger with the champion on the test set of `config`, and move the alias if it wins.

    Parameters
    ----------
    name : str, optional
        Of the registered model; the configuration's own name without it.
    replace : bool
        Promote without a comparison: for a champion of an older dataset.

    Raises
    ------
    UserError
        Without a challenger, with one of another dataset than that of `config`, or if the two cannot be compared.

    Notes
    -----
    The first champion has to beat popularity. The one that is replaced keeps the alias ``previous``.
    """
    uri, name = store_of(config), name or config.name
    challenger, champion = (model_by_alias(uri, name, alias) for alias in (CHALLENGER, CHAMPION))
    if challenger is None:
        raise UserError(f"{name}: no version has the alias {CHALLENGER}; make one with: mind tune CAMPAIGN")
    if champion is not None and champion.version == challenger.version:
        move_alias(uri, name, CHALLENGER, None)
        return _said(Promotion(False, "it is the champion already", challenger, champion))
    if replace:
        decision = Promotion(True, f"without a comparison; {_succession(challenger, champion)}", challenger, champion)
        _record(config, decision, None)
    else:
        _check_datasets(config, challenger, champion)
        against = () if champion is None else (_place(champion),)
        report = evaluate(config, model=_place(challenger), against=against)
        decision = _decide(challenger, champion, report)
        _record(config, decision, report)
    if decision.promoted:
        # In this order: stopped anywhere, it leaves a champion, and the same command ends the work.
        if champion is not None:
            move_alias(uri, name, PREVIOUS, champion.version)
        move_alias(uri, name, CHAMPION, challenger.version)
        move_alias(uri, name, CHALLENGER, None)
    return _said(decision)


def _decide(challenger: RegisteredVersion, champion: RegisteredVersion | None, report: Report) -> Promotion:
    found = report.differences[0]  # against the champion; without one, popularity is all there is
    promoted = found.low > 0
    verdict = "better than" if promoted else "worse than" if found.high < 0 else "not told apart from"
    other = POPULARITY if champion is None else f"version {champion.version}"
    figures = f"{report.metric} {found.mean:+.4f} (95 % between {found.low:+.4f} and {found.high:+.4f})"
    stays = "there is no champion yet" if champion is None else f"champion stays version {champion.version}"
    follows = _succession(challenger, champion) if promoted else stays
    return Promotion(promoted, f"{verdict} {other}: {figures}; {follows}", challenger, champion, found)


def _succession(challenger: RegisteredVersion, champion: RegisteredVersion | None) -> str:
    before = "the first" if champion is None else f"was version {champion.version}"
    return f"champion is version {challenger.version}, {before}"


def _check_datasets(config: Config, challenger: RegisteredVersion, champion: RegisteredVersion | None) -> None:
    """Both models must know the items of this dataset by the same indices."""
    dataset = Dataset.open(config.dataset_path)
    here = dataset.manifest.fingerprint
    tune = "make a challenger of this dataset with: mind tune CAMPAIGN"
    go_on = "the two cannot be compared user by user; to promote all the same: mind promote CONF --replace"
    for role, version, way_out in ((CHALLENGER, challenger, tune), (CHAMPION, champion, go_on)):
        if version is not None and version.fingerprint not in (None, here):
            raise UserError(f"{version.name}: the {role}, version {version.version}, was trained on another dataset "
                            f"(fingerprint {version.fingerprint[:12]}, {dataset} has {here[:12]}): "
                            f"{way_out}")  # fmt: skip


def _place(version: RegisteredVersion) -> str:
    """Where `find_model` finds it: the folder it was trained into, if that still holds this model, else the store."""
    return str(version_folder(version) or version.uri)


def _record(config: Config, decision: Promotion, report: Report | None) -> None:
    """The decision as tags of the version and of the evaluation's run, each naming the other; before aliases move."""
    champion, found = decision.champion, decision.difference
    tags = {
        "mind.decision": "promoted" if decision.promoted else "refused",
        "mind.decision.reason": decision.reason,
        "mind.decision.date": datetime.now(UTC).isoformat(timespec="seconds"),
        **dict.fromkeys(FIGURES, ""),  # those of an earlier decision must not stay beside this one
    }
    if report is not None and found is not None:
        run = last_evaluation(config, str(report.models[0].path))
        against = POPULARITY if champion is None else f"version {champion.version}"
        interval = [f"{value:.6f}" for value in (found.mean, found.low, found.high)]
        tags |= zip(FIGURES, (against, report.metric, *interval, "" if run is None else run.run_id), strict=True)
        if run is not None:
            run.log_tags({**tags, "mind.decision.version": decision.challenger.uri})
    tag_version(store_of(config), decision.challenger, tags)
    when = tags["mind.decision.date"].partition("T")[0]
    tell_decision(store_of(config), decision.challenger, f"{tags['mind.decision']} on {when}: {decision.reason}")


def _said(decision: Promotion) -> Promotion:
    verdict = "promoted" if decision.promoted else "not promoted"
    challenger = decision.challenger
    line = f"{challenger.name} version {challenger.version} {verdict}: {decision.reason}"
    output.print(line, soft_wrap=True, markup=False)
    return decision
