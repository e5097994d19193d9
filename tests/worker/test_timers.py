"""Timers are promoted when due, and the sleep between is as long as it may be."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from qstash_clone.domain.message import State
from tests.support.eventually import eventually
from tests.worker.rig import Rig
from worker.timers import LONGEST_SLEEP_MS, SHORTEST_SLEEP_MS

MoveClock = Callable[[int], Awaitable[None]]


async def test_a_due_timer_is_promoted_and_delivered(rig: Rig, move_clock: MoveClock) -> None:
    message_id = await rig.publish(delay_ms=60_000)
    timers = rig.worker.loops.timers[0]
    report = await timers.step()
    assert (report.promoted, report.sleep_ms) == (0, LONGEST_SLEEP_MS)
    await move_clock(60_000)
    assert (await timers.step()).promoted == 1
    await rig.claims.step()
    await rig.idle()
    assert await rig.state(message_id) is State.DELIVERED


async def test_the_sleep_lasts_until_the_next_due_time(rig: Rig) -> None:
    await rig.publish(delay_ms=500)
    report = await rig.worker.loops.timers[0].step()
    assert SHORTEST_SLEEP_MS <= report.sleep_ms <= 500


async def test_close_due_times_are_gathered(rig: Rig, move_clock: MoveClock) -> None:
    await rig.publish(delay_ms=100_000)
    report = await rig.worker.loops.timers[0].step()
    await move_clock(99_000 - LONGEST_SLEEP_MS)
    report = await rig.worker.loops.timers[0].step()
    assert report.sleep_ms >= SHORTEST_SLEEP_MS


async def test_a_backlog_is_promoted_in_batches_without_a_pause(
    rig: Rig, move_clock: MoveClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.timers.PROMOTE_BATCH", 4)
    for _ in range(10):
        await rig.publish(delay_ms=1_000)
    await move_clock(2_000)
    timers = rig.worker.loops.timers[0]
    reports = [await timers.step() for _ in range(3)]
    assert [report.promoted for report in reports] == [4, 4, 2]
    assert [timers.rest_ms(report) for report in reports] == [0, 0, LONGEST_SLEEP_MS]


async def test_a_retry_set_by_this_worker_ends_the_sleep(rig: Rig) -> None:
    rig.transport.answer = rig.transport.fail
    await rig.publish(retry_delay="200")
    timers = rig.worker.loops.timers[0]
    report = await timers.step()
    assert report.sleep_ms == LONGEST_SLEEP_MS
    await rig.claims.step()
    await rig.idle()
    await timers.rest(report)  # Ends although the manual clock stands still.
    assert (await timers.step()).sleep_ms <= 200


async def test_a_retry_due_after_the_sleep_does_not_end_it(rig: Rig) -> None:
    timers = rig.worker.loops.timers[0]
    report = await timers.step()
    timers.expect(LONGEST_SLEEP_MS + 1)
    rig.clock.advance(LONGEST_SLEEP_MS / 2)
    timers.expect(LONGEST_SLEEP_MS - 1)
    assert not await timers._alarm.nap(0)  # pyright: ignore[reportPrivateUsage]
    assert timers.rest_ms(report) == LONGEST_SLEEP_MS


async def test_a_retried_message_arrives_again(rig: Rig, move_clock: MoveClock) -> None:
    rig.transport.answer = rig.transport.fail
    message_id = await rig.publish(retry_delay="5000")
    await rig.claims.step()
    await rig.idle()
    rig.transport.answer = rig.transport.ok
    await move_clock(5_000)
    await eventually(lambda: rig.worker.loops.timers[0].step())
    await rig.claims.step()
    await rig.idle()
    assert [dict(request.headers)["Upstash-Retried"] for request in rig.transport.requests] == ["0", "1"]
    assert await rig.state(message_id) is State.DELIVERED


async def test_a_timer_that_cannot_be_read_keeps_nobody_from_reclaiming(rig: Rig, move_clock: MoveClock) -> None:
    """Taken for a store that does not answer, it would close the gate again and again, for as long as it is there."""
    message_id = await rig.publish(delay_ms=1_000)
    later_release = b"\x07"
    await rig.raw.setrange(rig.keys.message(message_id), 0, later_release)  # pyright: ignore
    await move_clock(1_000)
    rig.open_gate()
    timers = rig.worker.loops.timers[0]
    running = asyncio.create_task(timers.run())
    await eventually(lambda: rig.clock.sleeping, what="it rests")
    timers.stop()
    await running
    assert rig.worker.gate.is_open
    assert rig.health.unready_reason() is None


async def test_nothing_is_awaited_of_a_clock_that_stands_still(rig: Rig) -> None:
    message_id = await rig.publish(delay_ms=20)
    stored = await rig.real_store.admin.get_message(message_id)
    assert stored is not None
    await rig.raw.hset(rig.keys.meta.decode(), "fz", stored.due_ms - 10)  # pyright: ignore
    timers = rig.worker.loops.timers[0]
    report = await timers.step()
    assert (report.promoted, report.sleep_ms) == (0, LONGEST_SLEEP_MS)
    await rig.raw.hset(rig.keys.meta.decode(), "fz", stored.due_ms)  # pyright: ignore
    assert (await timers.step()).promoted == 1


async def test_a_moved_clock_has_retention_looked_at_at_once(rig: Rig, move_clock: MoveClock) -> None:
    janitor = rig.worker.loops.janitors[0]
    await rig.worker.loops.timers[0].step()
    assert not await janitor._alarm.nap(0)  # pyright: ignore[reportPrivateUsage]
    await move_clock(86_400_000)
    await rig.worker.loops.timers[0].step()
    assert await janitor._alarm.nap(0)  # pyright: ignore[reportPrivateUsage]
