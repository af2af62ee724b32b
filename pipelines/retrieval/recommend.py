"""`mind recommend`: top-N lists, for a few users to look at, or for all to use.

A few users need no Ray. For all, workers list the items of slices of users (pipelines.models.over_users) and the driver
writes the lists as they come, in order.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.retrieval.histories import histories_of


def recommend(
    config: Config,
    users: list[str] | None = None,
    out: Path | None = None,
    model: str | None = None,
    latest: bool = False,
    why: bool = False,
) -> Path | None:
    """Recommend to each user as many items as `config.evaluate.shelves` has places for, by the rules of `config.lists`.

    Parameters
    ----------
    users : raw ids as text, printed one by one; None: all users, written to a file.
    out : file to write (.parquet, .csv, .jsonl) instead of printing; for all users the default is
        <home>/recommendations/<model>.parquet.
    model : as `find_model` takes it.
    latest : infer from everything that is known of a user, the held-out items too: what production wants. Otherwise
        those are left out, and marked where they are found again.
    why : say of each item what it comes from, as `with_reasons` does.

    Returns
    -------
    What was written, if anything.

    Raises
    ------
    UserError
        Without a dataset or a model of it; for a user that the dataset does not know.
    """
    dataset = Dataset.open(config.dataset_path)
    histories = None if users is None else histories_of(dataset, users, latest)
    from pipelines.retrieval.user_lists import list_for, list_for_all  # imports torch: a mistyped user is told before

    if users is None or histories is None:
        return list_for_all(config, dataset, out, model, latest=latest, why=why)
    return list_for(config, dataset, users, histories, out, model, latest=latest, why=why)
