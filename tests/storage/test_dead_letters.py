"""retry_dead_letter.lua, delete_dead_letter.lua and the pages of the dead letter queue."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from qstash_clone.domain.message import State
from qstash_clone.domain.overrides import Delay
from qstash_clone.errors import InvalidRequest, StorageError
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage import selection
from qstash_clone.storage.interface import SettleResult
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock, Opened
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import (
    FAILURE,
    LANE,
    claim_all,
    claim_one,
    dead_letter,
    delivered,
    failed,
    publish,
    retry,
)

NO_ID = [
    "",
    "-",
    "1",
    "1-",
    "-1",
    "a-1",
    "1-a",
    "01-1",
    "1-01",
    "1-1-1",
    " 1-1",
    "1-1\n",
    "9" * 25 + "-0",
    "٣-1",
    "1--1",
]


async def test_a_dead_letter_reads_back(store: Store) -> None:
    message_id = await publish(store, body=b"why")
    await store.delivery.settle(failed(await claim_one(store)))
    [entry] = (await store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)).entries
    assert (entry.stored.id, entry.stored.body, entry.stored.last_attempt) == (message_id, b"why", FAILURE)
    assert await store.admin.get_dead_letter(entry.dlq_id) == entry


@pytest.mark.parametrize("dlq_id", [*NO_ID, "1-1"])
async def test_what_is_no_id_is_not_found(store: Store, dlq_id: str) -> None:
    assert await store.admin.get_dead_letter(dlq_id) is None
    assert await store.admin.delete_dead_letter(dlq_id) is False
    assert await store.admin.retry_dead_letter(dlq_id) is None


@pytest.mark.parametrize("cursor", NO_ID)
async def test_what_is_no_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await store.admin.list_dead_letters(cursor=cursor, count=10, newest_first=True)


async def test_a_deleted_one_is_gone_and_its_record_stays_for_the_log(
    store: Store, settings: Settings, look: Look
) -> None:
    kept, deleted = await dead_letter(store), await dead_letter(store)
    [_, (_, message_id)] = look().dlq
    assert await store.admin.delete_dead_letter(deleted)
    assert not await store.admin.delete_dead_letter(deleted)
    assert await store.admin.get_dead_letter(deleted) is None
    assert await store.admin.get_dead_letter(kept) is not None
    partition = look()
    assert settings.log_retention_ms - 10_000 < partition.records[message_id].ttl_ms <= settings.log_retention_ms
    assert partition.letters(MessageId(message_id)) == "CAEFZ"


async def test_without_a_log_a_deleted_one_takes_its_record_along(
    opened: Opened, settings: Settings, look: Look
) -> None:
    store = await opened(replace(settings, message_log=False))
    await store.delivery.heartbeat("w1", 10)
    assert await store.admin.delete_dead_letter(await dead_letter(store))
    partition = look()
    assert (partition.records, partition.log, partition.finished_bytes) == ({}, [], 0)


async def test_a_lost_reply_deletes_all_the_same(lossy_store: Store, proxy: LossyProxy) -> None:
    dlq_id = await dead_letter(lossy_store)
    proxy.lose_reply(Script("delete_dead_letter").digest)
    assert await lossy_store.admin.delete_dead_letter(dlq_id)


async def test_an_emptied_redis_has_deleted_nothing(store: Store) -> None:
    await store.commands.ask("FLUSHALL")
    assert not await store.admin.delete_dead_letter("1-1")


async def test_a_retried_one_is_a_fresh_message(store: Store, settings: Settings, look: Look) -> None:
    message_id = await publish(store, body=b"again")
    await store.delivery.settle(retry(await claim_one(store), delay_ms=0))
    await store.delivery.promote(0, 10)
    await store.delivery.settle(failed(await claim_one(store)))
    [entry] = (await store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)).entries
    new_id = await store.admin.retry_dead_letter(entry.dlq_id)
    assert new_id is not None
    assert new_id != message_id
    partition = look()
    assert partition.dlq == []
    assert partition.letters(new_id) == "C"
    assert settings.log_retention_ms - 10_000 < partition.records[message_id].ttl_ms <= settings.log_retention_ms
    assert partition.letters(message_id) == "CAERAEFZ"
    stored = partition.records[new_id].stored
    assert (stored.state, stored.lane, stored.message) == (State.QUEUED, LANE, entry.stored.message)
    assert (stored.retried, stored.claims, stored.generation, stored.last_attempt) == (0, 0, 0, None)
    assert stored.created_ms == stored.due_ms == stored.not_before_ms
    claim = await claim_one(store)
    assert (claim.id, claim.body, claim.retried) == (new_id, b"again", 0)
    assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED


async def test_a_retried_one_waits_behind_its_lane(store: Store, look: Look) -> None:
    dlq_id = await dead_letter(store)
    await store.delivery.heartbeat("w1", 0)
    waiting = await publish(store)
    new_id = await store.admin.retry_dead_letter(dlq_id)
    assert look().lanes == {LANE: [waiting, new_id]}


async def retry_later(store: Store, dlq_id: str, delay: Delay) -> MessageId:
    letter = await store.admin.get_dead_letter(dlq_id)
    assert letter is not None
    new_id = await store.admin.retry_dead_letter_as(letter, letter.stored.message, delay)
    assert new_id is not None
    return new_id


@pytest.mark.parametrize("lane", [LANE, "q:orders", "f:key", "q:orders f:key"])
async def test_a_delayed_one_waits_in_the_timers(store: Store, move_clock: MoveClock, look: Look, lane: str) -> None:
    dlq_id = await dead_letter(store, body=b"later", lane=lane)
    bells = look().bells
    new_id = await retry_later(store, dlq_id, Delay(delay_ms=60_000))
    partition = look()
    stored = partition.records[new_id].stored
    assert (partition.dlq, partition.letters(new_id), stored.state) == ([], "C", State.DELAYED)
    assert partition.timers == {new_id: stored.created_ms + 60_000}
    assert partition.bells == bells + 1, "workers sleep until the earliest timer they know of"
    assert await claim_all(store) == []
    await move_clock(61_000)
    await store.delivery.promote(0, 10)
    claim = await claim_one(store)
    assert (claim.id, claim.body, claim.retried) == (new_id, b"later", 0)
    assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED


async def test_a_retry_for_a_time_that_is_over_begins_at_once(store: Store, look: Look) -> None:
    for not_before_ms in (0, 1_000):
        new_id = await retry_later(store, await dead_letter(store), Delay(not_before_ms=not_before_ms))
        assert look().timers == {}
        claim = await claim_one(store)
        assert claim.id == new_id
        await store.delivery.settle(delivered(claim))


async def test_a_retry_for_a_time_to_come_waits_for_it(store: Store, look: Look) -> None:
    dlq_id = await dead_letter(store)
    at_ms = (await store.virtual_clock.read_clock()).now_ms + 90_000
    new_id = await retry_later(store, dlq_id, Delay(not_before_ms=at_ms))
    assert look().timers == {new_id: at_ms}
    assert look().records[new_id].stored.not_before_ms == at_ms


async def test_a_lost_reply_delays_once(lossy_store: Store, proxy: LossyProxy, look: Look) -> None:
    dlq_id = await dead_letter(lossy_store)
    proxy.lose_reply(Script("retry_dead_letter").digest)
    new_id = await retry_later(lossy_store, dlq_id, Delay(delay_ms=60_000))
    assert list(look().timers) == [new_id]


async def test_where_the_timers_fail_a_delayed_one_stays_a_dead_letter(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    dlq_id = await dead_letter(store)
    before = look()
    async with damaged(redis_client, keys.timers):
        with pytest.raises(StorageError):
            await retry_later(store, dlq_id, Delay(delay_ms=60_000))
    assert look() == before
    assert list(look().timers) == []
    await retry_later(store, dlq_id, Delay(delay_ms=60_000))
    assert len(look().timers) == 1


async def test_a_quarantined_message_is_retried_without_its_past(
    store: Store, settings: Settings, age_leases: AgeLeases, look: Look
) -> None:
    await publish(store)
    for _ in range(settings.max_claims):
        await claim_all(store, reclaim=True)
        await age_leases()
    await store.delivery.settle(failed(await claim_one(store, reclaim=True)))
    [(dlq_id, _)] = look().dlq
    assert await store.admin.retry_dead_letter(dlq_id) is not None
    assert (await claim_one(store)).claims == 1


async def test_retrying_twice_publishes_once(store: Store, look: Look) -> None:
    dlq_id = await dead_letter(store)
    results = await asyncio.gather(*(store.admin.retry_dead_letter(dlq_id) for _ in range(3)))
    assert len([new_id for new_id in results if new_id]) == 1
    assert len(look().entries) == 1


async def test_a_lost_reply_retries_once(lossy_store: Store, proxy: LossyProxy, look: Look) -> None:
    dlq_id = await dead_letter(lossy_store)
    proxy.lose_reply(Script("retry_dead_letter").digest)
    new_id = await lossy_store.admin.retry_dead_letter(dlq_id)
    assert [new_id] == list(look().entries.values())


async def test_retry_against_delete(store: Store, lossy_store: Store, look: Look) -> None:
    for _ in range(10):
        dlq_id = await dead_letter(store)
        new_id, is_deleted = await asyncio.gather(
            store.admin.retry_dead_letter(dlq_id), lossy_store.admin.delete_dead_letter(dlq_id)
        )
        assert (new_id is None) == is_deleted
        for claim in await claim_all(store):
            await store.delivery.settle(delivered(claim))
    assert look().dlq == []


async def test_where_a_key_fails_nothing_is_lost(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    for key in (keys.ring, keys.log, keys.lane(LANE), keys.admitted(LANE), keys.ready):
        dlq_id = await dead_letter(store)
        before = look()
        async with damaged(redis_client, key):
            results = await asyncio.gather(store.admin.retry_dead_letter(dlq_id), return_exceptions=True)
        if isinstance(results[0], BaseException):
            assert look() == before
            assert await store.admin.retry_dead_letter(dlq_id) is not None
        for claim in await claim_all(store):
            await store.delivery.settle(delivered(claim))


async def test_an_entry_whose_record_expired_is_not_shown(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    gone, kept = await dead_letter(store), await dead_letter(store)
    entry = await store.admin.get_dead_letter(gone)
    assert entry is not None
    await redis_client.delete(keys.message(entry.stored.id))
    assert await store.admin.get_dead_letter(gone) is None
    page = await store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)
    assert [entry.dlq_id for entry in page.entries] == [kept]
    assert await store.admin.retry_dead_letter(gone) is None
    assert [dlq_id for dlq_id, _ in look().dlq] == [kept]


async def pages(store: Store, *, count: int, newest_first: bool) -> list[list[str]]:
    found: list[list[str]] = []
    cursor: str | None = None
    for _ in range(200):
        page = await store.admin.list_dead_letters(cursor=cursor, count=count, newest_first=newest_first)
        found.append([entry.dlq_id for entry in page.entries])
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("there is always another page")


async def many_dead_letters(store: Store, partitions: int, count: int) -> None:
    await store.delivery.heartbeat("w1", 1000)
    for start in range(0, count, 10):
        await asyncio.gather(*(publish(store, body=b"", lane=f"h:{n}") for n in range(start, start + 10)))
    claims = [claim for partition in range(partitions) for claim in await claim_all(store, partition=partition)]
    await asyncio.gather(*(store.delivery.settle(failed(claim)) for claim in claims))


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("count", [1, 7, 60, 61, 1000])
@pytest.mark.parametrize("partitions", [1, 3])
async def test_pages_hold_everything_once_in_order_of_time(
    opened: Opened, settings: Settings, partitions: int, count: int, newest_first: bool
) -> None:
    store = await opened(settings)
    await many_dead_letters(store, partitions, 60)
    found = await pages(store, count=count, newest_first=newest_first)
    ids = [dlq_id for page in found for dlq_id in page]
    assert len(ids) == len(set(ids)) == 60
    assert all(len(page) == count for page in found[:-1])
    places = [tuple(map(int, dlq_id.split("-"))) for dlq_id in ids]
    assert places == sorted(places, reverse=newest_first)
    assert {sequence % partitions for _, sequence in places} == set(range(partitions))
    for dlq_id in ids[::13]:
        entry = await store.admin.get_dead_letter(dlq_id)
        assert entry is not None
        assert entry.dlq_id == dlq_id


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_cursor_stays_valid_while_entries_come_and_go(
    opened: Opened, settings: Settings, partitions: int, newest_first: bool
) -> None:
    store = await opened(settings)
    await many_dead_letters(store, partitions, 30)
    everything = [dlq_id for page in await pages(store, count=100, newest_first=newest_first) for dlq_id in page]
    first = await store.admin.list_dead_letters(cursor=None, count=10, newest_first=newest_first)
    assert first.cursor == first.entries[-1].dlq_id
    await store.admin.delete_dead_letter(everything[9])
    await store.admin.delete_dead_letter(everything[12])
    await many_dead_letters(store, partitions, 10)
    second = await store.admin.list_dead_letters(cursor=first.cursor, count=10, newest_first=newest_first)
    expected = [dlq_id for dlq_id in everything[10:] if dlq_id != everything[12]][:10]
    assert [entry.dlq_id for entry in second.entries] == expected


@pytest.mark.parametrize("partitions", [3])
@pytest.mark.parametrize("newest_first", [True, False])
async def test_entries_of_one_millisecond_are_not_torn_apart(
    opened: Opened, settings: Settings, redis_client: Any, newest_first: bool, breaks_invariants: None
) -> None:
    """They share the time of their place; sequence and partition decide."""
    store = await opened(settings)
    await many_dead_letters(store, 3, 30)
    sources = await store.admin.list_dead_letters(cursor=None, count=30, newest_first=True)
    for partition in range(3):
        keys = PartitionKeys(settings.key_namespace, partition, 3)
        message_id = next(e.stored.id for e in sources.entries if int(e.dlq_id.split("-")[1]) % 3 == partition)
        await redis_client.delete(keys.dlq)
        for sequence in range(4):
            await redis_client.xadd(keys.dlq, {"i": message_id}, id=f"5-{sequence}")
    expected = [f"5-{sequence}" for sequence in range(12)]
    for count in range(1, 13):
        found = await pages(store, count=count, newest_first=newest_first)
        ids = [dlq_id for page in found for dlq_id in page]
        assert ids == (expected[::-1] if newest_first else expected)


async def test_listing_takes_two_round_trips(store: Store, settings: Settings) -> None:
    await many_dead_letters(store, 1, 20)
    trips = 0
    ask_all = store.commands.ask_all

    async def counting(commands: Any, *, atomically: bool = False) -> list[Any]:
        nonlocal trips
        trips += 1
        return await ask_all(commands, atomically=atomically)

    store.commands.ask_all = counting
    assert len((await store.admin.list_dead_letters(cursor=None, count=20, newest_first=True)).entries) == 20
    assert trips == 2


async def test_a_dead_letter_is_found_for_its_retention_and_as_a_message_for_the_grace(
    opened: Opened, settings: Settings, move_clock: MoveClock
) -> None:
    store = await opened(replace(settings, message_grace_ms=5_000))
    await store.delivery.heartbeat("w1", 10)
    dlq_id = await dead_letter(store)
    entry = await store.admin.get_dead_letter(dlq_id)
    assert entry is not None
    assert await store.admin.get_message(entry.stored.id) == entry.stored
    await move_clock(6_000)
    assert await store.admin.get_message(entry.stored.id) is None
    assert await store.admin.get_dead_letter(dlq_id) == entry


@pytest.mark.parametrize("newest_first", [False, True])
async def test_large_dead_letters_make_pages_shorter(
    store: Store, monkeypatch: pytest.MonkeyPatch, newest_first: bool
) -> None:
    monkeypatch.setattr(selection, "PAGE_BYTES", 3_000)
    bodies = [b"a" * 1000, b"b" * 1000, b"c" * 5000, b"d" * 1000]
    for body in bodies:
        await publish(store, body=body)
        await store.delivery.settle(failed(await claim_one(store)))
    pages: list[list[bytes]] = []
    cursor = None
    while not pages or cursor is not None:
        page = await store.admin.list_dead_letters(cursor=cursor, count=100, newest_first=newest_first)
        pages.append([entry.stored.body for entry in page.entries])
        cursor = page.cursor
    lengths = [[body[:1] for body in page] for page in pages]
    assert lengths == ([[b"d"], [b"c"], [b"b", b"a"]] if newest_first else [[b"a", b"b"], [b"c"], [b"d"]])
