"""`mind report`: one page and pictures, for any model of any dataset that can be evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.figure import Figure

import pipelines.evaluation.report_page.command as command
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.report_page.command import report
from pipelines.evaluation.report_page.look import DARK, LIGHT, Picture
from pipelines.evaluation.report_page.page import page
from pipelines.evaluation.report_page.plane import user_plane
from pipelines.evaluation.report_page.sections import Found, sections
from pipelines.evaluation.report_page.stored import Curves, evaluated_models
from pipelines.models.artifact import load_model
from pipelines.preprocess.preprocess import preprocess
from pipelines.tracking.store import store_of
from tests.pipelines.planted import save_untrained

pytestmark = pytest.mark.ray

OF_ANY = {"groups", "history", "popularity", "by_rank", "places", "concentration"}
WITH_CATEGORIES = {"diversity", "calibration"}
OF_INTERESTS = {"usage", "used", "spread", "coupling", "retrieved", "by_interests"}


class Reader(HTMLParser):
    """Text, and the tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def pictures(html: Path) -> set[str]:
    """Names of the PNGs beside a page, which are those that it shows."""
    names = {file.stem for file in html.parent.glob("*.png")}
    assert set(json.loads((html.parent / "pictures.json").read_text())["pictures"]) == names
    assert {attributes["id"] for tag, attributes in Reader(html.read_text()).tags if tag == "figure"} == names
    return names


def with_model(config: Config, **settings: Any) -> Config:
    return config.model_copy(update={"model": replace(config.model, **settings)})


@pytest.fixture(scope="module")
def html(config: Config) -> Path:
    save_untrained(config)
    return report(config, model="planted-default-0123456789")


def test_the_page_shows_what_is_beside_it_each_with_a_sentence(html: Path) -> None:
    assert pictures(html) == OF_ANY | WITH_CATEGORIES | OF_INTERESTS | {"plane"}
    captions = re.findall(r"<figcaption><h3>(.+)</h3><p>(.+)</p></figcaption>", html.read_text())
    assert len(captions) == len(pictures(html))
    assert all(caption.endswith((".", "!")) for _, caption in captions)
    assert len({title for title, _ in captions}) == len(captions)


def test_the_page_needs_no_other_file_and_no_script(html: Path) -> None:
    found = Reader(html.read_text())
    sources = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "srcset")]
    assert len(sources) == 2 * len(pictures(html)), "each in the light and in the dark"
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe"}
    assert "http" not in re.sub(r"base64,[^\"]+", "", html.read_text())


def test_it_lies_with_the_evaluation_in_mlflow(config: Config, html: Path) -> None:
    client = mlflow.MlflowClient(store_of(config))
    experiment = client.get_experiment_by_name("planted")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`mind.stage` = 'evaluate'")
    stored = [{Path(each.path).name for each in client.list_artifacts(run.info.run_id, "report")} for run in runs]
    assert {file.name for file in html.parent.iterdir()} in stored


def test_what_is_evaluated_is_not_evaluated_again(config: Config, html: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(*given: Any, **more: Any) -> Any:
        calls.append("evaluated")
        return evaluate(*given, **more)

    monkeypatch.setattr(command, "evaluate", counted)
    before = pictures(html)
    report(config, model="planted-default-0123456789")
    assert (calls, pictures(html)) == ([], before)
    # and by other settings it is
    other = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"cutoffs": [5, 20]})})
    report(other, model="planted-default-0123456789")
    assert calls == ["evaluated"]


def test_a_report_json_of_another_format_is_made_anew(config: Config, html: Path) -> None:
    file = config.home_path / "evaluations" / "planted-default-0123456789-test" / "report.json"
    raw = json.loads(file.read_text())
    older = [{name: value for name, value in model.items() if name != "lists"} for model in raw["models"]]
    file.write_text(json.dumps({**raw, "models": older}))
    report(config, model="planted-default-0123456789")
    assert json.loads(file.read_text())["models"][0]["lists"]["depth"] == 20


def test_one_interest_has_no_pictures_of_several_but_two_k_side_by_side(config: Config, html: Path) -> None:
    single = with_model(config, interests=1)
    save_untrained(single, "planted-default-1111111111")
    made = report(single, model="planted-default-1111111111")
    assert pictures(made) == OF_ANY | WITH_CATEGORIES | {"plane", "by_k"}
    words = " ".join(Reader(made.read_text()).words)
    assert words.count("as the model has one interest") >= 4
    dataset = Dataset.open(config.dataset_path)
    others = evaluated_models(single, dataset, "test", "recall@20")
    assert {len(each.interest_share) for each in others} == {1, 3}


def test_a_rule_has_a_report_of_its_lists(config: Config) -> None:
    rule = config.model_copy(update={"preset": "popularity"})
    rule = with_model(rule, encoder="popularity", interests=1)
    from pipelines.training.train import train

    folder = train(rule)
    made = report(rule)
    assert folder is not None
    assert pictures(made) == OF_ANY | WITH_CATEGORIES
    assert "a rule has no vectors" in made.read_text()


def test_without_a_model_one_line_says_which_command_makes_it(config: Config) -> None:
    with pytest.raises(UserError, match="no model of preset youtube_dnn yet; make one with: mind train"):
        report(config, model="youtube_dnn")


@pytest.mark.parametrize("seen", ["keep", "filter"])
def test_short_histories_and_items_without_features_are_said_not_drawn(
    configured: Callable[..., Config], tmp_path: Path, ray_cluster: None, seen: str
) -> None:
    generator = np.random.default_rng(0)
    events = {
        "user": [f"<w{user}>" for user in range(60) for _ in range(4)],
        "item": [f"<b>{item}" for user in range(60) for item in generator.choice(30, 4, replace=False)],
        "time": list(range(240)),
    }
    pq.write_table(pa.table(events), tmp_path / "log.parquet")
    config = configured(tmp_path / "log.parquet")
    model = replace(config.model, dim=8, interests=4, max_history=20, hidden=(8,))
    config = config.model_copy(
        update={
            "model": model,
            "evaluate": config.evaluate.model_copy(update={"seen": seen, "cutoffs": [5, 20]}),
            "train": config.train.model_copy(update={"metric": "recall@20"}),
            "tracking": config.tracking.model_copy(update={"system_metrics": False}),
        }
    )
    preprocess(config)
    save_untrained(config, "tiny-default-0123456789")
    made = report(config, model="tiny-default-0123456789")
    names = pictures(made)
    assert names >= OF_ANY | {"plane"}
    assert not names & (WITH_CATEGORIES | {"retrieved", "coupling"})
    text = made.read_text()
    assert "the dataset has no categorical item feature" in text
    assert "nobody has a history long enough for all interests" in text
    assert "<w" not in text, "ids are escaped"
    assert "User &lt;w" in text


def found_of(config: Config) -> Found:
    dataset = Dataset.open(config.dataset_path)
    model = load_model(save_untrained(config))
    outcome = evaluate(config, model=str(model.path))
    return Found(outcome, [outcome.models[0]], None, model, dataset, config, "test")


def test_words_of_the_log_are_no_markup(config: Config) -> None:
    found = found_of(config)
    parts = sections(found)
    parts[0].pictures[:] = [Picture("one", "<script>x</script>", "a & b.", lambda look: Figure(figsize=(1, 1)))]
    parts[1].pictures, parts[2].pictures, parts[3].pictures = [], [], []
    html = page(found, parts)
    assert "<script>" not in html
    assert "&lt;script&gt;x&lt;/script&gt;" in html
    assert "a &amp; b." in html


def test_curves_are_drawn_where_a_training_has_left_them(config: Config) -> None:
    curves = Curves([1.0, 1.5, 2.0], {"train/loss": [3.0, 2.0, 1.0], "validation/recall@20": [0.1, None, 0.3],
                                      "routing/unmoved_share": [0.5, None, 0.25]})  # fmt: skip
    assert curves.points("validation/recall@20") == ([1.0, 2.0], [0.1, 0.3])
    found = replace(found_of(config), curves=curves)
    drawn = {picture.name: picture for section in sections(found) for picture in section.pictures}
    assert "number 2 of 2, at epoch 2.0: it was still rising" in drawn["learning"].caption
    assert drawn["routing"].caption.startswith("After training 25 % of the behaviours")
    for name in ("learning", "routing"):
        assert drawn[name].alone()[:4] == b"\x89PNG"
        assert drawn[name].embedded(LIGHT) != drawn[name].embedded(DARK)


def test_the_plane_of_a_user_is_the_same_each_time_and_holds_the_list(config: Config) -> None:
    dataset = Dataset.open(config.dataset_path)
    model, table = load_model(save_untrained(config)), dataset.table("test")
    one, other = (user_plane(model, table, dataset, 10, exclude_seen=False) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.user == other.user
    for name in ("cloud", "interests"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert torch.equal(one.listed.places, other.listed.places)
    assert len(one.listed.names) == 10
    assert len(set(one.behaviours.names)) == len(one.behaviours.names), "each item once"
