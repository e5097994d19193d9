"""Repeats of messages that live on another partition than the one that decides: reserve, store, confirm."""

import asyncio
import struct
from collections import Counter
from itertools import count
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.lanes import queue_lane
from qstash_clone.domain.message import Deduplication, NewMessage, State
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage import reservations
from qstash_clone.storage.interface import Published
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition, partition_of
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, Opened
from tests.support.eventually import eventually
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import new_message

PARTITIONS = 3
DIGEST = bytes(16)
WINDOW_MS = 600_000


@pytest.fixture
def partitions() -> int:
    return PARTITIONS


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "PATIENCE_S", (0.001,) * 6)


def queue_elsewhere(digest: bytes = DIGEST) -> str:
    """A queue that does not live where the digest does."""
    deciding = partition_of(MessageId(digest), PARTITIONS)
    names = (f"orders-{number}" for number in count())
    return next(name for name in names if lane_partition(queue_lane(name), PARTITIONS) != deciding)


def member(store: Store, queue: str | None = None, *, body: bytes = b"body", digest: bytes = DIGEST) -> NewMessage:
    lane = queue_lane(queue or queue_elsewhere(digest))
    deduplication = Deduplication(digest=digest, window_ms=WINDOW_MS)
    message_id = store.publishing.new_message_id(deduplication, [lane])
    return new_message(store, id=message_id, lane=lane, body=body, deduplication=deduplication)


def stored_ids(look: Look) -> list[bytes]:
    return [message_id for number in range(PARTITIONS) for message_id in look(number).records]


def keys_of(settings: Settings, digest: bytes = DIGEST) -> PartitionKeys:
    return PartitionKeys(settings.key_namespace, partition_of(MessageId(digest), PARTITIONS), PARTITIONS)


async def age_reservation(store: Store, settings: Settings) -> None:
    """As if its publisher had died long ago."""
    key = keys_of(settings).reservation(DIGEST)
    reservation = await store.commands.ask("GET", key)
    since_ms = int.from_bytes(reservation[12:18], "big") - reservations.GIVEN_UP_MS - 1
    aged = reservation[:12] + struct.pack(">Q", since_ms)[2:] + reservation[18:]
    await store.commands.ask("SET", key, aged, "KEEPTTL")


async def test_a_repeat_is_not_stored_and_names_the_first(store: Store, look: Look, settings: Settings) -> None:
    first, second = member(store, body=b"first"), member(store, body=b"second")
    assert partition_of(first.id, PARTITIONS) != partition_of(MessageId(DIGEST), PARTITIONS)
    assert await store.publishing.publish(first) == Published(id=first.id)
    assert await store.publishing.publish(second) == Published(id=first.id, is_duplicate=True)
    assert stored_ids(look) == [first.id]
    record = await store.admin.get_deduplication(DIGEST)
    assert record is not None
    assert record.message_id == first.id
    assert await store.commands.ask("EXISTS", keys_of(settings).reservation(DIGEST)) == 0


async def test_of_many_publishes_to_different_queues_exactly_one_is_stored(
    opened: Opened, settings: Settings, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "PATIENCE_S", (0.02, 0.1, 0.5, 2, 5))
    stores = [await opened(settings) for _ in range(2)]
    queues = [f"queue-{number}" for number in range(6)]
    messages = [member(stores[number % 2], queues[number % 6], body=b"%d" % number) for number in range(40)]
    results = await asyncio.gather(
        *(stores[number % 2].publishing.publish(message) for number, message in enumerate(messages))
    )
    assert Counter(result.is_duplicate for result in results) == {False: 1, True: 39}
    [stored] = [result.id for result in results if not result.is_duplicate]
    assert {result.id for result in results} == {stored}
    assert stored_ids(look) == [stored]


async def test_a_fan_out_is_told_to_its_repeats(store: Store) -> None:
    queue = queue_elsewhere()
    deduplication = Deduplication(digest=DIGEST, window_ms=WINDOW_MS)

    def fan_out() -> list[NewMessage]:
        ids = store.publishing.new_message_ids(2, deduplication, [queue_lane(queue)])
        return [
            new_message(store, id=one, lane=queue_lane(queue), deduplication=deduplication, url=f"https://{n}.example/")
            for n, one in enumerate(ids)
        ]

    first, second = fan_out(), fan_out()
    assert await store.publishing.fan_out(first) == Published(id=first[0].id)
    again = await store.publishing.fan_out(second)
    assert again.originals == ((first[0].id, "https://0.example/"), (first[1].id, "https://1.example/"))


async def test_a_publisher_that_dies_before_storing_swallows_nothing(
    store: Store, lossy_store: Store, proxy: LossyProxy, look: Look, settings: Settings
) -> None:
    proxy.lose_request(Script("publish").digest, times=3)
    with pytest.raises(StorageUnavailable):
        await lossy_store.publishing.publish(member(lossy_store))
    second = member(store)
    with pytest.raises(StorageUnavailable, match="under way"):
        await store.publishing.publish(second)
    assert stored_ids(look) == []
    await age_reservation(store, settings)
    assert await store.publishing.publish(second) == Published(id=second.id)
    assert stored_ids(look) == [second.id]


async def test_what_a_publisher_stored_before_it_died_is_the_first(
    store: Store, lossy_store: Store, proxy: LossyProxy, look: Look
) -> None:
    first, second = member(lossy_store), member(store)
    proxy.lose_request(Script("confirm_deduplication").digest, times=3)
    with pytest.raises(StorageUnavailable):
        await lossy_store.publishing.publish(first)
    assert await store.publishing.publish(second) == Published(id=first.id, is_duplicate=True)
    assert stored_ids(look) == [first.id]
    stored = await store.admin.get_message(first.id)
    assert stored is not None
    assert stored.state is State.QUEUED
    record = await store.admin.get_deduplication(DIGEST)
    assert record is not None
    assert record.message_id == first.id


async def test_a_publish_without_a_queue_is_a_repeat_of_one_in_a_queue(
    store: Store, lossy_store: Store, proxy: LossyProxy, look: Look
) -> None:
    """It would be decided in one step where the digest lives, but for the reservation there."""
    first = member(lossy_store)
    proxy.lose_request(Script("confirm_deduplication").digest, times=3)
    with pytest.raises(StorageUnavailable):
        await lossy_store.publishing.publish(first)
    deduplication = Deduplication(digest=DIGEST, window_ms=WINDOW_MS)
    second = new_message(store, deduplication=deduplication)
    assert partition_of(second.id, PARTITIONS) == partition_of(MessageId(DIGEST), PARTITIONS)
    assert await store.publishing.publish(second) == Published(id=first.id, is_duplicate=True)
    assert stored_ids(look) == [first.id]
    assert await store.publishing.publish(new_message(store, deduplication=deduplication)) == Published(
        id=first.id, is_duplicate=True
    )


@pytest.mark.parametrize("name", ["reserve_deduplication", "publish", "confirm_deduplication"])
async def test_a_lost_reply_stores_once(
    store: Store, lossy_store: Store, proxy: LossyProxy, look: Look, name: str
) -> None:
    first = member(lossy_store)
    proxy.lose_reply(Script(name).digest)
    assert await lossy_store.publishing.publish(first) == Published(id=first.id)
    assert (await store.publishing.publish(member(store))).is_duplicate
    assert stored_ids(look) == [first.id]


async def test_clearing_forgets_a_reservation(store: Store, lossy_store: Store, proxy: LossyProxy, look: Look) -> None:
    proxy.lose_request(Script("publish").digest, times=3)
    with pytest.raises(StorageUnavailable):
        await lossy_store.publishing.publish(member(lossy_store))
    await store.admin.clear_deduplication(DIGEST)
    second = member(store)
    assert await store.publishing.publish(second) == Published(id=second.id)


async def test_what_was_held_up_until_its_reservation_was_taken_over_is_not_stored(
    store: Store, opened: Opened, settings: Settings, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls wait in line for one another, each for as long as Redis does not answer."""
    slow = await opened(settings)
    runner: Any = slow.publishing._runner  # pyright: ignore[reportPrivateUsage]
    run, gate = runner.run, asyncio.Event()

    async def run_later(name: str, *call: Any) -> Any:
        if name == "publish":
            await gate.wait()
        return await run(name, *call)

    monkeypatch.setattr(runner, "run", run_later)
    monkeypatch.setattr(slow.publishing, "_begin_within_s", 0.0)
    queue = queue_elsewhere()
    before, first, second = member(slow, queue, digest=DIGEST[:-1] + b"1"), member(slow, queue), member(store, queue)
    plain = msgspec.structs.replace(before, deduplication=None)
    publishes = [asyncio.ensure_future(slow.publishing.publish(message)) for message in (plain, first)]
    await eventually(lambda: store.commands.ask("EXISTS", keys_of(settings).reservation(DIGEST)))
    await age_reservation(store, settings)
    assert await store.publishing.publish(second) == Published(id=second.id)
    gate.set()
    results = await asyncio.gather(*publishes, return_exceptions=True)
    assert results[0] == Published(id=plain.id)
    assert isinstance(results[1], StorageUnavailable)
    assert sorted(stored_ids(look)) == sorted([plain.id, second.id])


async def test_what_is_stored_is_confirmed_though_redis_is_full_by_then(
    store: Store, look: Look, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It will be delivered, so its repeats have to be recognised, also when it has ended and is forgotten."""
    runner: Any = store.publishing._runner  # pyright: ignore[reportPrivateUsage]
    run = runner.run

    async def fill_first(name: str, *call: Any) -> Any:
        if name == "confirm_deduplication":
            await redis_client.config_set("maxmemory", "1")
        return await run(name, *call)

    monkeypatch.setattr(runner, "run", fill_first)
    first = member(store)
    try:
        assert await store.publishing.publish(first) == Published(id=first.id)
        assert await store.publishing.publish(member(store)) == Published(id=first.id, is_duplicate=True)
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert stored_ids(look) == [first.id]
