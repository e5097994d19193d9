"""Repeats of a publish: publish.lua decides, clear_deduplication.lua and trim_deduplication.lua forget."""

import asyncio
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from qstash_clone.domain.message import Deduplication, NewMessage, State
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.observability import DEDUPLICATION_SHED
from qstash_clone.settings import Settings
from qstash_clone.storage.delivery_store import DEDUPLICATION_RECORD_BYTES
from qstash_clone.storage.interface import DeduplicationRecord, Published
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import partition_of
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, MoveClock, Opened
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import claim_all, claim_one, delivered, failed, new_message, publish

WINDOW_MS = 600_000
LIMIT = 500
"""What the workers ask for."""


def repeat_of(digest: bytes = bytes(16), window_ms: int = WINDOW_MS) -> Deduplication:
    return Deduplication(digest=digest, window_ms=window_ms)


async def publish_once(
    store: Store, deduplication: Deduplication | None = None, *, body: bytes = b"body", delay_ms: int = 0
) -> tuple[NewMessage, Published]:
    """A message under a fresh id, and what became of it."""
    message = new_message(store, body=body, delay_ms=delay_ms, deduplication=deduplication or repeat_of())
    return message, await store.publishing.publish(message)


async def test_a_plain_message_leaves_no_record(store: Store, look: Look) -> None:
    await publish(store)
    await publish(store)
    partition = look()
    assert (partition.deduplication, partition.dedup) == ({}, [])
    assert len(partition.records) == 2


async def test_a_repeat_is_not_stored_and_names_the_first(store: Store, look: Look) -> None:
    first, published = await publish_once(store, body=b"first")
    assert published == Published(id=first.id)
    before = look()
    _, again = await publish_once(store, body=b"second")
    assert again == Published(id=first.id, is_duplicate=True)
    assert look() == before
    stored = await store.admin.get_message(first.id)
    assert stored is not None
    assert stored.body == b"first"


async def test_another_digest_is_no_repeat(store: Store, look: Look) -> None:
    for number in range(3):
        _, published = await publish_once(store, repeat_of(bytes([number]) * 16))
        assert not published.is_duplicate
    assert len(look().records) == len(look().dedup) == 3


async def test_a_window_ends_and_a_repeat_does_not_extend_it(store: Store, look: Look, move_clock: MoveClock) -> None:
    first, _ = await publish_once(store)
    await move_clock(WINDOW_MS - 10_000)
    _, again = await publish_once(store)
    assert again.is_duplicate
    await move_clock(10_000)
    second, published = await publish_once(store)
    assert published == Published(id=second.id)
    assert look().deduplication[bytes(16)].message_id == second.id != first.id
    _, again = await publish_once(store)
    assert again == Published(id=second.id, is_duplicate=True)


async def test_redis_itself_forgets_what_is_over(store: Store, redis_client: Any, keys: PartitionKeys) -> None:
    await publish_once(store)
    assert WINDOW_MS - 10_000 < await redis_client.pttl(keys.deduplication(bytes(16))) <= WINDOW_MS


@pytest.mark.parametrize("end", [State.DELIVERED, State.FAILED, State.CANCELED])
async def test_a_repeat_of_what_is_over_is_a_repeat(store: Store, end: State) -> None:
    first, _ = await publish_once(store)
    if end is State.CANCELED:
        await store.admin.cancel(first.id)
    else:
        claim = await claim_one(store)
        await store.delivery.settle(delivered(claim) if end is State.DELIVERED else failed(claim))
    _, again = await publish_once(store)
    assert again == Published(id=first.id, is_duplicate=True)


async def test_a_repeat_of_what_is_forgotten_is_a_repeat(store: Store, keys: PartitionKeys) -> None:
    """The record of the message may be gone long before the window is over."""
    first, _ = await publish_once(store)
    await store.delivery.settle(delivered(await claim_one(store)))
    await store.commands.ask("DEL", keys.message(first.id))
    _, again = await publish_once(store)
    assert again.is_duplicate


async def test_repeating_the_very_call_is_stored_and_no_duplicate(store: Store, look: Look) -> None:
    message, published = await publish_once(store)
    before = look()
    assert await store.publishing.publish(message) == published
    assert look() == before


async def test_repeating_a_call_whose_message_is_forgotten_is_no_duplicate(store: Store, keys: PartitionKeys) -> None:
    message, published = await publish_once(store)
    await store.delivery.settle(delivered(await claim_one(store)))
    await store.commands.ask("DEL", keys.message(message.id))
    assert await store.publishing.publish(message) == published
    assert await claim_all(store) == []


async def test_a_lost_reply_is_no_duplicate(lossy_store: Store, proxy: LossyProxy, look: Look) -> None:
    proxy.lose_reply(Script("publish").digest, times=2)
    message, published = await publish_once(lossy_store)
    assert proxy.losses == 2
    assert published == Published(id=message.id)
    assert look().letters(message.id) == "C"


async def test_two_in_one_group_are_one_message(store: Store, look: Look) -> None:
    """The first publish of a loop iteration opens the group that the others join."""
    results = await asyncio.gather(*(publish_once(store) for _ in range(5)))
    published = [result for _, result in results]
    assert Counter(result.is_duplicate for result in published) == {False: 1, True: 4}
    assert len({result.id for result in published}) == 1
    assert len(look().records) == 1


@pytest.mark.parametrize("partitions", [1, 3])
async def test_of_many_publishes_from_two_processes_exactly_one_is_stored(
    opened: Opened, settings: Settings, look: Look, partitions: int
) -> None:
    stores = [await opened(settings) for _ in range(2)]
    await stores[0].delivery.heartbeat("w1", 100)
    digests = [os.urandom(16) for _ in range(8)]

    async def one(number: int) -> tuple[bytes, Published]:
        digest = digests[number % len(digests)]
        await asyncio.sleep(0)
        _, published = await publish_once(stores[number // len(digests) % 2], repeat_of(digest), body=b"%d" % number)
        return digest, published

    results = await asyncio.gather(*(one(number) for number in range(50 * len(digests))))
    for digest in digests:
        of_digest = [published for found, published in results if found == digest]
        [stored] = [published for published in of_digest if not published.is_duplicate]
        assert {published.id for published in of_digest} == {stored.id}
        assert len(of_digest) == 50
        partition = partition_of(MessageId(digest), partitions)
        assert look(partition).deduplication[digest].message_id == stored.id
        assert stored.id in look(partition).records
    assert sum(len(look(number).records) for number in range(partitions)) == len(digests)


@pytest.mark.parametrize("partitions", [3])
async def test_the_digest_decides_the_partition(store: Store) -> None:
    for _ in range(30):
        deduplication = repeat_of(os.urandom(16))
        message_id = store.publishing.new_message_id(deduplication)
        assert partition_of(message_id, 3) == partition_of(MessageId(deduplication.digest), 3)


async def test_a_process_that_dies_with_its_request_under_way(
    store: Store, lossy_store: Store, proxy: LossyProxy, look: Look
) -> None:
    """Whether the script ran or not: whoever comes next finds it done or not begun."""
    for run, lose in ((False, proxy.lose_request), (True, proxy.lose_reply)):
        digest = os.urandom(16)
        lose(Script("publish").digest, times=3)
        with pytest.raises(StorageUnavailable):
            await publish_once(lossy_store, repeat_of(digest))
        _, published = await publish_once(store, repeat_of(digest))
        assert published.is_duplicate is run
        assert published.id in look().records


async def test_a_record_that_cannot_be_read_holds_its_own_message_up_and_no_other(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    async with damaged(redis_client, keys.deduplication(bytes(16))):
        failing = asyncio.create_task(publish_once(store))
        other, _ = await publish_once(store, repeat_of(b"\x01" * 16))
        with pytest.raises(StorageUnavailable):
            await failing
    assert set(look().records) == {other.id}
    _, published = await publish_once(store)
    assert not published.is_duplicate


async def test_one_stored_without_being_on_record_is_put_on_record_by_the_repeated_call(
    store: Store, keys: PartitionKeys, look: Look
) -> None:
    """As if the step had broken off between the two."""
    message, _ = await publish_once(store)
    await store.commands.ask("DEL", keys.deduplication(bytes(16)))
    assert await store.publishing.publish(message) == Published(id=message.id)
    assert look().deduplication[bytes(16)].message_id == message.id
    assert len(look().records) == 1


async def test_one_stored_while_another_is_on_record_stays_stored(
    store: Store, keys: PartitionKeys, look: Look
) -> None:
    message, _ = await publish_once(store)
    await store.commands.ask("DEL", keys.deduplication(bytes(16)))
    other, _ = await publish_once(store)
    assert await store.publishing.publish(message) == Published(id=message.id)
    assert look().deduplication[bytes(16)].message_id == other.id
    assert set(look().records) == {message.id, other.id}


async def test_a_delayed_message_is_recognised_while_it_waits(store: Store) -> None:
    first, _ = await publish_once(store, delay_ms=60_000)
    _, again = await publish_once(store)
    assert again == Published(id=first.id, is_duplicate=True)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_record_can_be_looked_up_and_cleared(store: Store, move_clock: MoveClock, partitions: int) -> None:
    digest = os.urandom(16)
    assert await store.admin.get_deduplication(digest) is None
    assert not await store.admin.clear_deduplication(digest)
    first, _ = await publish_once(store, repeat_of(digest))
    stored = await store.admin.get_message(first.id)
    assert stored is not None
    expected = DeduplicationRecord(message_id=first.id, expires_ms=stored.created_ms + WINDOW_MS)
    assert await store.admin.get_deduplication(digest) == expected
    await move_clock(WINDOW_MS - 1_000)
    assert await store.admin.get_deduplication(digest) == expected
    assert await store.admin.clear_deduplication(digest)
    assert await store.admin.get_deduplication(digest) is None
    assert not await store.admin.clear_deduplication(digest)
    _, published = await publish_once(store, repeat_of(digest))
    assert not published.is_duplicate


async def test_a_record_whose_window_is_over_is_none(store: Store, move_clock: MoveClock) -> None:
    await publish_once(store)
    await move_clock(WINDOW_MS)
    assert await store.admin.get_deduplication(bytes(16)) is None
    assert not await store.admin.clear_deduplication(bytes(16))


async def test_clearing_with_a_lost_reply(lossy_store: Store, proxy: LossyProxy) -> None:
    await publish_once(lossy_store)
    proxy.lose_reply(Script("clear_deduplication").digest)
    assert await lossy_store.admin.clear_deduplication(bytes(16))


async def trim_all(store: Store) -> int:
    total = 0
    while dropped := await store.delivery.expire(0, LIMIT):
        total += dropped
    return total


async def test_nothing_is_trimmed_early(store: Store, look: Look, move_clock: MoveClock) -> None:
    for number in range(3):
        await publish_once(store, repeat_of(bytes([number]) * 16))
    before = look()
    await move_clock(WINDOW_MS - 10_000)
    assert await trim_all(store) == 0
    assert (look().deduplication, look().dedup) == (before.deduplication, before.dedup)


async def test_what_is_over_is_trimmed_in_bounded_batches(store: Store, look: Look, move_clock: MoveClock) -> None:
    await asyncio.gather(*(publish_once(store, repeat_of(bytes([number]) * 16)) for number in range(25)))
    await move_clock(WINDOW_MS)
    shed = DEDUPLICATION_SHED.value
    assert await store.delivery.expire(0, 10) == 10
    assert len(look().dedup) == len(look().deduplication) == 15
    assert await trim_all(store) == 15
    assert (look().dedup, look().deduplication) == ([], {})
    assert DEDUPLICATION_SHED.value == shed, "their time was over"


async def test_the_oldest_go_when_there_are_too_many(opened: Opened, settings: Settings, look: Look) -> None:
    store = await opened(replace(settings, dedup_max_bytes=5 * DEDUPLICATION_RECORD_BYTES))
    digests = [bytes([number]) * 16 for number in range(8)]
    for digest in digests:
        await publish_once(store, repeat_of(digest))
    shed = DEDUPLICATION_SHED.value
    assert await store.delivery.expire(0, 2) == 2
    assert await trim_all(store) == 1
    partition = look()
    assert partition.dedup == digests[3:]
    assert set(partition.deduplication) == set(digests[3:])
    assert DEDUPLICATION_SHED.value == shed + 3
    _, published = await publish_once(store, repeat_of(digests[0]))
    assert not published.is_duplicate
    _, again = await publish_once(store, repeat_of(digests[7]))
    assert again.is_duplicate


async def test_a_newer_record_of_the_same_digest_is_not_trimmed_with_the_old_entry(
    store: Store, look: Look, move_clock: MoveClock
) -> None:
    await publish_once(store)
    await move_clock(WINDOW_MS)
    second, _ = await publish_once(store)
    assert look().dedup == [bytes(16)] * 2
    assert await trim_all(store) == 1
    assert look().deduplication[bytes(16)].message_id == second.id


async def test_a_cleared_record_leaves_an_entry_that_harms_nobody(
    opened: Opened, settings: Settings, look: Look, move_clock: MoveClock
) -> None:
    store = await opened(replace(settings, dedup_max_bytes=DEDUPLICATION_RECORD_BYTES))
    await publish_once(store)
    await store.admin.clear_deduplication(bytes(16))
    await move_clock(1_000)
    second, _ = await publish_once(store)
    shed = DEDUPLICATION_SHED.value
    assert await trim_all(store) == 1
    assert look().deduplication[bytes(16)].message_id == second.id
    assert DEDUPLICATION_SHED.value == shed


async def test_what_a_record_is_reckoned_to_need(store: Store, redis_client: Any, keys: PartitionKeys) -> None:
    """The limit is in bytes and what is kept is a number of records: the factor must not be far off."""
    count = 1_000
    digests = [os.urandom(16) for _ in range(count)]
    await asyncio.gather(*(publish_once(store, repeat_of(digest), body=b"") for digest in digests))
    record = await redis_client.memory_usage(keys.deduplication(digests[0]))
    entry = await redis_client.memory_usage(keys.dedup, samples=0) / count
    # Not told by Redis: the dictionary entry of the time at which it forgets the record.
    assert 0.5 * DEDUPLICATION_RECORD_BYTES < record + entry < DEDUPLICATION_RECORD_BYTES
