"""A trained model with the dataset that it was trained on: lists, metrics, interests and similar items, as frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mind.calls import stage
from mind.evaluation import Evaluation
from mind.interests import Interests
from mind.recommender import Recommender, load
from mind.settings import Settings
from mind_core.special_rows import FIRST_ITEM
from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.models.answers import Answer, Answerer
from pipelines.models.artifact import ModelCard, SavedModel, load_card, load_model

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.dataset.dataset import Dataset as StoredDataset


class FittedModel:
    """A trained model; `Dataset.fit` and `Dataset.fitted` make it.

    Attributes
    ----------
    config : all settings.
    path : the model's folder; ``mind.load(path)`` answers requests with it, without the dataset.
    """

    def __init__(self, settings: Settings, config: Config, path: Path) -> None:
        self._settings, self.config, self.path = settings, config, path

    @cached_property
    def card(self) -> ModelCard:
        """What the model is: its name, settings, features, metrics and lineage."""
        return load_card(self.path)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the best validation, by name: ``validation/recall@20``."""
        return dict(self.card.metrics)

    @cached_property
    def recommender(self) -> Recommender:
        """The model alone, which answers single requests in this process."""
        return load(self.path)

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        n: int | None = None,
        *,
        histories: Iterable[Sequence[Any]] | None = None,
        latest: bool = False,
        why: bool = False,
        **settings: Any,
    ) -> pd.DataFrame:
        """List the best items of users, or of histories that may be of anybody.

        Parameters
        ----------
        users : raw ids; None, without histories: every user of the dataset.
        n : items of a list; None: ``evaluate.top_n``, 20 unless it is set.
        histories : of raw item ids each, oldest first, in place of users.
        latest : infer from all events of a user, the held-out ones too: what production wants.
        why : say of each item of a user what it comes from.
        settings : sections, as in a configuration: ``lists={"where": "price < 5"}``.

        Returns
        -------
        A row an item: user (or history, its number), rank, again (how often the item is in the history), score,
        interest (which found it, -1 in a popular list), id, show_<column>; with `why` also share, because, coupling
        and remembered, docs/export.md says what these are.

        Raises
        ------
        UserError
            In one line: a user that the dataset does not know, or a setting that cannot be.
        """
        if users is not None and histories is not None:
            raise UserError("recommend(): give either users or histories")
        if isinstance(users, str | bytes):
            raise UserError(f"recommend(): users={users!r}: must be a list of ids, as [{users!r}]")
        if n is not None:
            settings = {**settings, "evaluate": {**settings.get("evaluate", {}), "top_n": n}}
        config = self._settings.with_more("recommend()", settings).config("recommend()")
        if histories is not None:
            return self._of_histories(config, list(histories), why)
        from pipelines.retrieval.recommend import recommend

        names = None if users is None else [str(user) for user in users]
        with stage(), tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "lists.parquet"
            recommend(config, users=names, out=out, model=self._given, latest=latest, why=why)
            return _frame(out)

    def evaluate(
        self, split: Literal["test", "validation"] = "test", against: Iterable[FittedModel | str] = ()
    ) -> Evaluation:
        """Rank the whole catalogue for every user of a split, beside the baselines.

        Parameters
        ----------
        against : other models of the dataset, to tell the differences: fitted ones, names, folders or presets.

        Raises
        ------
        UserError
            In one line: without users of whom something is to be found.
        """
        from pipelines.evaluation.evaluate import evaluate

        others = [each._given if isinstance(each, FittedModel) else each for each in against]
        with stage():
            report = evaluate(self.config, model=self._given, split=split, against=others)
        return Evaluation(report, self.config.place("evaluations", f"{self.card.name}-{split}"))

    def interests(
        self,
        user: Any = None,
        *,
        history: Sequence[Any] | None = None,
        n: int = 10,
        latest: bool = False,
    ) -> Interests:
        """List the interests of a user, or of a history: what each comes from, and the n items that it finds.

        Parameters
        ----------
        user : raw id.
        history : raw item ids, oldest first, in place of a user.
        latest : as of `recommend`.

        Raises
        ------
        UserError
            In one line: a user that the dataset does not know, or a history without an item that the model knows.
        """
        if (user is None) == (history is None):
            raise UserError("interests(): give either a user or history=")
        from pipelines.retrieval.interests_of import interests_of

        with stage():
            if history is None:
                from pipelines.retrieval.histories import histories_of

                sequences = self._saved.sequences(histories_of(self._stored, [str(user)], latest), latest)
            else:
                sequences = self._saved.encode(_known(self._saved, history))
            (found,) = interests_of(self._saved, sequences, n)
        return Interests(user, found, self._names)

    def similar(self, item: Any, n: int = 20, **settings: Any) -> pd.DataFrame:
        """List the items that are most like an item, by the cosine of their vectors.

        Parameters
        ----------
        item : raw id, or a list of several.
        settings : sections, as in a configuration: ``lists={"where": "price < 5"}``.

        Returns
        -------
        A row an item: item (the one asked for), rank, cosine, id, show_<column>.

        Raises
        ------
        UserError
            In one line: an item that the model does not know.
        """
        from pipelines.retrieval.similar import similar

        config = self._settings.with_more("similar()", settings).config("similar()")
        items = item if isinstance(item, list | tuple) else [item]
        with stage(), tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "similar.parquet"
            similar(config, [str(each) for each in items], n, out=out, model=self._given)
            return _frame(out)

    @property
    def _given(self) -> str:
        """How the stages are told which model: by its name where it lies in the home, else by its folder."""
        return self.path.name if self.path == self.config.place("models", self.path.name) else str(self.path)

    @cached_property
    def _stored(self) -> StoredDataset:
        from pipelines.dataset.dataset import Dataset as StoredDataset

        return StoredDataset.open(self.config.dataset_path)

    @cached_property
    def _saved(self) -> SavedModel:
        return load_model(self.path)

    @cached_property
    def _names(self) -> dict[Any, str]:
        """What to print for an item's id."""
        names = self._saved.item_names()
        return {item: names[index] for index, item in enumerate(self._saved.item_ids.to_pylist(), FIRST_ITEM)}

    def _of_histories(self, config: Config, histories: list[Sequence[Any]], why: bool) -> pd.DataFrame:
        if why:
            raise UserError("recommend(): why: must be left out with histories; model.recommender.why says it of one")
        if config.evaluate.again is not None or config.evaluate.new is not None:
            raise UserError("recommend(): evaluate.again and evaluate.new: must be left out with histories")
        import pandas as pd

        from pipelines.lists.rules import rules_of

        with stage():
            recommender = Recommender(Answerer(self._saved, rules=rules_of(config, self._saved.columns()).rules))
            lists = [recommender.recommend(history, config.evaluate.top_n) for history in histories]
        rows = [
            row for place, (history, answer) in enumerate(zip(histories, lists, strict=True))
            for row in _rows(place, history, answer)
        ]  # fmt: skip
        names = ["history", "rank", "again", "score", "interest", "id"]
        shown_columns = [name for name in self._saved.items.column_names if name.startswith("show_")]
        return pd.DataFrame(rows, columns=[*names, *shown_columns])

    def __repr__(self) -> str:
        metric = f"validation/{self.config.train.metric}"
        best = f", {metric} {self.metrics[metric]:.4f}" if metric in self.metrics else ""
        return f"<mind.FittedModel {self.card.name}{best}; {shown(self.path)}>"


def _frame(file: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(file).to_pandas()
    return frame


def _rows(place: int, history: Sequence[Any], answer: Answer) -> list[Mapping[str, Any]]:
    """Write an answer as rows, as `recommend` writes those of users."""
    before = list(history)
    shown_values = answer.shown or [{} for _ in answer.ids]
    return [
        {"history": place, "rank": rank, "again": before.count(item), "score": score, "interest": interest, "id": item}
        | {f"show_{name}": value for name, value in values.items()}
        for rank, (item, score, interest, values) in enumerate(
            zip(answer.ids, answer.scores, answer.interests, shown_values, strict=True), 1
        )
    ]


def _known(model: SavedModel, history: Sequence[Any]) -> pa.Array:
    """Make the one history of items that the model knows."""
    from pipelines.retrieval.strangers import places_of

    places = [place for place in places_of(model, [str(item) for item in history]) if place is not None]
    if not places:
        raise UserError(f"interests(): history: none of its {len(history)} items is known to the model")
    ids = model.item_ids.take(pa.array(places, pa.int64()))
    return pa.array([ids.to_pylist()], pa.list_(model.item_ids.type))
