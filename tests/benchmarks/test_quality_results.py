"""What a result is kept under, what happens to a contestant that fails, and that a killed run goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measure import Options
from benchmarks.peers.lists import read, write
from benchmarks.quality import compete as command
from benchmarks.quality.contestants import CONTESTANTS, DEFAULT, Asked
from benchmarks.quality.data import conf_of
from benchmarks.quality.results import Failed, code_digest, result_path, run_contestant
from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset

SETTINGS = {"seed": 1, "factors": [64], "quick": False}


def path_of(**changes: Any) -> Path:
    words = {"dataset": "beauty", "fingerprint": "a" * 40, "contestant": "ials", "settings": SETTINGS, "code": "x"}
    return result_path(Path("cache"), **{**words, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "tmall"},
        {"fingerprint": "a" * 39 + "b"},
        {"contestant": "ease"},
        {"settings": {**SETTINGS, "seed": 2}},
        {"settings": {**SETTINGS, "factors": [64, 256]}},
        {"code": "y"},
    ],
)
def test_a_result_is_kept_under_data_contestant_settings_seed_and_code(change: dict[str, Any]) -> None:
    assert path_of(**change) != path_of()


def test_the_order_of_settings_does_not_count() -> None:
    assert path_of(settings=dict(reversed(SETTINGS.items()))) == path_of()


def test_how_many_threads_worked_does_not_count() -> None:
    assert path_of(settings={**SETTINGS, "threads": 1}) == path_of(settings={**SETTINGS, "threads": 2}) == path_of()


def test_of_code_only_what_it_computes_counts(tmp_path: Path) -> None:
    file = tmp_path / "rule.py"
    file.write_text('"""Old."""\n\ndef twice(x):\n    """Double."""\n    return 2 * x\n')
    before = code_digest(("*.py",), tmp_path)
    file.write_text('"""New words."""\n# why\n\n\ndef twice(x):\n    return 2  *  x\n')
    assert code_digest(("*.py",), tmp_path) == before
    file.write_text("def twice(x):\n    return 3 * x\n")
    assert code_digest(("*.py",), tmp_path) != before


def test_every_pattern_of_a_contestants_code_finds_a_file() -> None:
    empty = code_digest(())
    for contestant in CONTESTANTS:
        for pattern in contestant.code:
            assert code_digest((pattern,)) != empty, f"{contestant.name}: {pattern}"


def test_settings_tell_contestants_seeds_and_presets_apart() -> None:
    config = load_config(conf_of("beauty"))
    named = {each.name: each for each in CONTESTANTS}

    class Few:
        manifest = type("Manifest", (), {"item_rows": 12_103})

    def settings(name: str, seed: int = 0, **asked: Any) -> dict[str, Any]:
        return named[name].settings(config, Few(), Asked(**asked), seed)  # type: ignore[arg-type]

    ours = [settings(name)["config"] for name in ("youtube_dnn", "paper", "sasrec", "default_k1", DEFAULT)]
    assert len(set(ours)) == len(ours)
    assert settings(DEFAULT, 1)["seed"] == 1
    assert settings("ease", 1)["seed"] == 0, "nothing random: one run stands for all seeds"
    assert settings(DEFAULT, quick=True) != settings(DEFAULT)
    assert settings("rectools_sasrec")["batch_size"] == 128
    assert named["personal_frequency"].absent(config) is not None, "seen items are filtered"
    assert named["personal_frequency"].absent(load_config(conf_of("tmall"))) is None


def test_a_contestant_that_ends_without_lists_says_why(tmp_path: Path) -> None:
    out = tmp_path / "made" / "lists.npz"
    with pytest.raises(Failed, match="no room"):
        run_contestant(
            [sys.executable, "-c", "print('starting', flush=True); raise SystemExit('no room')"], out, threads=1
        )
    with pytest.raises(Failed, match="it said nothing"):
        run_contestant([sys.executable, "-c", ""], out, threads=1)
    with pytest.raises(Failed, match="killed by signal 9"):
        run_contestant([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], out, threads=1)


def test_threads_of_the_libraries_are_set(tmp_path: Path) -> None:
    out = tmp_path / "threads"
    code = f"import os; open({str(out)!r}, 'w').write(os.environ['OPENBLAS_NUM_THREADS'])"
    run_contestant([sys.executable, "-c", code], out, threads=3)
    assert out.read_text() == "3"
    assert not out.with_suffix(".log").exists()


def test_what_was_found_before_is_not_run_again_and_a_failure_is_a_line(
    planted: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.open(planted.dataset_path)
    ran: list[str] = []

    def run(arguments: list[str], out: Path, threads: int) -> float:
        ran.append(arguments[4])
        if arguments[4] == "recent_popularity":
            raise Failed("no room")
        out.parent.mkdir(parents=True, exist_ok=True)
        users = dataset.manifest.splits["test"].users
        lists = np.tile(np.arange(2, 52, dtype=np.int32), (users, 1))
        write(out, {"lists": lists, "new_lists": lists}, {"fit_seconds": 6.0, "peak_bytes": 2e9})
        return 1.0

    monkeypatch.setattr(command, "run_contestant", run)
    chosen = [each for each in CONTESTANTS if each.kind == "rule"]
    environments = command.Environments(Options(scratch=tmp_path))

    def compete() -> Any:
        return command.compete("planted", dataset, planted, chosen, 3, Asked(), tmp_path, environments)

    table = compete()
    assert ran == ["popularity", "recent_popularity", "personal_frequency", "item_knn"]
    assert list(table.outcomes) == ["popularity", "personal_frequency", "item_knn"]
    assert table.left_out == {"recent_popularity": "no room"}
    assert table.failed == ("recent_popularity",)
    assert len(table.outcomes["popularity"].runs) == 1, "nothing random"
    ran.clear()
    again = compete()
    assert ran == ["recent_popularity"]
    assert again.outcomes["item_knn"].means("ndcg@20") == table.outcomes["item_knn"].means("ndcg@20")
    ran.clear()
    kept = command.compete("planted", dataset, planted, chosen, 3, Asked(kept=True), tmp_path, environments)
    assert ran == []
    assert list(kept.outcomes) == list(table.outcomes)
    assert kept.left_out == {}, "what was not run is no failure"


@pytest.mark.parametrize("kind", ["rule", "model"])
def test_a_contestant_of_ours_writes_lists_as_good_as_evaluation_says(
    planted: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import torch

    from benchmarks.quality import ours
    from benchmarks.quality.data import EVERYBODY, asked_users
    from benchmarks.quality.score import score
    from mind_core.evaluation import evaluate

    dataset = Dataset.open(planted.dataset_path)
    settings = {"seed": 0, "threads": 1, "quick": False, "cap_seconds": 60}
    make = ours.model if kind == "model" else ours.rule
    scorer, told = make("item_knn", planted, dataset, settings)
    write(tmp_path / "lists.npz", ours.lists_of(scorer, dataset, False, EVERYBODY), told)
    lists, told = read(tmp_path / "lists.npz")
    sequences, targets = asked_users(dataset, EVERYBODY)
    found = score(lists["lists"], lists["new_lists"], sequences, targets)
    everyone = torch.arange(len(sequences))
    outcome = evaluate(scorer, sequences, targets, everyone, [10, 20, 50], exclude_seen=False, shelves=True)
    for name, values in found.items():
        assert np.nanmean(values) == pytest.approx(float(outcome.metrics[name].nanmean()), abs=1e-9), name


def test_the_best_epoch_of_a_training_is_kept(planted: Config) -> None:
    import torch

    from benchmarks.dataset_loop import train_best
    from pipelines.training.data import read_data
    from pipelines.training.loop import validation_metrics

    dataset = Dataset.open(planted.dataset_path)
    hasty = planted.model_copy(
        update={
            "optim": type(planted.optim)(table_learning_rate=0.3, learning_rate=0.1),  # it becomes worse
            "train": planted.train.model_copy(update={"epochs": 12, "patience": 2}),
        }
    )
    data = read_data(dataset, hasty.train)
    trained = train_best(hasty, dataset, data)
    assert trained.ended == "patience"
    assert trained.best_epoch == len(trained.curve) - 2
    everyone = torch.arange(len(data.validation))
    found = validation_metrics(trained.retriever, data, everyone, [20], exclude_seen=False)
    assert found["recall@20"] == pytest.approx(max(trained.curve), abs=1e-12)
    assert train_best(hasty, dataset, data, cap=0.0).ended == "cap"
