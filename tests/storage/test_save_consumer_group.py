"""save_consumer_group.lua: one change at a time, made from what was read, done once however often sent."""

import asyncio
from typing import Any

import pytest
import redis.asyncio

from qstash_clone.errors import StorageError, StorageFull
from qstash_clone.storage import scripts
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import MAX_TRIES, Script
from qstash_clone.storage.store import Store
from tests.support.eventually import eventually
from tests.support.lossy_proxy import LossyProxy

KEEP_MS = 60_000


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_group_is_saved_and_listed(store: Store) -> None:
    groups = store.groups
    assert (await groups.load_group("g ü")).revision == 0
    assert await groups.save_group("g ü", 0, b"one", keep_ms=KEEP_MS, live_ms=0)
    assert await groups.save_group("a", 0, b"", keep_ms=KEEP_MS, live_ms=0)
    found = await groups.load_group("g ü")
    assert (found.revision, found.encoded) == (1, b"one")
    assert await groups.save_group("g ü", 1, b"two", keep_ms=KEEP_MS, live_ms=0)
    found = await groups.load_group("g ü")
    assert (found.revision, found.encoded) == (2, b"two")
    assert await groups.list_groups() == ["a", "g ü"]


async def test_of_two_changes_one_is_made(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(store.groups.save_group("g", 0, b"%d" % n, keep_ms=KEEP_MS, live_ms=0) for n in range(5))
    )
    assert outcomes.count(True) == 1
    assert (await store.groups.load_group("g")).encoded == b"%d" % outcomes.index(True)
    assert not await store.groups.save_group("g", 0, b"late", keep_ms=KEEP_MS, live_ms=0)
    assert not await store.groups.save_group("g", 7, b"early", keep_ms=KEEP_MS, live_ms=0)


async def test_a_repeated_call_finds_its_own_work(lossy_store: Store, proxy: LossyProxy) -> None:
    proxy.lose_reply(Script("save_consumer_group").digest, times=MAX_TRIES - 1)
    assert await lossy_store.groups.save_group("g", 0, b"one", keep_ms=KEEP_MS, live_ms=0)
    assert (await lossy_store.groups.load_group("g")).revision == 1
    proxy.lose_reply(Script("save_consumer_group").digest, times=MAX_TRIES)
    with pytest.raises(StorageError):
        await lossy_store.groups.save_group("g", 1, b"two", keep_ms=KEEP_MS, live_ms=0)


@pytest.mark.parametrize("is_reply_lost", [True, False])
async def test_whether_a_change_was_made_is_not_guessed(
    store: Store, lossy_store: Store, proxy: LossyProxy, monkeypatch: pytest.MonkeyPatch, *, is_reply_lost: bool
) -> None:
    """Who is told that it was not made takes it again, on top of what it has done."""
    monkeypatch.setattr(scripts, "RETRY_PAUSE_MS", (500, 500))
    digest = Script("save_consumer_group").digest
    (proxy.lose_reply if is_reply_lost else proxy.lose_request)(digest)
    saving = asyncio.ensure_future(lossy_store.groups.save_group("g", 0, b"one", keep_ms=KEEP_MS, live_ms=0))
    await eventually(lambda: proxy.losses == 1)
    revision = 0
    while is_reply_lost and not revision:
        revision = (await store.groups.load_group("g")).revision
    assert await store.groups.save_group("g", revision, b"two", keep_ms=KEEP_MS, live_ms=0)
    with pytest.raises(StorageError, match="not known"):
        await saving
    assert (await store.groups.load_group("g")).encoded == b"two"


async def test_a_group_that_nobody_uses_is_forgotten(store: Store) -> None:
    assert await store.groups.save_group("g", 0, b"one", keep_ms=1, live_ms=0)

    async def is_forgotten() -> bool:
        return (await store.groups.load_group("g")).revision == 0

    await eventually(is_forgotten)
    assert await store.groups.save_group("g", 0, b"two", keep_ms=KEEP_MS, live_ms=0)
    assert await store.groups.save_group("other", 0, b"", keep_ms=1, live_ms=0)
    assert await store.groups.save_group("third", 0, b"", keep_ms=KEEP_MS, live_ms=0)
    await eventually(lambda: _are_listed(store, ["g", "third"]))


@pytest.mark.parametrize("partitions", [1, 3])
async def test_groups_with_instances_are_listed_apart(store: Store) -> None:
    groups = store.groups
    for name, live_ms in (("left", 0), ("b", KEEP_MS), ("a", KEEP_MS), ("silent", 1)):
        assert await groups.save_group(name, 0, b"", keep_ms=KEEP_MS, live_ms=live_ms)
    await eventually(lambda: _are_live(store, ["a", "b"]))
    assert await groups.save_group("a", 1, b"", keep_ms=KEEP_MS, live_ms=0)
    assert await groups.save_group("left", 1, b"", keep_ms=KEEP_MS, live_ms=KEEP_MS)
    assert await groups.list_live_groups() == ["b", "left"]
    assert await groups.list_groups() == ["a", "b", "left", "silent"]


async def test_the_list_of_groups_with_instances_lives_as_long_as_its_last_entry(
    store: Store, redis_client: "redis.asyncio.Redis", keys: PartitionKeys
) -> None:
    for name, live_ms in (("a", KEEP_MS), ("b", 1_000)):
        assert await store.groups.save_group(name, 0, b"", keep_ms=KEEP_MS, live_ms=live_ms)
        assert KEEP_MS - 30_000 < await redis_client.pttl(keys.instances.decode()) <= KEEP_MS


async def _are_live(store: Store, names: list[str]) -> bool:
    return await store.groups.list_live_groups() == names


async def _are_listed(store: Store, names: list[str]) -> bool:
    return await store.groups.list_groups() == names


async def test_while_redis_is_full_groups_go_on_and_none_begins(store: Store, redis_client: Any) -> None:
    assert await store.groups.save_group("g", 0, b"one", keep_ms=KEEP_MS, live_ms=KEEP_MS)
    await redis_client.config_set("maxmemory", 1)
    try:
        assert await store.groups.save_group("g", 1, b"two", keep_ms=KEEP_MS, live_ms=KEEP_MS)
        with pytest.raises(StorageFull):
            await store.groups.save_group("new", 0, b"one", keep_ms=KEEP_MS, live_ms=KEEP_MS)
    finally:
        await redis_client.config_set("maxmemory", 0)
    assert (await store.groups.load_group("g")).encoded == b"two"
    assert await store.groups.list_live_groups() == ["g"]
