"""A model in this process: lists, interests and reasons for histories that may be of anybody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from mind_core.list_rules import NO_RULES
from pipelines.config.schema import ListsConfig
from pipelines.errors import UserError
from pipelines.lists.rules import read_rules
from pipelines.models.answers import Answer, Answerer, Why
from pipelines.models.artifact import ModelCard, load_model
from pipelines.models.limits import DEFAULT_N, LIMITS, Limits
from pipelines.models.requests import Request


def load(folder: str | Path, lists: Mapping[str, Any] | None = None, limits: Limits = LIMITS) -> Recommender:
    """Open the folder of a trained model.

    Parameters
    ----------
    folder : as `mind train` wrote it, or a copy; an s3:// or gs:// home's is fetched.
    lists : what all lists may hold, as the section `lists` of a configuration: ``{"cap": {"department": 3}}``.
    limits : of one request.

    Raises
    ------
    UserError
        If it holds no whole model, or one that was changed since it was written; for rules that cannot be read.
    """
    model = load_model(folder)
    rules = NO_RULES if lists is None else read_rules(_settings(lists), model.columns()).rules
    return Recommender(Answerer(model, limits, rules))


class Recommender:
    """Answers with the items of one model; `load` makes it."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    @property
    def card(self) -> ModelCard:
        """What the model is: its name, settings, features, metrics and lineage."""
        return self._answerer.model.card

    def recommend(
        self,
        history: Iterable[Any],
        n: int = DEFAULT_N,
        profile: Mapping[str, Any] | None = None,
        exclude: Iterable[Any] | None = None,
        only: Iterable[Any] | None = None,
        *,
        where: str | None = None,
        seen: Literal["filter", "keep"] | None = None,
        explain: bool = False,
    ) -> Answer:
        """List the n best items for a history.

        Parameters
        ----------
        history : raw item ids, oldest first. Unknown ones are skipped and counted; of more than the limit the newest
            are taken, and the others counted. Without any that is known the list is the popular one, which
            `Answer.fallback` says.
        profile : raw values by feature; what is absent counts as missing.
        exclude : raw ids that may not be in the list.  only : those that may.
        where : a filter by columns of the item table, ``"department != 'FUEL' and price < 5"``.
        seen : whether items of the history may; None: as the model was trained to be used.
        explain : whether the answer says why.

        Raises
        ------
        RequestError
            For a value that is none, in one line.

        Examples
        --------
        ``model.recommend([1029743, 995242], n=5).ids`` is a list of five item ids, the best first.
        """
        raw = {"history": history, "n": n, "profile": profile, "exclude": exclude, "only": only}
        more = {"where": where, "seen": seen, "explain": explain}
        return self._answerer.answer([self._read({**raw, **more})])[0]

    def interests(self, history: Iterable[Any], profile: Mapping[str, Any] | None = None) -> npt.NDArray[np.float32]:
        """Return the interest vectors of a history, (K', d); an item's score is its best inner product with them."""
        return np.asarray(self._answerer.interests(self._read({"history": history, "profile": profile})).numpy())

    def why(self, history: Iterable[Any], items: Iterable[Any], profile: Mapping[str, Any] | None = None) -> list[Why]:
        """Say of each item which interest matches it best, its share of the history and what went there most.

        Raises
        ------
        RequestError
            For an item that the model does not know, or a history of none that it knows.
        """
        request = self._read({"history": history, "profile": profile})
        reader = self._answerer.reader
        return self._answerer.why(request, reader.ids(list(items), "items", reader.limits.items))

    def _read(self, raw: Mapping[str, Any]) -> Request:
        return self._answerer.reader.read(raw, cut=True)


def _settings(lists: Mapping[str, Any]) -> ListsConfig:
    try:
        return ListsConfig.model_validate(dict(lists))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"lists.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
