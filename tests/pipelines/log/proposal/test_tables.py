"""What `mind init` makes of tables of items and users, and of a log that says something of both. No Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.log.proposal.first_look import _column, look_at
from pipelines.log.proposal.tables import by_id, said_of
from pipelines.log.proposal.write import propose

USERS, ITEMS, ROWS = 200, 300, 6000


def shop(**columns: list[Any]) -> pa.Table:
    """A log in which any user takes any item."""
    drawn = np.random.default_rng(0)
    log = {"user": drawn.integers(0, USERS, ROWS), "item": drawn.integers(0, ITEMS, ROWS), "time": np.arange(ROWS)}
    return pa.table(log | columns)


def written(folder: Path, log: pa.Table, items: pa.Table | None = None, profile: pa.Table | None = None) -> str:
    """The configuration of a log and its tables."""
    looks = []
    for name, table in (("log", log), ("items", items), ("profile", profile)):
        if table is not None:
            pq.write_table(table, folder / f"{name}.parquet")
        looks.append(None if table is None else look_at(str(folder / f"{name}.parquet")))
    return propose("mine", *looks)  # type: ignore[arg-type]


def data_of(text: str) -> Any:
    return yaml.safe_load(text)["data"]


def test_columns_of_the_log_that_say_something_of_the_item_or_the_user_are_their_features(tmp_path: Path) -> None:
    log = shop()
    log = log.append_column("brand", pa.array([f"b{item.as_py() % 9}" for item in log["item"]]))
    log = log.append_column("country", pa.array(["UK" if user.as_py() % 10 else "FR" for user in log["user"]]))
    log = log.append_column("quantity", pa.array([1 + n % 3 for n in range(ROWS)]))
    log = log.append_column("basket", pa.array([n // 4 for n in range(ROWS)]))
    log = log.append_column("currency", pa.array(["GBP" if n % 50 else "EUR" for n in range(ROWS)]))
    data = data_of(written(tmp_path, log))
    assert [*data["items"]["features"]] == ["brand"]
    assert [*data["profile"]["features"]] == ["country"]
    assert data["items"]["path"] == data["profile"]["path"] == data["events"]["path"]
    assert (data["items"]["id"], data["profile"]["id"], data["profile"]["duplicates"]) == ("item", "user", "last")


def test_a_table_of_items_takes_the_place_of_what_the_log_says(tmp_path: Path) -> None:
    log = shop()
    log = log.append_column("brand", pa.array([f"b{item.as_py() % 9}" for item in log["item"]]))
    items = pa.table({"item": [*range(ITEMS)], "colour": [f"c{n % 4}" for n in range(ITEMS)]})
    assert [*data_of(written(tmp_path, log, items))["items"]["features"]] == ["colour"]


@pytest.mark.parametrize(
    ("of_the_id", "least", "most"),
    [
        (lambda n, item: item % 9, 1.0, 1.0),
        (lambda n, item: n % 3, -0.1, 0.5),
        (lambda n, item: n, -0.1, 0.0),  # a value of its own for each row
        (lambda n, item: 5, 0.0, 0.0),
        (lambda n, item: int(n % 100 == 0), -0.1, 0.3),  # nearly always the same, whatever the item
    ],
)
def test_what_is_said_of_an_id_is_agreement_beyond_chance(of_the_id: Any, least: float, most: float) -> None:
    items = [n * 7 % 31 for n in range(3000)]
    column = _column("c", pa.array([of_the_id(n, item) for n, item in enumerate(items)]))
    assert least <= said_of(column, _column("item", pa.array(items))) <= most


def test_ids_of_one_row_each_say_nothing() -> None:
    assert said_of(_column("c", pa.array([1, 2] * 50)), _column("item", pa.array([*range(100)]))) == 0


def test_the_id_is_the_column_that_names_most_of_the_log_s_ids(tmp_path: Path) -> None:
    rows = range(2 * ITEMS)
    items = pa.table({"shelf": [1 + n % 9 for n in rows], "code": [*rows]})  # all shelves are numbers of items, too
    assert data_of(written(tmp_path, shop(), items))["items"]["id"] == "code"
    other = pa.table({"code": [*rows], "item": [n + ITEMS // 2 for n in rows]})
    assert data_of(written(tmp_path, shop(), other))["items"]["id"] == "item", "of the log's name"


def test_what_has_a_name_or_else_what_tells_most_is_shown(tmp_path: Path) -> None:
    rows = range(ITEMS)
    items = {
        "item": [*rows],
        "department": [f"d{n % 8}" for n in rows],
        "type": [f"t{n % 40}" for n in rows],
        "pack": [f"p{n % 60}" if n % 3 else None for n in rows],
        "zone": [n % 11 for n in rows],
    }
    data = data_of(written(tmp_path, shop(), pa.table(items)))
    assert data["items"]["show"] == ["type", "department", "pack"]
    assert set(data["items"]["features"]) == {"department", "type", "pack", "zone"}
    data = data_of(written(tmp_path, shop(), pa.table(items | {"title": [f"thing {n}" for n in rows]})))
    assert data["items"]["show"] == ["title", "type", "department", "pack"]


def test_a_column_of_rare_values_is_no_feature_and_says_so(tmp_path: Path) -> None:
    users = range(USERS)
    profile = pa.table(
        {"user": [*users], "zip": [f"{10000 + n // 2}" for n in users], "name": [f"n{n}" for n in users]}
    )
    text = written(tmp_path, shop(), profile=profile)
    assert "# zip is left out: most of its 100 values are rare: 10000, 10001, 10002, ..." in text
    assert "profile" in data_of(text)
    assert "features" not in data_of(text)["profile"]


def test_rare_values_are_cut_of_users_and_not_of_items(tmp_path: Path) -> None:
    codes = [n // 8 if n < 240 else 100 + n // 2 for n in range(ITEMS)]  # most rows have a common one
    items = pa.table({"item": [*range(ITEMS)], "brand_id": codes})
    profile = pa.table({"user": [*range(USERS)], "region": [n // 8 if n < 160 else n for n in range(USERS)]})
    data = data_of(written(tmp_path, shop(), items, profile))
    assert data["items"]["features"] == {"brand_id": {}}, "learned from all events of its items"
    assert data["profile"]["features"] == {"region": {"min_count": 5}}, "a user has no vector of its own"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"{'War' if n % 2 else 'Drama'}|{'Comedy' if n % 3 else 'Crime'}" for n in range(ITEMS)], "multi"),
        ([f"Title {n}, The" for n in range(ITEMS)], None),  # prose
        ([f"a{n},b{n}" for n in range(ITEMS)], None),  # parts that no other row has
        ([n % 55 for n in range(ITEMS)], "categorical"),
    ],
)
def test_a_separator_is_told_from_a_comma_in_prose(tmp_path: Path, values: list[Any], kind: str | None) -> None:
    items = data_of(written(tmp_path, shop(), pa.table({"item": [*range(ITEMS)], "what": values})))["items"]
    found = items.get("features", {}).get("what")
    assert (None if found is None else found.get("kind", "categorical")) == kind


def test_whole_numbers_that_are_named_as_a_quantity_are_buckets(tmp_path: Path) -> None:
    rows = range(ITEMS)
    items = pa.table({"item": [*rows], "list_price": [n % 40 for n in rows], "seller_id": [n % 40 for n in rows]})
    features = data_of(written(tmp_path, shop(), items))["items"]["features"]
    assert features["list_price"] == {"kind": "bucket"}
    assert features["seller_id"] == {}


def test_a_comment_holds_what_values_hold(tmp_path: Path) -> None:
    rows = range(ITEMS)
    items = pa.table({"item": [*rows], "kind": [["a\nb: {", "c\x07 #d"][n % 2] for n in rows]})
    assert data_of(written(tmp_path, shop(), items))["items"]["features"] == {"kind": {}}


def test_what_the_log_says_of_an_id_is_counted_of_one_row_as_the_table_takes_it() -> None:
    ids = _column("item", pa.array(["a", "a", "a", "b", "b", "c", None]))
    brand = _column("brand", pa.array(["x", "y", None, "z", None, None, "x"]))
    size = _column("size", pa.array([1, None, None, 2, 3, None, 4]))
    brand, size = by_id([brand, size], ids)
    assert brand.values.to_pylist() == ["y", None, None]
    assert size.values.to_pylist() == [None, 3, None]
    assert (brand.distinct, size.distinct) == (1, 1)
    assert round(brand.missing, 3) == 0.667
