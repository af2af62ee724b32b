"""Reading from object stores: a real S3 server on this machine (moto), with credentials from the environment."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from pipelines.config.schema import Config, TableSource
from pipelines.errors import UserError
from pipelines.log.sources import read_source
from pipelines.storage.filesystems import open_filesystem
from tests.pipelines.s3_server import KEY, SECRET, s3_server, use_s3

COLUMNS = ["user", "item", "time"]
LOG = pa.table({"user": [1, 1, 2, 2], "item": ["a", "b", "a", "c"], "time": [10, 20, 30, 40]})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server with a log in several files in s3://shop/log."""
    with s3_server("shop") as (address, store):
        for number in range(2):
            rows = LOG.slice(2 * number, 2)
            pq.write_table(rows, f"shop/log/day=2024-01-0{number + 1}/part.parquet", filesystem=store)
            with store.open_output_stream(f"shop/csv/{number}.csv.gz", compression="gzip") as out:
                csv.write_csv(rows, out)
        with store.open_output_stream("shop/log/_SUCCESS") as out:
            out.write(b"")
        yield address


@pytest.fixture(autouse=True)
def environment(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, endpoint, tmp_path)


def read(path: str, columns: list[str] = COLUMNS) -> list[dict[str, object]]:
    return read_source(TableSource(path=path), columns)[0].to_pylist()


def failure(path: str) -> str:
    """The one line, which must come within half a minute."""
    begun = time.monotonic()
    with pytest.raises(UserError) as error:
        read(path)
    assert time.monotonic() - begun < 30
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "path", ["s3://shop/log", "s3://shop/log/", "s3://shop/log/*.parquet", "s3://shop/csv/", "s3://shop/csv/?.csv.gz"]
)
def test_a_folder_or_glob_of_a_bucket_is_read_in_path_order(path: str) -> None:
    assert read(path) == LOG.to_pylist()


def test_one_object_and_its_partition_key() -> None:
    rows = read("s3://shop/log/day=2024-01-02/part.parquet", ["user", "day"])
    assert rows == [{"user": 2, "day": "2024-01-02"}] * 2


def test_region_and_endpoint_may_stand_in_the_uri(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    host = endpoint.removeprefix("http://")
    assert read(f"s3://shop/log?region=eu-west-1&scheme=http&endpoint_override={host}") == LOG.to_pylist()
    assert "allowed: region, scheme, endpoint_override" in failure("s3://shop/log?zone=1")


@pytest.mark.ray
def test_a_dataset_is_made_from_a_bucket_by_workers_that_lack_the_credentials(
    ray_cluster: None, configured: Callable[..., Config]
) -> None:
    """The cluster was started before they were set: they travel with the work, and stay nowhere."""
    from pipelines.preprocess.preprocess import preprocess

    config = configured("s3://shop/log")
    dataset = preprocess(config)
    assert (dataset.manifest.rows_read, dataset.manifest.users, dataset.manifest.items) == (4, 2, 3)
    paths = [file["path"] for file in dataset.manifest.sources["events"]]
    assert paths == [f"s3://shop/log/day=2024-01-0{day}/part.parquet" for day in (1, 2)]
    for file in config.home_path.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert KEY.encode() not in data, file
            assert SECRET.encode() not in data, file


def test_credentials_in_the_uri_are_hidden_in_messages_and_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    table, files = read_source(TableSource(path=f"s3://{KEY}:{SECRET}@shop/log"), COLUMNS)
    assert table.num_rows == 4
    assert SECRET not in json.dumps(files)
    message = failure(f"s3://{KEY}:{SECRET}@shop/nothing")
    assert message.startswith("s3://***@shop/nothing: no such file (looked for shop/nothing)")
    assert "%-encoded" in (message := failure(f"s3://{KEY}:half/{SECRET}@shop/log"))
    assert SECRET not in message
    assert SECRET not in repr(open_filesystem(f"s3://{KEY}:{SECRET}@shop/log"))


def test_a_wrong_bucket_or_key_is_named() -> None:
    assert "s3://shop/nothing: no such file" in failure("s3://shop/nothing")
    assert "s3://shop/log/*.csv: no such file" in failure("s3://shop/log/*.csv")
    assert "s3://shopp/log: no such file" in failure("s3://shopp/log")
    assert "s3://shopp/*.csv: no such file" in failure("s3://shopp/*.csv")
    assert "must be s3://bucket/key" in failure("s3://")


@pytest.mark.parametrize("path", ["s3://shop/log", "s3://shop/csv/"])
def test_a_missing_column_is_reported_with_the_uri_of_the_file(path: str) -> None:
    with pytest.raises(UserError, match=rf"^{path}.*: no column 'absent'"):
        read(path, [*COLUMNS, "absent"])


@pytest.mark.parametrize("path", ["s3://shop/log", "s3://shop/log/*.parquet", "s3://shop/csv/0.csv.gz"])
def test_refused_credentials_name_the_variables(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    message = failure(path)
    assert message.startswith(f"{path}: cannot be listed: ")
    assert "ACCESS_DENIED" in message
    assert "are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION set" in message
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "are AWS_ACCESS_KEY_ID" in failure(path)


def test_a_server_that_is_down_or_mute_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "AWS_ENDPOINT_URL if the server" in failure("s3://shop/log")
    monkeypatch.setattr("pipelines.storage.filesystems.TIMEOUT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert "NETWORK_CONNECTION" in failure("s3://shop/log")


def test_google_storage_is_given_up_as_well() -> None:
    """All that can be tested without an account: nobody answers."""
    message = failure("gs://anonymous@shop/log?scheme=http&endpoint_override=127.0.0.1:1&retry_limit_seconds=1")
    assert "cannot be listed" in message
    assert "GOOGLE_APPLICATION_CREDENTIALS" in message
