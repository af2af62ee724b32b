"""The page of a campaign: complete by itself, the conclusion first, everything escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from pipelines.tuning.config import Campaign
from pipelines.tuning.ledger import TrialRecord
from pipelines.tuning.report.conclusion import conclusion
from pipelines.tuning.report.figures import campaign_figures
from pipelines.tuning.report.html import Table, campaign_html
from tests.pipelines.tuning.ledgers import METRIC, RANDOM, campaign, grid_ledger, random_ledger, trial

VOID = {"meta", "img", "br"}
EVIL = "<script>alert('&')</script>"


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in order; gathers the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(records: Sequence[TrialRecord], metric: str, of: Campaign, **after: Any) -> str:
    """With all its figures."""
    return campaign_html(records, metric, of, campaign_figures(records, metric, of), **after)


def read(page: str) -> str:
    """Its text."""
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return " ".join(parser.text)


def test_the_conclusion_comes_first_then_points_and_settings() -> None:
    records = grid_ledger()
    text = read(page_of(records, METRIC, campaign()))
    places = [text.index(said) for said in conclusion(records, METRIC, campaign())]
    assert places == sorted(places)
    assert max(places) < text.index("Points") < text.index("Settings of the campaign") < text.index("grid:")
    assert "After the search" not in text


def test_it_needs_no_other_file() -> None:
    page = page_of(grid_ledger(), METRIC, campaign())
    pictures = re.findall(r'src="([^"]*)"', page)
    assert len(pictures) == 6
    for picture in pictures:
        head, data = picture.split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "http" not in re.sub(r'src="[^"]*"', "", page)


def test_every_point_has_a_line_and_the_winner_and_failures_stand_out() -> None:
    page = page_of(random_ledger(), METRIC, campaign(**RANDOM))
    table = page[page.index("<h2>Points") :]
    assert table.count("<tr") == 61
    assert table.count('<tr class="winner">') == 1
    assert table.count("RuntimeError: CUDA out of memory &lt;tried 2 GiB&gt;") == 3
    assert "not told apart" in table


def test_what_comes_from_outside_is_escaped() -> None:
    records = [trial(1, [0.1], {"loss.kind": EVIL}), trial(2, [], {"loss.kind": EVIL}, status="failed", reason=EVIL)]
    wild = campaign(base=EVIL, space={"loss.kind": {"choice": [EVIL, "b"]}})
    page = page_of(records, METRIC, wild, after=[EVIL], table=Table([EVIL], [[EVIL]]))
    assert read(page).count(EVIL) >= 6
    assert "<script" not in page


def test_what_followed_the_search_is_said() -> None:
    table = Table(["model", METRIC], [["winner", "0.1201"], ["K = 1", "0.1100"]])
    text = read(page_of(grid_ledger(), METRIC, campaign(), after=["Retrained: 0.1201."], table=table))
    assert all(said in text for said in ("After the search", "Retrained: 0.1201.", "K = 1", "0.1100"))


def test_a_campaign_of_failures_alone_has_a_page() -> None:
    text = read(page_of([trial(1, [], status="failed", reason="boom")], METRIC, campaign()))
    assert "No training came to a validation" in text
    assert "boom" in text


def test_plots_turn_dark_with_the_page() -> None:
    page = page_of(grid_ledger(), METRIC, campaign())
    dark = re.findall(r"@media \(prefers-color-scheme: dark\) {(.*)}", page)
    assert any("figure > img { filter: invert(1)" in rule for rule in dark)
