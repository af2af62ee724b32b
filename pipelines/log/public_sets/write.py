"""The command's side of it: which set is written how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pipelines.config.yaml_text import quoted
from pipelines.log.public_sets.amazon_reviews import amazon_reviews
from pipelines.log.public_sets.files import Files, Lines
from pipelines.log.public_sets.movielens import movielens
from pipelines.log.public_sets.recbole import recbole
from pipelines.log.public_sets.yambda import yambda

PublicSet = Literal["movielens", "amazon-reviews", "recbole", "yambda"]
WRITERS: dict[PublicSet, Callable[[Files], Lines]] = {
    "movielens": movielens,
    "amazon-reviews": amazon_reviews,
    "recbole": recbole,
    "yambda": yambda,
}


def configuration(kind: PublicSet, folder: str, name: str) -> str:
    """Write the configuration of a public data set.

    Parameters
    ----------
    folder : of its files, or one above them; local or a URI.
    name : of the dataset.

    Raises
    ------
    UserError
        If the folder does not hold it; the text says which files were looked for.
    """
    return (
        "\n".join([f"# Written by `mind import {kind}`", f"name: {quoted(name)}", *WRITERS[kind](Files(folder))]) + "\n"
    )
