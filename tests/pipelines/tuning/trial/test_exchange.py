"""Between Ray Tune's actor and the workers of its trial, on a plain event loop."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.tuning.trial.training import Result
from pipelines.tuning.trial.worker_group import Exchange

STUCK_S = 60  # a mistake shows as a test that fails, not as one that hangs
FIRST, SECOND = ({"epoch": epoch, "done": False} for epoch in (1, 2))
LAST = {"epoch": 3, "done": True}


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **named), STUCK_S))

    return run


async def later(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """A call that goes as far as it can now."""
    task = asyncio.ensure_future(call)
    for _ in range(20):
        await asyncio.sleep(0)
    assert isinstance(task, asyncio.Task)
    return task


@on_a_loop
async def test_a_worker_waits_at_a_report_until_tune_asks_for_the_next() -> None:
    exchange = Exchange()
    asked = await later(exchange.next())
    assert not asked.done()
    decided = await later(exchange.report(FIRST))
    assert await asked == FIRST
    assert not decided.done()
    asked = await later(exchange.next())
    assert await decided is True
    assert not asked.done()


@on_a_loop
async def test_stop_ends_a_worker_that_waits_and_one_that_comes_later() -> None:
    exchange = Exchange()
    decided = await later(exchange.report(FIRST))
    await exchange.stop()
    assert await decided is False
    assert await exchange.report(SECOND) is False


@on_a_loop
async def test_there_is_nothing_to_decide_on_the_last_result() -> None:
    exchange = Exchange()
    assert await exchange.report(LAST) is False
    assert await exchange.next() == LAST


@on_a_loop
async def test_workers_that_are_started_anew_report_again_and_go_on() -> None:
    exchange = Exchange()
    await later(exchange.report(FIRST))  # and the workers die
    assert await exchange.next() == FIRST
    asked = await later(exchange.next())
    decided = await later(exchange.report(FIRST))
    assert await asked == FIRST
    asked = await later(exchange.next())
    assert await decided is True
    await later(exchange.report(SECOND))
    assert await asked == SECOND


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 8), stop=st.none() | st.integers(1, 8))
def test_whatever_dies_tune_sees_every_result_up_to_its_decision_and_no_worker_trains_beyond(
    seed: int, length: int, stop: int | None
) -> None:
    chance, exchange = random.Random(seed), Exchange()
    trained, seen = 0, 0

    async def workers() -> None:
        nonlocal trained
        done = 0  # of the checkpoint
        while True:
            if done:
                result: Result = {"epoch": done, "done": done == length}
                reporting = await later(exchange.report(result))
                if chance.random() < 0.3 and not reporting.done():  # killed while they wait: started anew
                    continue
                if not await reporting:
                    return
            done += 1
            trained = max(trained, done)

    async def tune() -> None:
        nonlocal seen
        while True:
            result = await exchange.next()
            assert result["epoch"] in (seen, seen + 1), "none is left out"
            seen = result["epoch"]
            if result["done"]:
                return
            if seen == stop:
                await exchange.stop()
                return

    async def both() -> None:
        await asyncio.gather(workers(), tune())

    asyncio.run(asyncio.wait_for(both(), STUCK_S))
    assert seen == trained == min(length, stop or length)
