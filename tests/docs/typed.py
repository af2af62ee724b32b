"""Follow pages as a reader types them: every command in order, every file that a page says to write.

python3 -m tests.docs.typed FOLDER PAGE...    # `mind` is whatever the PATH finds; prints each command and its seconds
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"Write `([\w-]+\.yaml)`")


def typed(page: Path) -> Iterator[tuple[str, str]]:
    """Yield (command, "") and (text, file's name) as a reader meets them."""
    text = page.read_text()
    for block in BLOCK.finditer(text):
        if block[1] == "bash":
            yield from ((line, "") for line in block[2].splitlines())
        elif names := FILE.findall(text[: block.start()]):
            yield block[2], names[-1]


def follow(page: Path, folder: Path) -> int:
    """Type a page in a folder; return the exit code of the first command that failed, 0 if none did."""
    for text, name in typed(page):
        if name:
            (folder / name).write_text(text)
            continue
        began = time.monotonic()
        code = subprocess.run(text, shell=True, cwd=folder, executable="/bin/bash").returncode
        print(f"== {page.name}: {time.monotonic() - began:.0f} s, exit code {code}: {text}", flush=True)
        if code:
            return code
    return 0


def main(folder: str, *pages: str) -> int:
    """Type the pages one after the other in the same folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return next((code for page in pages if (code := follow(Path(page), Path(folder)))), 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
