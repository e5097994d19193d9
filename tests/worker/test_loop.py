"""Loops go on through faults of the store, and pass on everything else."""

import asyncio

import pytest

from qstash_clone.errors import StorageUnavailable, StoreIncompatible
from tests.support.eventually import eventually
from tests.worker.rig import ManualClock
from worker.health import STALLED_AFTER_MS, Health
from worker.holdings import Slots
from worker.loop import FIRST_BACKOFF_MS, LAST_BACKOFF_MS, Alarm, Backoff, Loop


class ScriptedLoop(Loop[int]):
    """Does in each step what it was told."""

    def __init__(self, clock: ManualClock, health: Health, *script: Exception | int | None) -> None:
        super().__init__("scripted", clock, health)
        self.script = list(script)
        self.steps = 0

    async def step(self) -> int | None:
        self.steps += 1
        action = self.script.pop(0) if self.script else 1
        if isinstance(action, Exception):
            raise action
        return action

    def rest_ms(self, report: int | None) -> float:
        return 10


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def health(clock: ManualClock) -> Health:
    return Health(clock)


async def test_faults_are_survived_for_ever_with_capped_pauses(clock: ManualClock, health: Health) -> None:
    loop = ScriptedLoop(clock, health, *[StorageUnavailable("Redis is away.")] * 50)
    task = asyncio.create_task(loop.run())
    for step in range(1, 51):
        await eventually(lambda step=step: loop.steps == step and clock.sleeping)
        assert not health.storage_answers("scripted")
        clock.advance(LAST_BACKOFF_MS)
    await eventually(lambda: loop.steps == 51 and clock.sleeping)
    assert health.storage_answers("scripted")
    loop.stop()
    await task


async def test_a_ring_does_not_shorten_the_pause_after_a_fault(clock: ManualClock, health: Health) -> None:
    loop = ScriptedLoop(clock, health, *[StorageUnavailable("Redis is away.")] * 3)
    health.on_fault.append(loop.wake)
    task = asyncio.create_task(loop.run())
    await eventually(lambda: clock.sleeping)
    loop.wake()
    await asyncio.sleep(0)
    assert loop.steps == 1
    clock.advance(FIRST_BACKOFF_MS)
    await eventually(lambda: loop.steps == 2)
    loop.stop()
    await task


@pytest.mark.parametrize("error", [RuntimeError("a bug"), StoreIncompatible("The store has version 2.")])
async def test_what_is_no_fault_of_the_store_passes_through(
    clock: ManualClock, health: Health, error: Exception
) -> None:
    loop = ScriptedLoop(clock, health, error)
    with pytest.raises(type(error)):
        await loop.run()


async def test_stopping_ends_a_rest_and_a_pause_at_once(clock: ManualClock, health: Health) -> None:
    for script in ((1,), (StorageUnavailable("Redis is away."),)):
        loop = ScriptedLoop(clock, health, *script)
        task = asyncio.create_task(loop.run())
        await eventually(lambda: clock.sleeping)
        loop.stop()
        await task
        assert loop.steps == 1


async def test_a_step_that_asked_nothing_says_nothing_about_the_store(clock: ManualClock, health: Health) -> None:
    loop = ScriptedLoop(clock, health, StorageUnavailable("Redis is away."), None)
    task = asyncio.create_task(loop.run())
    await eventually(lambda: clock.sleeping)
    clock.advance(FIRST_BACKOFF_MS)
    await eventually(lambda: loop.steps == 2 and clock.sleeping)
    assert not health.storage_answers("scripted")
    loop.stop()
    await task


async def test_a_nap_ends_after_its_time_or_at_a_ring(clock: ManualClock) -> None:
    alarm = Alarm(clock)
    alarm.ring()
    assert await alarm.nap(10)
    nap = asyncio.create_task(alarm.nap(10))
    await eventually(lambda: clock.sleeping)
    clock.advance(10)
    assert not await nap
    nap = asyncio.create_task(alarm.nap(10))
    await eventually(lambda: clock.sleeping)
    alarm.ring()
    alarm.ring()
    assert await nap
    assert not await alarm.nap(0)


def test_pauses_double_up_to_their_cap() -> None:
    backoff = Backoff()
    assert [backoff.next_ms() for _ in range(7)] == [50, 100, 200, 400, 800, 1_000, 1_000]
    backoff.reset()
    assert backoff.next_ms() == FIRST_BACKOFF_MS


def test_a_freed_slot_goes_to_whoever_waits_longest() -> None:
    slots = Slots(2)
    called: list[str] = []
    first, second = (lambda: called.append("first")), (lambda: called.append("second"))
    assert slots.take(5) == 2
    assert slots.take(1) == 0
    slots.line_up(first)
    slots.line_up(second)
    slots.line_up(first)
    slots.give_back(0)
    assert called == []
    slots.give_back()
    assert called == ["first"]
    assert slots.take(1) == 0
    slots.give_back(2)
    assert called == ["first", "second"]
    assert slots.take(5) == 1


def test_a_loop_that_no_longer_moves_is_named(clock: ManualClock, health: Health) -> None:
    health.beat("claim-0")
    health.beat("timers-0")
    clock.advance(STALLED_AFTER_MS)
    health.beat("timers-0")
    assert health.stalled_loops() == []
    clock.advance(1)
    assert health.stalled_loops() == ["claim-0"]
    health.retire("claim-0")
    assert health.stalled_loops() == []


def test_readiness_says_why_not(health: Health) -> None:
    assert health.unready_reason() == "The store was not reached yet."
    health.storage_worked("claim-0")
    assert health.unready_reason() is None
    health.storage_failed("claim-0", StorageUnavailable("Redis is away."))
    health.storage_failed("timers-0", StorageUnavailable("Redis is away."))
    assert health.unready_reason() == "The store does not answer: Redis is away."
    health.storage_worked("claim-0")
    assert health.unready_reason() is not None
    health.storage_worked("timers-0")
    assert health.unready_reason() is None
    health.is_stopping = True
    assert health.unready_reason() == "The worker is stopping."
