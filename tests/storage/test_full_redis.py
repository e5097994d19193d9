"""At its memory limit Redis refuses new messages; everything that frees or moves one goes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qstash_clone.domain.message import Deduplication, State
from qstash_clone.errors import StorageFull
from qstash_clone.settings import Settings
from qstash_clone.storage.delivery_store import FLOW_IDLE_MS
from qstash_clone.storage.interface import CancelResult, SettleResult
from qstash_clone.storage.store import Store, open_store
from qstash_clone.topics.records import Bounds, Record, TopicConfig
from tests.storage.conftest import AgeLeases, Look, MoveClock, Opened
from tests.support.lanes import KEY, QUEUE, enqueue
from tests.support.messages import (
    LANE,
    claim_all,
    claim_one,
    dead_letter,
    delivered,
    failed,
    new_callback,
    new_message,
    publish,
    reported,
    retry,
)


class Limit:
    """Sets and lifts the memory limit of the server."""

    def __init__(self, redis_client: Any) -> None:
        self._client = redis_client

    async def reach(self) -> None:
        await self._client.config_set("maxmemory", "1")

    async def lift(self) -> None:
        await self._client.config_set("maxmemory", "0")


@pytest.fixture
async def limit(redis_client: Any) -> AsyncIterator[Limit]:
    limit = Limit(redis_client)
    yield limit
    await limit.lift()


async def test_a_publish_is_refused_and_writes_nothing(store: Store, limit: Limit, look: Look) -> None:
    await publish(store)
    before = look()
    await limit.reach()
    results = await asyncio.gather(*(publish(store, delay_ms=n) for n in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [StorageFull] * 5
    assert look() == before
    await limit.lift()
    await publish(store)


async def test_a_message_that_is_stored_already_is_answered_so(store: Store, limit: Limit) -> None:
    message = new_message(store)
    await store.publishing.publish(message)
    await limit.reach()
    await store.publishing.publish(message)


async def test_a_dead_letter_is_not_retried_and_stays(store: Store, limit: Limit, look: Look) -> None:
    dlq_id = await dead_letter(store)
    before = look()
    await limit.reach()
    with pytest.raises(StorageFull):
        await store.admin.retry_dead_letter(dlq_id)
    assert look() == before
    assert await store.admin.delete_dead_letter(dlq_id)


async def test_readiness_says_so(store: Store, limit: Limit) -> None:
    await store.admin.check_durable_write()
    await limit.reach()
    with pytest.raises(StorageFull):
        await store.admin.check_durable_write()


async def test_a_limit_that_is_near_counts_as_full(store: Store, limit: Limit, redis_client: Any) -> None:
    used = (await redis_client.info("memory"))["used_memory"]
    await redis_client.config_set("maxmemory", used + 900_000)
    with pytest.raises(StorageFull):
        await store.admin.check_durable_write()


async def test_the_probe_itself_is_refused(store: Store, limit: Limit, redis_client: Any) -> None:
    """Not only the reading of INFO."""
    from qstash_clone.storage import admin_store

    needed, admin_store.FREE_BYTES_NEEDED = admin_store.FREE_BYTES_NEEDED, -(1 << 60)  # pyright: ignore
    try:
        await limit.reach()
        with pytest.raises(StorageFull):
            await store.admin.check_durable_write()
    finally:
        admin_store.FREE_BYTES_NEEDED = needed  # pyright: ignore


async def test_a_whole_life_goes_on(
    store: Store, settings: Settings, limit: Limit, look: Look, move_clock: MoveClock, age_leases: AgeLeases
) -> None:
    await store.delivery.heartbeat("w1", 8)
    delayed = await publish(store, lane="h:1", delay_ms=1000)
    ids = [await publish(store) for _ in range(12)]
    keys = await store.admin.get_signing_keys()
    await limit.reach()

    claims = await claim_all(store)
    assert [claim.id for claim in claims] == ids[:4]
    assert await store.delivery.extend(0, "w1", claims) == []
    assert await store.delivery.settle(delivered(claims[0])) is SettleResult.SETTLED
    assert await store.delivery.settle(retry(claims[1], delay_ms=500)) is SettleResult.SETTLED
    assert await store.delivery.settle(failed(claims[2])) is SettleResult.SETTLED
    assert await store.admin.cancel(claims[3].id) is CancelResult.REQUESTED
    assert await store.delivery.settle(failed(claims[3])) is SettleResult.CANCELED

    [released, *_] = await claim_all(store)
    assert released.id == ids[4]
    await store.delivery.release([released])
    assert await store.admin.cancel(ids[11]) is CancelResult.CANCELED
    await limit.lift()
    await move_clock(1000)
    await limit.reach()
    assert (await store.delivery.promote(0, 10)).promoted == 2
    await store.delivery.heartbeat("w1", 100)
    await store.delivery.heartbeat("w2", 100)
    await store.delivery.leave("w2")
    assert (await store.admin.stats()).workers == 1
    await age_leases()
    for _ in range(3):
        for claim in await claim_all(store, reclaim=True):
            assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED
    states = {message_id: record.stored.state for message_id, record in look().records.items()}
    assert states.pop(ids[2]) is State.FAILED
    assert (states.pop(ids[3]), states.pop(ids[11])) == (State.CANCELED, State.CANCELED)
    assert set(states.values()) == {State.DELIVERED}
    assert delayed in states
    await limit.lift()
    await move_clock(settings.log_retention_ms + 60_000)
    await limit.reach()
    while await store.delivery.expire(0, 500):
        pass
    assert look().dlq == []
    assert await store.admin.get_signing_keys() == keys


async def test_each_step_alone_goes_on(
    store: Store, limit: Limit, age_leases: AgeLeases, settings: Settings, look: Look
) -> None:
    """The first write of a call decides; here each is the only one of its call."""
    ids = [await publish(store, lane=f"h:{number}", delay_ms=number % 2) for number in range(4)]
    while len(look().timers):
        await store.delivery.promote(0, 10)
    [first, second, *_] = claims = await claim_all(store)
    await age_leases([first])
    await limit.reach()
    assert (await claim_one(store, "w2", reclaim=True)).id == first.id
    assert await store.delivery.settle(delivered(first)) is SettleResult.STALE
    await store.delivery.release([second])
    assert await store.admin.cancel(second.id) is CancelResult.CANCELED
    assert await claim_all(store) == []
    assert await store.delivery.settle(retry(claims[2])) is SettleResult.SETTLED
    assert await store.admin.cancel(claims[2].id) is CancelResult.CANCELED
    assert await store.delivery.settle(failed(claims[3])) is SettleResult.SETTLED
    assert len(ids) == len(claims)


async def test_entries_that_were_taken_are_claimed(store: Store, limit: Limit) -> None:
    message_id = await publish(store)
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    await limit.reach()
    [claim] = (await store.delivery.claim(0, "w1", 1, taken=taken)).claims
    assert claim.id == message_id


async def test_callbacks_are_stored(store: Store, limit: Limit, look: Look) -> None:
    """They belong to a step that goes on: refusing them would hold the settlement up, or lose them."""
    await publish(store)
    claim = await claim_one(store)
    callback = new_callback(store)
    await limit.reach()
    assert await store.delivery.settle(reported(delivered(claim), callback)) is SettleResult.SETTLED
    assert look().records[callback.message.id].stored.state is State.QUEUED


async def test_a_repeat_is_recognised(store: Store, limit: Limit) -> None:
    deduplication = Deduplication(digest=bytes(16), window_ms=60_000)
    first = await store.publishing.publish(new_message(store, deduplication=deduplication))
    await limit.reach()
    repeat = await store.publishing.publish(new_message(store, deduplication=deduplication))
    assert (repeat.id, repeat.is_duplicate) == (first.id, True)


async def test_waiting_lanes_are_admitted(store: Store, limit: Limit, look: Look) -> None:
    await store.delivery.heartbeat("w1", 0)
    await publish(store)
    await limit.reach()
    await store.delivery.heartbeat("w1", 10)
    assert look().lanes == {}
    assert LANE in look().admitted


async def test_processes_start_and_stop(store: Store, settings: Settings, limit: Limit, opened: Opened) -> None:
    message_id = await publish(store)
    await limit.reach()
    other = await opened(settings)
    await other.delivery.heartbeat("w9", 10)
    assert (await claim_one(other, "w9")).id == message_id
    await other.delivery.leave("w9")


@pytest.mark.parametrize("partitions", [3])
async def test_an_empty_redis_that_is_full_says_so(settings: Settings, limit: Limit) -> None:
    await limit.reach()
    with pytest.raises(StorageFull):
        await open_store(settings)
    await limit.lift()
    await (await open_store(settings)).aclose()


async def test_a_queue_is_deleted_while_others_wait_for_turns(store: Store, limit: Limit, look: Look) -> None:
    """The turns that a deletion gives at its end may begin with what has nothing to do with the queue."""
    await store.delivery.heartbeat("w1", 3)
    await enqueue(store)
    admitted, waiting = [await publish(store) for _ in range(2)]
    await store.delivery.heartbeat("w1", 3)
    assert look().parked == {LANE}
    assert len(await claim_all(store, limit=1)) == 1
    assert await store.admin.cancel(admitted) is CancelResult.CANCELED
    assert look().lanes == {LANE: [waiting]}
    await limit.reach()
    assert await store.queues.delete_queue(QUEUE)
    assert look().lanes == {}


async def test_topics_can_be_read_and_made_smaller(store: Store, limit: Limit) -> None:
    """What frees memory, and consumer groups that are there already; not more records."""
    config = TopicConfig(partitions=2)
    topic = await store.topics.create_topic("orders", config)
    await store.topics.append(topic, 0, [Record(bytes(1000))] * 10)
    assert await store.groups.save_group("g", 0, b"one", keep_ms=60_000, live_ms=0)
    await limit.reach()
    with pytest.raises(StorageFull):
        await store.topics.append(topic, 0, [Record(b"a")])
    with pytest.raises(StorageFull):
        await store.topics.create_topic("another", config)
    with pytest.raises(StorageFull):
        await store.groups.save_group("another", 0, b"one", keep_ms=60_000, live_ms=0)

    assert await store.groups.save_group("g", 1, b"two and more", keep_ms=60_000, live_ms=60_000)
    assert await store.groups.list_live_groups() == ["g"]
    smaller = TopicConfig(partitions=2, retention_bytes=0)
    topic = await store.topics.change_topic("orders", smaller)
    assert (await store.topics.trim([(topic, 0)]))[0] == 10
    assert await store.topics.read_bounds([(topic, 0)]) == [Bounds(10, 10)]
    grown = await store.topics.change_topic("orders", TopicConfig(partitions=3, retention_bytes=0))
    assert await store.topics.read_bounds([(grown, 2)]) == [Bounds(0, 0)]
    assert await store.topics.delete_topic("orders")
    assert await store.topics.list_topics() == []


async def test_retention_goes_on_while_keys_are_in_use(
    store: Store, limit: Limit, look: Look, move_clock: MoveClock
) -> None:
    """Noting the use of a paused key is the first write of such a call, and deduplication records come behind it."""
    await store.flow_controls.set_flow_control_paused(KEY, is_paused=True)
    await store.publishing.publish(new_message(store, deduplication=Deduplication(digest=bytes(16), window_ms=60_000)))
    await move_clock(FLOW_IDLE_MS)
    await limit.reach()
    assert await store.delivery.expire(0, 100) == 1
    assert look().dedup == []
    assert look().flows.keys() == {KEY}
