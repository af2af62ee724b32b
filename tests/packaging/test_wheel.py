"""What is installed is what is here: the wheel has every file that code reads, and `mind` works outside a checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.packaging.packages import PACKAGES, PROJECT, ROOT

DATA = (".yaml", ".j2", ".css", ".html", ".js", ".json", ".svg")
NOT_READ = ("jobs/clusters/", "jobs/kuberay/")  # files of a checkout: they bring a cluster up, no code reads them


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built wheel and sdist; the wheel is made from the sdist, as for a release."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                             capture_output=True, text=True, check=True).stdout.split("\0")  # fmt: skip
    for name in filter(None, tracked):  # no build folder of this checkout has a part in it
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def names(dist: Path) -> set[str]:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        return set(files.namelist())


@pytest.fixture(scope="module")
def installed(dist: Path) -> Path:
    """An environment that has the wheel, and the requirements from this one's packages: its bin folder."""
    (wheel,) = dist.glob("*.whl")
    place = dist / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin/python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    (own,) = place.glob("lib/python*/site-packages")
    (own / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")  # comes after the wheel's own
    return place / "bin"


def run(command: list[str | Path], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MIND_"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_every_package_file(names: set[str]) -> None:
    here = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*")
            if path.suffix in (".py", *DATA)}  # fmt: skip
    lost = {name for name in here if not name.startswith(NOT_READ)} - names
    assert not lost, "add them to [tool.setuptools.package-data]"


def test_the_wheel_has_presets_templates_and_ready_campaigns(names: set[str]) -> None:
    assert {
        "pipelines/config/presets/default.yaml",
        "pipelines/config/presets/paper.yaml",
        "pipelines/tuning/ready/quick.yaml",
        "pipelines/quality/templates/style.css",
        "pipelines/tuning/report/templates/campaign.html.j2",
    } <= names


def test_the_wheel_has_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert tops == {*PACKAGES, f"mind_retrieval-{PROJECT['version']}.dist-info"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_sdist_has_what_the_wheel_is_made_of_and_pinned_with(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as files:
        inside = {name.split("/", 1)[-1] for name in files.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "CHANGELOG.md", "conf/beauty.yaml"} <= inside
    assert "pipelines/tuning/ready/quick.yaml" in inside


def test_mind_works_outside_of_a_checkout(installed: Path, tmp_path: Path) -> None:
    assert run([installed / "mind", "--version"], tmp_path) == f"mind {PROJECT['version']}\n"
    help_text = run([installed / "mind", "--help"], tmp_path)
    assert all(name in help_text for name in ("preprocess", "train", "tune", "submit"))
    run([installed / "mind", "generate", "log", "--events", "2000", "--users", "50", "--items", "40"], tmp_path)
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == [
        "events", "interests.parquet", "items.parquet", "profile.parquet", "truth.parquet",
    ]  # fmt: skip


def test_the_installed_code_is_the_wheels_and_reads_its_own_data(installed: Path, tmp_path: Path) -> None:
    code = ("import pipelines.config.load as load, pipelines.tuning.load as tune, pipelines.quality.page;"
            "print(load.__file__, load.available_presets(), tune.ready_campaigns())")  # fmt: skip
    shown = run([installed / "python", "-c", code], tmp_path)
    assert shown.startswith(str(installed.parent))
    assert "'paper'" in shown
    assert "'quick'" in shown


def test_the_version_is_said_once() -> None:
    version = PROJECT["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    told = {}
    for path in [*(ROOT / "jobs").rglob("*.yaml"), *(ROOT / "docs").rglob("*.md"), ROOT / "Dockerfile"]:
        told |= {
            f"{path.relative_to(ROOT)}: {found}": found
            for found in re.findall(r"/mind:(\d+\.\d+\.\d+)", path.read_text())
        }
    assert told
    assert set(told.values()) == {version}, told


def test_python_versions_are_those_that_ci_tests() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = [
        each.rsplit(" ", 1)[1]
        for each in PROJECT["classifiers"]
        if each.startswith("Programming Language :: Python ::")
    ]
    assert named == tested
    assert PROJECT["requires-python"] == f">={tested[0]}"
