"""The pages are whole: links lead somewhere, quoted code is the code, the site builds."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from docs.hooks.links import linked, rewritten
from tests.docs.written import ROOT

QUOTED = re.compile(r'^```python title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
LOADED = re.compile(  # what a browser fetches by itself: a link that is clicked is none of it
    r"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc=["']?(?P<tag>(?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?![^>]*\brel=["']?canonical)[^>]*\bhref=["']?(?P<link>(?:https?:)?//[^"'\s>]+)"""
    r"""|(?:url\(|@import\s)["']?(?P<style>(?:https?:)?//[^"')\s]+)"""
)
MARKDOWN = [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md"))]

HAS_MKDOCS = find_spec("mkdocs") is not None and find_spec("mkdocstrings") is not None
mkdocs = pytest.mark.skipif(not HAS_MKDOCS, reason="make docs installs MkDocs")


def fetched(text: str) -> list[str]:
    """List the addresses elsewhere that a page or a style sheet makes a browser fetch."""
    return [match["tag"] or match["link"] or match["style"] for match in LOADED.finditer(text)]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", MARKDOWN, ids=named)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    site_pages = {"reference", "contributing.md", "security.md", "changelog.md"}  # made when the site is built
    lost = [target for target in linked(page.read_text(), page.parent)
            if not target.exists() and not (target.is_relative_to(ROOT / "docs")
            and target.relative_to(ROOT / "docs").parts[0] in site_pages)]  # fmt: skip
    assert not lost


def test_code_that_the_paper_page_quotes_is_the_code() -> None:
    page = (ROOT / "docs/paper.md").read_text()
    quotes = list(QUOTED.finditer(page))
    assert len(quotes) > 8
    lost = []
    for quote in quotes:
        lines = {line.strip() for line in (ROOT / quote[1]).read_text().splitlines()}
        first = page.count("\n", 0, quote.start(2)) + 1
        lost += [f"docs/paper.md:{n}: {quote[1]} has no line {line}"
                 for n, line in enumerate(quote[2].splitlines(), first) if line.strip() not in lines]  # fmt: skip
    assert not lost, "\n" + "\n".join(lost)


def test_start_here_types_what_the_quickstart_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    run = re.findall(
        r"^\t\$\(BIN\)/(mind [^;]*?)(?:; \\)?$", makefile.split("\nquickstart:")[1].split("\n\n")[0], re.MULTILINE
    )
    run = [line.replace("$(CONF)", "conf/complete-journey.yaml") for line in run]
    assert "\n".join(run) in (ROOT / "docs/start.md").read_text()
    for command in ("make quickstart", "make test"):
        assert command in (ROOT / "README.md").read_text()
        assert command in (ROOT / "docs/start.md").read_text()


def test_a_link_out_of_docs_leads_to_the_page_of_that_file() -> None:
    fenced = "```\n[d](../ray_cluster.yaml)\n```\n"
    text = f"See [a](../ray_cluster.yaml), [b](tuning.md#space), [c](../CONTRIBUTING.md).\n{fenced}"
    shown = rewritten(text, ROOT / "docs", "cluster.md")
    assert "[a](source/ray_cluster.yaml.md), [b](tuning.md#space), [c](contributing.md)." in shown
    assert "[d](../ray_cluster.yaml)" in shown
    assert "(../source/conf.md)" in rewritten("[x](../../conf)", ROOT / "docs/tutorials", "tutorials/own-log.md")
    assert "(design.md)" in rewritten("[x](docs/design.md)", ROOT, "contributing.md")


def test_what_a_page_fetches_from_elsewhere_is_found() -> None:
    page = """<script src="https://a/x.js"></script><a href="https://b">b</a><img alt="" src=//c/y.png>
    <link rel="stylesheet" href="https://d/z.css"><link rel="canonical" href="https://e/"><img src="../f.png">
    <style>@import "https://g/h.css"; p { background: url(https://i/j.png) } q { background: url(k.png) }</style>"""
    found = fetched(page)
    assert found == ["https://a/x.js", "//c/y.png", "https://d/z.css", "https://g/h.css", "https://i/j.png"]


def test_a_machine_without_mkdocs_can_collect_these_tests() -> None:
    """`make test` on a fresh machine comes before `make docs`."""
    rooms = [f"tests.docs.{file.stem}" for file in sorted((ROOT / "tests/docs").glob("test_*.py"))]
    lacking = "import sys, importlib; sys.modules |= dict.fromkeys(('griffe', 'mkdocs', 'mkdocstrings'))"
    command = [sys.executable, "-c", f"{lacking}; [importlib.import_module(name) for name in {rooms}]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@mkdocs
def test_a_page_that_the_navigation_does_not_name_is_shown_all_the_same() -> None:
    from docs.hooks.site import unplaced

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert "paper.md" not in unplaced(nav)
    nav = [section for section in nav if "Explanation" not in section]
    assert {"paper.md", "design.md"} <= set(unplaced(nav))


@mkdocs
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    # not --quiet: then warnings do not count
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (
        "index",
        "start/index",
        "reference/settings/index",
        "reference/api/mind_core.routing/index",
        "source/conf/index",
    ):
        assert (tmp_path / f"site/{page}.html").exists(), page
    elsewhere = {
        f"{file.relative_to(tmp_path)}: {address}"
        for file in (tmp_path / "site").rglob("*")
        if file.suffix in (".html", ".css", ".svg")
        for address in fetched(file.read_text())
    }
    assert not elsewhere, "the site must be whole without a network"
    diagrams = [page for page in (tmp_path / "site").rglob("*.html") if 'class="mermaid"' in page.read_text()]
    assert not diagrams, "the theme fetches Mermaid from elsewhere: draw an SVG"
    settings = (tmp_path / "site/reference/settings/index.html").read_text()
    assert settings.count("<table") > 10, "a cell broke its table"
    shutil.rmtree(tmp_path / "site")
