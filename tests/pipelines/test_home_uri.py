"""A home in an object store: a real S3 server, and two nodes' caches, of which neither sees the other's files."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.home_location import home_folder, origin, shown
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.models.artifact import MARK
from pipelines.models.runs import RunState, read_state, write_state
from pipelines.preprocess.append import append
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.summary import record_summary
from pipelines.preprocess.workspace import claimed, workspace
from pipelines.storage import home_files as mirror
from pipelines.storage import lease
from pipelines.storage.generations import current, make_current, new_generation
from pipelines.storage.locks import exclusive
from pipelines.storage.publish import published
from pipelines.storage.tables import read_arrow, write_arrow, write_text
from pipelines.tracking.store import store_of
from pipelines.tuning.trial.checkpoint import newest, place_of, publish, reports_of
from tests.pipelines.local_data import local_data
from tests.pipelines.s3_server import s3_server, use_s3

Node = Callable[[str], Path]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with s3_server("mind") as (address, store):
        yield address, store


@pytest.fixture
def store(server: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of the server; what an earlier test has left there is gone."""
    address, filesystem = server
    use_s3(monkeypatch, address, tmp_path)
    # the processes of a cluster that an earlier test has started were given another environment: work in this one
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    mirror._filesystem.cache_clear()
    filesystem.delete_dir_contents("mind", missing_dir_ok=True)
    with local_data():
        yield filesystem


@pytest.fixture
def node(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """``node("a")``: become that node; its copy of the home s3://mind/home."""

    def become(name: str) -> Path:
        monkeypatch.setenv("MIND_CACHE", str(tmp_path / name))
        return home_folder("s3://mind/home")

    return become


def there(store: Any) -> list[str]:
    infos = store.get_file_info(pafs.FileSelector("mind/home", recursive=True, allow_not_found=True))
    return sorted(info.path.removeprefix("mind/home/") for info in infos if info.type == pafs.FileType.File)


@given(st.lists(st.text("abc-_.1", min_size=1).filter(lambda part: part not in (".", "..")), min_size=1, max_size=5))
@settings(max_examples=50)
def test_a_path_in_the_copy_says_of_what_it_is_one(parts: list[str]) -> None:
    home = home_folder("s3://bucket/some/prefix")
    assert origin(home.joinpath(*parts)) == "s3://bucket/some/prefix/" + "/".join(parts)
    assert origin(Path("/some/home", *parts)) is None


def test_a_file_uri_is_the_path() -> None:
    assert home_folder("file:///mnt/nfs/mind") == Path("/mnt/nfs/mind")


@pytest.mark.parametrize("home", ["ftp://host/x", "s3://", "s3://key:secret@bucket/x", "s3://bucket/x?region=eu"])
def test_other_uris_are_one_line(home: str, configured: Callable[..., Config]) -> None:
    with pytest.raises(ValueError, match="must be"):
        configured("log.csv").model_validate(configured("log.csv").model_dump() | {"home": home})


def test_what_one_node_writes_another_reads(node: Node, store: Any) -> None:
    table = pa.table({"a": [1, 2, 3]})
    write_arrow(table, node("a") / "x" / "part.arrow")
    assert there(store) == ["x/part.arrow"]
    assert read_arrow(node("b") / "x" / "part.arrow") == table


def test_a_file_that_changes_is_seen_as_it_is_now(node: Node, store: Any) -> None:
    write_text("1", node("a") / "n")
    assert mirror.renew(node("b") / "n").read_text() == "1"
    write_text("2", node("a") / "n")
    assert mirror.renew(node("b") / "n").read_text() == "2"
    mirror.remove(node("a") / "n")
    assert not mirror.renew(node("b") / "n").exists()
    assert there(store) == []


def test_listing_is_of_the_store_not_of_the_copy(node: Node) -> None:
    write_text("1", node("a") / "trials" / "00001.json")
    write_text("1", node("a") / "trials" / "deep" / "00002.json")
    home = node("b")
    assert mirror.listed(home / "trials", "*.json") == [home / "trials/00001.json", home / "trials/deep/00002.json"]
    assert mirror.names(home / "trials") == ["00001.json", "deep"]
    assert mirror.names(home / "none") == mirror.listed(home / "none", "*") == []
    assert mirror.exists(home / "trials" / "00001.json")
    assert not (home / "trials" / "00001.json").exists()


def test_a_published_folder_is_whole_elsewhere_and_what_it_lost_is_gone(node: Node, store: Any) -> None:
    for content in ("first", "second"):
        with published(node("a") / "models" / "m", MARK) as folder:
            (folder / content).write_text(content)
            (folder / "weights").write_text(content)
            (folder / MARK.file).write_text(json.dumps({"name": "m", "content": content}))
        copy = mirror.fetch_folder(node("b") / "models" / "m")
        assert sorted(file.name for file in copy.iterdir()) == sorted([content, "config.json", "weights"])
        assert (copy / "weights").read_text() == content


def test_a_folder_half_pushed_has_no_mark(node: Node, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = node("a") / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_text("w")
    pushed: list[str] = []
    monkeypatch.setattr(mirror, "push", lambda file: pushed.append(file.name))
    mirror.push_folder(folder)
    assert pushed == ["weights", "config.json"]


def test_a_folder_of_something_else_in_a_store_is_refused_and_a_half_pushed_one_replaced(
    node: Node, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text("precious", node("a") / "models" / "m" / "weights")  # a push killed before its mark
    with published(node("b") / "models" / "m", MARK) as folder:
        (folder / "weights").write_text("w")
        (folder / MARK.file).write_text('{"name": "m"}')
    write_text("precious", node("a") / "models" / "other" / "thesis.txt")
    with pytest.raises(UserError, match="holds thesis"), published(node("b") / "models" / "other", MARK) as folder:
        (folder / MARK.file).write_text('{"name": "other"}')
    assert (mirror.fetch(node("a") / "models" / "other" / "thesis.txt")).read_text() == "precious"


def test_a_dataset_in_a_store_is_claimed_with_unfinished_work_in_it_but_not_over_files_of_others(
    node: Node, store: Any
) -> None:
    target = node("a") / "datasets" / "d"
    write_text("begun", target / new_generation() / "part")
    with claimed(target):
        pass
    write_text("precious", target / "thesis.txt")
    with pytest.raises(UserError, match="holds thesis"), claimed(node("b") / "datasets" / "d"):
        pass


def test_a_reader_of_an_older_generation_goes_on_reading_it(node: Node, store: Any) -> None:
    made = []
    for content in ("1", "2", "3"):
        folder, name = node("a") / "datasets" / "d", new_generation()
        write_text(content, folder / name / "part")
        make_current(folder, name)
        made.append(name)
        assert mirror.fetch(current(node("b") / "datasets" / "d") / "part").read_text() == content
    assert [name for name in mirror.names(node("b") / "datasets" / "d") if name.startswith("g-")] == sorted(made[1:])


def test_without_a_pointer_a_folder_is_its_own_generation(node: Node, tmp_path: Path) -> None:
    assert current(node("a") / "datasets" / "d") == node("a") / "datasets" / "d"
    assert current(tmp_path) == tmp_path


def test_a_run_is_gone_on_with_on_another_node(node: Node, configured: Callable[..., Config], store: Any) -> None:
    config = Config.model_validate(configured("log.csv").model_dump() | {"home": "s3://mind/home"})
    node("a")
    write_state(config, RunState("r", "id-1"))
    node("b")
    assert read_state(config, "r") == RunState("r", "id-1")
    assert read_state(config, "other") == RunState("other")


def test_a_trial_goes_on_on_another_node(node: Node) -> None:
    place = place_of(node("a") / "checkpoints" / "1", 100, "1-1")
    (place / "model").write_text("weights")
    mirror.push_files(place)
    assert newest(node("b") / "checkpoints" / "1") is None
    node("a")
    publish(place, [{"step": 100.0}], last=False)
    found = newest(node("b") / "checkpoints" / "1")
    assert found is not None
    assert reports_of(found) == ([{"step": 100.0}], False)
    assert (mirror.fetch_folder(found) / "model").read_text() == "weights"


def test_a_home_in_a_store_needs_an_address_for_runs(
    configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate(configured("log.csv").model_dump() | {"home": "s3://mind/home"})
    with pytest.raises(UserError, match=r"home=s3://mind/home: .* MLFLOW_TRACKING_URI"):
        store_of(config)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert store_of(config) == "http://host:5000"


def test_a_store_that_refuses_is_one_line(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    mirror._filesystem.cache_clear()
    with pytest.raises(UserError, match=r"^s3://mind/home/x: .*AWS_ACCESS_KEY_ID.*\?$"):
        write_text("1", node("a") / "x")


LOG = "user,item,time\n" + "".join(f"u{n % 7},i{n * n % 11},{n}\n" for n in range(200))
DAY = "user,item,time\n" + "".join(f"u{n % 9},i{n % 13},{n}\n" for n in range(200, 260))


def in_store(config: Config) -> Config:
    return Config.model_validate(config.model_dump() | {"home": "s3://mind/home"})


def content(dataset: Dataset) -> list[Any]:
    splits = [dataset.table(split).to_pydict() for split in ("train", "validation", "test")]
    return [dataset.manifest.fingerprint, splits, dataset.items().to_pydict(), dataset.vocabulary("users").to_pydict()]


def test_a_dataset_in_a_store_is_the_one_that_a_folder_gets(
    node: Node, configured: Callable[..., Config], tmp_path: Path, store: Any
) -> None:
    log, day = tmp_path / "log.csv", tmp_path / "day.csv"
    log.write_text(LOG)
    day.write_text(DAY)
    local = configured(log, min_item_events=2)
    preprocess(local)
    node("a")
    assert shown(preprocess(in_store(local)).path).startswith("s3://mind/home/datasets/tiny/g-")
    node("b")
    assert content(Dataset.open(in_store(local).dataset_path)) == content(Dataset.open(local.dataset_path))
    before = content(Dataset.open(local.dataset_path))

    append(local, str(day))
    append(in_store(local), str(day))  # on the other node
    node("a")
    after = content(Dataset.open(in_store(local).dataset_path))
    assert after == content(Dataset.open(local.dataset_path))
    assert after != before
    assert not [name for name in there(store) if ".work-" in name or ".lease" in name]


def test_the_run_of_a_dataset_gets_files_that_its_node_has_not_read(
    node: Node, configured: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    config = in_store(configured(tmp_path / "log.csv"))
    node("a")
    preprocess(config)
    node("b")
    run = MagicMock()
    run.__enter__.return_value = run
    sizes: dict[str, int] = {}
    run.log_artifact.side_effect = lambda file: sizes.update({file.name: file.stat().st_size})
    monkeypatch.setattr("pipelines.preprocess.summary.open_run", lambda *_: run)

    record_summary(config, Dataset.open(config.dataset_path))

    assert sorted(sizes) == ["manifest.json", "quality.html", "quality.json", "ray-data.txt"]


def test_preprocessing_that_is_killed_goes_on_on_another_node(
    node: Node, configured: Callable[..., Config], tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.csv"
    log.write_text(LOG)
    config = in_store(configured(log))
    node("a")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.preprocess.preprocess.write_parts", _killed)
        with pytest.raises(KeyboardInterrupt):
            preprocess(config)
    assert [name for name in there(store) if "/read/0" in name]
    node("b")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.preprocess.clean_log.LogDatasource", _killed)  # must not be asked for again
        dataset = preprocess(config)
    local = configured(log)
    assert content(dataset) == content(preprocess(local))


def _killed(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_work_that_another_setting_makes_useless_takes_no_published_dataset_along(
    node: Node, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the pointer and the end of the work: the work's folder is the dataset by then."""
    target = node("a") / "datasets" / "d"
    target.parent.mkdir(parents=True)

    def work_on(setting: int, publish: bool) -> None:
        with workspace(target, {"setting": setting}) as work:
            write_text("{}", work.root / "stage" / "00000.json")
            write_text("whole", work.folder / "part")
            if publish:
                work.publish()

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.preprocess.workspace.discard", _killed)
        with pytest.raises(KeyboardInterrupt):
            work_on(1, publish=True)
    published_as = current(target)
    work_on(2, publish=False)
    node("b")
    work_on(3, publish=False)
    assert current(target) == published_as
    assert mirror.exists(published_as / "part")
    assert len([name for name in there(store) if name.endswith("/part")]) == 2, "unfinished work of others is gone"


def test_two_processes_do_not_work_on_one_thing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    _hasten(monkeypatch)
    file = node("a") / "runs" / "r" / "lock"
    with exclusive(file, "busy"):
        other = node("b") / "runs" / "r" / "lock"
        with pytest.raises(UserError, match=r"^busy$"), exclusive(other, "busy"):
            pytest.fail("held twice")
    with exclusive(other, "busy"):
        pass


def test_the_lease_of_a_dead_process_is_taken_over(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    _hasten(monkeypatch)
    file = node("a") / "runs" / "r" / "lock"
    dead = file.with_name("lock.lease-somebody")
    write_text("17", dead)
    with exclusive(file, "busy"):
        assert not mirror.exists(dead)
    assert not [name for name in mirror.names(file.parent) if "lease" in name]


def test_of_two_who_take_over_at_once_one_gets_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    _hasten(monkeypatch)
    file, held, refused = node("a") / "lock", [], []

    def contend() -> None:
        try:
            with lease.leased(file, "busy"):
                held.append(1)
                threading.Event().wait(3)
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=contend) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 1)


def _hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.3)
    monkeypatch.setattr(lease, "DEAD_S", 1.5)
    monkeypatch.setattr(lease, "BACK_S", 0.3)
