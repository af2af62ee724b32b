"""Text as Markdown: what stands in a table's cell, and where a link leads once pages are put together."""

from __future__ import annotations

import html
import re

MARKUP = re.compile(r"[\\`*_\[\]|]")  # works within HTML too
SPECIAL = re.compile(r"([\\`*_\[\]|])")


def cell(text: str) -> str:
    """Write plain text, with code between single or double backticks, as one line that may stand in a table's cell."""
    pieces = re.split(r"`{1,2}([^`]+)`{1,2}", " ".join(text.split()))
    return "".join(code(piece) if n % 2 else _plain(piece) for n, piece in enumerate(pieces))


def code(text: str) -> str:
    """Write `text` as code; HTML, since a bar within backticks would end a table's cell."""
    escaped = html.escape(text, quote=False)
    return f"<code>{MARKUP.sub(lambda found: f'&#{ord(found[0])};', escaped)}</code>"


def _plain(text: str) -> str:
    return SPECIAL.sub(r"\\\1", html.escape(text, quote=False))
