"""What an index finds of the exact lists, and how fast, at several settings: measured when it is built.

    some users' interests -> exact lists (mind_core.search) -> the index's, merged over interests, per setting

The user's own items are left out of it: their memory is scored beside any index, exactly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

from mind_core.hits import TopList
from mind_core.search import Catalogue, search
from mind_core.special_rows import FIRST_ITEM
from pipelines.progress import output
from pipelines.retrieval.index import IndexKind, ItemIndex
from pipelines.words import counted

SAMPLED_USERS = 1000
SECONDS = 2.0  # that a figure is measured for, at most, once it has been measured
ALONE = 100  # users that are asked for one at a time

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """One setting.

    setting : value of ef or nprobe; None: there is none.
    recall : share of the exact lists' items that the index's lists hold, mean over users.
    users_per_second : all sampled users in one call, K' interests each, merged.
    milliseconds : of one user asked for alone, the median.
    """

    setting: int | None
    recall: float
    users_per_second: float
    milliseconds: float


@dataclass(frozen=True)
class IndexReport:
    """report.json: `exact` is mind_core's search of all items on the same machine, threads and users."""

    kind: IndexKind
    knob: str | None
    score: str
    items: int
    dim: int
    users: int
    interests: int
    n: int
    threads: int
    build_seconds: float
    bytes: int
    exact: Measured
    measured: list[Measured]

    def write(self, folder: Path) -> None:
        """Write report.json and report.png."""
        self.figure().savefig(folder / "report.png", dpi=110)
        (folder / "report.json").write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    def show(self) -> None:
        """Print the table."""
        name = self.knob or "setting"
        output.print(
            f"Index {self.kind}: {self.items:,} items of {self.dim}, built in {self.build_seconds:.1f} s, "
            f"{self.bytes / 1e6:,.1f} MB; {counted(self.users, 'user')}, {counted(self.threads, 'thread')}",
            soft_wrap=True,
        )
        table = Table(name, f"recall@{self.n}", "users/s", "one user, ms", "times exact")
        for each in (self.exact, *self.measured):
            told = "exact" if each is self.exact else "-" if each.setting is None else str(each.setting)
            times = each.users_per_second / self.exact.users_per_second
            table.add_row(
                told, f"{each.recall:.4f}", f"{each.users_per_second:,.0f}", f"{each.milliseconds:.2f}", f"{times:.1f}"
            )
        output.print(table)

    def figure(self) -> Figure:
        """Plot recall over users/s, a point for each setting."""
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        speeds, recalls = zip(*((each.users_per_second, each.recall) for each in self.measured), strict=True)
        axes.plot(speeds, recalls, "o-", label=self.kind)
        for each in self.measured:
            if each.setting is not None:
                axes.annotate(f"{self.knob} {each.setting}", (each.users_per_second, each.recall), fontsize=8,
                              xytext=(4, 4), textcoords="offset points")  # fmt: skip
        axes.plot([self.exact.users_per_second], [1.0], "k*", markersize=11, label="exact search")
        axes.set_xscale("log")
        axes.set_xlabel(f"users a second, in one call, merged over interests ({self.threads} threads)")
        axes.set_ylabel(f"recall@{self.n} against exact search")
        axes.set_title(f"{self.items:,} items, index {self.kind}", loc="left")
        axes.grid(alpha=0.3)
        axes.legend()
        return figure


def measure_index(
    index: ItemIndex, build_seconds: float, size: int, vectors: Tensor, queries: Sequence[Tensor], n: int, score: str
) -> IndexReport:
    """Measure an index at each of its settings.

    Parameters
    ----------
    build_seconds, size : what it took to build, and its bytes on disk.
    vectors : (V, d), padding and unknown first.
    queries : of each user, (K', d) own interests.
    n : places of a list, fewer if there are fewer items.
    """
    n = min(n, len(vectors) - FIRST_ITEM)
    own = torch.arange(max(map(len, queries))) < torch.tensor([len(each) for each in queries]).unsqueeze(1)
    interests = torch.zeros(*own.shape, vectors.shape[1])
    interests[own] = torch.cat(list(queries))
    catalogue = Catalogue(vectors)
    exact = search(catalogue, interests, own, n)

    def measured(setting: int | None, ask: Callable[[Tensor, Tensor], TopList]) -> Measured:
        found = ask(interests, own)
        together = min(_repeated(lambda: ask(interests, own)))
        ones = [slice(user, user + 1) for user in range(min(ALONE, len(own)))]
        alone = sorted(timed(partial(ask, interests[one], own[one]))[1] for one in ones)
        return Measured(setting, recall(exact, found), len(own) / together, 1000 * alone[len(alone) // 2])

    return IndexReport(
        kind=index.kind,
        knob=index.knob,
        score=score,
        items=len(vectors) - FIRST_ITEM,
        dim=vectors.shape[1],
        users=len(own),
        interests=int(own.sum()),
        n=n,
        threads=torch.get_num_threads(),
        build_seconds=build_seconds,
        bytes=size,
        exact=measured(None, partial(search, catalogue, n=n)),
        measured=[measured(setting, partial(index.top, n=n, setting=setting)) for setting in index.settings(n)],
    )


def recall(exact: TopList, found: TopList) -> float:
    """Compute the share of the exact items that are found, mean over users."""
    both = ((exact.items.unsqueeze(2) == found.items.unsqueeze(1)) & (exact.items > 0).unsqueeze(2)).any(2)
    return float((both.sum(1) / (exact.items > 0).sum(1).clamp(min=1)).mean())


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Call, and say how many seconds it took."""
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def _repeated(call: Callable[[], object]) -> list[float]:
    """Seconds of a call, up to three times but no longer than SECONDS in all."""
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < SECONDS:
        seconds.append(timed(call)[1])
    return seconds
