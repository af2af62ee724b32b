"""A pass over the users: each once, in order, however it is cut and whoever works; failures as they shall be seen."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.config.home_location import home_folder
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.part_files import supersede
from pipelines.dataset.splits import SplitName
from pipelines.errors import UserError
from pipelines.models.over_users import EVERYONE, fits_here, user_pass
from pipelines.models.users.on_ray import actors_of
from pipelines.models.users.worker import UserWorker
from pipelines.storage import home_files
from pipelines.storage.home_files import push_files
from pipelines.storage.tables import write_table, write_text
from tests.pipelines.s3_server import s3_server, use_s3

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ray, if a test does not ask for more: a pass as small as these would be done in this process."""
    engine: str = getattr(request, "param", "ray")
    monkeypatch.setattr("pipelines.models.over_users.HERE_PAIRS", 0 if engine == "ray" else 10**9)
    return engine


BOTH = pytest.mark.parametrize("engine", ["ray", "here"], indirect=True)


def copied(work: Callable[[pa.Table], pa.Table]) -> type[UserWorker]:
    """A worker that an actor gets as a copy: it cannot import the tests."""

    class Given(UserWorker):
        def work(self, table: pa.Table, **arguments: Any) -> pa.Table:
            return work(table)

    return Given


def passed(
    config: Config,
    dataset: Dataset,
    work: Callable[[pa.Table], pa.Table],
    splits: Sequence[SplitName] = EVERYONE,
    slice_users: int = 64,
    newcomers: bool = False,
) -> list[pa.Table]:
    given = copied(work)
    with user_pass(dataset, splits, config, given, [], {}, None, slice_users, newcomers) as everyone:
        return list(everyone.blocks("Passing"))


def first_rows(dataset: Dataset) -> pa.Table:
    """By brute force: each user's row of the first split that has one."""
    tables = [table.select(["user", "items"]) for split in EVERYONE for table in dataset.tables(split)]
    rows: dict[int, Any] = {}
    for table in tables:
        for row in table.to_pylist():
            rows.setdefault(row["user"], row)
    return pa.Table.from_pylist(list(rows.values()), tables[0].schema)


@pytest.fixture
def appended(config: Config, tmp_path: Path) -> Dataset:
    """The planted dataset as if some users' rows of its one file had been superseded by those of a second."""
    home = tmp_path / "home"
    shutil.copytree(config.dataset_path, home / "datasets" / "planted")
    dataset = Dataset.open(home / "datasets" / "planted")
    users = np.arange(3, 90, 7)
    old = dataset.table("test")
    rows = old.filter(pa.array(np.isin(old["user"].to_numpy(), users)))
    items = pa.array([[2, 3]] * len(rows), old.schema.field("items").type)
    write_table(rows.set_column(old.schema.get_field_index("items"), "items", items), dataset.layout.part("test", 1))
    for split in ("train", "validation"):
        write_table(dataset.table(split).slice(0, 0), dataset.layout.part(split, 1))
    supersede(dataset.layout.part("test", 0), users)
    write_text(replace(dataset.manifest, appended=1).to_json(), dataset.layout.manifest)
    return Dataset.open(home / "datasets" / "planted")


@BOTH
def test_every_user_comes_once_in_the_order_of_the_files_and_never_as_a_superseded_row(
    config: Config, appended: Dataset
) -> None:
    blocks = passed(config, appended, lambda table: table.select(["user", "items"]))
    assert pa.concat_tables(blocks).equals(first_rows(appended))
    assert {len(block) for block in blocks[:-1]} == {64}, "cut alike across files, whatever was left out of them"


@BOTH
def test_newcomers_come_last_if_they_are_asked_for(config: Config, appended: Dataset) -> None:
    # given a user more, of whom all events are held out
    rows = appended.table("test").slice(0, 1).drop_columns(["times"])
    rows = rows.set_column(0, "user", pa.array([9000], pa.int64()))
    rows = rows.set_column(1, "items", pa.array([[]], rows.schema.field("items").type))
    write_table(rows, appended.layout.part("newcomers", 0))
    users = pa.table({"index": pa.array(range(9001), pa.int32()), "id": range(9001), "count": range(9001)})
    write_table(users, appended.layout.users(0))
    without = pa.concat_tables(passed(config, appended, lambda table: table.select(["user"])))["user"].to_pylist()
    found = pa.concat_tables(passed(config, appended, lambda table: table.select(["user", "items"]), newcomers=True))
    assert found["user"].to_pylist() == [*without, 9000]
    assert found["items"].to_pylist()[-1] == []


@BOTH
def test_a_home_in_a_store_is_read_where_it_lies(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server("mind") as (address, _):
        use_s3(monkeypatch, address, tmp_path)
        home_files._filesystem.cache_clear()
        monkeypatch.setenv("MIND_CACHE", str(tmp_path / "cache"))
        home = home_folder("s3://mind/home")
        shutil.copytree(config.dataset_path, home / "datasets" / "planted")
        push_files(home)
        shutil.rmtree(home)
        dataset = Dataset.open(home / "datasets" / "planted")
        blocks = passed(config, dataset, lambda table: table.select(["user", "items"]))
        assert not list(home.rglob("sequences/*/*")), "no copy of them was made here"
    home_files._filesystem.cache_clear()
    assert pa.concat_tables(blocks).equals(first_rows(Dataset.open(config.dataset_path)))


@BOTH
def test_a_users_mistake_in_an_actor_is_one_line(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    def work(table: pa.Table) -> pa.Table:
        raise UserError("events.csv: no such column")

    with pytest.raises(UserError) as error:
        passed(config, Dataset.open(config.dataset_path), work, ["test"])
    assert str(error.value) == "events.csv: no such column"
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert "ERROR" not in printed.out + printed.err


@BOTH
def test_so_is_a_model_that_cannot_be_loaded_there(config: Config, tmp_path: Path) -> None:
    dataset = Dataset.open(config.dataset_path)
    given = copied(lambda table: table)
    everyone = user_pass(dataset, ["test"], config, given, [tmp_path / "none"], {})
    with pytest.raises(UserError, match="no model") as error, everyone as found:
        list(found.blocks("Passing"))
    assert "\n" not in str(error.value)


def test_an_actor_that_crashes_is_started_again_and_nothing_is_lost(config: Config, tmp_path: Path) -> None:
    mark = tmp_path / "crashed"

    def work(table: pa.Table) -> pa.Table:
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return table.select(["user", "items"])

    dataset = Dataset.open(config.dataset_path)
    assert pa.concat_tables(passed(config, dataset, work)).equals(first_rows(dataset))
    assert mark.exists()


def test_the_engines_own_lines_do_not_reach_the_terminal_and_its_statistics_are_kept(
    config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset.open(config.dataset_path)
    with user_pass(dataset, ["test"], config, copied(lambda table: table), [], {}) as everyone:
        list(everyone.blocks("Passing"))
    printed = capfd.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["Passing"] * 2
    assert "rows_that_count" in everyone.stats()
    assert "MapBatches(Given)" in everyone.stats()


@pytest.mark.parametrize("nodes", [[1], [2], [3], [8], [0, 1], [1, 1], [0, 1, 1], [1, 1, 1], [2, 2], [4, 1], [2] * 5])
@pytest.mark.parametrize("slices", [1, 2, 100])
def test_a_cpu_is_left_to_read_with(
    config: Config, monkeypatch: pytest.MonkeyPatch, nodes: list[int], slices: int
) -> None:
    """Where actors hold a part of every CPU, however they are spread, Ray Data waits for ever for one to read with."""
    monkeypatch.setattr("pipelines.models.users.on_ray.free_nodes", lambda: [{"CPU": float(cpus)} for cpus in nodes])
    many = config.model_copy(update={"train": config.train.model_copy(update={"workers": 6})})
    asked = actors_of(many, slices)
    actors, share = asked["concurrency"][1], asked["num_cpus"]
    assert 1 <= actors <= min(6, sum(nodes), slices)
    left = [float(cpus) for cpus in nodes]
    for _ in range(actors):  # each where the most is left, which is the worst for who wants a whole CPU
        emptiest = max(range(len(left)), key=lambda node: left[node])
        assert left[emptiest] >= share
        left[emptiest] -= share
    assert max(left) >= 1


@pytest.mark.parametrize("engine", ["here"], indirect=True)
def test_a_small_pass_starts_no_ray_and_leaves_the_threads_as_they_were(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.models.users.on_ray.ray_session", None)
    inside: set[int] = set()

    def work(table: pa.Table) -> pa.Table:
        inside.add(torch.get_num_threads())
        return table

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        passed(config, Dataset.open(config.dataset_path), work)
        assert inside == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["here"], indirect=True)
def test_a_small_pass_works_on_a_slice_for_each_core_at_a_time_and_gives_them_in_order(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a first slice that ends only when the second has ended
    monkeypatch.setattr("pipelines.models.over_users.cores", lambda: 2)
    dataset, later = Dataset.open(config.dataset_path), threading.Event()
    first = first_rows(dataset)["user"][0].as_py()

    def work(table: pa.Table) -> pa.Table:
        if table["user"][0].as_py() == first:
            assert later.wait(30)
        else:
            later.set()
        return table.select(["user", "items"])

    assert pa.concat_tables(passed(config, dataset, work)).equals(first_rows(dataset))


@pytest.mark.parametrize("engine", ["here"], indirect=True)
def test_a_mistake_in_a_slice_ends_a_small_pass(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.models.over_users.cores", lambda: 2)

    def work(table: pa.Table) -> pa.Table:
        raise UserError("a mistake")

    with pytest.raises(UserError, match="a mistake"):
        passed(config, Dataset.open(config.dataset_path), work)


def test_a_pass_is_done_here_only_where_nobody_asked_for_more(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.models.over_users.HERE_PAIRS", 10**6)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert fits_here(config, 1000, 1000)
    assert not fits_here(config, 1001, 1000)
    joined = config.model_copy(update={"ray": config.ray.model_copy(update={"address": "head:6379"})})
    assert not fits_here(joined, 10, 10)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert not fits_here(config, 10, 10)
