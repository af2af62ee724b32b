"""The table in README.md: between its markers, and with what it lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.contestants import CONTESTANTS
from benchmarks.quality.data import NAMES
from benchmarks.quality.readme import BEGIN, END, markdown, missing, write_readme
from benchmarks.quality.summary import KEPT, Outcome, Table, as_json, sheet

USERS = 400


def outcome(label: str, *ndcg: float) -> Outcome:
    """A contestant whose users have about the same NDCG@20 in a seed, and the noise on average none."""
    noise = np.random.default_rng(len(label)).normal(0, 0.01, USERS)
    noise -= noise.mean()
    runs = [{metric: value + noise for metric in (*KEPT, "hit_rate@10")} for value in ndcg]
    return Outcome(label, runs, [{"fit_seconds": 60.0, "peak_bytes": 2e9} for _ in ndcg])


def table(name: str = "tmall") -> Table:
    outcomes = {each.name: outcome(each.label, *((0.1, 0.2, 0.3) if each.seeded else (0.15,))) for each in CONTESTANTS}
    return Table(name, "full ranking", False, outcomes)


def test_only_what_lies_between_the_markers_changes(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_readme(readme, "| new |")
    assert readme.read_text() == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    write_readme(readme, "| new |")
    assert readme.read_text() == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_a_readme_without_its_markers_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(SystemExit, match="once each"):
        write_readme(readme, "| new |")
    assert readme.read_text() == text


def test_our_readme_has_the_markers_in_order() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index(BEGIN) < text.index(END)


def test_what_a_table_lacks_is_said_under_it() -> None:
    tables = [table(name) for name in NAMES]
    assert missing(tables) == []
    assert "Not run yet" not in markdown(tables, seeds=3)
    assert missing(tables[1:]) == ["all on Beauty"]
    assert markdown(tables[1:], seeds=3).endswith(" Not run yet: all on Beauty.")
    without = [replace(each, outcomes={n: o for n, o in each.outcomes.items() if n != "ease"}) for each in tables]
    assert missing(without) == ["EASE on any set"]
    assert missing(without[1:]) == ["EASE on any set", "all on Beauty"]


def test_a_failure_is_lacking_and_what_has_no_place_is_not() -> None:
    tables = [table(name) for name in NAMES]
    without = {name: found for name, found in tables[0].outcomes.items() if name != "paper"}
    absent = replace(tables[0], outcomes=without, left_out={"paper": "no room"})
    assert missing([absent, *tables[1:]]) == []
    assert missing([replace(absent, failed=("paper",)), *tables[1:]]) == ["ours, paper on Beauty"]
    assert missing([replace(absent, left_out={}), *tables[1:]]) == ["ours, paper on Beauty"]


def test_fewer_seeds_than_were_asked_for_are_counted_in_the_cell() -> None:
    outcomes = {"popularity": outcome("popularity", 0.1), "ials": outcome("iALS", 0.29, 0.31)}
    lines = markdown([Table("tmall", "", False, outcomes)], seeds=3).splitlines()
    assert "²" in lines[3]
    assert not set("¹²³") & set(lines[2]), "nothing of it is drawn"


def test_the_best_is_bold_and_arrows_tell_what_is_told_apart() -> None:
    outcomes = {
        "popularity": outcome("popularity", 0.1),
        "ials": outcome("iALS", 0.29, 0.31),
        "paper": outcome("paper", 0.2),
        "default": outcome("default", 0.19, 0.21),
    }
    lines = markdown([Table("tmall", "", False, outcomes)], seeds=2).splitlines()
    assert lines[0] == "| recall@20 / NDCG@20 | Tmall | minutes | GB |"
    assert lines[1] == "|---|---|---|---|"
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in lines[2:6]}
    assert cells["popularity"].endswith(" ▼")
    assert "**" in cells["iALS (implicit)"]
    assert cells["iALS (implicit)"].endswith("±.0141 ▲")
    assert "▲" not in cells["ours, paper"] + cells["ours, default"]
    assert "▼" not in cells["ours, paper"] + cells["ours, default"]


def test_a_contestant_without_a_row_has_a_dash() -> None:
    with_paper = Table("tmall", "", False, {"paper": outcome("paper", 0.2), "default": outcome("default", 0.2)})
    without = Table("beauty", "", True, {"default": outcome("default", 0.2)}, {"paper": "no room"})
    (row,) = (line for line in markdown([with_paper, without], 1).splitlines() if line.startswith("| ours, paper"))
    assert row.split(" | ")[2] == "–"


def test_the_sheet_says_mean_spread_and_paired_difference() -> None:
    found = Table(
        "tmall", "p", False, {"ials": outcome("iALS", 0.29, 0.31), "default": outcome("default", 0.2)}, {"ease": "why"}
    )
    shown = sheet(found)
    column = shown.columns.index("NDCG@20")
    assert shown.rows[0][column].endswith("±.0141")
    assert shown.rows[0][shown.columns.index("NDCG@20 less default")].startswith("+.1000")
    assert shown.rows[1][shown.columns.index("NDCG@20 less default")] == ""
    assert "ease is left out: why" in shown.notes
    kept = as_json(found)["contestants"]["ials"]
    assert kept["less_default"]["ndcg@20"]["low"] > 0
    assert kept["metrics"]["ndcg@20"]["values"] == pytest.approx([0.29, 0.31], abs=0.002)


def test_groups_that_a_data_set_does_not_have_are_no_columns() -> None:
    lacking = Outcome("x", [{"recall@20": np.ones(3), "ndcg@20": np.ones(3)}], [{"fit_seconds": 1, "peak_bytes": 1}])
    assert Table("tmall", "", False, {"x": lacking}).metrics == ("recall@20", "ndcg@20")
