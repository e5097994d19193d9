"""Claims follow free capacity, and reclaiming waits until it is fair."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from qstash_clone.domain.message import State
from qstash_clone.errors import StorageUnavailable
from qstash_clone.observability import MESSAGES_QUARANTINED
from tests.support.eventually import eventually
from tests.worker.rig import Rig
from worker.claim import LINGER_MS, RECLAIM_JITTER, RECLAIMS_PER_LEASE, SCARCE_WAIT_MS


async def test_a_ready_message_is_claimed_and_delivered(rig: Rig) -> None:
    message_id = await rig.publish(b"hello")
    report = await rig.claims.step()
    assert report is not None
    assert report.claimed == 1
    await rig.idle()
    assert rig.transport.bodies == [b"hello"]
    assert await rig.state(message_id) is State.DELIVERED
    assert rig.worker.slots.free == 10


async def test_one_step_takes_what_came_together(rig: Rig) -> None:
    for number in range(5):
        await rig.publish(url=f"http://host-{number}.example/")
    report = await rig.claims.step()
    assert report is not None
    assert report.claimed == 5
    assert not report.has_more


async def test_claims_never_exceed_the_free_slots(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(worker_concurrency=3)
    await rig.worker.loops.heartbeat.step()
    await rig.real_store.delivery.heartbeat("another, larger worker", 30)
    rig.transport.may_answer.clear()
    for number in range(10):
        await rig.publish(url=f"http://host-{number}.example/")
    report = await rig.claims.step()
    assert report is not None
    assert report.claimed == 3
    assert report.has_more
    assert rig.worker.slots.free == 0
    assert await rig.claims.step() is None
    assert rig.store.calls["claim"] == 1
    rig.transport.may_answer.set()
    await rig.idle()
    assert rig.worker.slots.free == 3
    while len(rig.transport.requests) < 10:
        await rig.claims.step()
        await rig.idle()
    assert len({request.url for request in rig.transport.requests}) == 10


async def test_a_backlog_is_claimed_without_blocking_reads(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(worker_concurrency=2)
    await rig.worker.loops.heartbeat.step()
    await rig.real_store.delivery.heartbeat("another, larger worker", 30)
    for number in range(6):
        await rig.publish(url=f"http://host-{number}.example/")
    for _ in range(3):
        await rig.claims.step()
        await rig.idle()
    assert len(rig.transport.requests) == 6
    assert rig.store.calls["wait"] == 1


async def test_one_call_takes_a_bounded_batch(make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.claim.CLAIM_BATCH", 3)
    rig = make_rig(worker_concurrency=20)
    await rig.start()
    for number in range(7):
        await rig.publish(url=f"http://host-{number}.example/")
    reports = [await rig.claims.step() for _ in range(3)]
    assert [(report.claimed, report.has_more) for report in reports if report] == [(3, True), (3, True), (1, False)]
    await rig.idle()


async def test_when_full_the_loop_waits_for_a_slot(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(worker_concurrency=1)
    await rig.worker.loops.heartbeat.step()
    await rig.real_store.delivery.heartbeat("another, larger worker", 30)
    rig.transport.may_answer.clear()
    await rig.publish(url="http://one.example/")
    await rig.publish(url="http://two.example/")
    report = await rig.claims.step()
    assert rig.claims.rest_ms(report) > 0
    rest = asyncio.create_task(rig.claims.rest(report))
    await eventually(lambda: rig.clock.sleeping)
    assert await rig.claims.step() is None
    rig.transport.may_answer.set()
    await rig.idle()
    assert rig.worker.slots.free == 0, "the slot was handed to the loop in the line"
    await eventually(lambda: rest.done() or rig.clock.advance(LINGER_MS))
    await rig.claims.step()
    await rig.idle()
    assert len(rig.transport.requests) == 2
    assert rig.worker.slots.free == 1


async def test_an_idle_read_with_the_last_slot_is_short(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(worker_concurrency=1)
    await rig.claims.step()
    assert rig.worker.slots.free == 1
    assert rig.store.patience_ms == [SCARCE_WAIT_MS]


async def test_an_idle_partition_occupies_one_slot_only(rig: Rig) -> None:
    seen: list[int] = []
    rig.store.on_call = lambda name: seen.append(rig.worker.slots.free) if name == "wait" else None
    await rig.claims.step()
    assert seen == [9]
    assert rig.worker.slots.free == 10


async def test_nothing_is_reclaimed_for_one_lease_after_the_start(rig: Rig) -> None:
    await rig.publish()
    await rig.steal()
    await rig.age_leases()
    await rig.claims.step()
    assert rig.store.calls["reclaim"] == 0
    rig.open_gate()
    report = await rig.claims.step()
    assert report is not None
    assert report.claimed == 1
    assert rig.store.calls["reclaim"] == 1


async def test_reclaiming_follows_an_interval_with_jitter(rig: Rig) -> None:
    rig.open_gate()
    await rig.claims.step()
    assert rig.store.calls["reclaim"] == 1
    interval_ms = rig.settings.lease_ms / RECLAIMS_PER_LEASE
    rig.clock.advance(interval_ms * (1 - RECLAIM_JITTER) - 1)
    await rig.claims.step()
    assert rig.store.calls["reclaim"] == 1
    rig.clock.advance(interval_ms * 2 * RECLAIM_JITTER + 1)
    await rig.claims.step()
    assert rig.store.calls["reclaim"] == 2


async def test_a_fault_of_the_store_closes_the_gate_for_one_lease(rig: Rig) -> None:
    rig.open_gate()
    assert rig.worker.gate.is_open
    rig.health.storage_failed("timers-0", StorageUnavailable("Redis is away."))
    assert not rig.worker.gate.is_open
    rig.clock.advance(rig.settings.lease_ms)
    assert rig.worker.gate.is_open


async def test_a_jump_of_the_stores_clock_closes_the_gate(rig: Rig) -> None:
    rig.open_gate()
    await rig.worker.loops.timers[0].step()
    assert rig.worker.gate.is_open
    # Less time passes by Redis's clock than by ours.
    rig.clock.advance(rig.settings.lease_ms)
    await rig.worker.loops.timers[0].step()
    assert not rig.worker.gate.is_open


async def test_a_moved_clock_of_messages_ages_no_lease(rig: Rig, move_clock: Callable[[int], Awaitable[None]]) -> None:
    rig.open_gate()
    await rig.worker.loops.timers[0].step()
    await move_clock(30 * 86_400_000)
    await rig.worker.loops.timers[0].step()
    await rig.publish()
    await rig.claims.step()
    await rig.idle()
    assert rig.worker.gate.is_open
    assert rig.transport.requests


async def test_an_entry_taken_before_a_fault_is_claimed_after_it(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.store.fail_before("claim")
    with pytest.raises(StorageUnavailable):
        await rig.claims.step()
    assert rig.worker.slots.free == 10
    report = await rig.claims.step()
    assert report is not None
    assert report.claimed == 1
    await rig.idle()
    assert await rig.state(message_id) is State.DELIVERED
    assert rig.store.calls["wait"] == 1


async def test_a_claim_whose_reply_was_lost_is_repeated_or_reclaimed(rig: Rig) -> None:
    """The taken entry and what the same call took beyond it: both come back, none is lost."""
    message_ids = [await rig.publish(url=f"http://host-{number}.example/") for number in range(3)]
    rig.store.fail_after("claim")
    with pytest.raises(StorageUnavailable):
        await rig.claims.step()
    await rig.claims.step()
    await rig.idle()
    await rig.age_leases()
    rig.open_gate()
    await rig.claims.step()
    await rig.idle()
    assert [await rig.state(message_id) for message_id in message_ids] == [State.DELIVERED] * 3


async def test_a_message_that_kills_its_workers_is_quarantined(rig: Rig) -> None:
    message_id = await rig.publish()
    for _ in range(rig.settings.max_claims):
        assert len(await rig.steal()) == 1
    await rig.age_leases()
    rig.open_gate()
    before = MESSAGES_QUARANTINED.value
    await rig.claims.step()
    await rig.idle()
    assert rig.transport.requests == []
    assert MESSAGES_QUARANTINED.value == before + 1
    page = await rig.real_store.admin.list_dead_letters(cursor=None, count=10, newest_first=False)
    assert [entry.stored.id for entry in page.entries] == [message_id]


async def test_a_doorbell_wakes_the_timers(rig: Rig) -> None:
    timers = rig.worker.loops.timers[0]
    await rig.raw.xadd(rig.keys.ready.decode(), {"b": "1"})  # pyright: ignore
    await timers.step()
    await rig.claims.step()
    # A rest that has been rung ends as it begins: the manual clock does not move.
    await timers.rest(await timers.step())


async def test_the_running_loop_delivers_what_comes_and_stops(rig: Rig) -> None:
    task = asyncio.create_task(rig.claims.run())
    for number in range(20):
        await rig.publish(b"%d" % number)
    await eventually(lambda: len(rig.transport.requests) == 20 or rig.clock.advance(5))
    rig.claims.stop()
    await task
    assert rig.health.stalled_loops() == []
