"""cancel.lua: a waiting message ends at once, one in flight with its attempt, and repeating it says the same."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qstash_clone.domain.message import State
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import CancelResult
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import LANE, claim_all, claim_one, dead_letter, delivered, failed, publish, retry


async def waiting_for_its_time(store: Store) -> MessageId:
    return await publish(store, delay_ms=60_000)


async def waiting_for_its_retry(store: Store) -> MessageId:
    message_id = await publish(store)
    await store.delivery.settle(retry(await claim_one(store), delay_ms=60_000))
    return message_id


async def waiting_in_its_lane(store: Store) -> MessageId:
    await store.delivery.heartbeat("w1", 0)
    return await publish(store)


async def waiting_in_the_ready_stream(store: Store) -> MessageId:
    return await publish(store)


async def taken_but_not_claimed(store: Store) -> MessageId:
    message_id = await publish(store)
    await store.delivery.wait(0, "w1", 1, 1000)
    return message_id


Begin = Callable[[Store], Awaitable[MessageId]]
WAITING: list[Begin] = [
    waiting_for_its_time,
    waiting_for_its_retry,
    waiting_in_its_lane,
    waiting_in_the_ready_stream,
    taken_but_not_claimed,
]


@pytest.mark.parametrize("begin", WAITING)
async def test_a_waiting_message_is_cancelled_at_once_and_never_delivered(
    store: Store, settings: Settings, look: Look, move_clock: MoveClock, age_leases: AgeLeases, begin: Begin
) -> None:
    message_id = await begin(store)
    logged = look().letters(message_id)
    assert await store.admin.cancel(message_id) is CancelResult.CANCELED
    partition = look()
    record = partition.records[message_id]
    assert record.stored.state is State.CANCELED
    assert settings.log_retention_ms - 10_000 < record.ttl_ms <= settings.log_retention_ms
    assert partition.letters(message_id) == logged + "QX"
    assert partition.admitted == {}
    assert await store.admin.get_message(message_id) is None
    await store.delivery.heartbeat("w1", 100)
    await move_clock(120_000)
    await store.delivery.promote(0, 10)
    await age_leases()
    assert await claim_all(store, reclaim=True) == []
    assert look().entries == {}
    assert look().lanes == {}
    assert look().timers == {}


@pytest.mark.parametrize("begin", WAITING)
async def test_cancelling_twice(store: Store, look: Look, begin: Begin) -> None:
    message_id = await begin(store)
    await store.admin.cancel(message_id)
    before = look().log
    assert await store.admin.cancel(message_id) is CancelResult.NOT_FOUND
    assert look().log == before


@pytest.mark.parametrize("begin", WAITING)
async def test_a_lost_reply_cancels_all_the_same(
    lossy_store: Store, proxy: LossyProxy, look: Look, begin: Begin
) -> None:
    message_id = await begin(lossy_store)
    proxy.lose_reply(Script("cancel").digest)
    assert await lossy_store.admin.cancel(message_id) is CancelResult.CANCELED
    assert look().letters(message_id).endswith("QX")


async def test_a_message_in_flight_ends_with_its_attempt(store: Store, look: Look) -> None:
    message_id = await publish(store)
    await claim_one(store)
    assert await store.admin.cancel(message_id) is CancelResult.REQUESTED
    stored = await store.admin.get_message(message_id)
    assert stored is not None
    assert (stored.state, stored.cancel_requested, stored.generation) == (State.ACTIVE, True, 1)
    assert await store.admin.cancel(message_id) is CancelResult.ALREADY_REQUESTED
    assert look().letters(message_id) == "CAQ"
    assert look().records[message_id].ttl_ms == -1


async def test_a_lost_reply_requests_once(lossy_store: Store, proxy: LossyProxy, look: Look) -> None:
    message_id = await publish(lossy_store)
    await claim_one(lossy_store)
    proxy.lose_reply(Script("cancel").digest)
    assert await lossy_store.admin.cancel(message_id) is CancelResult.REQUESTED
    assert look().letters(message_id) == "CAQ"


async def test_what_is_over_is_not_found(store: Store, look: Look) -> None:
    delivered_id = await publish(store)
    await store.delivery.settle(delivered(await claim_one(store)))
    failed_id = await publish(store)
    await store.delivery.settle(failed(await claim_one(store)))
    before = look()
    for message_id in (delivered_id, failed_id, store.publishing.new_message_id()):
        assert await store.admin.cancel(message_id) is CancelResult.NOT_FOUND
    assert look().dlq == before.dlq
    assert look().log == before.log


async def test_a_cancelled_dead_letter_stays(store: Store) -> None:
    dlq_id = await dead_letter(store)
    entry = await store.admin.get_dead_letter(dlq_id)
    assert entry is not None
    assert await store.admin.cancel(entry.stored.id) is CancelResult.NOT_FOUND
    assert await store.admin.get_dead_letter(dlq_id) == entry


async def test_cancelling_in_a_lane_leaves_the_others_in_order(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 0)
    ids = [await publish(store) for _ in range(5)]
    for message_id in (ids[0], ids[2], ids[4]):
        await store.admin.cancel(message_id)
    await store.delivery.heartbeat("w1", 100)
    assert list(look().entries.values()) == [ids[1], ids[3]], "no room is wasted on the others"
    assert [claim.id for claim in await claim_all(store)] == [ids[1], ids[3]]


async def test_cancelling_a_place_lets_a_parked_lane_go_on(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 4)
    first, second, third, fourth = [await publish(store) for _ in range(4)]
    await claim_all(store, limit=1)
    await store.delivery.heartbeat("w1", 4)
    assert look().parked == {LANE}
    await store.admin.cancel(second)
    assert look().ring == [LANE]
    assert look().parked == set()
    await claim_all(store)
    assert [claim.id for claim in await claim_all(store)] == [third]
    assert look().lanes == {LANE: [fourth]}
    assert first != second


@pytest.mark.parametrize("damage", ["record", "places", "timers", "log", "ring", "parked"])
async def test_where_a_key_fails_nothing_or_everything_happens(
    store: Store, keys: PartitionKeys, redis_client: Any, move_clock: MoveClock, damage: str
) -> None:
    message_id = await publish(store, delay_ms=1000)
    key = {
        "record": keys.message(message_id),
        "places": keys.admitted(LANE),
        "timers": keys.timers,
        "log": keys.log,
        "ring": keys.ring,
        "parked": keys.parked,
    }[damage]
    async with damaged(redis_client, key):
        await asyncio.gather(store.admin.cancel(message_id), return_exceptions=True)
    result = await store.admin.cancel(message_id)
    assert result in (CancelResult.CANCELED, CancelResult.NOT_FOUND)
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    assert await claim_all(store) == []
