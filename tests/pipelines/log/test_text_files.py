import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.schema import TableSource
from pipelines.errors import UserError
from pipelines.log.sources import read_source

TEXT = "user,item\n1,Café\n2,b\n"
ROWS = [{"user": 1, "item": "Café"}, {"user": 2, "item": "b"}]


def read(path: Path, columns: list[str] | None = None, **fields: object) -> list[dict[str, object]]:
    source = TableSource.model_validate({"path": str(path), **fields})
    return read_source(source, columns or ["user", "item"])[0].to_pylist()


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.csv.zst", "log.csv.bz2"])
@pytest.mark.parametrize("codec", [None, "gzip", "zstd", "bz2", "lz4"])
def test_compression_is_known_by_what_the_file_holds(tmp_path: Path, name: str, codec: str | None) -> None:
    with pa.output_stream(tmp_path / name, compression=codec) as out:
        out.write(TEXT.encode())
    assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_text_is_read_in_any_encoding(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.log.formats.BLOCK_BYTES", 13)
    (tmp_path / "log.csv").write_bytes(TEXT.encode(encoding))
    (tmp_path / "log.jsonl").write_bytes('{"user": 1, "item": "Café"}\n{"user": 2, "item": "b"}\n'.encode(encoding))
    for name in ("log.csv", "log.jsonl"):
        assert read(tmp_path / name, encoding=encoding) == ROWS


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1]}), tmp_path / "parquet.csv")
    (tmp_path / "zip.csv").write_bytes(b"PK\x03\x04rest")
    (tmp_path / "wide.csv").write_bytes(TEXT.encode("utf-16"))
    (tmp_path / "latin.jsonl").write_bytes('{"user": 1, "item": "Café"}'.encode("latin-1"))
    (tmp_path / "cut.csv").write_bytes(gzip.compress(TEXT.encode() * 999)[:-20])
    for name, message in (("parquet", "parquet.csv: is a Parquet file; set format: parquet"),
                          ("zip", "zip.csv: is a ZIP archive or an Excel workbook"),
                          ("wide", "wide.csv: begins as text in UTF-16 does; set encoding: utf-16"),
                          ("cut", "cut.csv: cannot be read as csv")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read(tmp_path / f"{name}.csv")
    with pytest.raises(UserError, match=r"latin.jsonl: not in the declared encoding .* set encoding:"):
        read(tmp_path / "latin.jsonl")


def test_a_column_that_stands_twice_is_refused_where_it_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,user,x,x\n1,a,2,3,4\n")
    column = pa.array([1])
    pq.write_table(pa.Table.from_arrays([column] * 3, names=["user", "item", "user"]), tmp_path / "log.parquet")
    for name in ("log.csv", "log.parquet"):
        with pytest.raises(UserError, match=rf"{name}: column 'user' stands 2 times in the file; rename"):
            read(tmp_path / name)
        assert len(read(tmp_path / name, ["item"])) == 1


def test_a_header_of_one_name_says_what_delimiter_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user;item\n1;a\n")
    with pytest.raises(UserError, match='the file has user;item; is it a file with delimiter: ";"'):
        read(tmp_path / "log.csv")


def test_a_value_within_an_object_is_a_column_outer_inner(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"who": {"id": 1}, "item": "a"}\n{"item": "b"}\n{"who": null, "item": "c"}\n')
    who = pa.array([{"id": 1}, None], pa.struct({"id": pa.int64()}))
    pq.write_table(pa.table({"who": who, "item": ["a", "b"]}), tmp_path / "log.parquet")
    assert [row["who.id"] for row in read(tmp_path / "log.jsonl", ["who.id", "item"])] == [1, None, None]
    assert [row["who.id"] for row in read(tmp_path / "log.parquet", ["who.id", "item"])] == [1, None]
    with pytest.raises(UserError, match=r"no line has the key 'who.name'; the keys are who.id, item"):
        read(tmp_path / "log.jsonl", ["who.name", "item"])
    with pytest.raises(UserError, match=r"log.parquet: no column 'who.name'; there is who.id, item"):
        read(tmp_path / "log.parquet", ["who.name", "item"])


def test_a_misspelt_key_of_json_is_an_error_that_lists_the_keys(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"user": 1, "itm": "a"}\n{"user": 2}\n')
    with pytest.raises(UserError, match=r"no line has the key 'item'; the keys are user, itm"):
        read(tmp_path / "log.jsonl")


def test_lines_of_a_table_that_are_no_rows_are_counted_in_its_lineage(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("user,item\n1,a\n2\n")
    _, (file,) = read_source(TableSource(path=str(tmp_path / "items.csv")), ["user"])
    assert (file["rows"], file["unreadable"], file["first_unreadable"]) == (1, 1, "2")
