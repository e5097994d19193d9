"""rotate_keys.lua: one rotation at a time, in all partitions, and the stored keys sign from the next claim on."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from qstash_clone.domain.message import SigningKeys
from qstash_clone.errors import StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.conftest import CURRENT_KEY, NEXT_KEY
from tests.storage.conftest import Opened
from tests.support.lossy_proxy import LossyProxy


async def signing(store: Store, partition: int = 0) -> SigningKeys:
    return (await store.delivery.claim(partition, "w1", 0)).signing_keys


async def test_configured_keys_seed_an_empty_store(store: Store) -> None:
    expected = SigningKeys(current=CURRENT_KEY, next=NEXT_KEY)
    assert await store.admin.get_signing_keys() == await signing(store) == expected


async def test_a_rotation_moves_the_next_key_up(store: Store) -> None:
    rotated = await store.admin.rotate_signing_keys()
    assert rotated.current == NEXT_KEY
    assert rotated.next.startswith("sig_")
    assert len(rotated.next) == 32
    assert rotated.next not in (CURRENT_KEY, NEXT_KEY)
    assert await store.admin.get_signing_keys() == await signing(store) == rotated
    again = await store.admin.rotate_signing_keys()
    assert again.current == rotated.next


async def test_rotated_keys_win_over_configured_ones(opened: Opened, store: Store, settings: Settings) -> None:
    rotated = await store.admin.rotate_signing_keys()
    other = await opened(settings)
    assert await other.admin.get_signing_keys() == rotated


async def test_without_configured_keys_the_store_makes_its_own(opened: Opened, settings: Settings) -> None:
    changed = replace(settings, current_signing_key=None, next_signing_key=None)
    store, other = await opened(changed), await opened(changed)
    made = await store.admin.get_signing_keys()
    assert made.current != made.next
    assert await other.admin.get_signing_keys() == made


@pytest.mark.parametrize("partitions", [1, 3])
async def test_all_partitions_sign_alike(opened: Opened, settings: Settings, partitions: int) -> None:
    store = await opened(settings)
    for _ in range(2):
        rotated = await store.admin.rotate_signing_keys()
        assert [await signing(store, partition) for partition in range(partitions)] == [rotated] * partitions


@pytest.mark.parametrize("partitions", [1, 3])
async def test_rotations_at_once_are_one_rotation_or_follow_each_other(
    opened: Opened, settings: Settings, partitions: int
) -> None:
    store, other = await opened(settings), await opened(settings)
    for _ in range(10):
        before = await store.admin.get_signing_keys()
        results = await asyncio.gather(*(one.admin.rotate_signing_keys() for one in (store, other) * 2))
        after = await store.admin.get_signing_keys()
        assert after in results
        assert [await signing(store, partition) for partition in range(partitions)] == [after] * partitions
        # A receiver that verifies with the pair before accepts what the first rotation signs.
        assert before.next in {result.current for result in results}


async def test_a_lost_reply_rotates_once(lossy_store: Store, proxy: LossyProxy) -> None:
    proxy.lose_reply(Script("rotate_keys").digest, times=2)
    rotated = await lossy_store.admin.rotate_signing_keys()
    assert rotated.current == NEXT_KEY
    assert await lossy_store.admin.get_signing_keys() == rotated


@pytest.mark.parametrize("partitions", [3])
async def test_a_rotation_that_ended_half_way_is_completed_at_the_next_start(
    opened: Opened, store: Store, lossy_store: Store, proxy: LossyProxy, settings: Settings, partitions: int
) -> None:
    for _ in range(3):
        await store.admin.rotate_signing_keys()
    proxy.lose_request(PartitionKeys(settings.key_namespace, 1, 3).meta + b"\r\n$1\r\n%d" % STORAGE_VERSION, times=3)
    with pytest.raises(StorageUnavailable):
        await lossy_store.admin.rotate_signing_keys()
    decided = await store.admin.get_signing_keys()
    assert await signing(store, 1) != decided
    await opened(settings)
    assert [await signing(store, partition) for partition in range(3)] == [decided] * 3


async def test_an_emptied_store_is_seeded_again(store: Store, redis_client: Any) -> None:
    await store.admin.rotate_signing_keys()
    await redis_client.flushall()
    assert await store.admin.get_signing_keys() == SigningKeys(current=CURRENT_KEY, next=NEXT_KEY)
