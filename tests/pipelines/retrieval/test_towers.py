"""The graphs that other runtimes load give the model's vectors, for any number of users."""

from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch

from mind_core.inference import MINDRetriever
from mind_core.sequences import Sequences
from mind_core.tower import TowerInputs
from pipelines.models.answers import Answerer
from pipelines.models.artifact import load_model
from pipelines.retrieval.export import write_items
from pipelines.retrieval.towers import Call, difference, tower_inputs_of, write_graphs
from tests.pipelines.small_model import PROFILE, save_small

HISTORIES = [[101, 105, 101, 110, 111, 112, 113, 114], [102], [103, 104, 120, 103]]


@pytest.fixture(scope="module", params=[True, False], ids=["profile", "no profile"])
def answerer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    folder = tmp_path_factory.mktemp("models") / "small"
    return Answerer(load_model(save_small(folder, profile=request.param)))


def users_of(answerer: Answerer) -> Sequences:
    profile = PROFILE if answerer.model.profile_encoders else {}
    requests = [answerer.reader.read({"history": each, "profile": {} if row else profile})
                for row, each in enumerate(HISTORIES)]  # fmt: skip
    return answerer.sequences([answerer.places.of(each.history) for each in requests], requests)


@pytest.fixture(scope="module")
def graphs(answerer: Answerer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Call]]:
    """The folder of both graphs, and how each is called."""
    assert isinstance(answerer.model.retriever, MINDRetriever)
    folder = tmp_path_factory.mktemp("towers")
    return folder, write_graphs(answerer.model.retriever, inputs_of(answerer), folder)


def inputs_of(answerer: Answerer) -> TowerInputs:
    assert isinstance(answerer.model.retriever, MINDRetriever)
    return tower_inputs_of(answerer.model.retriever, users_of(answerer))


def test_both_graphs_give_the_models_vectors_and_lists(
    answerer: Answerer, graphs: tuple[Path, dict[str, Call]]
) -> None:
    folder, calls = graphs
    inputs = inputs_of(answerer)
    assert set(calls) == {"user_tower.onnx", "user_tower.pt2"} <= {path.name for path in folder.iterdir()}
    for call in calls.values():
        found = difference(answerer.model, users_of(answerer), call)
        assert found["interests"] < 1e-5
        assert found["memory"] < 1e-5
        assert (found["own"], found["lists"]) == (0, 1)
        alone = call(TowerInputs(*(each[1:2] for each in inputs)))[0]
        torch.testing.assert_close(alone, call(inputs)[0][1:2], rtol=0, atol=1e-5)


def test_the_graph_and_the_vectors_are_enough_without_this_program(
    answerer: Answerer, graphs: tuple[Path, dict[str, Call]], tmp_path: Path
) -> None:
    inputs = inputs_of(answerer)
    write_items(answerer.ids, answerer.model.retriever.item_vectors[2:], tmp_path / "items.parquet")
    session = onnxruntime.InferenceSession(graphs[0] / "user_tower.onnx")
    names = {each.name for each in session.get_inputs()}
    fed = {name: value.numpy() for name, value in inputs._asdict().items() if name in names}
    interests, own, memory = session.run(None, fed)
    items = pq.read_table(tmp_path / "items.parquet")
    vectors = np.stack(items["vector"].to_numpy(zero_copy_only=False))
    scores = (interests[0][own[0]] @ vectors.T).max(0)
    np.add.at(scores, inputs.items[0].numpy()[memory[0] != 0] - 2, memory[0][memory[0] != 0])
    best = items["id"].take(np.argsort(-scores, kind="stable")[:5]).to_pylist()
    profile = PROFILE if answerer.model.profile_encoders else {}
    request = answerer.reader.read({"history": HISTORIES[0], "n": 5, "seen": "keep", "profile": profile})
    assert best == answerer.answer([request])[0].ids
