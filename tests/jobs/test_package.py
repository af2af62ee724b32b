from pathlib import Path

import pytest

from jobs.package import code_files, conf_places, require_small, write_package
from pipelines.errors import UserError


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_the_code_goes_along_and_nothing_else(tmp_path: Path) -> None:
    wanted = ["jobs/cli.py", "mind_core/model.py", "pipelines/config/presets/paper.yaml", "pipelines/tuning/load.py"]
    tree(tmp_path, *wanted, "pyproject.toml", "data/events.parquet", "tests/test_x.py", ".git/HEAD", ".venv/x.py")
    tree(tmp_path, "jobs/__pycache__/cli.pyc", "pipelines/.ruff_cache/x", "mind_home/mlflow.db", "README.md")
    assert sorted(code_files(tmp_path)) == [*wanted, "pyproject.toml"]


def test_the_real_tree_is_small_and_has_presets_and_templates() -> None:
    files = code_files()
    assert {
        "jobs/cli.py",
        "mind_core/routing.py",
        "pipelines/config/presets/default.yaml",
        "pipelines/quality/templates/base.html.j2",
        "pipelines/quality/templates/style.css",
        "pipelines/tuning/report/templates/campaign.html.j2",
        "pyproject.toml",
    } <= files.keys()
    assert not [place for place in files if place.startswith(("tests", "docs", "conf")) or "__pycache__" in place]
    require_small(files, 4 * 2**20)


def test_a_conf_of_the_working_directory_keeps_its_place(tmp_path: Path) -> None:
    assert conf_places([Path("conf/a.yaml")], tmp_path) == ["conf/a.yaml"]
    assert conf_places([Path("./a.yaml"), tmp_path / "b/c.yaml"], tmp_path) == ["a.yaml", "b/c.yaml"]


def test_confs_from_elsewhere_keep_the_way_between_them(tmp_path: Path) -> None:
    confs = [Path("../other/tune/k.yaml"), Path("../other/tune/../base.yaml")]
    assert conf_places(confs, tmp_path / "here") == ["submitted/tune/k.yaml", "submitted/base.yaml"]


def test_an_oversized_tree_is_refused_with_its_largest_files(tmp_path: Path) -> None:
    tree(tmp_path, "jobs/cli.py")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/log.parquet").write_bytes(bytes(3 * 2**20))
    with pytest.raises(UserError) as refused:
        require_small(code_files(tmp_path), limit_bytes=2**20)
    assert "3.0 MiB of at most 1.0 MiB; largest: pipelines/log.parquet 3.0 MiB; keep data out" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_package_has_its_files_in_their_places(tmp_path: Path) -> None:
    tree(tmp_path, "a/x.py")
    write_package({"deep/er/y.py": tmp_path / "a/x.py"}, tmp_path / "out")
    assert (tmp_path / "out/deep/er/y.py").read_text() == "a/x.py"
