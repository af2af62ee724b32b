"""The model artifact: a folder that answers "what would this user like" with no Ray, no MLflow and no pickle.

config.json                    written last: model settings, feature specs, lineage; size and digest of every file
weights.safetensors            every parameter and buffer of the model
item_vectors.safetensors       behaviour_vectors, item_vectors (V, d): what serving looks up
items.parquet                  item, id, count, train_count, show_<column>: to print and to look up; raw_<feature> of
                               the features that are not shown: for filters (pipelines.lists)
profile_features/<feature>.parquet   value vocabularies, to encode a raw profile; file: config.names.file_name
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mind_core.config import FORBID_UNKNOWN, ModelConfig
from mind_core.diagnostics import all_finite
from mind_core.inference import (
    MINDRetriever,
    PopularityRetriever,
    Retriever,
)
from mind_core.list_rules import NO_RULES, ListRules, ruled_shelves
from mind_core.model import MIND
from mind_core.sequences import Sequences
from mind_core.shelves import Shelf, times_in_history
from mind_core.sizes import model_parts, stored_bytes
from mind_core.special_rows import FIRST_ITEM, UNKNOWN
from pipelines.config.home_location import shown
from pipelines.config.names import ALLOWED, file_name, is_name
from pipelines.config.schema import Config
from pipelines.dataset.dataset import RAW, Dataset, FeatureInfo
from pipelines.dataset.tensors import feature_specs, to_sequences, train_counts, with_held_out
from pipelines.dataset.vocabulary import FeatureEncoder, encode_columns
from pipelines.errors import CALMER, DivergedError, UserError, first_line
from pipelines.lists.columns import ItemColumns
from pipelines.log.ids import as_array
from pipelines.models.room import require_room
from pipelines.models.seal import DIGEST, FILES, RESTORE, read_json, require_files, require_seal, sealed
from pipelines.storage.home_files import fetch_folder, renew
from pipelines.storage.publish import Mark, published

FORMAT_VERSION = 4
MARK = Mark("config.json")


@dataclass(frozen=True)
class ModelCard:
    """config.json, but for what it says of the files (pipelines.models.seal)."""

    __pydantic_config__ = FORBID_UNKNOWN

    format_version: int
    name: str
    preset: str
    model: dict[str, Any]  # ModelConfig
    items: int  # V, rows of the item vocabulary with padding and unknown
    item_features: tuple[FeatureInfo, ...]
    profile_features: tuple[FeatureInfo, ...]
    exclude_seen: bool  # the default of recommend
    dataset_fingerprint: str
    run_id: str | None  # of the MLflow training run
    on_validation: bool = False  # it was trained on the validation split too, which measures it no more
    metrics: dict[str, float] = field(default_factory=dict)  # of the best validation
    versions: dict[str, str] = field(default_factory=dict)

    @cached_property
    def config(self) -> ModelConfig:
        """The settings, as JSON gave them (lists, "inf") or not."""
        return TypeAdapter(ModelConfig).validate_python(self.model)


def save_model(target: Path, card: ModelCard, model: MIND | None, retriever: Retriever, dataset: Dataset) -> None:
    """Write the artifact aside and rename it into place.

    Parameters
    ----------
    model : the trained weights; None for the popularity baseline, which has none.
    retriever : the same model with its item vectors, as validation saw it.

    Raises
    ------
    DivergedError
        For weights or vectors that are not finite.
    UserError
        If `target` is a folder of something else.
    """
    vectors = {"item_vectors": retriever.item_vectors}
    if isinstance(retriever, MINDRetriever):
        vectors["behaviour_vectors"] = retriever.behaviour_vectors
    weights = {} if model is None else model.state_dict()
    if not (all_finite(vectors.values()) and all_finite(weights.values())):
        raise DivergedError(f"{card.name}: its weights are not finite, so it is not published; {CALMER}")
    items = dataset.items().select(["item", "id", "count", "train_count"])
    told = dataset.raw_items()
    for name in told.column_names:
        items = items.append_column(name, told[name])
    with published(target, MARK) as folder:
        save_file({k: v.cpu().contiguous().clone() for k, v in vectors.items()}, folder / "item_vectors.safetensors")
        if model is not None:
            stored = {name: value.cpu().contiguous() for name, value in weights.items()}
            save_file(stored, folder / "weights.safetensors")
        pq.write_table(items, folder / "items.parquet", compression="zstd")
        (folder / "profile_features").mkdir()
        for info in dataset.manifest.profile_features:
            if info.kind != "numeric":
                pq.write_table(dataset.vocabulary(f"profile_features/{info.name}"), _vocabulary_file(folder, info))
        (folder / MARK.file).write_text(sealed(asdict(card), folder), "utf-8")


class SavedModel:
    """A loaded artifact: encodes raw histories and profiles, recommends raw item ids."""

    def __init__(self, path: Path, card: ModelCard, retriever: Retriever, items: pa.Table):
        self.path, self.card, self.retriever, self.items = path, card, retriever, items
        self.profile_encoders = [_profile_encoder(path, info) for info in card.profile_features]

    @property
    def item_ids(self) -> pa.Array:
        """Raw ids; position p is item index p + FIRST_ITEM."""
        return as_array(self.items["id"])

    def item_names(self) -> dict[int, str]:
        """Tell what to print for an item index: the item's first show_ column, else its id."""
        columns = [name for name in self.items.column_names if name.startswith("show_")]
        ids = self.items["id"].to_pylist()
        shown = self.items[columns[0]].to_pylist() if columns else ids
        names = {FIRST_ITEM + i: str(n if n is not None else ids[i]) for i, n in enumerate(shown)}
        return {**names, 0: "", 1: "unknown item"}

    def encode_items(self, ids: pa.Array) -> pa.Array:
        """Encode raw item ids as int32 item indices; an id that the model does not know becomes the unknown item."""
        try:
            place = pc.index_in(ids.cast(self.item_ids.type), value_set=self.item_ids)
        except pa.ArrowInvalid as error:
            raise UserError(f"history: item ids must be {self.item_ids.type} as in the log, not {ids.type}") from error
        return pc.fill_null(pc.add(place, FIRST_ITEM), UNKNOWN).cast(pa.int32())

    def encode(self, histories: pa.Array, profile: pa.Table | None = None) -> Sequences:
        """Encode raw histories (a list array, oldest first) and raw profile columns as model input.

        Profile columns that are absent count as missing.
        """
        lengths = pc.fill_null(pc.list_value_length(histories), 0)
        offsets = pa.array(np.concatenate([[0], np.cumsum(np.array(lengths))]), pa.int32())
        items = pa.ListArray.from_arrays(offsets, self.encode_items(as_array(histories).flatten()))
        raw = profile if profile is not None else pa.table({"row": pa.nulls(len(histories))})
        columns = {"items": items, **encode_columns(self.profile_encoders, raw, "profile")}
        return to_sequences(pa.table(columns), feature_specs(self.card.profile_features))

    def sequences(self, rows: pa.Table, latest: bool = False) -> Sequences:
        """Read rows of a split as the model does; `latest`: with the held-out items at the end of the histories."""
        return to_sequences(with_held_out(rows) if latest else rows, feature_specs(self.card.profile_features))

    def recommend(self, sequences: Sequences, n: int, *, exclude_seen: bool, rules: ListRules = NO_RULES) -> pa.Table:
        """Make top-n lists as a table, one row per user and place: `recommend_shelves` of the one shelf."""
        return self.recommend_shelves(sequences, {"new" if exclude_seen else "all": n}, rules)

    def columns(self) -> ItemColumns:
        """What filters and caps of lists may name: read when it is asked for."""
        names = pq.read_schema(self.path / "items.parquet").names
        raw = pq.read_table(self.path / "items.parquet", columns=[name for name in names if name.startswith(RAW)])
        added = len(self.items) - len(raw) if raw.column_names else 0  # with_new_items: of these nothing is kept
        more = pa.table({field.name: pa.nulls(added, field.type) for field in raw.schema})
        raw = pa.concat_tables([raw, more]) if added else raw
        values = {name.removeprefix(RAW): raw[name] for name in raw.column_names}
        values |= {"id": self.items["id"], "count": self.items["count"]}
        shown = [name for name in self.items.column_names if name.startswith("show_")]
        values |= {name.removeprefix("show_"): self.items[name] for name in shown}
        return ItemColumns(values, self.card.item_features)

    def recommend_shelves(
        self, sequences: Sequences, sizes: Mapping[Shelf, int], rules: ListRules = NO_RULES
    ) -> pa.Table:
        """Make lists as a table, one row per user and place; a user's shelves stand in the order of `sizes`.

        Parameters
        ----------
        rules : what the lists may hold, as `pipelines.lists.rules.read_rules` makes them.

        Returns
        -------
        Columns user (row of `sequences`), rank (from 1 on each shelf), again (how often the item is in the user's
        history, 0 for a new one), score, interest (which found it), id, show_<column>.
        """
        users = torch.arange(len(sequences))
        lists = ruled_shelves(self.retriever, sequences, users, sizes, rules)
        items, scores, interest = (torch.cat(column, 1) for column in zip(*lists.values(), strict=True))
        found = items > 0
        place = pa.array((items[found] - FIRST_ITEM).numpy())
        again = times_in_history(sequences, users, items)
        rank = torch.cat([torch.arange(1, n + 1) for n in sizes.values()]).expand(len(users), -1)
        shown = self.items.select(["id", *(c for c in self.items.column_names if c.startswith("show_"))]).take(place)
        columns = {
            "user": users.unsqueeze(1).expand_as(items)[found].numpy(),
            "rank": rank[found].numpy().astype(np.int32),
            "again": again[found].numpy().astype(np.int32),
            "score": scores[found].numpy(),
            "interest": interest[found].numpy().astype(np.int32),
        }
        return pa.table({**columns, **{name: shown[name] for name in shown.column_names}})


TRAINING = ("loss", "optim", "train")  # sections of settings that a card does not tell; the training run has them


def described(config: Config, card: ModelCard) -> Config:
    """Put the settings of the model that a command works on in place of the command's."""
    return config.model_copy(update={"preset": card.preset, "model": card.config})


def load_card(path: Path) -> ModelCard:
    """Read config.json.

    Raises
    ------
    UserError
        If the folder holds no whole model, one of another format, or one that was changed.
    """
    return _read_card(path)[0]


def _read_card(path: Path) -> tuple[ModelCard, dict[str, Any]]:
    """Read config.json as the card and as it stands."""
    file = renew(path / MARK.file)
    if not file.is_file():
        raise UserError(f"{shown(path)}: no model (no config.json); make one with: mind train CONFIG.yaml")
    raw = read_json(file)
    made = raw.get("format_version")
    if made != FORMAT_VERSION:
        raise UserError(f"{shown(file)}: model of format {made}, this program reads {FORMAT_VERSION}; train it again")
    if not is_name(str(raw.get("name"))):  # it may come from anywhere, and evaluations and exports are named after it
        raise UserError(f"{shown(file)}: name={raw.get('name')!r}: must be {ALLOWED}")
    require_seal(file, raw)
    try:
        card = _CARD.validate_python({name: value for name, value in raw.items() if name not in (FILES, DIGEST)})
        card.config  # noqa: B018  # its settings are checked where they are first asked for
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{shown(file)}: {place}: {first['msg']}; {RESTORE}") from None
    return card, raw


def load_model(path: str | Path) -> SavedModel:
    """Open an artifact. Nothing is built before its files are seen to be those that were written, and to fit.

    Raises
    ------
    UserError
        For a file that is missing, strange or changed, settings that the files do not fit, or too large a model.
    """
    path = fetch_folder(Path(path))
    card, raw = _read_card(path)
    require_files(path, raw)
    specs = feature_specs(card.item_features), feature_specs(card.profile_features)
    parts = model_parts(card.config, card.items, *specs)
    require_room(f"{shown(path)}: the model of its config.json", parts)
    items = _items(path / "items.parquet", card)
    if card.config.encoder == "popularity":
        return SavedModel(path, card, PopularityRetriever(train_counts(items), card.config.max_history), items)
    vectors = _tensors(path / "item_vectors.safetensors")
    behaviours = vectors.get("behaviour_vectors")
    if behaviours is None or behaviours.shape != (card.items, card.config.dim):
        raise _misfit(path / "item_vectors.safetensors", f"behaviour_vectors of {card.items} x {card.config.dim}")
    weights = _tensors(path / "weights.safetensors")
    if stored_bytes(parts) > 2 * sum(value.nbytes for value in weights.values()) + 2**20:  # do not build it to find out
        raise _misfit(path / "weights.safetensors", "the weights that its settings ask for")
    model = MIND(card.config, card.items, *specs)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if {name: tuple(value.shape) for name, value in weights.items()} != expected:
        raise _misfit(path / "weights.safetensors", "the weights that its settings ask for")
    model.load_state_dict(weights)
    return SavedModel(path, card, MINDRetriever(model.eval(), behaviours), items)


_CARD = TypeAdapter(ModelCard)


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file whose numbers are all finite."""
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{shown(file)}: cannot be read ({error}); {RESTORE}") from None
    if not all_finite(tensors.values()):
        raise UserError(f"{shown(file)}: holds numbers that are not finite; {RESTORE}")
    return tensors


def _items(file: Path, card: ModelCard) -> pa.Table:
    try:
        names = pq.read_schema(file).names
        items = pq.read_table(file, columns=[name for name in names if not name.startswith(RAW)])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shown(file)}: cannot be read ({first_line(error)}); {RESTORE}") from None
    wanted = {"item", "id", "count", "train_count"}
    if items.num_rows != card.items - FIRST_ITEM or not wanted <= set(items.column_names):
        raise _misfit(file, f"{card.items - FIRST_ITEM} items with {', '.join(sorted(wanted))}")
    return items


def _misfit(file: Path, wanted: str) -> UserError:
    return UserError(f"{shown(file)}: does not fit config.json beside it: must hold {wanted}; {RESTORE}")


def _vocabulary_file(folder: Path, info: FeatureInfo) -> Path:
    return folder / "profile_features" / f"{file_name(info.name)}.parquet"


def _profile_encoder(path: Path, info: FeatureInfo) -> FeatureEncoder:
    values = counts = None
    if info.kind != "numeric":
        vocabulary = pq.read_table(_vocabulary_file(path, info))
        values, counts = as_array(vocabulary["value"]), as_array(vocabulary["count"])
    return FeatureEncoder(
        info.name,
        info.kind,
        info.separator,
        values=None if info.edges is not None else values,
        counts=counts,
        mean=info.mean,
        std=info.std,
        edges=info.edges,
        low=info.low,
        high=info.high,
    )
