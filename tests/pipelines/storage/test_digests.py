"""Digests see what a table says, and not how it lies in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.storage.digests import table_digest


def test_a_digest_sees_values_types_names_and_nulls_but_not_chunks() -> None:
    lists = pa.array([[1, 2], [], None, [3]], pa.list_(pa.int32()))
    table = pa.table({"n": [1, 2, None, 4], "s": ["a", "bc", None, ""], "l": lists, "b": [True, False, None, True]})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    assert table_digest(chunked) == table_digest(table) == table_digest(pa.concat_tables([table, table]).slice(4))
    others = [
        table.slice(1),
        table.rename_columns(["m", "s", "l", "b"]),
        table.set_column(0, "n", pa.array([1, 2, 0, 4])),
        table.set_column(0, "n", pa.array([1, 2, None, 4], pa.int32())),
        table.set_column(1, "s", pa.array(["ab", "c", None, ""])),
        table.set_column(2, "l", pa.array([[1], [2], None, [3]], pa.list_(pa.int32()))),
        table.set_column(3, "b", pa.array([True, True, None, True])),
    ]
    assert len({table_digest(each) for each in [table, *others]}) == 8


def test_list_digests_ignore_the_offset_of_a_slice() -> None:
    lists = pa.array([[9], [1, 2]], pa.list_(pa.int64()))
    assert table_digest(pa.table({"l": lists.slice(1)})) == table_digest(pa.table({"l": [np.array([1, 2])]}))
