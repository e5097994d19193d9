"""promote.lua: what is due joins its lane, once, in order of its time, and the next due time is told."""

import asyncio
from typing import Any

import pytest

from qstash_clone.domain.message import State
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, MoveClock
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import LANE, claim_all, claim_one, publish, retry


async def claimed_ids(store: Store) -> list[bytes]:
    return [claim.id for claim in await claim_all(store)]


async def test_nothing_is_due_early_and_everything_in_time(store: Store, move_clock: MoveClock) -> None:
    message_id = await publish(store, delay_ms=60_000)
    report = await store.delivery.promote(0, 10)
    assert report.promoted == 0
    assert report.next_due_ms is not None
    assert 59_000 < report.next_due_ms - report.now_ms <= 60_000
    await move_clock(report.next_due_ms - report.now_ms - 10_000)
    assert (await store.delivery.promote(0, 10)).promoted == 0
    await move_clock(10_000)
    report = await store.delivery.promote(0, 10)
    assert (report.promoted, report.next_due_ms) == (1, None)
    assert await claimed_ids(store) == [message_id]


async def test_a_due_message_keeps_its_due_time(store: Store, move_clock: MoveClock) -> None:
    message_id = await publish(store, delay_ms=1000)
    delayed = await store.admin.get_message(message_id)
    await move_clock(50_000)
    await store.delivery.promote(0, 10)
    claim = await claim_one(store)
    assert delayed is not None
    assert claim.due_ms == delayed.due_ms == claim.created_ms + 1000


async def test_in_order_of_time_and_never_more_than_the_limit(store: Store, move_clock: MoveClock) -> None:
    late, early, middle = [await publish(store, delay_ms=delay_ms) for delay_ms in (3000, 1000, 2000)]
    await move_clock(10_000)
    report = await store.delivery.promote(0, 2)
    assert report.promoted == 2
    assert report.next_due_ms is not None
    assert report.next_due_ms <= report.now_ms, "there is more"
    assert (await store.delivery.promote(0, 2)).promoted == 1
    assert await claimed_ids(store) == [early, middle, late]


async def test_a_due_message_waits_behind_those_of_its_lane(store: Store, move_clock: MoveClock, look: Look) -> None:
    await store.delivery.heartbeat("w1", 2)
    delayed = await publish(store, delay_ms=1000)
    ready, waiting = await publish(store), await publish(store)
    await claim_all(store)
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    assert look().lanes == {LANE: [waiting, delayed]}
    assert look().admitted == {LANE: {ready}}


async def test_two_workers_promote_each_message_once(store: Store, lossy_store: Store, move_clock: MoveClock) -> None:
    await store.delivery.heartbeat("w1", 1000)
    ids = await asyncio.gather(*(publish(store, delay_ms=1000) for _ in range(100)))
    await move_clock(1000)
    reports = await asyncio.gather(*(one.delivery.promote(0, 30) for one in (store, lossy_store) * 4))
    assert sum(report.promoted for report in reports) == 100
    assert sorted(await claimed_ids(store)) == sorted(ids)


async def test_a_lost_reply_promotes_once(lossy_store: Store, proxy: LossyProxy, move_clock: MoveClock) -> None:
    message_id = await publish(lossy_store, delay_ms=1000)
    await move_clock(1000)
    proxy.lose_reply(Script("promote").digest)
    assert (await lossy_store.delivery.promote(0, 10)).promoted == 0
    assert await claimed_ids(lossy_store) == [message_id]


@pytest.mark.parametrize("step", [-1, 0, 1])
async def test_due_means_not_later_than_now(store: Store, move_clock: MoveClock, step: int) -> None:
    """Frozen by a fault elsewhere, a due time in the past must not wait for ever either."""
    await publish(store)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=0))
    await move_clock(step * 3_600_000)
    assert (await store.delivery.promote(0, 10)).promoted == (0 if step < 0 else 1)


async def test_a_timer_without_a_message_is_dropped(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    await redis_client.zadd(keys.timers, {b"0" * 12: 0})
    await store.delivery.promote(0, 10)
    assert look().timers == {}


async def test_a_timer_of_a_message_that_does_not_wait_for_it_is_dropped(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    message_id = await publish(store)
    await redis_client.zadd(keys.timers, {message_id: 0})
    await store.delivery.promote(0, 10)
    assert len(look().entries) == 1
    assert await claimed_ids(store) == [message_id]


async def test_a_damaged_message_does_not_hold_up_the_others(
    store: Store, keys: PartitionKeys, redis_client: Any, move_clock: MoveClock, look: Look
) -> None:
    first, second, third = [await publish(store, lane=f"h:{n}", delay_ms=1000 + n) for n in range(3)]
    await move_clock(5000)
    async with damaged(redis_client, keys.message(first)), damaged(redis_client, keys.lane("h:1")):
        assert (await store.delivery.promote(0, 10)).promoted == 1
        again = await store.delivery.promote(0, 10)
        assert again.promoted == 0
        assert again.next_due_ms is not None
        assert 0 < again.next_due_ms - again.now_ms <= 1000, "no call fails and no loop spins because of them"
        assert await claimed_ids(store) == [third]
    assert look().records[second].stored.state is State.DELAYED
    await move_clock(1000)
    assert (await store.delivery.promote(0, 10)).promoted == 2
    assert sorted(await claimed_ids(store)) == sorted([first, second])


async def test_a_lower_clock_delivers_later_but_loses_nothing(store: Store, move_clock: MoveClock) -> None:
    message_id = await publish(store, delay_ms=1000)
    await move_clock(-86_400_000)
    report = await store.delivery.promote(0, 10)
    assert report.promoted == 0
    assert report.next_due_ms is not None
    assert report.next_due_ms > report.now_ms
    await move_clock(2 * 86_400_000)
    await store.delivery.promote(0, 10)
    assert await claimed_ids(store) == [message_id]
