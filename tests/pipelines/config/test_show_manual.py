"""What `mind config` finds: sections, settings, and what is near to a name that there is not."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config.manual import parts
from pipelines.config.schema import Config
from pipelines.config.show_manual import chosen
from pipelines.errors import UserError

EVERY = [setting.name for part in parts(Config) for setting in part.settings]


def names(asked: str | None) -> list[str]:
    return [setting.name for part in chosen(asked) for setting in part.settings]


def test_all_are_shown_without_a_name() -> None:
    assert names(None) == EVERY


@pytest.mark.parametrize("setting", EVERY)
def test_a_setting_is_found_by_its_name(setting: str) -> None:
    assert setting in names(setting)
    assert all(name.startswith(setting) for name in names(setting))


def test_a_section_has_what_is_below_it() -> None:
    assert names("data.events")
    assert set(names("data.events")) == {name for name in EVERY if name.startswith("data.events.")}


@settings(deadline=None)  # the first name waits for the manual to be read
@given(st.text(max_size=20))
def test_any_other_name_is_one_line_that_leads_on(text: str) -> None:
    known = {part.name for part in parts(Config)} | set(EVERY)
    assume(not any(f"{name}.".startswith(f"{text}.") for name in known))
    with pytest.raises(UserError, match="some that are near: "):
        names(text)


def test_the_command_prints_default_and_manual() -> None:
    printed = CliRunner().invoke(app, ["config", "train.patience"]).stdout
    assert "train.patience: whole number ≥ 1 or null; default 3" in printed
    assert "validations without a better metric" in printed
