"""Links that leave docs/: a file of the repository that a page links to becomes a page of the site, with its text.

So the site needs no address of a repository, and a link to a file that is gone fails the strict build.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}  # of the root
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")  # no scheme, so a path
FENCE = re.compile(r"\s*(```|~~~)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".toml": "toml", ".md": "markdown"}


def page_of(target: Path) -> str | None:
    """Say which page of the site shows a file or folder of the repository; None where there is none."""
    if target.is_relative_to(DOCS):
        return (target / "index.md" if target.is_dir() else target).relative_to(DOCS).as_posix()
    if not target.exists() or not target.is_relative_to(ROOT):
        return None
    place = target.relative_to(ROOT).as_posix()
    return PAGES.get(place, f"source/{place}.md")


def linked(text: str, folder: Path) -> Iterator[Path]:
    """List the files and folders that a text, which lies in `folder`, links to."""
    for line in _prose(text.splitlines()):
        yield from (Path(os.path.normpath(folder / found[2])) for found in LINK.finditer(line))


def rewritten(text: str, folder: Path, page: str) -> str:
    """Let the links of a text, written to be read in `folder`, lead from the site's `page`."""

    def there(found: re.Match[str]) -> str:
        target = page_of(Path(os.path.normpath(folder / found[2])))
        way = found[2] if target is None else os.path.relpath(target, PurePosixPath(page).parent)
        return f"{found[1]}{way}{found[3]}"

    lines, prose = text.splitlines(), set(_numbers(text.splitlines()))
    return "\n".join(LINK.sub(there, line) if n in prose else line for n, line in enumerate(lines)) + "\n"


def source_page(target: Path) -> str:
    """Write the page of a file, with its text, or of a folder, with links to its files."""
    place = target.relative_to(ROOT).as_posix()
    if target.is_dir():
        files = sorted(each.name for each in target.iterdir() if each.is_file() and not each.name.startswith("."))
        return "\n".join([f"# {place}/", "", *(f"- [{name}]({target.name}/{name}.md)" for name in files), ""])
    if target.suffix == ".ipynb":
        return _notebook(target)
    fence = "~" * 12
    return f"# {place}\n\n{fence} {{ .{LANGUAGES.get(target.suffix, 'text')} }}\n{target.read_text()}\n{fence}\n"


def _notebook(target: Path) -> str:
    """Write a notebook as a page: its texts, and its code in fences."""
    about, parts = f"The notebook `{target.parent.name}/{target.name}`, without its outputs.", []
    for cell in json.loads(target.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join([parts[0], about, *parts[1:]]) + "\n"


def with_files(targets: set[Path]) -> set[Path]:
    """Add the files of the folders among them."""
    inner = {each for folder in targets if folder.is_dir() for each in folder.iterdir()
             if each.is_file() and not each.name.startswith(".")}  # fmt: skip
    return targets | inner


def _prose(lines: list[str]) -> Iterator[str]:
    yield from (lines[n] for n in _numbers(lines))


def _numbers(lines: list[str]) -> Iterator[int]:
    """List the numbers of the lines outside of fences."""
    inside = False
    for n, line in enumerate(lines):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            yield n
