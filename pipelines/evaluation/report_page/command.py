"""`mind report`: pictures of what an evaluation has stored, on one page; without an evaluation, that is made first."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SplitName
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.report_page.page import page
from pipelines.evaluation.report_page.sections import Found, names_of, sections
from pipelines.evaluation.report_page.stored import curves_of, evaluated_models, report_of
from pipelines.models.artifact import TRAINING, described, load_card, load_model
from pipelines.models.find import find_model
from pipelines.progress import output, progress
from pipelines.storage.publish import Mark, published, require_publishable
from pipelines.storage.tables import write_text
from pipelines.tracking.run import last_evaluation, open_run

MARK = Mark("pictures.json")
PAGE = "report.html"


def report(config: Config, model: str | None = None, split: SplitName = "test") -> Path:
    """Make the report of a model: report.html and a PNG for each picture, in the home folder and in MLflow.

    Parameters
    ----------
    model : as `find_model` takes it.
    split : that was, or will be, evaluated.

    Returns
    -------
    The page.

    Raises
    ------
    UserError
        Without a dataset, a model of it, or users with targets in the split.
    """
    dataset = Dataset.open(config.dataset_path)
    folder = find_model(config, dataset, model)
    card = load_card(folder)
    name = f"{card.name}-{split}"
    target = config.place("reports", name)
    require_publishable(target, MARK)
    outcome = report_of(config, dataset, card, folder, split)
    if outcome is None:
        output.print(f"{card.name}: not yet evaluated on the {split} split by these settings; that comes first")
        outcome = evaluate(config, model=str(folder), split=split)
    found = Found(
        outcome,
        evaluated_models(config, dataset, split, outcome.metric),
        curves_of(config, card.run_id, outcome.metric),
        load_model(folder),
        dataset,
        config,
        split,
    )
    with published(target, MARK) as aside:
        parts = sections(found)
        with progress("Drawing", total=None):
            for section in parts:
                for picture in section.pictures:
                    (aside / f"{picture.name}.png").write_bytes(picture.alone())
            write_text(page(found, parts), aside / PAGE)
        write_text(json.dumps({"name": target.name, "pictures": names_of(parts)}), aside / MARK.file)
    evaluation = last_evaluation(config, str(folder))
    if evaluation is not None:  # not opened as a context: this run has ended
        evaluation.log_artifact(target, "report")
    else:
        with open_run(described(config, card), "report", name, without=TRAINING) as run:
            run.log_artifact(target, "report")
    output.print(f"Report: {shown(target / PAGE)}, and {len(names_of(parts))} pictures beside it", soft_wrap=True)
    return target / PAGE
