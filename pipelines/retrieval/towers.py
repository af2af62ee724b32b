"""`mind export --towers`: the model for other runtimes: the user tower as a graph, the items' vectors as plain arrays.

<home>/exports/<model>-towers/
    user_tower.onnx           histories in, interests out; user_tower.onnx.data beside it where the table is large
    user_tower.pt2            the same by torch.export
    item_vectors.npy          (V, d) float32 by item index, as they are scored; rows 0 and 1 are no items
    items.parquet             id, vector (d), in the order of the indices from 2 on
    towers.json               written last: inputs, outputs, and how far both are from the model on real users

Both graphs are called here before they are published, and their lists compared with the model's own.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from rich.table import Table
from torch import Tensor

from mind_core.inference import MINDRetriever, recommend
from mind_core.search import Catalogue
from mind_core.sequences import Histories, Sequences, View, full_histories
from mind_core.special_rows import FIRST_ITEM
from mind_core.tower import TowerInputs, UserTower, tower_inputs
from pipelines.config.home_location import shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.find import find_model
from pipelines.progress import console, output
from pipelines.retrieval.export_files import write_items
from pipelines.storage.publish import Mark, published
from pipelines.words import counted

MARK = Mark("towers.json")
USERS = 1_000  # real ones, that both graphs are called with
TOP = 20
LARGE = 2**30  # bytes of tables beyond which ONNX keeps them in a file of their own
OUTPUTS = ("interests", "own", "memory")

Call = Callable[[TowerInputs], tuple[Tensor, Tensor, Tensor]]


class Foreign:
    """A retriever whose interests and memory another runtime computes."""

    def __init__(self, call: Call, retriever: MINDRetriever) -> None:
        self.call, self.view, self.catalogue = call, retriever.view, retriever.catalogue
        self.remembers = retriever.model.config.repeat == "memory"

    view: View
    catalogue: Catalogue

    @property
    def item_vectors(self) -> Tensor:
        return self.catalogue.vectors

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        vectors, own, _ = self.call(tower_inputs(histories, self.view.max_history))
        return vectors, own

    def memory(self, histories: Histories, interests: Tensor, own: Tensor) -> Tensor | None:
        if not self.remembers:
            return None
        width = histories.items.shape[1]
        return self.call(tower_inputs(histories, self.view.max_history))[2][:, :width]


def export_towers(config: Config, model: str | None = None) -> Path:
    """Write both graphs and the items' vectors, and say how far they are from the model; the folder.

    Parameters
    ----------
    model : as `find_model` takes it.

    Raises
    ------
    UserError
        Without a dataset or a model of it, or for a model without a user tower.
    """
    dataset = Dataset.open(config.dataset_path)
    loaded = load_model(find_model(config, dataset, model))
    if not isinstance(loaded.retriever, MINDRetriever):
        raise UserError(f"{loaded.card.name}: encoder {loaded.card.config.encoder} has no user tower to export")
    users = some_users(loaded, dataset)
    target = config.place("exports", f"{loaded.card.name}-towers")
    with published(target, MARK) as folder:
        calls = write_graphs(loaded.retriever, tower_inputs_of(loaded.retriever, users), folder)
        np.save(folder / "item_vectors.npy", loaded.retriever.item_vectors.numpy())
        write_items(loaded.item_ids, loaded.retriever.item_vectors[FIRST_ITEM:], folder / "items.parquet")
        differences = {name: difference(loaded, users, call) for name, call in calls.items()}
        card = loaded.card
        told = {
            "name": target.name,
            "model": card.name,
            "items": card.items - FIRST_ITEM,
            "max_history": card.config.max_history,
            "inputs": list(TowerInputs._fields),
            "outputs": list(OUTPUTS),
            "users": len(users),
            "differences": differences,
        }
        (folder / MARK.file).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    _print(differences, len(users), target)
    return target


def some_users(model: SavedModel, dataset: Dataset) -> Sequences:
    """Take histories and profiles of real users, spread over the test split."""
    rows = dataset.table("test")
    places = np.unique(np.linspace(0, len(rows) - 1, min(USERS, len(rows))).astype(np.int64))
    if not len(places):
        raise UserError(f"{dataset}: no user in the test split to compare the graphs on")
    return model.sequences(rows.take(pa.array(places)))


def tower_inputs_of(retriever: MINDRetriever, users: Sequences) -> TowerInputs:
    """Make the inputs of all of `users`."""
    histories = full_histories(users, torch.arange(len(users)), retriever.view)
    return tower_inputs(histories, retriever.view.max_history)


def write_graphs(retriever: MINDRetriever, inputs: TowerInputs, folder: Path) -> dict[str, Call]:
    """Write user_tower.pt2 and user_tower.onnx, for any number of users and of profile values; how each is called.

    Parameters
    ----------
    inputs : of a few users, to follow through the model.

    Raises
    ------
    UserError
        If the packages of the extra are not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch.onnx writes with
    except ImportError:
        raise UserError("export --towers: needs packages that are not installed: pip install "
                        "'mind-retrieval[onnx]'") from None  # fmt: skip
    tower = UserTower(retriever).eval().requires_grad_(False)
    example = TowerInputs(*(each[:3].repeat(3, *[1] * (each.dim() - 1))[:3] for each in inputs))
    example = example._replace(
        profile_rows=_widened(example.profile_rows), profile_weights=_widened(example.profile_weights)
    )
    users, values = torch.export.Dim("users", min=1, max=2**20), torch.export.Dim("values", min=1, max=2**12)
    shapes = ({0: users}, {0: users}, {0: users}, {0: users, 2: values}, {0: users, 2: values})
    large = sum(each.nbytes for each in tower.buffers()) > LARGE
    with _quiet(), torch.no_grad():
        program = torch.export.export(tower, tuple(example), dynamic_shapes=shapes)
        torch.export.save(program, folder / "user_tower.pt2")
        torch.onnx.export(
            program,
            (),
            folder / "user_tower.onnx",
            input_names=list(TowerInputs._fields),
            output_names=list(OUTPUTS),
            external_data=large,
            dynamo=True,
            verbose=False,
        )
        again = torch.export.load(folder / "user_tower.pt2").module()
    session = onnxruntime.InferenceSession(folder / "user_tower.onnx", providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}  # a model without a profile has no use for it

    def by_onnx(inputs: TowerInputs) -> tuple[Tensor, Tensor, Tensor]:
        fed = {name: value.numpy() for name, value in inputs._asdict().items() if name in names}
        interests, own, memory = session.run(None, fed)
        return torch.from_numpy(interests), torch.from_numpy(own), torch.from_numpy(memory)

    def by_torch(inputs: TowerInputs) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            interests, own, memory = again(*inputs)
        return interests, own, memory

    return {"user_tower.onnx": by_onnx, "user_tower.pt2": by_torch}


def difference(model: SavedModel, users: Sequences, call: Call) -> dict[str, float]:
    """Compare a graph with the model: the largest difference of an interest and of a memory, and equal lists of TOP.

    Returns
    -------
    interests, memory : largest absolute difference.  own : users whose number of interests differs.
    lists : part of the users whose TOP items are the same in the same order.
    """
    retriever = model.retriever
    assert isinstance(retriever, MINDRetriever), "which has a tower"
    everyone = torch.arange(len(users))
    histories = full_histories(users, everyone, retriever.view)
    vectors, own = retriever.interests(histories)
    memory = retriever.memory(histories, vectors, own)
    interests, theirs, more = call(tower_inputs(histories, retriever.view.max_history))
    filtered = model.card.exclude_seen
    ours = recommend(retriever, users, everyone, TOP, exclude_seen=filtered).items
    foreign = recommend(Foreign(call, retriever), users, everyone, TOP, exclude_seen=filtered).items
    remembered = 0.0 if memory is None else float((more[:, : memory.shape[1]] - memory).abs().max())
    return {
        "interests": float((interests - vectors)[own].abs().max()),
        "memory": remembered,
        "own": float((own != theirs).any(1).sum()),
        "lists": float((ours == foreign).all(1).float().mean()),
    }


def _widened(profile: Tensor) -> Tensor:
    """Give at least two values to a feature: an axis of one would be taken for a constant."""
    return torch.nn.functional.pad(profile, (0, max(0, 2 - profile.shape[2])))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch says of its own steps off the terminal."""
    talkers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for talker, level in zip(talkers, before, strict=True):
            talker.setLevel(level)


def _print(differences: Mapping[str, Mapping[str, float]], users: int, target: Path) -> None:
    output.print(f"Exported: {shown(target)}", soft_wrap=True)
    table = Table("graph", "interests differ by", "memory differs by", f"same top {TOP}")
    for name, each in differences.items():
        table.add_row(name, f"{each['interests']:.1e}", f"{each['memory']:.1e}", f"{each['lists']:.1%}")
    output.print(table)
    console.print(
        f"against the model, on {counted(users, 'user')} of the test split; the largest difference of a number"
    )
