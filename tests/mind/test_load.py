"""The public face: a folder, torch and a few lines; neither Ray nor MLflow."""

import subprocess
import sys
from pathlib import Path

import pytest

import mind
from tests.pipelines.small_model import save_small


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("models") / "small")


def test_it_needs_neither_ray_nor_mlflow(folder: Path) -> None:
    code = f"""
import sys, mind
model = mind.load({str(folder)!r})
answer = model.recommend([101, 105], n=3, profile={{"group": "a"}}, explain=True)
model.interests([101]), model.why([101], answer.ids)
print(len(answer.ids), [name for name in ("ray", "mlflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3 []\n"


def test_a_list_its_interests_and_its_reasons(folder: Path) -> None:
    model = mind.load(folder)
    answer = model.recommend([101, 105, 999], 4, exclude=[102])
    assert len(answer.ids) == 4
    assert answer.unknown == 1
    assert not {101, 102, 105} & set(answer.ids)
    assert model.interests([101, 105, 106, 107]).shape == (2, 8)
    assert [why.interest for why in model.why([101, 105], answer.ids)] == answer.interests
    assert set(model.recommend([101], 5, only=[110, 120]).ids) == {110, 120}
    assert model.card.name == "small-0"


def test_of_a_long_history_the_newest_count_and_the_rest_is_counted(folder: Path) -> None:
    model = mind.load(folder, limits=mind.Limits(history=3))
    answer = model.recommend([140, 101, 105, 110], 3)
    assert answer.cut == 1
    assert answer.ids == model.recommend([101, 105, 110], 3).ids


def test_a_mistake_is_one_line(folder: Path, tmp_path: Path) -> None:
    model = mind.load(folder)
    with pytest.raises(mind.RequestError, match=r"^n=0: must be an integer from 1 to 1,000$"):
        model.recommend([101], 0)
    with pytest.raises(mind.RequestError, match="profile feature 'grup': unknown"):
        model.recommend([101], profile={"grup": "a"})
    with pytest.raises(mind.UserError, match="no model"):
        mind.load(tmp_path)


def test_rules_and_filters_hold_and_their_mistakes_are_lines(folder: Path) -> None:
    model = mind.load(folder, {"where": "count <= 10", "cap": {"shelf": 1}})
    answer = model.recommend([101, 105], 20)
    assert len(answer.ids) == 4  # of four shelves, one each
    assert min(answer.ids) >= 131
    assert model.recommend([101], 5, where="count = 1").ids == [140]
    with pytest.raises(mind.UserError, match=r"lists\.polcy"):
        mind.load(folder, {"polcy": "best"})
    with pytest.raises(mind.RequestError, match="where"):
        model.recommend([101], where="price <")
