"""One user and many against catalogues of growing size, beside FAISS flat. Part of benchmarks/retrieve.py

python -m benchmarks.retrieve_sizes ITEMS USERS ROUNDS FAISS    one size, in a process of its own: JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import REPOSITORY, Options, ratio, say, spread
from benchmarks.report import Finding, Sheet, Target
from mind_core.search import Catalogue, search

DIM, INTERESTS, TOP = 64, 4, 100
SIZES = (200_000, 1_000_000, 10_000_000)
LARGEST_OF_FAISS = 1_000_000  # beyond it FAISS's copy of the vectors takes memory that a machine may not have
ALONE = 30  # users asked for one at a time


def run(options: Options) -> Finding:
    """Each size in turn, in a fresh process, so that its peak of memory is its own."""
    sizes = (20_000, 200_000) if options.quick else SIZES
    found = {}
    for items in sizes:
        say(f"  {items:,} items")
        users = 32 if items > LARGEST_OF_FAISS else 256
        words = [str(items), str(users), str(options.rounds), str(int(items <= LARGEST_OF_FAISS))]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.retrieve_sizes", *words],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[items] = json.loads(done.stdout.splitlines()[-1])
    rows, targets = [], []
    for items, each in found.items():
        ours, theirs = spread(each["ours"]), spread(each["faiss"]) if each["faiss"] else None
        times = None if theirs is None else ratio(ours, theirs)
        if times is not None:
            targets.append(Target(f"users/s of FAISS flat, {items:,} items", times.median, 0.8))
        rows.append(
            [
                f"{items:,}",
                spread(each["alone_ms"]).text(",.1f"),
                f"{each['alone_extra_mb']:,.0f}",
                f"{each['batch_extra_mb']:,.0f}",
                f"{each['vectors_mb']:,.0f}",
                ours.text(),
                "-" if theirs is None else theirs.text(),
                "-" if times is None else times.text(".2f"),
            ]
        )
    columns = ["items", "one user, ms", "its MB", "a batch's MB", "vectors, MB", "users/s", "FAISS flat", "ratio"]
    notes = [
        f"random vectors of {DIM}, {INTERESTS} interests a user, top {TOP}; {torch.get_num_threads()} threads each",
        "users/s: of a batch, merged over interests; FAISS flat: its search alone, of all interests, without a merge",
        "MB: what the peak of memory rose by, beyond the vectors",
    ]
    return Finding({str(k): v for k, v in found.items()}, [Sheet("Sizes", columns, rows, notes)], targets)


def one_size(items: int, users: int, rounds: int, with_faiss: bool) -> dict[str, Any]:
    """Measure one size in this process."""
    catalogue, interests = Catalogue(unit_vectors(items, 0)), unit_vectors(users * INTERESTS, 1)
    interests, own = interests.view(users, INTERESTS, DIM), torch.ones(users, INTERESTS, dtype=torch.bool)
    catalogue.longest  # noqa: B018  computed once for a catalogue
    search(Catalogue(catalogue.vectors[:1000]), interests[:1], own[:1], TOP)  # what torch allocates once
    before = peak_bytes()
    alone = [
        _seconds(lambda u=u: search(catalogue, interests[u : u + 1], own[:1], TOP)) for u in range(min(ALONE, users))
    ]  # type: ignore[misc]
    after_one = peak_bytes()
    search(catalogue, interests, own, TOP)
    after_batch = peak_bytes()
    contenders: dict[str, Callable[[], object]] = {"ours": lambda: search(catalogue, interests, own, TOP)}
    if with_faiss:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        index, flat = faiss.IndexFlatIP(DIM), interests.flatten(0, 1).numpy()
        index.add(catalogue.vectors.numpy())
        contenders["faiss"] = lambda: index.search(flat, TOP)
    speeds: dict[str, list[float]] = {"ours": [], "faiss": []}
    for _ in range(rounds):
        for name, call in contenders.items():
            speeds[name].append(users / _seconds(call))
    return {
        "alone_ms": [1000 * each for each in sorted(alone)[len(alone) // 4 : 1 + 3 * len(alone) // 4]],
        "alone_extra_mb": (after_one - before) / 1e6,
        "batch_extra_mb": (after_batch - before) / 1e6,
        "vectors_mb": 4 * items * DIM / 1e6,
        **speeds,
    }


def unit_vectors(count: int, seed: int) -> Tensor:
    """(count, DIM) of norm 1, uniform over directions; made block by block in place."""
    g = torch.Generator().manual_seed(seed)
    vectors = torch.empty(count, DIM)
    for block in vectors.split(2**17):
        block.normal_(generator=g)
        block /= block.norm(dim=1, keepdim=True)
    return vectors


def peak_bytes() -> int:
    """The most memory that this process has held so far. Linux only."""
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    size, batch, times, beside = map(int, sys.argv[1:])
    print(json.dumps(one_size(size, batch, times, bool(beside))))
