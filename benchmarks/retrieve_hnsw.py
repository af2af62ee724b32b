"""What an HNSW index finds of the exact lists of a million generated items, and how much faster. Part of
benchmarks/retrieve.py

Vectors like those of a trained model, which lie in groups of unequal size and not in all directions alike: an item is a
centre (of 5,000, drawn in a subspace of 24 of the 64 dimensions, the r-th as popular as 1 / r^0.7) and noise in all
dimensions, of 0.6 times the centre's length. A user's interest is an item's vector with noise of 0.5 times its length.
All have norm 1.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import Options, say
from benchmarks.report import Finding, Sheet, Target
from pipelines.retrieval.index import build_index
from pipelines.retrieval.index_report import measure_index, timed

DIM, WIDTH, INTERESTS, TOP = 64, 24, 4, 100
ITEMS, USERS, CENTRES = 1_000_000, 500, 5_000
ITEM_NOISE, USER_NOISE = 0.6, 0.5
RECALL, TIMES = 0.95, 10.0


def run(options: Options) -> Finding:
    """Build the index, and measure every setting beside the exact search."""
    items = 30_000 if options.quick else ITEMS
    vectors, users = generated(items, USERS)
    say(f"  building an index of {items:,} items")
    index, seconds = timed(lambda: build_index("hnsw", vectors[2:]))
    report = measure_index(index, seconds, 0, vectors, list(users), TOP, "cosine")
    speeds = [report.exact, *report.measured]
    rows = [
        [
            str(each.setting or "exact"),
            f"{each.recall:.4f}",
            f"{each.users_per_second:,.0f}",
            f"{each.milliseconds:.2f}",
            f"{each.users_per_second / report.exact.users_per_second:.1f}",
        ]
        for each in speeds
    ]
    enough = [each for each in report.measured if each.recall >= RECALL]
    fastest = max((each.users_per_second for each in enough), default=0.0)
    columns = ["ef", f"recall@{TOP}", "users/s", "one user, ms", "times exact"]
    notes = [
        f"{items:,} items in {CENTRES:,} groups, {USERS} users of {INTERESTS} interests; built in {seconds:,.0f} s",
        f"{report.threads} threads",
        "exact: mind_core.search of the same users; both merged over interests",
    ]
    targets = [
        Target(f"HNSW, best recall@{TOP}", max(each.recall for each in report.measured), RECALL),
        Target(f"HNSW, users/s over exact at recall@{TOP} >= {RECALL}", fastest / report.exact.users_per_second, TIMES),
    ]
    return Finding({"report": asdict(report)}, [Sheet("HNSW", columns, rows, notes)], targets)


def generated(items: int, users: int) -> tuple[Tensor, Tensor]:
    """Item vectors (2 + items, DIM), the first two zero, and interests (users, INTERESTS, DIM)."""
    g = torch.Generator().manual_seed(0)
    centres = functional.normalize(
        torch.randn(CENTRES, WIDTH, generator=g) @ torch.randn(WIDTH, DIM, generator=g), dim=1
    )
    weights = torch.arange(1, CENTRES + 1).double() ** -0.7
    vectors = torch.zeros(2 + items, DIM)
    for block in vectors[2:].split(2**17):
        group = torch.multinomial(weights, len(block), replacement=True, generator=g)
        block.copy_(_noisy(centres[group], ITEM_NOISE, g))
    near = 2 + torch.randint(items, (users * INTERESTS,), generator=g)
    return vectors, _noisy(vectors[near], USER_NOISE, g).view(users, INTERESTS, DIM)


def _noisy(vectors: Tensor, noise: float, g: torch.Generator) -> Tensor:
    return functional.normalize(vectors + noise * torch.randn(vectors.shape, generator=g) / DIM**0.5, dim=1)
