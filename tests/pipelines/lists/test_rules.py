"""The section `lists` becomes rules: files of ids, stock, caps, and what a user is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.schema import ListsConfig
from pipelines.dataset.dataset import FeatureInfo
from pipelines.errors import UserError
from pipelines.lists.columns import ItemColumns
from pipelines.lists.rules import ReadRules, read_rules
from pipelines.lists.tables import file_stamps, read_ids

COLUMNS = ItemColumns(
    {"id": pa.array([10, 11, 12, 13]), "department": pa.array(["FUEL", "DELI", "DELI", "GROCERY"])},
    (FeatureInfo("department", "categorical", 6),),
)
TEXT_IDS = ItemColumns({"id": pa.array(["10", "x y", "12", "ü"])})


def rules(columns: ItemColumns = COLUMNS, **settings: Any) -> ReadRules:
    return read_rules(ListsConfig.model_validate(settings), columns, ["product"])


def allowed(columns: ItemColumns = COLUMNS, **settings: Any) -> list[Any]:
    """Raw ids of the items that may be listed."""
    mask = rules(columns, **settings).rules.allowed
    assert mask is not None
    assert not mask[:2].any()
    found: list[Any] = columns.ids.filter(pa.array(mask[2:].numpy())).to_pylist()
    return found


def test_no_settings_are_no_rules() -> None:
    found = rules()
    assert found.told == []
    assert found.rules.allowed is None
    assert found.rules.scores_decide


def test_filters_allow_and_deny_lists_are_taken_together(tmp_path: Path) -> None:
    (tmp_path / "allow.txt").write_text("10\n\n12\n13\n99\n")
    (tmp_path / "deny.csv").write_text("product,why\n13,recalled\n13,again\n")
    settings = {"allow": [str(tmp_path / "allow.txt")], "deny": [str(tmp_path / "deny.csv")]}
    assert allowed(**settings) == [10, 12]
    assert allowed(**settings, where="department != 'FUEL'") == [12]
    told = rules(**settings, where="department != 'FUEL'").told
    assert told[0] == "where department != 'FUEL': 3 of 4 items"
    assert told[1] == "allow: 3 of 4 items"
    assert "allow.txt: 1 of 4 ids are of no item of the model: 99" in told[2]
    assert told[3] == "deny: 1 of 4 items"


@pytest.mark.parametrize("name", ["ids.txt", "ids", "ids.parquet", "ids.csv", "ids.jsonl", "bare.csv", "strange.list"])
@pytest.mark.parametrize("columns", [COLUMNS, TEXT_IDS])
def test_ids_come_from_any_file(tmp_path: Path, name: str, columns: ItemColumns) -> None:
    ids = columns.ids.slice(1, 2).to_pylist()
    path = tmp_path / name
    if name == "ids.parquet":
        pq.write_table(pa.table({"other": [1, 2], "item_id": ids}), path)
    elif name == "ids.csv":
        path.write_text("other,item\n" + "".join(f"0,{each}\n" for each in ids))
    elif name == "ids.jsonl":
        path.write_text("".join(f'{{"id": {each if isinstance(each, int) else chr(34) + each + chr(34)}}}\n'
                                for each in ids))  # fmt: skip
    else:
        path.write_text("".join(f"{each}\n" for each in ids))  # bare.csv: its first line is an id, no heading
    assert allowed(columns, allow=[str(path)]) == ids


def test_files_of_ids_that_are_no_good_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "wide.csv").write_text("a,b\n1,2\n")
    (tmp_path / "keys.jsonl").write_text('{"sku": 10}\n')
    (tmp_path / "picture.bin").write_bytes(b"\xff\xfe\x00")
    pq.write_table(pa.table({"id": ["10"]}), tmp_path / "text.parquet")
    for name, message in {
        "missing.txt": "missing.txt: no such file",
        "missing.csv": "no such file",
        "empty.txt": "empty.txt: no item id in it",
        "wide.csv": "no column of item ids; it must be named product or id or item or item_id, the file has a, b",
        "keys.jsonl": "it must be named product or id or item or item_id, the file has sku",
        "picture.bin": "not a text file in UTF-8",
        "text.parquet": "holds ids of type string, but the log has int64",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            read_ids(str(tmp_path / name), COLUMNS.ids, ["product"])
        assert "\n" not in str(error.value)


def test_what_cannot_be_an_id_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("10\nten\n1e1\n99999999999999999999\n-5\n")
    found = read_ids(str(tmp_path / "ids.txt"), COLUMNS.ids)
    assert found.places.to_pylist() == [0]
    assert found.unknown == 4


def test_stock_is_a_table_whose_columns_count_and_items_that_it_lacks_are_empty(tmp_path: Path) -> None:
    (tmp_path / "stock.csv").write_text("product,pieces,department\n11,0,TOYS\n12,5,TOYS\n10,2,TOYS\n77,1,TOYS\n")
    stock = {"stock": {"path": str(tmp_path / "stock.csv")}}
    assert allowed(**stock, where="pieces > 0") == [10, 12]
    assert allowed(**stock, where="pieces > 0 or pieces is null") == [10, 12, 13]
    assert allowed(**stock, where="department = 'TOYS'") == [10, 11, 12]
    with pytest.raises(UserError, match=r"no column of item ids; looked for sku, .*lists.stock.id"):
        rules(stock={"path": str(tmp_path / "stock.csv"), "id": "sku"})


def test_rules_that_leave_nothing_say_what_took_it() -> None:
    with pytest.raises(UserError, match=r"none of 4 items may stand in a list .where department = 'X': 0 of 4 items"):
        rules(where="department = 'X'")


def test_caps_and_greedy_have_categories_of_columns() -> None:
    found = rules(cap={"department": 2}, policy="greedy", diversity=0.5).rules
    assert [cap.limit for cap in found.caps] == [2]
    assert found.category is not None  # the first categorical feature
    assert found.category[2:].tolist() == [0, 1, 1, 2]
    assert not found.scores_decide
    with pytest.raises(UserError, match=r"lists.cap: no column 'colour'"):
        rules(cap={"colour": 1})
    with pytest.raises(UserError, match=r"policy=greedy: needs lists.category, a column of the items: id"):
        rules(TEXT_IDS, policy="greedy", diversity=1)


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deny.txt"
    path.write_text("10\n")
    settings = ListsConfig(deny=[str(path)])
    before = file_stamps(settings)
    assert before == file_stamps(settings)
    path.write_text("10\n11\n")
    assert file_stamps(settings) != before
    with pytest.raises(UserError, match=r"no such file"):
        file_stamps(ListsConfig(deny=[str(tmp_path / "none.txt")]))
