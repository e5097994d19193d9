"""expire.lua: what is past its retention goes, in bounded batches, and the store returns to its starting size."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from qstash_clone import observability
from qstash_clone.domain.filters import Filter
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look, MoveClock, Opened
from tests.support.eventually import eventually
from tests.support.messages import LANE, claim_all, claim_one, dead_letter, delivered, failed, publish, retry
from tests.support.snapshot import Inspector

LIMIT = 500
"""What the workers ask for."""


async def expire_all(store: Store) -> int:
    total = 0
    for _ in range(100):
        dropped = await store.delivery.expire(0, LIMIT)
        total += dropped
        if not dropped:
            return total
    raise AssertionError("it finds something to drop again and again")


async def test_nothing_is_dropped_early(store: Store, settings: Settings, look: Look, move_clock: MoveClock) -> None:
    await dead_letter(store)
    before = look()
    await move_clock(settings.log_retention_ms - 60_000)
    assert await expire_all(store) == 0
    assert look().dlq == before.dlq
    assert look().log == before.log


async def test_old_log_entries_and_dead_letters_go(
    store: Store, settings: Settings, look: Look, move_clock: MoveClock
) -> None:
    await dead_letter(store)
    kept = await publish(store, delay_ms=365 * 86_400_000)
    await move_clock(settings.log_retention_ms + 60_000)
    assert await expire_all(store) > 0
    partition = look()
    assert (partition.dlq, partition.log) == ([], [])
    assert list(partition.records) == [kept], "what waits stays, however old"


async def test_batches_are_bounded(store: Store, settings: Settings, look: Look, move_clock: MoveClock) -> None:
    await store.delivery.heartbeat("w1", 1000)
    await asyncio.gather(*(publish(store, body=b"") for _ in range(30)))
    await asyncio.gather(*(store.delivery.settle(failed(claim)) for claim in await claim_all(store)))
    await move_clock(settings.dlq_retention_ms + 60_000)
    await store.delivery.expire(0, 10)
    assert len(look().dlq) == 20
    await store.delivery.expire(0, 10)
    assert len(look().dlq) == 10


async def test_the_log_has_a_length(opened: Opened, settings: Settings, look: Look) -> None:
    store = await opened(replace(settings, log_max_entries=300))
    await store.delivery.heartbeat("w1", 0)
    await asyncio.gather(*(publish(store, body=b"") for _ in range(1000)))
    await expire_all(store)
    assert len(look().log) == 300


async def finish(store: Store, count: int, *, body: bytes = b"x" * 1000) -> list[MessageId]:
    """Messages that were delivered, one after the other."""
    ids: list[MessageId] = []
    for _ in range(count):
        ids.append(await publish(store, body=body))
        await store.delivery.settle(delivered(await claim_one(store)))
    return ids


async def age_log(keys: PartitionKeys, redis_client: Any, ms: int) -> None:
    """Rewrites the log as if everything in it had happened earlier."""
    entries = await redis_client.xrange(keys.log)
    await redis_client.delete(keys.log)
    for entry_id, fields in entries:
        time_ms, _, sequence = entry_id.decode().partition("-")
        await redis_client.xadd(keys.log, fields, id=f"{int(time_ms) - ms}-{sequence}")


async def test_finished_messages_give_way_to_memory_the_oldest_first(
    opened: Opened, settings: Settings, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    store = await opened(replace(settings, finished_max_bytes=20_000))
    await store.delivery.heartbeat("w1", 100)
    waiting = await publish(store, body=b"x" * 50_000, delay_ms=60_000)
    dead = await dead_letter(store, body=b"x" * 50_000)
    cancelled = await publish(store, body=b"x" * 1000, delay_ms=60_000)
    await store.admin.cancel(cancelled)
    ids = [cancelled, *await finish(store, 29)]
    await age_log(keys, redis_client, 300_000)
    before, counted = look(), observability.FINISHED_SHED.value
    assert await expire_all(store) > 0
    partition = look()
    gone = [message_id for message_id in ids if message_id not in partition.records]
    assert gone == ids[: len(gone)]
    assert 0 < len(gone) < 20
    assert observability.FINISHED_SHED.value - counted == len(gone)
    assert 18_000 < partition.finished_bytes <= 20_000
    assert partition.finished_bytes == sum(int.from_bytes(size) for letter, _, size in partition.log if letter in "DXZ")
    assert waiting in partition.records, "what waits loses entries of the log at most"
    assert await store.admin.get_dead_letter(dead) is not None
    assert partition.log == before.log[-len(partition.log) :]
    assert await store.delivery.expire(0, LIMIT) == 0


async def test_it_is_told_when_retention_is_cut_short(
    opened: Opened, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    observability.configure_logging(log_format="json", level="info", role="worker", fd=2)
    store = await opened(replace(settings, finished_max_bytes=3_000))
    await store.delivery.heartbeat("w1", 100)
    for _ in range(2):
        await finish(store, 3)
        await store.delivery.expire(0, LIMIT)
        await finish(store, 3)
        await store.delivery.expire(0, LIMIT)
        await store.delivery.expire(0, LIMIT)
    observability.flush_logs()
    observability.configure_logging(log_format="json", level="none", role="worker")
    assert capfd.readouterr().err.count(observability.RETENTION_CUT_SHORT) == 2


async def test_what_just_finished_stays_for_calls_that_are_repeated(
    opened: Opened, settings: Settings, look: Look
) -> None:
    store = await opened(replace(settings, finished_max_bytes=1))
    await store.delivery.heartbeat("w1", 100)
    [message_id] = await finish(store, 1)
    await expire_all(store)
    partition = look()
    assert (partition.log, partition.finished_bytes) == ([], 0)
    assert 0 < partition.records[message_id].ttl_ms <= settings.message_grace_ms
    assert await store.admin.get_message(message_id) is not None


async def test_memory_is_not_limited_where_redis_has_no_limit(store: Store, look: Look) -> None:
    await finish(store, 30)
    before = look()
    assert await store.delivery.expire(0, LIMIT) == 0
    assert look() == before


async def test_a_quarter_of_the_memory_of_redis_is_the_limit(
    opened: Opened, settings: Settings, redis_client: Any, look: Look
) -> None:
    used = (await redis_client.info("memory"))["used_memory"]
    await redis_client.config_set("maxmemory", 4 * used)
    try:
        store = await opened(settings)
        await store.delivery.heartbeat("w1", 100)
        await finish(store, 4, body=b"x" * (used // 3))
        await expire_all(store)
        assert 0 < look().finished_bytes <= used
    finally:
        await redis_client.config_set("maxmemory", 0)


async def test_a_log_that_is_too_long_takes_finished_messages_along(
    opened: Opened, settings: Settings, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    store = await opened(replace(settings, log_max_entries=30))
    await store.delivery.heartbeat("w1", 100)
    ids = await finish(store, 20)
    await age_log(keys, redis_client, 300_000)
    assert await expire_all(store) == 30
    partition = look()
    assert set(partition.records) == set(ids[10:])
    assert partition.finished_bytes == sum(int.from_bytes(size) for letter, _, size in partition.log if letter == "D")


async def test_the_sum_is_mended_when_the_log_is_empty(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    await redis_client.hset(keys.meta, "fb", 12_345)
    await publish(store)
    await store.delivery.expire(0, LIMIT)
    assert look().finished_bytes == 12_345
    await redis_client.delete(keys.log)
    await store.delivery.expire(0, LIMIT)
    assert look().finished_bytes == 0


async def test_a_deleted_dead_letter_stays_in_the_log_as_long_as_others(
    opened: Opened, settings: Settings, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    store = await opened(replace(settings, finished_max_bytes=2_000))
    await store.delivery.heartbeat("w1", 100)
    dlq_id = await dead_letter(store, body=b"x" * 1500)
    letter = await store.admin.get_dead_letter(dlq_id)
    assert letter is not None
    assert await store.admin.delete_dead_letter(dlq_id)
    page = await store.admin.read_log(Filter(), cursor=None, count=10, newest_first=False)
    assert [entry.event.value for entry in page.entries] == ["C", "A", "E", "F"]
    await finish(store, 1, body=b"x" * 1500)
    await age_log(keys, redis_client, 300_000)
    await expire_all(store)
    assert letter.stored.id not in look().records


async def test_departed_consumers_go_unless_they_have_something(
    store: Store, keys: PartitionKeys, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def consumers() -> set[bytes]:
        return {item["name"] for item in await redis_client.xinfo_consumers(keys.ready, CONSUMER_GROUP)}

    for name in ("holder", "gone", "w1"):
        await publish(store, lane=f"h:{name}")
        claim = await claim_one(store, name)
        if name != "holder":
            await store.delivery.settle(delivered(claim))
    await store.delivery.expire(0, LIMIT)
    assert await consumers() == {b"holder", b"gone", b"w1"}, "none was idle for long"
    monkeypatch.setattr("qstash_clone.storage.delivery_store.DEPARTED_CONSUMER_MS", -1)
    assert await store.delivery.expire(0, LIMIT) == 1
    assert await consumers() == {b"holder", b"w1"}


async def test_repeating_it_is_harmless(store: Store, settings: Settings, look: Look, move_clock: MoveClock) -> None:
    await dead_letter(store)
    await move_clock(settings.dlq_retention_ms + 60_000)
    await expire_all(store)
    before = look()
    assert await store.delivery.expire(0, LIMIT) == 0
    assert look() == before


async def test_a_drained_store_returns_to_its_starting_keys_and_memory(
    opened: Opened,
    settings: Settings,
    inspector: Inspector,
    redis_client: Any,
    move_clock: MoveClock,
    age_leases: AgeLeases,
    look: Look,
) -> None:
    """Everything a message can leave behind: attempts, timers, dead letters, cancelled ids, doorbells, consumers."""
    changed = replace(settings, message_grace_ms=0)
    store = await opened(changed)

    async def used_bytes() -> int:
        await redis_client.execute_command("MEMORY", "PURGE")
        total = 0
        for key in inspector.all_keys(settings.key_namespace):
            total += await redis_client.memory_usage(key, samples=0) or 0
        return total

    async def lives(count: int) -> None:
        await store.delivery.heartbeat("w1", 50)
        ids = await asyncio.gather(
            *(publish(store, body=b"x" * 500, lane=f"h:{n % 7}", delay_ms=n % 3 * 1000) for n in range(count))
        )
        for message_id in ids[::5]:
            await store.admin.cancel(message_id)
        for number in range(40):
            await move_clock(1000)
            await store.delivery.promote(0, 1000)
            claims = await claim_all(store, f"w{number % 3 + 1}", reclaim=True)
            for at, claim in enumerate(claims):
                end = (delivered, retry, failed)[at % 3] if claim.retried < 2 else failed
                if at % 11 == 10:
                    await age_leases([claim], consumer=f"w{number % 3 + 1}")
                else:
                    await store.delivery.settle(end(claim))
        for name in ("w1", "w2", "w3"):
            await store.delivery.leave(name)
        stats = await store.admin.stats()
        assert (stats.waiting_timers, stats.in_flight, stats.lanes_waiting) == (0, 0, 0)
        await move_clock(settings.log_retention_ms + 60_000)
        await expire_all(store)
        # The clock that records expire by is not the one that was moved.
        for key in inspector.all_keys(settings.key_namespace):
            if await redis_client.pttl(key) > 0:
                await redis_client.pexpire(key, 1)
        await eventually(lambda: not look().records)

    await lives(20)
    keys_after_few, bytes_after_few = inspector.all_keys(settings.key_namespace), await used_bytes()
    await lives(400)
    assert inspector.all_keys(settings.key_namespace) == keys_after_few
    assert await used_bytes() <= bytes_after_few + 2_000


@pytest.mark.parametrize("partitions", [3])
async def test_the_memory_of_finished_messages_is_shared_by_the_partitions(
    opened: Opened, settings: Settings, redis_client: Any, look: Look
) -> None:
    store = await opened(replace(settings, finished_max_bytes=30_000))
    await store.delivery.heartbeat("w1", 300)
    for _ in range(90):
        await publish(store, body=b"x" * 1000)
    for partition in range(3):
        claims = await claim_all(store, partition=partition)
        await asyncio.gather(*(store.delivery.settle(delivered(claim)) for claim in claims))
        await age_log(PartitionKeys(settings.key_namespace, partition, 3), redis_client, 300_000)
        while await store.delivery.expire(partition, LIMIT):
            pass
        assert 8_000 < look(partition).finished_bytes <= 10_000


@pytest.mark.parametrize("partitions", [3])
async def test_the_length_of_the_log_is_shared_by_the_partitions(
    opened: Opened, settings: Settings, look: Look
) -> None:
    store = await opened(replace(settings, log_max_entries=600))
    for _ in range(12):
        await asyncio.gather(*(publish(store, body=b"", lane=LANE) for _ in range(100)))
    for partition in range(3):
        while await store.delivery.expire(partition, LIMIT):
            pass
        assert len(look(partition).log) < 300


async def test_a_claim_after_retention_is_unharmed(store: Store, settings: Settings, move_clock: MoveClock) -> None:
    message_id = await publish(store)
    await move_clock(10 * settings.log_retention_ms)
    await expire_all(store)
    assert (await claim_one(store)).id == message_id
