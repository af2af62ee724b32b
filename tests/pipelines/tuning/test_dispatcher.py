"""The queue between Ray Tune's followers and the workers of Ray Train, on a plain event loop."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.schema import Config
from pipelines.tuning import dispatcher as module
from pipelines.tuning.dispatcher import Dispatcher, Followed, Job, Report

CONFIG = Config.model_validate({"name": "tiny", "data": {"events": {"path": "log.csv"}}})
FIRST, SECOND, THIRD = ({"step": float(step)} for step in (10, 20, 30))
STUCK_S = 60  # a mistake shows as a test that fails, not as one that hangs


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **named), STUCK_S))

    return run


def job(number: int, attempt: int = 1) -> Job:
    return Job(number, CONFIG, f"checkpoints/{number}", attempt=attempt)


async def later(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """A call that goes as far as it can now."""
    task = asyncio.ensure_future(call)
    for _ in range(20):
        await asyncio.sleep(0)
    assert isinstance(task, asyncio.Task)
    return task


async def submitted(*numbers: int, slots: int = 1, max_failures: int = 2) -> Dispatcher:
    dispatcher = Dispatcher(slots, max_failures)
    for number in numbers:
        await dispatcher.submit(job(number))
    return dispatcher


# ---------------------------------------------------------------- handing out


@on_a_loop
async def test_a_trial_is_handed_out_once_in_the_order_of_submission() -> None:
    dispatcher = await submitted(1, 2)
    assert [await dispatcher.take(0), await dispatcher.take(1)] == [job(1), job(2)]
    third = await later(dispatcher.take(2))
    assert not third.done()
    await dispatcher.submit(job(3))
    assert await third == job(3)


@on_a_loop
async def test_a_trial_that_is_submitted_again_is_not_trained_again() -> None:
    dispatcher = await submitted(1, 1)
    assert await dispatcher.take(0) == job(1)
    await dispatcher.submit(job(1))
    assert (await dispatcher.state())["waiting"] == []
    await dispatcher.report(1, 1, [FIRST], last=True)
    await dispatcher.submit(job(1))
    assert (await dispatcher.state()) == {"waiting": [], "running": {}, "lost": []}


@on_a_loop
async def test_a_worker_without_a_trial_is_told_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    dispatcher = await submitted()
    assert await dispatcher.take(0) == "wait"
    await dispatcher.submit(job(1))
    assert await dispatcher.take(0) == job(1)


@on_a_loop
async def test_a_cancelled_trial_that_waits_is_not_handed_out() -> None:
    dispatcher = await submitted(1, 2)
    await dispatcher.cancel(1)
    await dispatcher.cancel(7)  # never heard of
    assert await dispatcher.take(0) == job(2)
    assert await dispatcher.follow(1, 0) == Followed([], last=True, failure="cancelled")


@on_a_loop
async def test_close_sends_home_those_that_wait_and_those_that_ask_later() -> None:
    dispatcher = await submitted()
    waiting = await later(dispatcher.take(0))
    await dispatcher.close()
    assert await waiting is None
    assert await dispatcher.take(1) is None


@on_a_loop
async def test_close_stops_what_nobody_follows_any_more() -> None:
    """An interrupted campaign: the follower has gone, its question for the next report is the last."""
    dispatcher = await submitted(1, 2)
    await dispatcher.take(0)
    follower = await later(dispatcher.follow(1, 0))
    decided = await later(dispatcher.report(1, 1, [FIRST], last=False))
    assert follower.done()
    assert not decided.done()
    await dispatcher.close()
    assert await decided is False
    assert await dispatcher.take(0) is None, "not the trial that waits"


# ---------------------------------------------------------------- reports and decisions


@on_a_loop
async def test_a_worker_waits_at_a_report_until_the_follower_asks_for_the_next() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    followed = await later(dispatcher.follow(1, 0))
    assert not followed.done()
    decided = await later(dispatcher.report(1, 1, [FIRST], last=False))
    assert await followed == Followed([FIRST], last=False)
    assert not decided.done()
    followed = await later(dispatcher.follow(1, 1))
    assert await decided is True
    assert not followed.done()


@on_a_loop
async def test_the_last_report_ends_a_trial_and_its_follower_sees_that() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    decided = await later(dispatcher.report(1, 1, [FIRST], last=False))
    assert await dispatcher.follow(1, 0) == Followed([FIRST], last=False)
    followed = await later(dispatcher.follow(1, 1))
    assert await decided is True
    assert await dispatcher.report(1, 1, [FIRST, SECOND], last=True) is False
    assert await followed == Followed([SECOND], last=True)
    assert await later(dispatcher.take(0))
    assert (await dispatcher.state())["waiting"] == [], "an ended trial is no crashed one"


@on_a_loop
async def test_cancel_stops_a_worker_at_its_report() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    decided = await later(dispatcher.report(1, 1, [FIRST], last=False))
    await dispatcher.cancel(1)
    assert await decided is False
    await later(dispatcher.take(0))
    assert (await dispatcher.state())["waiting"] == []


@on_a_loop
async def test_a_trial_that_is_cancelled_between_its_reports_stops_at_the_next() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    await dispatcher.cancel(1)
    assert await dispatcher.report(1, 1, [FIRST], last=False) is False
    assert await dispatcher.follow(1, 0) == Followed([], last=True, failure="cancelled")


@on_a_loop
async def test_the_follower_hears_of_an_error_after_the_reports_before_it() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    await later(dispatcher.report(1, 1, [FIRST], last=False))
    await dispatcher.failed(1, 1, "ValueError: nan")
    assert await dispatcher.follow(1, 0) == Followed([FIRST], last=False)
    assert await dispatcher.follow(1, 1) == Followed([], last=True, failure="ValueError: nan")


@on_a_loop
async def test_an_error_reaches_a_follower_that_waits_and_stops_the_other_workers() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    followed = await later(dispatcher.follow(1, 0))
    await dispatcher.failed(1, 1, "ValueError: nan")
    assert await followed == Followed([], last=True, failure="ValueError: nan")
    assert await dispatcher.report(1, 1, [FIRST], last=False) is False
    await dispatcher.crashed(0, "the group is restarted")
    assert (await dispatcher.state())["waiting"] == [], "it would raise again"


@on_a_loop
async def test_a_restarted_follower_gets_all_reports_again_and_holds_nobody_up() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    await later(dispatcher.report(1, 1, [FIRST], last=False))
    await dispatcher.follow(1, 0)
    await later(dispatcher.follow(1, 1))
    await later(dispatcher.report(1, 1, [FIRST, SECOND], last=False))
    await later(dispatcher.follow(1, 2))  # and dies
    await dispatcher.submit(job(1))
    assert await dispatcher.follow(1, 0) == Followed([FIRST, SECOND], last=False)
    decided = await later(dispatcher.report(1, 1, [FIRST, SECOND, THIRD], last=False))
    assert not decided.done(), "on the third nobody has decided"
    assert await dispatcher.follow(1, 2) == Followed([THIRD], last=False)
    await later(dispatcher.follow(1, 3))
    assert await decided is True


@on_a_loop
async def test_a_follower_that_begins_again_does_not_take_back_what_was_decided() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    await later(dispatcher.follow(1, 1))  # approves of the first, and dies
    await later(dispatcher.follow(1, 0))
    assert await dispatcher.report(1, 1, [FIRST], last=False) is True


@on_a_loop
async def test_only_the_newest_of_the_reports_from_an_earlier_start_is_still_to_be_decided() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    decided = await later(dispatcher.report(1, 1, [FIRST, SECOND], last=False))
    assert await dispatcher.follow(1, 0) == Followed([FIRST, SECOND], last=False), "the others were, at the time"
    assert not decided.done()
    await later(dispatcher.follow(1, 2))
    assert await decided is True


# ---------------------------------------------------------------- crashes


@on_a_loop
async def test_a_slot_that_asks_again_without_an_end_gets_its_trial_again_before_those_waiting() -> None:
    dispatcher = await submitted(1, 2)
    assert await dispatcher.take(0) == job(1)
    assert await dispatcher.take(0) == job(1, attempt=2)


@on_a_loop
async def test_the_trial_of_a_crashed_slot_is_for_the_next_that_asks() -> None:
    dispatcher = await submitted(1, 2)
    assert await dispatcher.take(0) == job(1)
    await dispatcher.crashed(0, "OutOfMemoryError")
    assert await dispatcher.take(1) == job(1, attempt=2)
    assert await dispatcher.take(0) == job(2)


@on_a_loop
async def test_late_words_of_an_earlier_attempt_count_for_nothing() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    decided = await later(dispatcher.report(1, 1, [FIRST], last=False))
    await dispatcher.crashed(0, "its node was lost")
    assert await decided is False
    assert await dispatcher.report(1, 1, [FIRST, SECOND], last=True) is False
    await dispatcher.failed(1, 1, "ConnectionError")
    assert await dispatcher.take(0) == job(1, attempt=2)
    await later(dispatcher.report(1, 2, [FIRST], last=False))
    assert await dispatcher.follow(1, 0) == Followed([FIRST], last=False)
    assert not (await later(dispatcher.follow(1, 1))).done(), "neither the late report nor the late error is there"


@on_a_loop
async def test_reports_of_the_next_attempt_go_on_where_those_of_the_last_ended() -> None:
    dispatcher = await submitted(1)
    await dispatcher.take(0)
    await later(dispatcher.report(1, 1, [FIRST], last=False))
    await dispatcher.take(0)
    await later(dispatcher.follow(1, 1))
    assert await dispatcher.report(1, 2, [FIRST], last=False) is True, "decided before the crash"
    decided = await later(dispatcher.report(1, 2, [FIRST, SECOND], last=False))
    assert not decided.done()
    assert (await dispatcher.follow(1, 1)).reports == [SECOND]


@pytest.mark.parametrize("survived", [0, 2])
@on_a_loop
async def test_a_trial_fails_at_the_crash_after_those_it_survives(survived: int) -> None:
    dispatcher = await submitted(1, max_failures=survived)
    followed = await later(dispatcher.follow(1, 0))
    for attempt in range(1, survived + 1):
        assert await dispatcher.take(0) == job(1, attempt)
        await dispatcher.crashed(0, "killed")
        assert not followed.done()
    await dispatcher.take(0)
    await dispatcher.crashed(0, "killed once more")
    failure = f"its workers crashed {survived + 1} times, the last time: killed once more"
    assert await followed == Followed([], last=True, failure=failure)
    assert not (await later(dispatcher.take(0))).done()


@on_a_loop
async def test_a_worker_that_died_while_it_waited_gets_no_trial() -> None:
    dispatcher = await submitted(max_failures=0)
    dead = await later(dispatcher.take(0))
    alive = await later(dispatcher.take(0))
    await dispatcher.submit(job(1))
    assert await alive == job(1), "the first attempt, which no crash is counted against"
    assert await dead == "wait"


@on_a_loop
async def test_the_trial_after_a_crash_of_an_idle_worker_goes_to_another_slot() -> None:
    dispatcher = await submitted(max_failures=0)
    dead = await later(dispatcher.take(0))
    await dispatcher.crashed(0, "killed")
    await dispatcher.submit(job(1))
    assert await dead == "wait"
    assert await dispatcher.take(1) == job(1)


@on_a_loop
async def test_followers_hear_that_no_worker_is_left_with_the_last_slot_and_not_before() -> None:
    dispatcher = await submitted(1, 2, slots=2)
    await dispatcher.take(0)
    await later(dispatcher.report(1, 1, [FIRST], last=False))
    followers = [await later(dispatcher.follow(1, 1)), await later(dispatcher.follow(2, 0))]
    await dispatcher.lost("no such dataset")
    assert not any(follower.done() for follower in [await later(follower) for follower in followers])
    await dispatcher.lost("no room")
    for follower in followers:
        assert await follower == Followed([], last=True, failure="no room", lost=True)
    assert await dispatcher.follow(1, 0) == Followed([FIRST], last=False), "what was reported is not lost"


# ---------------------------------------------------------------- many of each, in any order


class Campaign:
    """Followers and worker groups that die, come late and are restarted as `chance` has it.

    plan : of each trial, how many validations it has, and after how many Tune stops it (None: it does not).
    """

    def __init__(self, chance: random.Random, plan: dict[int, tuple[int, int | None]], slots: int) -> None:
        self.chance, self.plan, self.slots = chance, plan, slots
        self.dispatcher = Dispatcher(slots, max_failures=10**6)
        self.checkpoints: dict[int, list[Report]] = {number: [] for number in plan}
        self.ends: list[tuple[int, str, list[Report]]] = []  # trial, how it ended, what its follower was told
        self.zombies: list[asyncio.Task[None]] = []

    async def play(self) -> None:
        workers = [asyncio.create_task(self.worker(slot)) for slot in range(self.slots)]
        numbers = list(self.plan)
        followers = [asyncio.create_task(self.follower(numbers)) for _ in range(self.slots)]
        await asyncio.gather(*followers)
        await self.dispatcher.close()
        await asyncio.gather(*workers, *self.zombies)

    async def pause(self) -> None:
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)

    async def follower(self, numbers: list[int]) -> None:
        """Tune: trial after trial."""
        while numbers:
            number, place = numbers.pop(0), 0
            told: list[Report] = []
            stop = self.plan[number][1]
            await self.dispatcher.submit(job(number))
            while True:
                await self.pause()
                followed = await self.dispatcher.follow(number, place)
                assert followed.reports
                told += followed.reports
                place = len(told)
                if followed.last or place == stop:
                    await self.dispatcher.cancel(number)
                    self.ends.append((number, "finished" if followed.last else "stopped", told))
                    break
                if self.chance.random() < 0.1:  # the follower's process dies
                    await self.dispatcher.submit(job(number))
                    told, place = [], 0

    async def worker(self, slot: int) -> None:
        while (taken := await self.take(slot)) is not None:
            if isinstance(taken, Job) and not await self.train(taken):
                if self.chance.random() < 0.5:  # otherwise the slot's next question tells
                    await self.dispatcher.crashed(slot, "killed")
                    self.zombies.append(asyncio.create_task(self.late(taken)))
                await self.pause()

    async def take(self, slot: int) -> Any:
        asking = asyncio.create_task(self.dispatcher.take(slot))
        if self.chance.random() < 0.2:  # dies while it waits, or on its way with a trial
            await self.pause()
            asking = asyncio.create_task(self.dispatcher.take(slot))
        return await asking

    async def train(self, taken: Job) -> bool:
        """Whether it comes to an end; False: the workers die on the way."""
        length, _ = self.plan[taken.number]
        reports = list(self.checkpoints[taken.number])
        while True:
            if reports:
                if not await self.dispatcher.report(taken.number, taken.attempt, reports, len(reports) == length):
                    return True
                assert len(reports) < length
            await self.pause()
            if self.chance.random() < 0.15:
                return False
            reports = [*reports, {"trial": float(taken.number), "step": float(len(reports))}]
            self.checkpoints[taken.number] = reports
            if self.chance.random() < 0.1:
                return False

    async def late(self, taken: Job) -> None:
        """A word of workers that were given up."""
        await self.pause()
        nonsense = [{"trial": -1.0, "step": -1.0}] * 9
        assert await self.dispatcher.report(taken.number, taken.attempt, nonsense, last=True) is False
        await self.dispatcher.failed(taken.number, taken.attempt, "late")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    plan=st.lists(
        st.integers(1, 5).flatmap(lambda length: st.tuples(st.just(length), st.none() | st.integers(1, length))),
        min_size=1,
        max_size=12,
    ),
    slots=st.integers(1, 4),
)
def test_whatever_dies_every_trial_ends_once_and_every_report_comes_once(
    seed: int, plan: list[tuple[int, int | None]], slots: int
) -> None:
    trials = dict(enumerate(plan, start=1))
    campaign = Campaign(random.Random(seed), trials, slots)
    asyncio.run(asyncio.wait_for(campaign.play(), STUCK_S))
    assert sorted(number for number, _, _ in campaign.ends) == list(trials)
    for number, end, told in campaign.ends:
        length, stop = trials[number]
        expected = min(length, stop or length)
        assert told == [{"trial": float(number), "step": float(step)} for step in range(expected)]
        assert end == ("finished" if expected == length else "stopped")
        assert len(campaign.checkpoints[number]) == expected, "no trial trains beyond its end"
