"""The index of an export: what it holds, what it finds of the exact lists, and who else can load the vectors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from mind_core.search import Catalogue, search
from pipelines.errors import UserError
from pipelines.retrieval.index import IndexKind, ItemIndex, build_index, save_index
from pipelines.retrieval.index_report import measure_index, recall

pytest.importorskip("faiss", reason="faiss-cpu is not installed (the extra `index`)")
DIM = 16


def given_vectors(items: int = 3000, users: int = 40, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Item vectors with padding and unknown, which would win any search, and users of 1 to 3 interests."""
    g = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(items + 2, DIM, generator=g), dim=1)
    vectors[:2] = 9.0
    interests = torch.randn(users, 3, DIM, generator=g)
    own = torch.arange(3) < torch.randint(1, 4, (users, 1), generator=g)
    return vectors, interests, own


def test_a_flat_index_merged_over_interests_gives_the_exact_lists() -> None:
    vectors, interests, own = given_vectors()
    index = build_index("flat", vectors[2:])
    found, exact = index.top(interests, own, 50), search(Catalogue(vectors), interests, own, 50)
    assert recall(exact, found) == 1.0
    torch.testing.assert_close(found.scores, exact.scores)
    assert (found.interest == exact.interest).float().mean() > 0.999  # equal scores apart


@pytest.mark.parametrize(("kind", "items", "least"), [("hnsw", 3000, 0.98), ("ivf_pq", 12_000, 0.4)])
def test_an_approximate_index_finds_more_the_more_it_looks_at(kind: IndexKind, items: int, least: float) -> None:
    vectors, interests, own = given_vectors(items)
    index = build_index(kind, vectors[2:])
    exact = search(Catalogue(vectors), interests, own, 10)
    found = [recall(exact, index.top(interests, own, 10, setting)) for setting in index.settings(10)]
    assert found[-1] >= found[0]
    assert found[-1] >= least


def test_an_index_says_where_there_are_fewer_items_than_asked_for() -> None:
    vectors, interests, own = given_vectors(items=5, users=2)
    found = build_index("flat", vectors[2:]).top(interests, own, 9)
    assert ((found.items > 0).sum(1) == 5).all()
    assert not found.items[:, 5:].any()


def test_an_index_is_read_as_it_was_written_with_its_ids_beside_it(tmp_path: Path) -> None:
    vectors, interests, own = given_vectors()
    index = build_index("hnsw", vectors[2:])
    folder = tmp_path / "index-hnsw"
    folder.mkdir()
    ids = pa.array([f"item {number}" for number in range(3000)])
    save_index(index, ids, folder)
    again = ItemIndex.load(folder)
    assert torch.equal(again.top(interests, own, 20, 64).items, index.top(interests, own, 20, 64).items)
    kept = pq.read_table(folder / "ids.parquet")
    assert kept["number"].to_pylist() == list(range(3000))
    assert kept["id"].combine_chunks().equals(ids)
    with pytest.raises(UserError, match="no index; must be EXPORT/index-KIND"):
        ItemIndex.load(tmp_path / "index-flat")


def test_a_report_measures_every_setting_and_can_be_drawn(tmp_path: Path) -> None:
    vectors, interests, own = given_vectors()
    queries = [each[mine] for each, mine in zip(interests, own, strict=True)]
    report = measure_index(build_index("hnsw", vectors[2:]), 1.0, 10, vectors, queries, 20, "cosine")
    report.write(tmp_path)
    read = json.loads((tmp_path / "report.json").read_text())
    assert [each["setting"] for each in read["measured"]] == [20, 32, 64, 128, 256]
    assert all(0 < each["recall"] <= 1 and each["users_per_second"] > 0 for each in read["measured"])
    assert (read["exact"]["recall"], read["items"], read["interests"]) == (1.0, 3000, int(own.sum()))
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_items_for_codes_are_refused() -> None:
    with pytest.raises(UserError, match=r"--index ivf_pq: 50 items are too few .* use --index flat or hnsw"):
        build_index("ivf_pq", torch.randn(50, DIM))


def test_without_faiss_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        UserError, match=r"FAISS is not installed; install it with: pip install 'mind-retrieval\[index\]'"
    ):
        build_index("flat", torch.randn(50, DIM))


def test_a_vector_database_loads_the_items_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of docs/export.md, run on a table of its schema."""
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    page = Path(__file__, "../../../../docs/export.md").resolve().read_text()
    code = page.split("```python qdrant\n")[1].split("```")[0]
    vectors, interests, own = given_vectors(items=500, users=1)
    (tmp_path / "items").mkdir()
    (tmp_path / "users").mkdir()
    flat = pa.array(vectors[2:].flatten().numpy())
    items = {
        "number": pa.array(range(500), pa.int64()),
        "id": pa.array([f"i{n}" for n in range(500)]),
        "vector": pa.FixedSizeListArray.from_arrays(flat, DIM),
    }
    pq.write_table(pa.table(items), tmp_path / "items" / "part-00000.parquet")
    users = {
        "user": ["ann"],
        "interests": pa.array([interests[0][own[0]].tolist()], pa.list_(pa.list_(pa.float32(), DIM))),
    }
    pq.write_table(pa.table(users), tmp_path / "users" / "part-0.parquet")
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(code, names)
    exact = search(Catalogue(vectors), interests[:, :1], torch.ones(1, 1).bool(), 20)
    assert names["found"] == [f"i{n - 2}" for n in exact.items[0].tolist()]
