"""What a first look at files tells of how they are written. No Ray."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UserError
from pipelines.log.proposal.first_look import look_at


def test_a_folder_of_a_log_and_its_tables_says_how_to_name_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1]}), tmp_path / "events.parquet")
    (tmp_path / "movies.dat").write_text("1::Heat\n")
    with pytest.raises(UserError, match=r"several formats \(events.parquet, movies.dat\); give the log alone"):
        look_at(str(tmp_path))


def test_values_between_blanks_are_a_table_and_not_sessions_if_lines_are_alike(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("".join(f"{n % 7} {n % 5} {978300000 + n}\n" for n in range(40)))
    assert look_at(str(tmp_path / "log.txt")).settings == {
        "format": "csv",
        "delimiter": " ",
        "columns": ["column_1", "column_2", "column_3"],
    }
    (tmp_path / "sessions.txt").write_text("".join(f"{'7 8 9 ' * (1 + n % 4)}\n" for n in range(40)))
    assert look_at(str(tmp_path / "sessions.txt")).settings == {"format": "sessions"}


def test_of_lists_the_values_within_are_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"tags": [["a", "b"], ["b", None], None, []]}), tmp_path / "items.parquet")
    (column,) = look_at(str(tmp_path / "items.parquet")).columns
    assert (column.kind, column.distinct, column.missing) == ("lists", 2, 0.25)
