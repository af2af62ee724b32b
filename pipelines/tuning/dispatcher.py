"""The actor between Ray Tune, which decides, and the worker groups of Ray Train, which train: a queue with replies.

    Tune's trial (follower.py)            Dispatcher                 worker group (worker.py)
    submit(job) ───────────────────────▶  waiting  ───────────────▶  take(slot)
    follow(number, place) ◀──────────────  reports  ◀──────────────  report(number, attempt, reports)
    follow(number, place + 1): go on ───▶           ───────────────▶  True
    cancel(number): stop ───────────────▶           ───────────────▶  False

A worker waits at each validation until Tune has decided on it: no trial trains beyond its end, and what Tune, the
ledger and MLflow have of a trial is the same. Whatever dies, a trial is handed out again with its next attempt; a
late word of an earlier attempt is answered with "stop".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipelines.config.schema import Config
from pipelines.tuning.ledger import Report

PATIENCE_S = 60  # of a worker for its next trial: its peers wait in a collective, which gives up after half an hour


@dataclass(frozen=True, repr=False)
class Job:
    """A trial to train.

    checkpoint : its folder.  start : names this start of the campaign.  attempt : of this start, from 1.
    """

    number: int
    config: Config
    checkpoint: str
    start: str = ""
    attempt: int = 1

    def __repr__(self) -> str:  # which Tune writes into its files
        return f"Job(number={self.number}, attempt={self.attempt})"


@dataclass(frozen=True)
class Followed:
    """What a follower is told: all reports that it does not have, or the end without one.

    reports : several where a trial goes on from its checkpoint; all but the newest were decided in an earlier start.
    last : the trial is over with the newest.  failure : why there is no further report.
    lost : for want of workers, which is not the trial's fault.
    """

    reports: list[Report]
    last: bool
    failure: str | None = None
    lost: bool = False


@dataclass
class _Trial:
    job: Job
    slot: int | None = None
    reports: list[Report] = field(default_factory=list)
    asked: int = -1  # the highest place that a follower has asked for: reports before it are decided
    ended: bool = False
    cancelled: bool = False
    failure: str | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.cancelled or self.failure is not None


class Dispatcher:
    """State of the running campaign; an asyncio actor, so that every method runs alone between its waits.

    Parameters
    ----------
    slots : worker groups that will ask for work.
    max_failures : crashes of its workers that a trial survives.
    """

    def __init__(self, slots: int, max_failures: int) -> None:
        self._slots, self._max_failures = slots, max_failures
        self._trials: dict[int, _Trial] = {}
        self._waiting: list[int] = []
        self._lost: list[str] = []
        self._closed = False
        self._idle_crashes: Counter[int] = Counter()
        self._groups: Counter[int] = Counter()  # of a slot: how often it was released
        self._changed = asyncio.Condition()

    # of Tune's side

    async def submit(self, job: Job) -> None:
        """Queue a trial, unless it is known (its follower was restarted)."""
        async with self._changed:
            if job.number not in self._trials:
                self._trials[job.number] = _Trial(job)
                self._waiting.append(job.number)
                self._changed.notify_all()

    async def follow(self, number: int, place: int) -> Followed:
        """Wait for the reports of a trial from `place` (from 0) on; asking for them approves of all before."""
        trial = self._trials[number]
        async with self._changed:
            trial.asked = max(trial.asked, place)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: len(trial.reports) > place or trial.over or self._all_lost())
            if len(trial.reports) > place:
                return Followed(trial.reports[place:], last=trial.ended)
            if trial.over:
                return Followed([], last=True, failure=trial.failure or "cancelled")
            return Followed([], last=True, failure=self._lost[-1], lost=True)

    async def cancel(self, number: int) -> None:
        """Tune wants no more of this trial."""
        async with self._changed:
            if (trial := self._trials.get(number)) is not None and not trial.over:
                trial.cancelled = True
                self._waiting = [other for other in self._waiting if other != number]
                self._changed.notify_all()

    async def close(self) -> None:
        """Nobody follows any more: workers that ask for a trial, or at a validation whether to go on, are sent home."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def started(self) -> set[int]:
        """The slots whose workers have ever asked for a trial."""
        return set(self._groups)

    # of the workers' side

    async def take(self, slot: int) -> Job | Literal["wait"] | None:
        """A trial to train; None: go home; wait: ask again. A slot that asks before its trial's end has crashed."""
        async with self._changed:
            self._release(slot, "its worker group was restarted")
            group = self._groups[slot]
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self._waiting or self._closed), PATIENCE_S)
            if self._closed:
                return None
            if not self._waiting or self._groups[slot] != group:  # a worker that died while it waited gets no trial
                return "wait"
            trial = self._trials[self._waiting.pop(0)]
            trial.slot = slot
            self._idle_crashes[slot] = 0
            return trial.job

    async def report(self, number: int, attempt: int, reports: list[Report], last: bool) -> bool:
        """All reports of a trial so far; waits for Tune's decision on the newest and says whether to go on."""
        trial = self._trials[number]
        async with self._changed:
            if trial.over or trial.job.attempt != attempt:
                return False
            trial.reports += reports[len(trial.reports) :]
            trial.ended = last
            self._changed.notify_all()

            def stop() -> bool:
                return trial.over or trial.job.attempt != attempt or self._closed

            await self._changed.wait_for(lambda: stop() or trial.asked >= len(trial.reports))
            return not stop()

    async def failed(self, number: int, attempt: int, reason: str) -> None:
        """The training raised: another attempt would raise again."""
        async with self._changed:
            trial = self._trials[number]
            if trial.job.attempt == attempt and not trial.over:
                trial.failure = reason
                self._changed.notify_all()

    async def crashed(self, slot: int, reason: str) -> int:
        """Workers of a slot died: its trial is for the next slot that asks.

        Returns how often they did since the slot last took a trial.
        """
        async with self._changed:
            self._release(slot, reason)
            self._idle_crashes[slot] += 1
            return self._idle_crashes[slot]

    async def lost(self, reason: str) -> None:
        """A slot has ended for good; with the last one, all trials have."""
        async with self._changed:
            self._lost.append(reason)
            self._changed.notify_all()

    def _all_lost(self) -> bool:
        return len(self._lost) >= self._slots

    def _release(self, slot: int, reason: str) -> None:
        self._groups[slot] += 1
        for trial in self._trials.values():
            if trial.slot != slot:
                continue
            trial.slot = None
            if not trial.over:
                if trial.job.attempt > self._max_failures:
                    trial.failure = f"its workers crashed {trial.job.attempt} times, the last time: {reason}"
                else:
                    self._waiting.insert(0, trial.job.number)
                trial.job = replace(trial.job, attempt=trial.job.attempt + 1)
                self._changed.notify_all()

    async def state(self) -> dict[str, Any]:
        """For tests and curiosity: trials by what they do."""
        running = {n: t.slot for n, t in self._trials.items() if t.slot is not None and not t.over}
        return {"waiting": list(self._waiting), "running": running, "lost": list(self._lost)}
