import bz2
import gzip
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from pipelines.config.schema import TableSource
from pipelines.errors import UserError
from pipelines.log.formats import read_blocks
from pipelines.log.ids import Lookup, canonical, hash64, rank
from pipelines.log.sources import fragments, read_source
from tests.pipelines.conftest import SHARED_DATA

LOG = pa.table({"user": [1, 1, 2], "item": ["a", "b", "a"], "time": [10, 20, 30]})

HASHES_INT = [12035550249420947055, 627405149472732430, 3303439293501059696]
HASHES_TEXT = [15030154182000954228, 10041905603035023690]


def read(path: Path | str, wanted: list[str] | None = None, **source: object) -> list[dict[str, object]]:
    table, _ = read_source(TableSource.model_validate({"path": str(path), **source}), wanted or LOG.column_names)
    return table.to_pylist()


def failure(path: Path | str, wanted: list[str] | None = None, **source: object) -> str:
    with pytest.raises(UserError) as error:
        read(path, wanted, **source)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_same_rows_come_from_parquet_csv_and_json_lines(tmp_path: Path) -> None:
    pq.write_table(LOG, tmp_path / "log.parquet")
    csv.write_csv(LOG, tmp_path / "log.csv")
    write(tmp_path / "log.csv.gz", gzip.compress((tmp_path / "log.csv").read_bytes()))
    with pa.output_stream(tmp_path / "log.csv.zst", compression="zstd") as out:
        out.write((tmp_path / "log.csv").read_bytes())
    lines = "".join(
        f'{{"user": {u}, "item": "{i}", "time": {t}, "more": [1]}}\n'
        for u, i, t in [*zip(*LOG.to_pydict().values(), strict=True)]
    )
    write(tmp_path / "log.jsonl", lines)
    write(tmp_path / "log.csv.bz2", bz2.compress((tmp_path / "log.csv").read_bytes()))
    for suffix, codec in (("gz", "gzip"), ("zst", "zstd"), ("bz2", "bz2")):
        with pa.output_stream(tmp_path / f"log.jsonl.{suffix}", compression=codec) as out:
            out.write(lines.encode())
    for name in ("log.parquet", *(f"log.{kind}{suffix}" for kind in ("csv", "jsonl")
                                  for suffix in ("", ".gz", ".zst", ".bz2"))):  # fmt: skip
        assert read(tmp_path / name) == LOG.to_pylist(), name


def test_a_folder_and_a_glob_stand_for_their_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    pq.write_table(LOG.slice(0, 1), tmp_path / "log" / "1.parquet")
    pq.write_table(LOG.slice(1), tmp_path / "log" / "2.parquet")
    write(tmp_path / "log" / "_SUCCESS", "")
    assert read(tmp_path / "log") == LOG.to_pylist()
    assert read(tmp_path / "log" / "*.parquet") == LOG.to_pylist()
    assert read(tmp_path / "log" / "2.*") == LOG.slice(1).to_pylist()
    assert read(f"file://{tmp_path}/log/1.parquet") == LOG.slice(0, 1).to_pylist()


def test_a_delimiter_of_two_characters_splits_latin_1_text_without_a_header(tmp_path: Path) -> None:
    path = write(
        tmp_path / "movies.dat", '1::Café "Noir" (1995)::Drama|Film-Noir\n12::A: B::Comedy\n'.encode("latin-1")
    )
    rows = read(path, ["id", "title"], delimiter="::", columns=["id", "title", "genres"], encoding="latin-1")
    assert rows == [{"id": 1, "title": 'Café "Noir" (1995)'}, {"id": 12, "title": "A: B"}]


def test_a_delimiter_is_found_across_the_reader_s_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.log.formats.BLOCK_BYTES", 37)
    path = write(tmp_path / "log.dat", "".join(f"{n}::name {n}\n" for n in range(1000)))
    rows = read(path, ["id", "name"], delimiter="::", columns=["id", "name"])
    assert rows == [{"id": n, "name": f"name {n}"} for n in range(1000)]


def test_session_lines_number_users_and_places(tmp_path: Path) -> None:
    path = write(tmp_path / "sessions.txt.gz", gzip.compress(b"7 8  7\n\n9 \n"))
    assert read(path, format="sessions") == [
        {"user": 1, "item": 7, "time": 0},
        {"user": 1, "item": 8, "time": 1},
        {"user": 1, "item": 7, "time": 2},
        {"user": 3, "item": 9, "time": 0},
    ]


def test_text_ids_with_leading_zeros_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item,time\n007,1,1\n7,2,2\n")
    assert [row["user"] for row in read(path)] == ["007", "7"]
    assert [row["item"] for row in read(path)] == [1, 2]


def test_lines_of_the_wrong_shape_are_counted_not_lost(tmp_path: Path) -> None:
    csv_path = write(tmp_path / "log.csv", "user,item,time\n1,a,1\n2,b\n3,c,3,9\n4,d,4\n")
    json_path = write(tmp_path / "log.jsonl", '{"user": 1, "item": "a", "time": 1}\n{"user": 2, "it\n[1]\n')
    for path, good, bad in ((csv_path, 2, 2), (json_path, 1, 2)):
        source = TableSource(path=str(path))
        (piece,) = fragments(source, ["user", "item", "time"])
        blocks = list(read_blocks(piece, source, ["user", "item", "time"]))
        assert (sum(b.table.num_rows for b in blocks), sum(len(b.unreadable) for b in blocks)) == (good, bad)


def test_row_groups_become_fragments_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.log.sources.FRAGMENT_BYTES", 1)
    pq.write_table(LOG, tmp_path / "log.parquet", row_group_size=1)
    assert len(fragments(TableSource(path=str(tmp_path / "log.parquet")), ["user"])) == 3


def write_partition(folder: Path, name: str) -> None:
    """Rows of user 1 and 2, of item a or b, without another column."""
    folder.mkdir(parents=True)
    if name.endswith("parquet"):
        pq.write_table(pa.table({"user": [1, 2], "item": ["a", "b"]}), folder / name)
    elif name.endswith("csv"):
        write(folder / name, "user,item\n1,a\n2,b\n")
    else:
        write(folder / name, '{"user": 1, "item": "a"}\n{"user": 2, "item": "b"}\n')


@pytest.mark.parametrize("name", ["part.parquet", "part.csv", "part.jsonl"])
def test_folders_named_key_value_are_columns(tmp_path: Path, name: str) -> None:
    write_partition(tmp_path / "log" / "day=2024-01-01" / "shop=a%2Fb%20c", name)
    write_partition(tmp_path / "log" / "day=__HIVE_DEFAULT_PARTITION__" / "shop=d=e", name)
    expected = [
        {"day": "2024-01-01", "user": 1, "shop": "a/b c"},
        {"day": "2024-01-01", "user": 2, "shop": "a/b c"},
        {"day": None, "user": 1, "shop": "d=e"},
        {"day": None, "user": 2, "shop": "d=e"},
    ]
    wanted = ["day", "user", "shop"]
    assert read(tmp_path / "log", wanted) == expected
    assert read(tmp_path / "log" / "day=2*" / "*" / name, wanted) == expected[:2]
    assert read(tmp_path / "log" / "day=2024-01-01", wanted) == expected[:2]
    assert read(tmp_path / "log", ["day"]) == [{"day": row["day"]} for row in expected]  # nothing of the file itself
    if name != "part.jsonl":
        assert "the file has user, item, day, shop" in failure(tmp_path / "log", ["user", "month"])


@pytest.mark.parametrize("name", ["part.parquet", "part.csv", "part.jsonl"])
def test_a_column_of_the_file_is_not_replaced_by_one_of_its_path(tmp_path: Path, name: str) -> None:
    write_partition(tmp_path / "user=7", name)
    assert read(tmp_path, ["user"]) == [{"user": 1}, {"user": 2}]


def test_what_a_row_leaves_out_comes_from_the_path(tmp_path: Path) -> None:
    (tmp_path / "user=7").mkdir()
    write(tmp_path / "user=7" / "log.jsonl", '{"user": 1, "item": "a"}\n{"item": "b"}\n')
    assert read(tmp_path, ["user"]) == [{"user": 1}, {"user": 7}]


def test_files_may_differ_in_the_order_number_and_width_of_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([1], pa.int32()), "name": ["a"]}), tmp_path / "1.parquet")
    names = pa.array(["b"], pa.large_string()).dictionary_encode()
    pq.write_table(pa.table({"new": [0], "name": names, "id": [2**40]}), tmp_path / "2.parquet")
    assert read(tmp_path, ["id", "name"]) == [{"id": 1, "name": "a"}, {"id": 2**40, "name": "b"}]


def test_files_that_disagree_are_named_with_the_column(tmp_path: Path) -> None:
    for folder, other in (("type", {"id": ["x"]}), ("lack", {"name": ["x"]})):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"id": [1]}), tmp_path / folder / "1.parquet")
        pq.write_table(pa.table(other), tmp_path / folder / "2.parquet")
    message = failure(tmp_path / "type", ["id"])
    assert message.endswith("2.parquet: column 'id' holds string, but int64 in the files before it; store it with "
                            "one type")  # fmt: skip
    assert "2.parquet: no column 'id'; the file has name" in failure(tmp_path / "lack", ["id"])


def test_files_without_data_are_left_out_unless_all_are(tmp_path: Path) -> None:
    pq.write_table(LOG.slice(0, 0), tmp_path / "0.parquet")
    write(tmp_path / "0.csv", "")
    write(tmp_path / "0.csv.gz", gzip.compress(b""))
    write(tmp_path / "0.jsonl.gz", gzip.compress(b""))
    write(tmp_path / "_SUCCESS", "")
    for name in ("", "*", "0.parquet", "0.csv", "0.csv.gz", "0.jsonl.gz"):
        assert "empty, no data in" in failure(tmp_path / name)
    pq.write_table(LOG, tmp_path / "1.parquet")
    assert read(tmp_path) == LOG.to_pylist()
    (tmp_path / "hidden" / "_temporary").mkdir(parents=True)
    write(tmp_path / "hidden" / "_temporary" / "part.csv", "user,item,time\n1,a,1\n")
    assert "no such file" in failure(tmp_path / "hidden")
    assert "no such file" in failure(tmp_path / "hidden" / "*.csv")
    assert read(tmp_path / "hidden" / "_temporary" / "*.csv") == [{"user": 1, "item": "a", "time": 1}]


def test_a_header_without_rows_is_a_table_without_rows(tmp_path: Path) -> None:
    assert read(write(tmp_path / "log.csv", "user,item,time\n")) == []
    assert read(write(tmp_path / "log.jsonl", "\n\n")) == []


def test_a_file_inside_an_installed_package_is_found() -> None:
    path = "package://numpy/_core/numeric.py"
    (piece,) = fragments(TableSource(path=path, format="jsonl"), [])
    assert piece.path.endswith("numpy/_core/numeric.py")
    assert "pip install no_such_package" in failure("package://no_such_package/log.parquet")


def test_errors_name_the_file_and_the_way_out(tmp_path: Path) -> None:
    assert "no such file" in failure(tmp_path / "none.parquet")
    assert "no such file" in failure(tmp_path / "*.parquet")
    assert "empty" in failure(write(tmp_path / "empty.csv", ""))
    assert "cannot be read as parquet" in failure(write(tmp_path / "broken.parquet", "this is no Parquet file"))
    assert "set format" in failure(write(tmp_path / "log.xlsx", "x"))
    whole = gzip.compress(b"user,item,time\n" + np.random.default_rng(0).bytes(9999).hex().encode())
    assert "cannot be read as csv" in failure(write(tmp_path / "cut.csv.gz", whole[: len(whole) // 2]), ["user"])
    lines = gzip.compress(b'{"user": 1}\n' * 9999)
    assert "cut.jsonl.gz: cannot be read as jsonl" in failure(write(tmp_path / "cut.jsonl.gz", lines[:-40]), ["user"])
    message = failure(write(tmp_path / "log.csv", "user,item,when\n1,a,1\n"))
    assert "'time'" in message
    assert "user, item, when" in message
    assert "encoding" in failure(write(tmp_path / "latin.csv", "user,item,time\n1,Café,1\n".encode("latin-1")))
    assert "pyarrow.fs" in failure("nonsense://bucket/log.parquet")


def test_ids_of_every_type_come_to_a_canonical_one() -> None:
    key = uuid.UUID("0123456789abcdef0123456789abcdef")
    assert canonical(pa.array([1, None], pa.int16()), "").type == pa.int64()
    assert canonical(pa.array([1.0, float("nan"), 3.0]), "").to_pylist() == [1, None, 3]
    assert canonical(pa.array(["a", "", None]), "").to_pylist() == ["a", None, None]
    assert canonical(pa.array(["a", "b"]).dictionary_encode(), "").to_pylist() == ["a", "b"]
    assert canonical(pa.array([key.bytes, None], pa.binary(16)), "").to_pylist() == [str(key), None]
    assert canonical(pa.array([2**64 - 1], pa.uint64()), "").to_pylist() == [2**64 - 1]
    assert canonical(pa.array([key.bytes, None], pa.uuid()), "").to_pylist() == [str(key), None]
    for kind in (pa.int8(), pa.uint8(), pa.uint32(), pa.float16(), pa.decimal128(38, 0), pa.decimal256(50, 1)):
        ids = canonical(pa.array([7, None], kind), "")
        assert (ids.type, ids.to_pylist()) == (pa.int64(), [7, None]), kind
    for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2)):
        for column in (pa.array(["ab", None], kind), pa.chunked_array([["ab"], [None]], kind)):
            ids = canonical(column, "")
            assert (ids.type, ids.to_pylist()) == (pa.string(), ["ab", None]), kind
    assert canonical(pa.array([b"a", b"b"]).dictionary_encode(), "").to_pylist() == ["a", "b"]
    wrong = (
        pa.array([1.5]), pa.array([2.0**63]), pa.array([Decimal("1.5")]), pa.array([Decimal(2**63)]),
        pa.array([True]), pa.array([[1]]), pa.array([b"\xff"]), pa.array([0], pa.date32()),
    )  # fmt: skip
    for bad in wrong:
        with pytest.raises(UserError, match="log: user"):
            canonical(bad, "log: user")


def test_hashes_are_the_same_for_ever() -> None:
    assert hash64(pa.array([0, 1, -1], pa.int64())).tolist() == HASHES_INT
    assert hash64(pa.array(["", "a", "κόσμε"]).slice(1), seed=3).tolist() == HASHES_TEXT


def test_ranks_keep_the_order_of_ids_and_a_lookup_finds_them() -> None:
    codes, distinct = rank(pa.array(["b", "é", "a", "b"]))
    assert (codes.tolist(), distinct.to_pylist()) == ([1, 2, 0, 1], ["a", "b", "é"])
    assert Lookup(pa.array(["b", "é", "a"])).places(pa.array(["a", "x", "b"])).tolist() == [2, -1, 0]
    assert Lookup(pa.array([9, -3, 7])).places(pa.array([-4, -3, 7, 8, 10])).tolist() == [-1, 1, 2, -1, -1]
    assert Lookup(pa.array([], pa.int64())).places(pa.array([1])).tolist() == [-1]


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="needs ../shared/data")
def test_movielens_files_read_as_they_are() -> None:
    rows = read(SHARED_DATA / "ml-1m" / "movies.dat", ["movie_id", "title"], delimiter="::",
                columns=["movie_id", "title", "genres"], encoding="latin-1")  # fmt: skip
    assert len(rows) == 3883
    assert rows[0] == {"movie_id": 1, "title": "Toy Story (1995)"}
