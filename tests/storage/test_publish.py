"""publish.lua: stored once, whatever is repeated, and at once where its state says."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from qstash_clone.domain.message import NewMessage, State
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.codec import MAX_LANE_BYTES
from qstash_clone.storage.interface import Published
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, Opened
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import LANE, claim_all, claim_one, delivered, new_message, publish
from tests.support.meter import Meter


async def now_ms(store: Store) -> int:
    return (await store.delivery.promote(0, 0)).now_ms


async def test_a_stored_message_reads_back_as_published(store: Store) -> None:
    message = new_message(store, body=b"\x00\xff")
    await store.publishing.publish(message)
    stored = await store.admin.get_message(message.id)
    assert stored is not None
    assert (stored.message, stored.body, stored.lane, stored.state) == (
        message.message,
        message.body,
        LANE,
        State.QUEUED,
    )
    assert (stored.generation, stored.claims, stored.retried, stored.last_attempt) == (0, 0, 0, None)
    assert stored.created_ms == stored.due_ms == stored.not_before_ms


@pytest.mark.parametrize(
    ("delay_ms", "relative_ms", "due_in_ms"),
    [
        (0, None, 0),
        (1, None, 1),
        (5_000, None, 5_000),
        (0, 7_000, 7_000),
        (5_000, 7_000, 7_000),
        (9_000, 7_000, 7_000),
        (9_000, -7_000, 0),
        (365 * 86_400_000, None, 365 * 86_400_000),
    ],
)
async def test_when_it_is_due(store: Store, look: Look, delay_ms: int, relative_ms: int | None, due_in_ms: int) -> None:
    not_before_ms = None if relative_ms is None else await now_ms(store) + relative_ms
    message_id = await publish(store, delay_ms=delay_ms, not_before_ms=not_before_ms)
    stored = look().records[message_id].stored
    if relative_ms is not None and relative_ms > 0:
        assert stored.due_ms == not_before_ms
    else:
        assert stored.due_ms == stored.created_ms + due_in_ms
    assert stored.state is (State.DELAYED if due_in_ms else State.QUEUED)
    assert list(look().timers) == ([message_id] if due_in_ms else [])


async def test_a_not_before_of_zero_is_the_past_and_not_none(store: Store, look: Look) -> None:
    message_id = await publish(store, delay_ms=5000, not_before_ms=0)
    assert look().records[message_id].stored.state is State.QUEUED


async def test_repeating_a_publish_changes_nothing(store: Store, look: Look) -> None:
    message = new_message(store)
    await store.publishing.publish(message)
    before = look()
    await store.publishing.publish(message)
    assert look() == before


async def test_repeating_a_publish_after_the_delivery_changes_nothing(store: Store, look: Look) -> None:
    message = new_message(store)
    await store.publishing.publish(message)
    await store.delivery.settle(delivered(await claim_one(store)))
    await store.publishing.publish(message)
    assert await claim_all(store) == []
    assert look().letters(message.id) == "CAD"


async def test_repeating_is_recognised_without_a_grace_period(opened: Opened, settings: Settings, look: Look) -> None:
    """The record of a finished message must outlive all tries of the call that stored it."""
    store = await opened(replace(settings, message_grace_ms=0))
    await store.delivery.heartbeat("w1", 10)
    message = new_message(store)
    await store.publishing.publish(message)
    await store.delivery.settle(delivered(await claim_one(store)))
    await store.publishing.publish(message)
    assert await claim_all(store) == []
    assert look().records[message.id].ttl_ms > 30_000, "three tries of 10 s"


async def test_the_same_id_twice_in_one_group_is_stored_once(store: Store, look: Look) -> None:
    message = new_message(store)
    await asyncio.gather(*(store.publishing.publish(message) for _ in range(3)))
    assert len(look().entries) == 1


async def test_a_lost_request_and_a_lost_reply_store_the_message_once(
    lossy_store: Store, proxy: LossyProxy, look: Look
) -> None:
    proxy.lose_request(Script("publish").digest)
    first = await publish(lossy_store)
    proxy.lose_reply(Script("publish").digest)
    second = await publish(lossy_store)
    assert proxy.losses == 2
    assert sorted(filter(None, look().entries.values())) == sorted([first, second])
    assert look().letters(first) == look().letters(second) == "C"


async def test_a_group_whose_reply_was_lost_is_stored_once(lossy_store: Store, proxy: LossyProxy, look: Look) -> None:
    proxy.lose_reply(Script("publish").digest, times=2)
    ids = await asyncio.gather(*(publish(lossy_store, lane=f"h:{number % 3}") for number in range(30)))
    assert proxy.losses == 2
    assert sorted(filter(None, look().entries.values())) == sorted(ids)


async def test_a_store_that_never_answers_is_unavailable(lossy_store: Store, proxy: LossyProxy) -> None:
    proxy.lose_request(Script("publish").digest, times=3)
    with pytest.raises(StorageUnavailable):
        await publish(lossy_store)
    assert proxy.losses == 3
    await publish(lossy_store)


async def test_one_member_that_fails_fails_alone(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    messages = [new_message(store, lane=f"h:{number}") for number in range(4)]
    async with damaged(redis_client, keys.message(messages[1].id)), damaged(redis_client, keys.lane("h:2")):
        results = await asyncio.gather(
            *(store.publishing.publish(message) for message in messages), return_exceptions=True
        )
    assert [type(result) for result in results] == [Published, StorageUnavailable, StorageUnavailable, Published]
    assert set(look().records) == {messages[0].id, messages[3].id}
    for message in messages[1:3]:
        await store.publishing.publish(message)
    assert set(look().records) == {message.id for message in messages}


@pytest.mark.parametrize("size", [0, 1, 65_536, 1 << 20])
async def test_bodies_of_any_size(store: Store, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    message_id = await publish(store, body=body)
    stored = await store.admin.get_message(message_id)
    assert stored is not None
    assert stored.body == body


@pytest.mark.parametrize(
    ("url", "lane"),
    [
        ("https://receiver.example/", "h:receiver.example"),
        ("https://receiver.example:8443/a", "h:receiver.example:8443"),
        ("https://Receiver.Example/", "h:receiver.example"),
        ("https://a/", "h:a"),
        ("https://user:secret@receiver.example/", "h:receiver.example"),
        ("https://" + "h" * 253 + "/", "h:" + "h" * 253),
        ("https://receiver.example/" + "x" * 5000, "h:receiver.example"),
        ("https://receiver.example/", "q:" + "ä" * 100),
        ("https://receiver.example/", "h:" + "x" * (MAX_LANE_BYTES - 2)),
        ("https://receiver.example/", "h:"),
    ],
)
async def test_any_lane_survives_the_life_of_a_message(store: Store, look: Look, url: str, lane: str) -> None:
    message = new_message(store, lane=lane, url=url, delay_ms=1)
    await store.publishing.publish(message)
    assert look().records[message.id].stored.lane == lane
    while not (claims := await claim_all(store)):
        await store.delivery.promote(0, 10)
    assert claims[0].message.url == url
    assert look().admitted == {lane: {message.id}}
    await store.delivery.settle(delivered(claims[0]))
    assert look().admitted == {}


async def test_a_lane_that_does_not_fit_is_refused(store: Store, look: Look) -> None:
    with pytest.raises(ValueError, match="lane"):
        await store.publishing.publish(new_message(store, lane="x" * (MAX_LANE_BYTES + 1)))
    assert look().records == {}


async def test_a_new_earliest_timer_rings(store: Store, look: Look) -> None:
    await publish(store, delay_ms=60_000)
    assert look().bells == 1
    await publish(store, delay_ms=70_000)
    assert look().bells == 1, "the workers wake up before that anyway"
    await publish(store, delay_ms=50_000)
    assert look().bells == 2


async def test_nobody_rings_where_nobody_listens(opened: Opened, settings: Settings, look: Look) -> None:
    store = await opened(settings)
    await publish(store, delay_ms=60_000)
    assert look().entries == {}


async def test_without_a_worker_messages_wait_in_their_lane(opened: Opened, settings: Settings, look: Look) -> None:
    store = await opened(settings)
    ids = [await publish(store) for _ in range(3)]
    assert look().lanes == {LANE: ids}
    await store.delivery.heartbeat("w1", 100)
    assert [claim.id for claim in await claim_all(store)] == ids


async def test_where_somebody_waits_nobody_overtakes(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 2)
    ids = [await publish(store) for _ in range(4)]
    assert look().lanes == {LANE: ids[1:]}
    await store.delivery.heartbeat("w1", 20)
    claimed: list[MessageId] = [claim.id for claim in await claim_all(store)]
    assert claimed == ids


async def test_where_room_has_come_but_somebody_waits_nobody_overtakes(store: Store, look: Look) -> None:
    """A cancelled message gives its place back, and the next turn is only given with the next settlement."""
    await store.delivery.heartbeat("w1", 4)
    first, second, waiting = [await publish(store) for _ in range(3)]
    await store.admin.cancel(first)
    last = await publish(store)
    assert look().lanes == {LANE: [waiting, last]}
    assert look().admitted == {LANE: {second}}


async def test_a_single_message_that_has_to_wait_gets_its_turn(opened: Opened, settings: Settings) -> None:
    store = await opened(settings)
    message_id = await publish(store)
    await store.delivery.heartbeat("w1", 1)
    assert (await claim_one(store)).id == message_id


@pytest.mark.parametrize("partitions", [3])
async def test_ids_lie_in_the_partition_that_is_being_filled(opened: Opened, settings: Settings) -> None:
    store = await opened(settings)
    messages: list[NewMessage] = []
    for _ in range(30):
        message = new_message(store)
        await store.publishing.publish(message)
        messages.append(message)
    found = [await store.admin.get_message(message.id) for message in messages]
    assert all(found)
    stats = await store.admin.stats()
    assert stats.lanes_waiting == 3, "each call fills the next partition"


def new_fan_out(store: Store, count: int, body: bytes) -> list[NewMessage]:
    return [
        new_message(store, id=message_id, body=body, lane=f"h:{number}", url=f"https://{number}.example/")
        for number, message_id in enumerate(store.publishing.new_message_ids(count))
    ]


@pytest.mark.parametrize(
    ("count", "endpoints", "body_bytes", "calls"),
    [
        (100, 1, 100, 1),
        (4, 50, 100, 2),
        (4, 10, 50_000, 2),
        (3, 10, 100_000, 3),
    ],
)
async def test_fan_outs_go_together_as_far_as_their_copies_fit(
    store: Store, redis_client: Any, count: int, endpoints: int, body_bytes: int, calls: int
) -> None:
    """However short the call is: Redis serves nobody else while it stores what the call asks for."""
    await publish(store)
    fan_outs = [new_fan_out(store, endpoints, bytes(body_bytes)) for _ in range(count)]
    counted = await Meter(redis_client).count(lambda: asyncio.gather(*map(store.publishing.fan_out, fan_outs)))
    assert (counted["evalsha"], counted["set"]) == (calls, count * endpoints)
