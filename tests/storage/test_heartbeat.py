"""heartbeat.lua: live workers, the capacity they add up to, and turns for the lanes that may go on."""

import asyncio
from typing import Any

import pytest

from qstash_clone.domain.lanes import queue_lane
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.delivery_store import ADMIT_TURNS, HEARTBEAT_SILENT_MS
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock, Opened
from tests.support.lanes import enqueue, put_queue
from tests.support.messages import LANE, claim_all, claim_one, delivered, publish


async def capacity(store: Store) -> tuple[int, int]:
    stats = await store.admin.stats()
    return stats.workers, stats.capacity


async def test_capacities_add_up(store: Store) -> None:
    await store.delivery.heartbeat("w2", 50)
    assert await capacity(store) == (2, 150)
    await store.delivery.heartbeat("w2", 70)
    assert await capacity(store) == (2, 170)
    await store.delivery.leave("w1")
    assert await capacity(store) == (1, 70)
    await store.delivery.leave("w1")
    await store.delivery.leave("never seen")
    assert await capacity(store) == (1, 70)


async def test_repeating_a_heartbeat_changes_nothing(store: Store, look: Look) -> None:
    before = look()
    await store.delivery.heartbeat("w1", 100)
    assert look() == before


async def test_a_silent_worker_no_longer_counts(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    await redis_client.zincrby(keys.workers, -HEARTBEAT_SILENT_MS - 1, "w1")
    await store.delivery.heartbeat("w2", 30)
    assert await capacity(store) == (1, 30)
    assert look().capacity == {"w2": 30}


async def test_a_worker_that_ended_before_the_clock_was_set_back_no_longer_counts(
    store: Store, redis_client: Any, keys: PartitionKeys
) -> None:
    await store.delivery.heartbeat("w2", 50)
    now_s, _ = await redis_client.time()
    await redis_client.zadd(keys.workers, {"w2": (now_s + 3600) * 1000})
    await store.delivery.heartbeat("w1", 100)
    assert await capacity(store) == (1, 100)


async def test_a_worker_is_silent_by_real_time(store: Store, move_clock: MoveClock) -> None:
    await move_clock(86_400_000)
    await store.delivery.heartbeat("w2", 30)
    assert await capacity(store) == (2, 130)


async def test_a_worker_that_leaves_with_deliveries_under_way_loses_none(
    store: Store, age_leases: AgeLeases, keys: PartitionKeys, redis_client: Any
) -> None:
    message_id = await publish(store)
    await claim_one(store)
    await store.delivery.leave("w1")
    await age_leases()
    assert (await claim_one(store, "w2", reclaim=True)).id == message_id
    await store.delivery.leave("w1")
    names = [item["name"] for item in await redis_client.xinfo_consumers(keys.ready, CONSUMER_GROUP)]
    assert names == [b"w2"]


async def test_room_that_a_new_worker_brings_is_filled(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 2)
    for _ in range(10):
        await publish(store)
    await store.delivery.heartbeat("w1", 2)
    assert len(look().entries) == 1
    assert look().parked == {LANE}
    await store.delivery.heartbeat("w2", 10)
    assert len(look().entries) == 6, "as many as are left free"


async def test_a_lane_never_takes_all(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 20)
    for _ in range(100):
        await publish(store, lane="h:busy")
    assert len(look().entries) == 10
    for _ in range(100):
        await publish(store, lane="h:second")
    assert len(look().admitted["h:second"]) == 5
    other = await publish(store, lane="h:third")
    assert other in look().admitted["h:third"], "there is a place for one that holds none"


@pytest.mark.parametrize("total", [1, 2, 3])
async def test_the_smallest_capacities(store: Store, look: Look, total: int) -> None:
    await store.delivery.heartbeat("w1", total)
    ids = [await publish(store) for _ in range(5)]
    done: list[bytes] = []
    while claims := await claim_all(store):
        for claim in claims:
            await store.delivery.settle(delivered(claim))
            done.append(claim.id)
    assert done == ids


async def test_no_capacity_admits_nothing(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 0)
    ids = [await publish(store) for _ in range(3)]
    assert await claim_all(store) == []
    assert look().lanes == {LANE: ids}


async def test_shrinking_below_what_is_in_flight_recovers(store: Store, look: Look) -> None:
    for _ in range(60):
        await publish(store)
    claims = await claim_all(store)
    await store.delivery.heartbeat("w1", 4)
    for claim in claims:
        await store.delivery.settle(delivered(claim))
    done = len(claims)
    while claims := await claim_all(store):
        assert len(claims) <= 2
        for claim in claims:
            await store.delivery.settle(delivered(claim))
        done += len(claims)
    assert done == 60


async def test_many_lanes_take_turns(store: Store) -> None:
    await store.delivery.heartbeat("w1", 0)
    for lane in range(5):
        for _ in range(3):
            await publish(store, lane=f"h:{lane}")
    await store.delivery.heartbeat("w1", 1000)
    claims = await claim_all(store)
    order = [await _lane_of(store, claim.id) for claim in claims]
    assert order == [f"h:{lane}" for _ in range(3) for lane in range(5)]


async def _lane_of(store: Store, message_id: bytes) -> str:
    stored = await store.admin.get_message(MessageId(message_id))
    assert stored is not None
    return stored.lane


async def test_one_heartbeat_gives_a_bounded_number_of_turns(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 0)
    await asyncio.gather(*(publish(store, body=b"", lane=f"h:{number}") for number in range(ADMIT_TURNS + 100)))
    await store.delivery.heartbeat("w1", 10_000)
    assert len(look().admitted) == ADMIT_TURNS
    await store.delivery.heartbeat("w1", 10_000)
    assert len(look().admitted) == ADMIT_TURNS + 100


@pytest.mark.parametrize("partitions", [3])
async def test_capacity_is_shared_by_the_partitions(opened: Opened, settings: Settings) -> None:
    store = await opened(settings)
    await store.delivery.heartbeat("w1", 10)
    assert await capacity(store) == (1, 12)
    await store.delivery.leave("w1")
    assert await capacity(store) == (0, 0)


async def test_lanes_that_are_held_up_do_not_pile_up_in_the_ring(store: Store, look: Look) -> None:
    """Each would use up a turn that another lane needs."""
    names = {f"paused-{number}" for number in range(20)}
    for name in names:
        await put_queue(store, name, is_paused=True)
        await enqueue(store, name)
    for capacity in (0, 0, 0, 100):
        await store.delivery.heartbeat("w1", capacity)
        assert look().blocked == {queue_lane(name) for name in names}
        assert look().ring == []
