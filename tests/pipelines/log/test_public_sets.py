"""`mind import`: the public data sets in exactly their formats, to a dataset, with the configuration as written."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config.load import load_config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.log.public_sets.movielens import GENRES
from pipelines.log.public_sets.write import PublicSet, configuration
from pipelines.preprocess.preprocess import preprocess
from tests.pipelines.local_data import local_data

USERS, ITEMS, EVENTS = 20, 30, 12  # EVENTS of each user
SECONDS = 978_300_760
RNG = random.Random(0)
LOG = [
    (user, item, SECONDS + 3600 * place + user)
    for user in range(1, USERS + 1)
    for place, item in enumerate(RNG.sample(range(1, ITEMS + 1), EVENTS))
]


@pytest.fixture(autouse=True, scope="module")
def _here() -> Iterator[None]:
    with local_data():
        yield


def made(kind: PublicSet, folder: Path) -> Dataset:
    """The dataset of the configuration as it is written."""
    (folder / "c.yaml").write_text(configuration(kind, str(folder / "set"), "set"))
    return preprocess(load_config(folder / "c.yaml", [f"home={folder}/home"]))


def assert_whole(dataset: Dataset, *features: str) -> None:
    manifest = dataset.manifest
    assert (manifest.events, manifest.users, manifest.items) == (USERS * EVENTS, USERS, ITEMS)
    assert manifest.set_aside == {}
    assert manifest.time_unit == ("number" if "artist_id" in features else "us")
    assert {info.name for info in (*manifest.item_features, *manifest.profile_features)} == set(features)


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    path = folder / "set" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def jsonl(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    write(folder, name, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])  # of 1M and of 10M
def test_movielens_dat(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, "ratings.dat", "".join(f"{u}::{i}::5::{t}\n" for u, i, t in LOG))
    movies = "".join(
        f"{i}::Fiancée {i}, A (199{i % 10})::{'Drama|Comedy' if i % 2 else 'Drama'}\n" for i in range(1, 31)
    )
    write(tmp_path, "movies.dat", movies, encoding)
    write(tmp_path, "users.dat", "".join(f"{u}::F::{25 if u % 2 else 1}::{u % 3}::1-{u}\n" for u in range(1, 21)))
    write(tmp_path, "README", "about")
    dataset = made("movielens", tmp_path)
    assert_whole(dataset, "genres", "gender", "age", "occupation")
    assert "Fiancée 1, A (1991)" in pq.read_table(dataset.layout.items)["show_title"].to_pylist()


def test_movielens_csv(tmp_path: Path) -> None:
    write(tmp_path, "ml-25m/ratings.csv", "userId,movieId,rating,timestamp\r\n"
          + "".join(f"{u},{i},3.5,{t}\r\n" for u, i, t in LOG))  # fmt: skip
    movies = "".join(f'{i},"American President, The ({i})",{"Comedy|Drama"}\r\n' for i in range(1, 31))
    write(tmp_path, "ml-25m/movies.csv", "movieId,title,genres\r\n" + movies)
    assert_whole(made("movielens", tmp_path), "genres")


def test_movielens_100k(tmp_path: Path) -> None:
    write(tmp_path, "u.data", "".join(f"{u}\t{i}\t3\t{t}\n" for u, i, t in LOG))
    flags = "|".join(["0"] * 18 + ["1"])
    movies = "".join(f"{i}|Mis\xe9rables {i}|01-Jan-1995||http://x/{i}|{flags}\n" for i in range(1, 31))
    write(tmp_path, "u.item", movies, "latin-1")
    write(tmp_path, "u.user", "".join(f"{u}|{20 + u}|M|writer|8{u}\n" for u in range(1, 21)))
    assert_whole(made("movielens", tmp_path), *GENRES, "age", "gender", "occupation")


def test_amazon_2014_whose_table_of_items_is_no_json(tmp_path: Path) -> None:
    jsonl(tmp_path, "reviews_Beauty_5.json.gz", [
        {"reviewerID": f"A{u}", "asin": f"B{i:04}", "reviewerName": "x", "helpful": [0, 0], "reviewText": "ok",
         "overall": 5.0, "summary": "s", "unixReviewTime": t, "reviewTime": "05 31, 2014"} for u, i, t in LOG
    ])  # fmt: skip
    write(tmp_path, "meta_Beauty.json.gz", "".join(f"{{'asin': 'B{i:04}', 'title': 'it''s'}}\n" for i in range(1, 31)))
    assert_whole(made("amazon-reviews", tmp_path))
    assert "Python's notation, not JSON" in (tmp_path / "c.yaml").read_text()


def test_amazon_2018(tmp_path: Path) -> None:
    jsonl(tmp_path, "All_Beauty_5.json.gz", [
        {"overall": 5.0, "verified": True, "reviewTime": "09 1, 2016", "reviewerID": f"A{u}", "asin": f"B{i:04}",
         "style": {"Size:": " 7.0"}, "reviewText": "ok", "unixReviewTime": t} for u, i, t in LOG
    ])  # fmt: skip
    meta: list[dict[str, object]] = [
        {"category": ["Beauty", "Hair"] if i % 2 else [], "description": ["d"], "title": f"T{i}", "brand": f"b{i % 3}",
         "price": "$12.99", "asin": f"B{i:04}"} for i in range(1, 31)
    ]  # fmt: skip
    jsonl(tmp_path, "meta_All_Beauty.json.gz", [*meta, meta[0]])
    assert_whole(made("amazon-reviews", tmp_path), "category", "brand")


def test_amazon_2023(tmp_path: Path) -> None:
    jsonl(tmp_path, "All_Beauty.jsonl", [
        {"rating": 5.0, "title": "t", "text": "x", "images": [], "asin": f"B{i:04}", "parent_asin": f"B{i:04}",
         "user_id": f"A{u}", "timestamp": t * 1000 + 123, "helpful_vote": 0, "verified_purchase": True}
        for u, i, t in LOG
    ])  # fmt: skip
    jsonl(tmp_path, "meta_All_Beauty.jsonl", [
        {"main_category": "All Beauty", "title": f"T{i}", "average_rating": 4.8, "price": None if i % 2 else 9.99,
         "store": f"s{i % 3}", "categories": [], "details": {"Brand": "x"}, "parent_asin": f"B{i:04}"}
        for i in range(1, 31)
    ])  # fmt: skip
    assert_whole(made("amazon-reviews", tmp_path), "categories", "store", "main_category")


def test_recbole(tmp_path: Path) -> None:
    write(tmp_path, "ml-100k/ml-100k.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
          + "".join(f"{u}\t{i}\t3\t{t}\n" for u, i, t in LOG))  # fmt: skip
    items = "".join(f'{i}\tToy "Story {i}\t199{i % 10}\tAnimation Comedy{i % 2}\n' for i in range(1, 31))
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    write(tmp_path, "ml-100k/ml-100k.item", header + items)
    write(tmp_path, "ml-100k/ml-100k.user", "user_id:token\tage:token\tgender:token\n"
          + "".join(f"{u}\t{20 + u % 5}\t{'MF'[u % 2]}\n" for u in range(1, 21)))  # fmt: skip
    dataset = made("recbole", tmp_path)
    assert_whole(dataset, "release_year", "class", "age", "gender")
    assert 'Toy "Story 1' in pq.read_table(dataset.layout.items)["show_movie_title"].to_pylist()


def test_recbole_sequences_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path, "x.inter", "user_id:token\titem_id_list:token_seq\ttimestamp:float\n1\t1 2 3\t7\n")
    with pytest.raises(UserError, match="item_id_list holds lists, as RecBole augments its sequences"):
        configuration("recbole", str(tmp_path), "x")


FLAT = {
    "uid": pa.array([u for u, _, _ in LOG], pa.uint32()),
    "timestamp": pa.array([t - SECONDS for _, _, t in LOG], pa.uint32()),
    "item_id": pa.array([i for _, i, _ in LOG], pa.uint32()),
    "is_organic": pa.array([1] * len(LOG), pa.uint8()),
    "played_ratio_pct": pa.array([100] * len(LOG), pa.uint16()),
    "track_length_seconds": pa.array([180] * len(LOG), pa.uint32()),
}


def yambda(folder: Path, table: pa.Table) -> Dataset:
    (folder / "set" / "50m").mkdir(parents=True)
    pq.write_table(table, folder / "set" / "50m" / "listens.parquet")
    artists = {"artist_id": pa.array([i % 4 for i in range(1, 32)], pa.uint32()),
               "item_id": pa.array([*range(1, 31), 1], pa.uint32())}  # fmt: skip
    pq.write_table(pa.table(artists), folder / "set" / "artist_item_mapping.parquet")
    return made("yambda", folder)


def test_yambda_flat_and_sequential_are_one_dataset(tmp_path: Path) -> None:
    table = pa.table(FLAT)
    flat = yambda(tmp_path / "flat", table)
    lists = table.group_by("uid", use_threads=False).aggregate([(name, "list") for name in FLAT if name != "uid"])
    named = [name.removesuffix("_list") for name in lists.column_names]
    several = yambda(tmp_path / "lists", lists.rename_columns(named))
    for dataset in (flat, several):
        assert_whole(dataset, "artist_id")
    assert several.manifest.fingerprint == flat.manifest.fingerprint
    assert several.manifest.rows_read == USERS * EVENTS


@pytest.mark.parametrize("kind", ["movielens", "amazon-reviews", "recbole", "yambda"])
def test_another_folder_is_refused_with_what_was_looked_for(tmp_path: Path, kind: PublicSet) -> None:
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(UserError, match=r"must hold .*; there is other\.txt$"):
        configuration(kind, str(tmp_path), "x")


def test_the_command_writes_reads_and_never_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "ratings.dat", "".join(f"{u}::{i}::5::{t}\n" for u, i, t in LOG))
    words = ["import", "movielens", "set", "--name", "ml"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "next: mind preprocess ml.yaml" in done.output
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2
    assert "is there already" in again.output
