"""`mind plan` as it is typed."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app

SIZES = ("--events", "1e9", "--items", "100M", "--users", "10_000_000")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)], env={"COLUMNS": "200"})


def test_a_plan_needs_sizes_only_and_names_the_next_bottleneck() -> None:
    result = run(*SIZES)
    assert result.exit_code == 0, result.output
    for words in ("1.00 B events, 100 M items, 10.0 M users", "Memory at the peak", "Network", "Next bottleneck"):
        assert words in result.stdout
    for stage in ("preprocess", "one epoch", "train", "evaluate", "export"):
        assert stage in result.stdout


def test_a_file_and_settings_are_planned_with(conf: Path) -> None:
    result = run(conf, *SIZES, "--workers", 64, "--nodes", 8, "--set", "model.dim=32", "-m", "cores=32")
    assert result.exit_code == 0, result.output
    assert "d = 32" in result.stdout
    assert "64 workers of 1 thread, up to 8 on a node" in result.stdout
    assert "32 cores" in result.stdout


def test_the_machines_figures_are_printed_on_demand() -> None:
    assert "start_train" not in run(*SIZES).stdout
    assert "start_train" in run(*SIZES, "--figures").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--events, --items, --users missing; for example"),
        (("--events", "1e9", "--items", "5"), "--users missing"),
        (("--events", "lots", "--items", "5", "--users", "5"), "--events 'lots' must be a number above 0"),
        (("--events", "1e9", "--items", "0", "--users", "5"), "--items '0' must be a number above 0"),
        (("--events", "10", "--items", "5", "--users", "10"), "--events 10: must be more than --users 10"),
        ((*SIZES, "-m", "core=4"), "--machine core=4: must be FIGURE=VALUE, as cores=32; figures are cores, memory,"),
        ((*SIZES, "-m", "cores=-4"), "--machine cores: '-4' must be a number above 0"),
        ((*SIZES, "--set", "model.dims=8"), "dims"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout
