"""Requests answered by a model: what `mind serve`, MLflow's model and `mind.load` all call.

    requests -> histories of known items -> one pass through the model -> lists -> answers

A history without a known item gets the popular list: what most users had in the training split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from mind_core.diversity import best
from mind_core.hits import TopList
from mind_core.inference import MINDRetriever
from mind_core.list_rules import NO_RULES, ListRules
from mind_core.sequences import Sequences, full_histories
from mind_core.shelves import times_in_history
from mind_core.special_rows import FIRST_ITEM
from mind_core.why import Reasons, reasons_of
from pipelines.config.where import parse_where
from pipelines.dataset.tensors import feature_specs, to_sequences, train_counts
from pipelines.dataset.vocabulary import FeatureEncoder, encode_columns
from pipelines.errors import UserError
from pipelines.lists.columns import ItemColumns
from pipelines.lists.filters import filtered
from pipelines.models.artifact import SavedModel
from pipelines.models.item_places import ItemPlaces
from pipelines.models.limits import LIMITS, Limits, RequestError
from pipelines.models.request_lists import Wanted, allowed_by, find_lists
from pipelines.models.requests import Request, RequestReader

NO_INTEREST = -1
POPULAR = "popular"
FILTERS = 64  # of requests, that are kept as masks over the items


@dataclass(frozen=True)
class Why:
    """Why an item is in a list.

    interest : which found it, from 0.  share : the part of the history that went to it.
    behaviours : (raw id, coupling coefficient) of those that went there most.
    again : times the item is in the history.
    """

    interest: int
    share: float
    behaviours: tuple[tuple[Any, float], ...]
    again: int


@dataclass(frozen=True)
class Answer:
    """A list, best first.

    ids : raw ids.  scores : of the best match.  interests : which interest found each, -1 in a list that is not of the
    user's own.  shown : of each, what the item table has to print.  unknown : ids of the history that the model does
    not know.  cut : behaviours beyond the limit.  why : of each item, if it was asked for.
    """

    ids: list[Any]
    scores: list[float]
    interests: list[int]
    shown: list[dict[str, Any]] = field(default_factory=list)
    unknown: int = 0
    cut: int = 0
    fallback: Literal["popular"] | None = None
    why: list[Why] | None = None


class Answerer:
    """A loaded model with all that is prepared once to answer requests.

    Parameters
    ----------
    limits : of a request.
    rules : that every list obeys, as `pipelines.lists.rules.read_rules` makes them.
    """

    def __init__(self, model: SavedModel, limits: Limits = LIMITS, rules: ListRules = NO_RULES) -> None:
        self.model, self.limits, self.rules = model, limits, rules
        self.let_in = lru_cache(FILTERS)(self._let_in)
        self.ids = model.item_ids
        self.places = ItemPlaces(self.ids)
        self.reader = RequestReader(self.ids.type, model.profile_encoders, limits)
        self.shown = [name for name in model.items.column_names if name.startswith("show_")]
        counts = train_counts(model.items)[FIRST_ITEM:]
        self.popular = counts.argsort(descending=True, stable=True).numpy()  # (V - 2,) places of items
        self.popularity = torch.log1p(counts.double()).float().numpy()

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer each request; what one gets does not depend on the others."""
        known = [self._known(request.history) for request in requests]
        rows = [row for row, places in enumerate(known) if len(places)]
        answers = {row: self._popular(request) for row, request in enumerate(requests) if not len(known[row])}
        if rows:
            asked = [requests[row] for row in rows]
            sequences = self.sequences([known[row] for row in rows], asked)
            answers |= dict(zip(rows, self._lists(sequences, asked), strict=True))
        return [answers[row] for row in range(len(requests))]

    def interests(self, request: Request) -> Tensor:
        """Return a user's own interest vectors, (K', d) float32; none without a known item in the history."""
        vectors, own = self._vectors(self._single(request))
        return vectors[own] if len(self._known(request.history)) else vectors[:0]

    def why(self, request: Request, items: pa.Array) -> list[Why]:
        """Say for each of `items` (raw ids of the model's type) which interest matches it best, and what that is of.

        Raises
        ------
        RequestError
            For an item that the model does not know, or a history of none that it knows.
        """
        places = self.places.of(items)
        if (places < 0).any():
            unknown = items[int((places < 0).argmax())].as_py()
            raise RequestError(f"items: {unknown!r}: no item of the model")
        if not len(self._known(request.history)):
            raise RequestError("history: no item that the model knows, so nothing can be said of interests")
        sequences = self._single(request)
        vectors, own = self._vectors(sequences)
        index = torch.from_numpy(places) + FIRST_ITEM
        by_interest = self.model.retriever.item_vectors[index] @ vectors.T  # (n, K)
        return self._whys(sequences, 0, index, by_interest.masked_fill(~own, -math.inf).argmax(1))

    def sequences(self, known: Sequence[npt.NDArray[np.int64]], requests: Sequence[Request]) -> Sequences:
        """Make the model's input of histories, as places of known items, and of the requests' profiles."""
        offsets = np.concatenate([[0], np.cumsum([len(places) for places in known])])
        items = (np.concatenate(known) if known else np.zeros(0, np.int64)) + FIRST_ITEM
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(items, pa.int32()))
        raw = profile_table(self.model.profile_encoders, [request.profile for request in requests])
        columns = {"items": lists, **encode_columns(self.model.profile_encoders, raw, "profile")}
        return to_sequences(pa.table(columns), feature_specs(self.model.card.profile_features))

    def _known(self, history: pa.Array) -> npt.NDArray[np.int64]:
        places = self.places.of(history)
        return places[places >= 0]

    @torch.no_grad()
    def _vectors(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Return (K, d) vectors and (K,) bool, which are the user's own, of the one row of `sequences`."""
        histories = full_histories(sequences, torch.tensor([0]), self.model.retriever.view)
        vectors, own = self.model.retriever.interests(histories)
        return vectors[0], own[0]

    def _single(self, request: Request) -> Sequences:
        return self.sequences([self._known(request.history)], [request])

    def _lists(self, sequences: Sequences, requests: Sequence[Request]) -> list[Answer]:
        wanted = [self._wanted(request) for request in requests]
        found = find_lists(self.model.retriever, sequences, wanted, self.rules)
        explained = [row for row, request in enumerate(requests) if request.explain and len(found[row].items)]
        whys: dict[int, list[Why]] = {}
        for row in explained:
            items, interests = (torch.from_numpy(column) for column in (found[row].items, found[row].interests))
            whys[row] = self._whys(sequences, row, items, interests)
        return [
            self._answer(
                request,
                each.items - FIRST_ITEM,
                each.scores,
                each.interests,
                why=whys.get(row, []) if request.explain else None,
            )
            for row, (request, each) in enumerate(zip(requests, found, strict=True))
        ]

    def _wanted(self, request: Request) -> Wanted:
        filtered = self.model.card.exclude_seen if request.seen is None else request.seen == "filter"
        none = np.zeros(0, np.int64)
        return Wanted(
            request.n,
            "new" if filtered else "all",
            none if request.exclude is None else np.unique(self._known(request.exclude)) + FIRST_ITEM,
            None if request.only is None else np.unique(self._known(request.only)) + FIRST_ITEM,
            None if request.where is None else self.let_in(request.where),
        )

    @cached_property
    def _columns(self) -> ItemColumns:
        return self.model.columns()

    def _let_in(self, where: str) -> Tensor:
        """Mark the items that a filter lets in, (V,) bool.

        Raises
        ------
        RequestError
            For a column that there is not, or a value of a kind that the column does not hold.
        """
        try:
            inside = filtered(parse_where(where), self._columns, "where").inside
        except RequestError:
            raise
        except UserError as error:
            raise RequestError(str(error)) from None
        found = torch.from_numpy(np.asarray(inside).astype(bool))
        return torch.cat([torch.zeros(FIRST_ITEM, dtype=torch.bool), found])

    def _popular(self, request: Request) -> Answer:
        wanted = self._wanted(request)
        allowed = allowed_by(wanted, len(self.ids) + FIRST_ITEM)
        if self.rules.allowed is not None:
            allowed &= self.rules.allowed
        places = self.popular[allowed.numpy()[self.popular + FIRST_ITEM]]
        if not self.rules.caps:
            places = places[: request.n]
        else:
            index = torch.from_numpy(places + FIRST_ITEM).unsqueeze(0)
            scores = torch.from_numpy(self.popularity[places]).unsqueeze(0)
            chosen = best(TopList(index, scores, torch.zeros_like(index)), request.n, self.rules.caps).items[0]
            places = chosen[chosen > 0].numpy() - FIRST_ITEM
        interests = np.full(len(places), NO_INTEREST)
        why = [Why(NO_INTEREST, 0.0, (), 0) for _ in places] if request.explain else None
        return self._answer(request, places, self.popularity[places], interests, fallback=POPULAR, why=why)

    def _answer(
        self,
        request: Request,
        places: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
        interests: npt.NDArray[np.int64],
        **more: Any,
    ) -> Answer:
        taken = self.model.items.select(["id", *self.shown]).take(pa.array(places))
        shown = {name.removeprefix("show_"): taken[name].to_pylist() for name in self.shown}
        return Answer(
            ids=taken["id"].to_pylist(),
            scores=[float(score) for score in scores],
            interests=interests.tolist(),
            shown=[dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)] if shown else [],
            unknown=len(request.history) - len(self._known(request.history)),
            cut=request.cut,
            **more,
        )

    @torch.no_grad()
    def _whys(self, sequences: Sequences, row: int, items: Tensor, interests: Tensor) -> list[Why]:
        """Say of `items` (n,), which `interests` (n,) found for the user of a row, what those interests are of."""
        user = torch.tensor([row])
        again = times_in_history(sequences, user, items.unsqueeze(0))[0].tolist()
        if not isinstance(self.model.retriever, MINDRetriever):
            return [Why(0, 1.0, (), times) for times in again]
        histories, _, _, found = reasons_of(self.model.retriever, sequences, user)
        share = found.share[0].tolist()
        of = [self._leading(histories.items[0], found, interest) for interest in range(len(share))]
        pairs = zip(interests.tolist(), again, strict=True)
        return [Why(interest, share[interest], of[interest], times) for interest, times in pairs]

    def _leading(self, items: Tensor, found: Reasons, interest: int) -> tuple[tuple[Any, float], ...]:
        places, coupling = found.places[0, interest].tolist(), found.coupling[0, interest].tolist()
        return tuple(
            (self.ids[int(items[place]) - FIRST_ITEM].as_py(), weight)
            for place, weight in zip(places, coupling, strict=True)
            if place >= 0
        )


def profile_table(encoders: Sequence[FeatureEncoder], profiles: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make raw profile columns of requests that were read: each of the type that the feature had in the dataset."""
    columns = {}
    for encoder in encoders:
        kind = pa.float64() if encoder.values is None else encoder.values.type
        kind = pa.list_(kind) if encoder.kind == "multi" else kind
        columns[encoder.name] = pa.array([profile.get(encoder.name) for profile in profiles], kind)
    return pa.table(columns) if columns else pa.table({"row": pa.nulls(len(profiles))})
