"""Which columns are the user, the item and the time, guessed or said. No Ray."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config.load import load_config
from pipelines.errors import UserError
from pipelines.log.proposal.first_look import look_at
from pipelines.log.proposal.roles import guess_roles


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    path = tmp_path / "ratings.dat"
    path.write_text("".join(f"{n % 40}::{n % 70}::5::{978300000 + 3600 * n}\n" for n in range(900)))
    return path


def test_a_log_without_names_is_described_once_its_columns_are_said(tmp_path: Path, ratings: Path) -> None:
    said = ["--user", "column_1", "--item", "column_2"]
    result = CliRunner().invoke(app, ["init", str(ratings), *said, "--out", str(tmp_path / "shop.yaml")])
    assert result.exit_code == 0, result.output
    events = load_config(tmp_path / "shop.yaml").data.events
    assert (events.user, events.item, events.time, events.time_unit) == ("column_1", "column_2", "column_4", "s")
    assert "user: column_1 # as you said" in result.output
    assert "the first row: 0, 0, 5, 978300000" in result.output


def test_the_message_shows_the_columns_and_the_option(ratings: Path) -> None:
    with pytest.raises(UserError, match=r"give --user COLUMN, one of column_1 \(ints, 40 values: 0, 1, ...\)"):
        guess_roles(look_at(str(ratings)))
    with pytest.raises(UserError, match=r"no column 'who' for --user; there is column_1, column_2"):
        guess_roles(look_at(str(ratings)), {"user": "who"})


def test_what_is_said_is_not_guessed_for_another_role(ratings: Path) -> None:
    roles = guess_roles(look_at(str(ratings)), {"item": "column_1", "user": "column_2"})
    assert (roles.user.column.name, roles.item.column.name) == ("column_2", "column_1")
