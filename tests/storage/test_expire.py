"""expire.lua: what is past its retention goes, in bounded batches, and the store returns to its starting size."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

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
    # Only whole nodes of a hundred are dropped.
    assert 300 <= len(look().log) < 400


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
