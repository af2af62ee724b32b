"""Amazon reviews, by McAuley's group: JSON lines of 2014, 2018 and 2023."""

from __future__ import annotations

import json
from contextlib import suppress

from pipelines.config.redact import redact
from pipelines.config.yaml_text import in_a_comment, quoted
from pipelines.errors import UserError
from pipelines.log.public_sets.files import LAST, Files, Lines

LOOKED_AT = 100  # lines of JSON whose keys count


def amazon_reviews(files: Files) -> Lines:
    """Write 2014, 2018 (both reviewerID, asin, seconds) and 2023 (user_id, parent_asin, milliseconds)."""
    found = files.all(".json", ".json.gz", ".jsonl", ".jsonl.gz")
    metas = [path for path in found if path.rpartition("/")[2].startswith("meta_")]
    logs = [path for path in found if path not in metas]
    if not logs:
        raise files.none("reviews as JSON lines, such as reviews_Beauty_5.json.gz or All_Beauty.jsonl.gz")
    if len(logs) > 1:
        raise UserError(f"{redact(files.folder)}: several files of reviews ({', '.join(logs)}); give the folder of one")
    keys = _keys(files, logs[0])
    if {"user_id", "parent_asin", "timestamp"} <= set(keys):
        user, item, time, unit = "user_id", "parent_asin", "timestamp", "ms"
    elif {"reviewerID", "asin", "unixReviewTime"} <= set(keys):
        user, item, time, unit = "reviewerID", "asin", "unixReviewTime", "s"
    else:
        raise UserError(f"{logs[0]}: no reviews: must have reviewerID, asin, unixReviewTime (2014, 2018) or user_id, "
                        f"parent_asin, timestamp (2023); the keys are {', '.join(keys[:20])}")  # fmt: skip
    yield from ("data:", "  events:", f"    path: {quoted(logs[0])}", f"    user: {user}", f"    item: {item}")
    yield from (f"    time: {time}", f"    time_unit: {unit}")
    rating = "rating" if "rating" in keys else "overall"
    yield f"    # every review counts; without the bad ones: exclude: [{{column: {rating}, below: 4, reason: low}}]"
    if metas and files.text(metas[0], 2).startswith(b"{'"):
        meta = in_a_comment(metas[0], 1000)
        yield f"  # items: {meta} is left out: its lines are Python's notation, not JSON. To make it JSON:"
        yield "  #   python -c 'import ast, gzip, json, sys"
        yield "  #   for line in gzip.open(sys.argv[1]): print(json.dumps(ast.literal_eval(line.decode())))'"
        yield f"  #   {meta} > meta_items.json"
    elif metas:
        yield from _amazon_items(files, metas[0], item)
    yield "  # most users wrote one review; the papers' 5-core: min_user_events: 5 and min_item_events: 5"
    yield "  min_user_events: 3"
    yield LAST


def _amazon_items(files: Files, path: str, item: str) -> Lines:
    keys = set(_keys(files, path))
    yield from ("  items:", f"    path: {quoted(path)}", f"    id: {item}")
    yield "    duplicates: last # some releases have an item twice"
    kinds = {"categories": "kind: multi, min_count: 5", "category": "kind: multi, min_count: 5",
             "brand": "min_count: 5", "store": "min_count: 5", "main_category": ""}  # fmt: skip
    if features := [f"      {key}: {{{kind}}}" for key, kind in kinds.items() if key in keys]:
        yield from (
            "    features: # price is text in some releases: as a feature {kind: bucket} it must be a number",
            *features,
        )
    if "title" in keys:
        yield "    show: [title]"


def _keys(files: Files, path: str) -> list[str]:
    """List the keys of the first objects of a file of JSON lines."""
    found: dict[str, None] = {}
    for line in files.text(path, 2**18).splitlines()[:LOOKED_AT]:
        with suppress(ValueError):
            value = json.loads(line)
            found |= dict.fromkeys(value if isinstance(value, dict) else ())
    return list(found)
