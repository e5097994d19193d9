"""Opening a store: versions, partitions, namespaces, an emptied Redis, and an ACL user who may use one namespace."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qstash_clone.errors import StorageUnavailable, StoreIncompatible
from qstash_clone.settings import Settings
from qstash_clone.storage.codec import OLDEST_READABLE_VERSION, STORAGE_VERSION
from qstash_clone.storage.keys import PartitionKeys, store_key
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, MoveClock, Opened
from tests.support.eventually import eventually
from tests.support.lanes import enqueue, publish_keyed, put_queue
from tests.support.messages import LANE, claim_all, claim_one, dead_letter, delivered, publish, retry
from tests.support.snapshot import Inspector

GUIDE = Path(__file__).parents[2] / "docs" / "howto" / "use-your-own-redis.md"


async def every_call(store: Store) -> list[Any]:
    """One call of every method that runs a script."""
    message_id = store.publishing.new_message_id()
    return await asyncio.gather(
        publish(store),
        store.delivery.heartbeat("w1", 1),
        store.delivery.leave("w2"),
        store.delivery.claim(0, "w1", 1),
        store.delivery.extend(0, "w1", [_stale_claim(store)]),
        store.delivery.release([_stale_claim(store)]),
        store.delivery.settle(delivered(_stale_claim(store))),
        store.delivery.promote(0, 1),
        store.delivery.expire(0, 1),
        store.admin.cancel(message_id),
        store.admin.retry_dead_letter("1-1"),
        store.admin.delete_dead_letter("1-1"),
        store.admin.rotate_signing_keys(),
        store.admin.check_durable_write(),
        return_exceptions=True,
    )


def _stale_claim(store: Store) -> Any:
    from qstash_clone.domain.message import Claim, Message

    return Claim(
        partition=0,
        entry_id=b"1-1",
        id=store.publishing.new_message_id(),
        generation=1,
        retried=0,
        claims=1,
        created_ms=0,
        due_ms=0,
        message=Message("https://receiver.example/"),
        body=b"",
        body_bytes=0,
    )


async def test_opening_twice_changes_nothing(opened: Opened, store: Store, settings: Settings, look: Look) -> None:
    await publish(store)
    before = look()
    await opened(settings)
    assert look() == before


@pytest.mark.parametrize("version", [STORAGE_VERSION + 1, OLDEST_READABLE_VERSION - 1])
async def test_a_store_of_another_version_is_refused_and_left_alone(
    opened: Opened,
    store: Store,
    settings: Settings,
    keys: PartitionKeys,
    redis_client: Any,
    look: Look,
    version: int,
) -> None:
    await publish(store)
    await redis_client.hset(keys.meta.decode(), "v", str(version))
    before = look()
    with pytest.raises(StoreIncompatible, match=f"version {version}"):
        await opened(settings)
    results = await every_call(store)
    assert [type(result) for result in results] == [StoreIncompatible] * len(results)
    assert look() == before


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_store_of_an_older_version_is_taken_over_from_processes_of_that_release(
    opened: Opened,
    store: Store,
    settings: Settings,
    redis_client: Any,
    partitions: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message_id = await publish(store)
    metas = [PartitionKeys(settings.key_namespace, number, partitions).meta.decode() for number in range(partitions)]
    for meta in metas:
        await redis_client.hset(meta, "v", str(OLDEST_READABLE_VERSION))
    newer = await opened(settings)
    assert [await redis_client.hget(meta, "v") for meta in metas] == [str(STORAGE_VERSION).encode()] * partitions
    message = await newer.admin.get_message(message_id)
    assert message is not None
    monkeypatch.setattr("qstash_clone.storage.queue_store.STORAGE_VERSION", OLDEST_READABLE_VERSION)
    with pytest.raises(StoreIncompatible, match=f"version {STORAGE_VERSION}"):
        await store.queues.put_queue("q", parallelism=1, is_paused=False, max_queues=10)


@pytest.mark.parametrize("partitions", [1, 3, 5])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
async def test_another_number_of_partitions_is_refused_and_writes_nothing(
    opened: Opened, settings: Settings, inspector: Inspector, partitions: int, wanted: int
) -> None:
    await opened(settings)
    before = inspector.all_keys(settings.key_namespace)
    if wanted == partitions:
        return
    with pytest.raises(StoreIncompatible, match=f"set it to {partitions}"):
        await opened(replace(settings, partitions=wanted))
    assert inspector.all_keys(settings.key_namespace) == before


async def test_namespaces_do_not_meet(opened: Opened, store: Store, settings: Settings, inspector: Inspector) -> None:
    other_settings = replace(settings, key_namespace=settings.key_namespace + "x")
    before = inspector.all_keys(other_settings.key_namespace)
    message_id = await publish(store)
    other = await opened(other_settings)
    await other.delivery.heartbeat("w1", 10)
    assert await claim_all(other) == []
    assert await other.admin.get_message(message_id) is None
    await publish(other)
    await claim_one(other)
    assert [claim.id for claim in await claim_all(store)] == [message_id]
    assert before == []
    assert inspector.problems(other_settings.key_namespace) == []


async def test_an_emptied_redis_is_made_ready_again_by_whatever_comes_first(
    store: Store, settings: Settings, redis_client: Any, inspector: Inspector, look: Look
) -> None:
    results = await every_call(store)
    assert not [result for result in results if isinstance(result, BaseException)]
    for number in range(len(results)):
        await redis_client.flushall()
        assert inspector.all_keys(settings.key_namespace) == []
        before = results
        results = await every_call(store)
        assert [type(result) for result in results] == [type(result) for result in before], number
    assert len(look().records) == 1


async def test_a_blocked_reader_survives_an_emptied_redis(store: Store, redis_client: Any) -> None:
    reading = asyncio.create_task(store.delivery.wait(0, "w1", 1, 5_000))

    async def is_blocked() -> bool:
        return (await redis_client.info("clients"))["blocked_clients"] > 0

    await eventually(is_blocked)
    await redis_client.flushall()
    message_id = await publish(store)
    await store.delivery.heartbeat("w1", 10)
    taken: Sequence[bytes] = []
    with contextlib.suppress(StorageUnavailable):
        taken = await reading
    assert not taken or message_id in taken[0]
    taken = taken or await store.delivery.wait(0, "w1", 1, 5_000)
    [claim] = (await store.delivery.claim(0, "w1", 1, taken=taken)).claims
    assert claim.id == message_id


async def test_waiting_on_an_emptied_redis_makes_it_ready_again(
    store: Store, redis_client: Any, keys: PartitionKeys
) -> None:
    await redis_client.flushall()
    assert await store.delivery.wait(0, "w1", 1, 10) == []
    # The next one waits instead of coming back at once.
    assert len(await redis_client.xinfo_groups(keys.ready)) == 1


async def test_a_ready_stream_that_lost_its_group_gets_it_back(
    opened: Opened, store: Store, settings: Settings, keys: PartitionKeys, redis_client: Any
) -> None:
    await redis_client.delete(keys.ready)
    await publish(store, lane=LANE)
    with pytest.raises(StorageUnavailable):
        await claim_all(store)
    other = await opened(settings)
    assert len(await claim_all(other)) == 1


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_user_who_may_use_one_namespace(
    opened: Opened, settings: Settings, redis_client: Any, move_clock: MoveClock, partitions: int
) -> None:
    documented = re.search(r"^ACL SETUSER queue on >password ~{q:\* (.+)$", GUIDE.read_text(), re.MULTILINE)
    assert documented
    await redis_client.execute_command(
        "ACL", "SETUSER", "tenant", "reset", "on", ">secret", f"~{{{settings.key_namespace}:*", *documented[1].split()
    )
    try:
        limited = replace(
            settings, redis_url=settings.redis_url + "?username=tenant&password=secret", redis_durability="everysec"
        )
        store = await opened(limited)
        await every_call(store)
        await store.delivery.heartbeat("w1", 100)
        for partition in range(partitions):
            for claim in await claim_all(store, partition=partition):
                await store.delivery.settle(retry(claim, delay_ms=10))
        await move_clock(10)
        for partition in range(partitions):
            await store.delivery.promote(partition, 10)
            for claim in await claim_all(store, partition=partition):
                await store.delivery.settle(delivered(claim))
        if partitions == 1:
            dlq_id = await dead_letter(store)
            assert await store.admin.retry_dead_letter(dlq_id)
        await store.admin.stats()
        with pytest.raises(StorageUnavailable):
            await store.commands.ask("GET", "somebody-elses")
    finally:
        await redis_client.execute_command("ACL", "DELUSER", "tenant")


async def test_stats_count_what_is_where(store: Store, move_clock: MoveClock) -> None:
    await store.delivery.heartbeat("w1", 4)
    await publish(store, delay_ms=60_000)
    await claim_all(store, limit=5)
    await dead_letter(store, lane="h:1")
    for number in range(10):
        await publish(store, lane=f"h:{number % 2}")
    await claim_all(store, limit=1)
    stats = await store.admin.stats()
    assert (stats.waiting_timers, stats.in_flight, stats.ready) == (1, 1, 2)
    assert (stats.lanes_waiting, stats.dead_letters, stats.workers, stats.capacity) == (2, 1, 1, 4)
    assert stats.used_memory_bytes > 0


async def test_stats_count_lanes_that_a_pause_or_their_limits_hold_up(store: Store) -> None:
    await store.delivery.heartbeat("w1", 40)
    await put_queue(store, is_paused=True)
    await enqueue(store)
    for _ in range(2):
        await publish_keyed(store, parallelism=1)
    stats = await store.admin.stats()
    assert (stats.ready, stats.lanes_waiting, stats.lanes_blocked) == (1, 2, 2)


async def test_only_the_store_key_lies_outside_the_partitions(
    opened: Opened, settings: Settings, inspector: Inspector
) -> None:
    await opened(settings)
    assert store_key(settings.key_namespace) in inspector.all_keys(settings.key_namespace)
