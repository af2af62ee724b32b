"""The MLflow model, called in this process and by MLflow's own server: the same request code, and its lines."""

import json
import logging
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import mlflow
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.pyfunc.scoring_server import init
from mlflow.types import DataType
from mlflow.types.schema import AnyType

from pipelines.models import serving
from pipelines.models.answers import Answerer
from pipelines.models.artifact import SavedModel, load_model
from pipelines.models.serving import ServedRetriever, refuse_deep_json
from tests.pipelines.small_model import PROFILE, save_small


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    return load_model(save_small(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture(scope="module")
def served(saved: SavedModel, tmp_path_factory: pytest.TempPathFactory) -> PyFuncModel:
    """Stored and loaded as MLflow does it, its code file included."""
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    mlflow.pyfunc.save_model(
        folder,
        python_model=serving.__file__,
        artifacts={"model": str(saved.path)},
        signature=serving.signature(saved),
        input_example=serving.example(saved),
        pip_requirements=[],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(serving.SERVER, str(folder))
        return mlflow.pyfunc.load_model(str(folder))


@pytest.fixture(scope="module")
def client(served: PyFuncModel) -> TestClient:
    return TestClient(init(served), raise_server_exceptions=False)


def post(client: TestClient, rows: list[dict[str, Any]], **params: Any) -> Any:
    body: dict[str, Any] = {"dataframe_records": rows}
    answer = client.post("/invocations", json={**body, "params": params} if params else body)
    return answer.status_code, answer.json()


def lists(answer: Any) -> list[list[int]]:
    status, content = answer
    assert status == 200, content
    return [row["items"] for row in content["predictions"]]


def expected(saved: SavedModel, **fields: Any) -> list[int]:
    answerer = Answerer(saved)
    return answerer.answer([answerer.reader.read(fields)])[0].ids


def test_types_are_the_datasets_where_mlflow_can_miss_a_value_of_them(saved: SavedModel) -> None:
    types = {spec.name: spec.type for spec in serving.signature(saved).inputs.inputs}
    assert types["group"] == DataType.string
    assert types["level"] == types["age"] == DataType.double
    assert types["since"] == DataType.datetime
    assert all(isinstance(types[name], AnyType) for name in ("vip", "code", "tags"))


def test_the_example_has_every_profile_feature_and_is_answered(saved: SavedModel, client: TestClient) -> None:
    example = serving.example(saved)
    assert set(example.columns) == {"history", *PROFILE}
    row = json.loads(example.to_json(orient="records", date_format="iso"))
    assert len(lists(post(client, row))[0]) == 20


JSON_PROFILE = {**PROFILE, "since": "2021-01-01T00:00:00"}


def test_over_http_every_type_of_profile_feature_is_what_it_is_in_the_log(
    saved: SavedModel, client: TestClient
) -> None:
    for name, value in JSON_PROFILE.items():
        found = lists(post(client, [{"history": [101], name: value}], k=39))
        assert found == [expected(saved, history=[101], n=39, profile={name: PROFILE[name]})], name


@pytest.mark.parametrize("name", PROFILE)
@pytest.mark.parametrize("absent", ["null", "left out"])
def test_a_row_of_a_batch_may_lack_any_value(saved: SavedModel, client: TestClient, name: str, absent: str) -> None:
    without = {"history": [105], **({name: None} if absent == "null" else {})}
    found = lists(post(client, [{"history": [101], name: JSON_PROFILE[name]}, without], k=39))
    assert found == [
        expected(saved, history=[101], n=39, profile={name: PROFILE[name]}),
        expected(saved, history=[105], n=39),
    ]


@pytest.mark.parametrize("deep", [3_000, 100_000])
def test_json_that_is_nested_too_deep_is_a_line(client: TestClient, monkeypatch: pytest.MonkeyPatch, deep: int) -> None:
    monkeypatch.setattr(scoring_server, "_decode_json_input", scoring_server._decode_json_input)  # and back
    refuse_deep_json()
    body = '{"dataframe_records": ' + "[" * deep + "]" * deep + "}"
    answer = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "nested too deep" in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("k", [0, -1, 10**9, 2**31])
def test_k_out_of_bounds_is_a_line(client: TestClient, k: int) -> None:
    status, content = post(client, [{"history": [101]}], k=k)
    assert status == 400
    assert f"k={k}: must be an integer from 1 to 1,000" in content["message"]
    assert "Traceback" not in json.dumps(content)


@pytest.mark.parametrize("k", ["five", 1.5, [1], None])
def test_a_k_that_is_no_integer_is_a_line(client: TestClient, k: Any) -> None:
    status, content = post(client, [{"history": [101]}], k=k)
    assert status == 400
    assert "Traceback" not in json.dumps(content)


def test_unknown_columns_and_params_are_refused_by_name_where_mlflow_serves(client: TestClient) -> None:
    status, content = post(client, [{"history": [101], "grup": "a"}])
    assert status == 400
    assert "grup" in content["message"]
    status, content = post(client, [{"history": [101]}], top=5)
    assert status == 400
    assert "top" in content["message"]


def test_what_is_ignored_elsewhere_stays_a_warning() -> None:
    record = logging.LogRecord("mlflow.models.utils", logging.WARNING, "", 0, "something else", (), None)
    assert serving.refuse_what_is_ignored(record)


def test_called_by_itself_it_refuses_unknown_columns_params_and_too_many_rows(saved: SavedModel) -> None:
    model = ServedRetriever()
    model.load_context(cast(Any, SimpleNamespace(artifacts={"model": str(saved.path)})))
    context = cast(Any, None)
    for table, params, line in (
        (pd.DataFrame({"history": [[101]], "grup": ["a"]}), {}, "row 0: profile feature 'grup': unknown"),
        (pd.DataFrame({"history": [[101]]}), {"top": 5}, "param 'top': unknown; accepted: k, exclude_seen"),
        (pd.DataFrame({"history": [[101], ["x"]]}), {}, r"row 1: history\[0\]='x'"),
        (pd.DataFrame({"history": [[101]] * 1001}), {}, "1,001 rows: must be at most 1,000"),
    ):
        with pytest.raises(MlflowException, match=line) as caught:
            model.predict(context, table, params)
        assert caught.value.get_http_status_code() == 400
    answer = model.predict(context, pd.DataFrame({"history": [[], [101]]}), {"k": 2})
    assert answer["interests"][0] == [-1, -1]  # the popular list
    since = pd.DataFrame({"history": [[101]], "since": [pd.Timestamp(datetime(2021, 1, 1))]})
    found = model.predict(context, since, {"k": 39, "exclude_seen": True})["items"][0]
    assert found == expected(saved, history=[101], n=39, profile={"since": datetime(2021, 1, 1)})
