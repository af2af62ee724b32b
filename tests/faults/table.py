"""docs/reliability.md, written from the cases that were run: ``python -m tests.faults.table build/faults``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.stages import BY_NAME

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- written by tests/faults/table.py -->", "<!-- end of what it wrote -->"
HEAD = (
    "| stage | what was broken | when | how the command ended | repeated, s | undisturbed, s | differs | left over |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def table(rows: list[dict[str, Any]]) -> str:
    """Make the table of outcomes, in the order of stages."""
    lines = []
    for row in rows:
        repeated = "went on by itself" if row["repeated_s"] is None else f"{row['repeated_s']:.0f}"
        cells = [
            row["stage"],
            row["fault"],
            row["when"],
            row["ended"],
            repeated,
            "" if row["undisturbed_s"] is None else f"{row['undisturbed_s']:.0f}",
            ", ".join(row["differs"]) or "0",
            ", ".join(row["left"]) or "none",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


def write(folder: Path) -> int:
    """Put the table of the cases recorded in `folder` into the page; how many there are."""
    rows = [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))]
    order = list(BY_NAME)
    rows.sort(key=lambda row: (order.index(row["stage"]), row["fault"], row["when"]))
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    text = f"{len(rows)} cases, {when}.\n\n{table(rows)}"
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{after}", "utf-8")
    return len(rows)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])), "cases")
