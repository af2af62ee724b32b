"""What MkDocs calls while it builds the site: generated pages come in, links to the repository's files are bent."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

sys.path.insert(0, str(Path(__file__).parents[2]))  # MkDocs looks for modules beside this file alone

from docs.hooks.api import api_pages
from docs.hooks.commands import commands_page
from docs.hooks.json_results import json_page
from docs.hooks.licences import licences_page
from docs.hooks.links import DOCS, PAGES, ROOT, linked, page_of, rewritten, source_page, with_files
from docs.hooks.settings import campaign_page, settings_page

NAMED_FENCE = re.compile(r"^(```\w+) [\w-]+$", re.MULTILINE)  # as for a test: GitHub takes the word, MkDocs does not
NEW_PAGES = "How-to"  # the section that a page stands in until mkdocs.yml gives it a better place


def generated() -> dict[str, str]:
    """Write every page that has no file of its own in docs/, apart from those of linked files."""
    return {
        "reference/settings.md": settings_page(),
        "reference/campaign.md": campaign_page(),
        "reference/commands.md": commands_page(),
        "reference/json.md": json_page(),
        "reference/licences.md": licences_page(),
        **api_pages(),
        **{page: (ROOT / name).read_text() for name, page in PAGES.items()},
    }


def on_config(config: Any) -> Any:
    """Put what stands below an index into the navigation: the modules of the API, the decisions."""
    below = {
        "reference/api/index.md": sorted(page for page in api_pages() if not page.endswith("index.md")),
        "decisions/index.md": sorted(f"decisions/{each.name}" for each in (DOCS / "decisions").glob("[0-9]*.md")),
    }
    for section in config.nav:
        for title, pages in section.items():
            more = unplaced(config.nav) if title == NEW_PAGES else []
            pages[:] = [_with_pages(entry, below) for entry in [*pages, *more]]
    return config


def unplaced(nav: list[dict[str, list[Any]]]) -> list[str]:
    """List the pages of docs/ itself that mkdocs.yml does not name: they are shown all the same."""
    entries = [entry for section in nav for pages in section.values() for entry in pages]
    named = {page for entry in entries for page in (entry.values() if isinstance(entry, dict) else [entry])}
    return sorted({each.name for each in DOCS.glob("*.md")} - named)


def _with_pages(entry: Any, below: dict[str, list[str]]) -> Any:
    """Turn ``{title: index}`` into ``{title: [index, pages]}``."""
    if isinstance(entry, dict):
        return {title: [index, *below[index]] if index in below else index for title, index in entry.items()}
    return entry


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and a page for each file of the repository that a page links to."""
    pages = generated()
    targets: set[Path] = set()
    for file in [each for each in files if each.is_documentation_page()]:
        targets |= set(linked(file.content_string, (DOCS / file.src_uri).parent))
    for name in PAGES:
        targets |= set(linked((ROOT / name).read_text(), ROOT))
    for target in with_files({each for each in targets if each.exists() and not each.is_relative_to(DOCS)}):
        page = page_of(target)
        if page is not None and page not in pages:
            pages[page] = source_page(target)
    for uri, text in pages.items():
        level = InclusionLevel.NOT_IN_NAV if uri.startswith("source/") else InclusionLevel.UNDEFINED
        files.append(File.generated(config, uri, content=text, inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links that leave docs/ lead to the pages that show what they mean."""
    uri = page.file.src_uri
    if uri.startswith(("source/", "reference/")) and page.file.generated_by:
        return markdown
    names = [name for name, place in PAGES.items() if place == uri]
    return rewritten(NAMED_FENCE.sub(r"\1", markdown), ROOT if names else (DOCS / uri).parent, uri)
