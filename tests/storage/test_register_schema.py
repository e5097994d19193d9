"""register_schema.lua and what surrounds it: ids that are given once, versions, deletion, levels."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qstash_clone.errors import QuotaExceeded, StorageError, StorageFull
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import schema_ids_key, schema_levels_key, schema_texts_key, store_key, subjects_key
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from qstash_clone.topics.schemas import SubjectVersion
from tests.storage.conftest import Opened
from tests.support.lossy_proxy import LossyProxy

V = SubjectVersion
A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


async def test_ids_are_global_and_versions_are_those_of_a_subject(store: Store) -> None:
    schemas = store.schemas
    assert await schemas.register_schema("s", A, '"int"', None) == V(1, 1)
    assert await schemas.register_schema("s", B, '"long"', None) == V(2, 2)
    assert await schemas.register_schema("t", B, '"long"', None) == V(1, 2)
    assert await schemas.register_schema("t", C, '"bytes"', None) == V(2, 3)
    assert await schemas.get_schemas([1, 2, 3, 4]) == ['"int"', '"long"', '"bytes"', None]
    assert await schemas.list_subjects() == {"s": (V(1, 1), V(2, 2)), "t": (V(1, 2), V(2, 3))}
    assert await schemas.get_subject("t") == (V(1, 2), V(2, 3))
    assert await schemas.get_subject("u") == ()
    assert await schemas.find_schema("s", C) == (3, (V(1, 1), V(2, 2)))
    assert await schemas.find_schema("u", b"d" * 32) == (None, ())


async def test_an_equal_schema_gets_what_it_has(store: Store) -> None:
    for _ in range(3):
        assert await store.schemas.register_schema("s", A, '"int"', None) == V(1, 1)
        assert await store.schemas.register_schema("s", B, '"long"', None) == V(2, 2)
    assert await store.schemas.get_subject("s") == (V(1, 1), V(2, 2))


async def test_a_hidden_version_stays_hidden_and_the_schema_gets_another_one(store: Store) -> None:
    await store.schemas.register_schema("s", A, '"int"', None)
    assert await store.schemas.replace_subject("s", (V(1, 1),), (V(1, 1, True),))
    assert await store.schemas.register_schema("s", A, '"int"', None) == V(2, 1)
    assert await store.schemas.get_subject("s") == (V(1, 1, True), V(2, 1))


async def test_what_is_expected_counts_for_new_versions_only(store: Store) -> None:
    schemas = store.schemas
    assert await schemas.register_schema("s", A, '"int"', (V(1, 7),)) is None
    assert await schemas.register_schema("s", A, '"int"', ()) == V(1, 1)
    assert await schemas.register_schema("s", B, '"long"', ()) is None
    assert await schemas.register_schema("s", A, '"int"', ()) == V(1, 1)
    assert await schemas.register_schema("s", B, '"long"', (V(1, 1),)) == V(2, 2)
    assert await schemas.get_subject("s") == (V(1, 1), V(2, 2))


async def test_many_at_once_share_ids_and_lose_no_version(store: Store, opened: Opened, settings: Settings) -> None:
    others = [store, await opened(settings), await opened(settings)]
    digests = [bytes([number]) * 32 for number in range(20)]
    made = await asyncio.gather(
        *(
            others[number % 3].schemas.register_schema(f"s{number % 2}", digest, f'"{digest[0]}"', None)
            for number in range(3)
            for digest in digests
            for _ in range(2)
        )
    )
    assert {one.schema_id for one in made if one is not None} == set(range(1, 21))
    for subject in ("s0", "s1"):
        versions = await store.schemas.get_subject(subject)
        assert [one.version for one in versions] == list(range(1, 21))
        assert {one.schema_id for one in versions} == set(range(1, 21))
    texts = await store.schemas.get_schemas(range(1, 21))
    assert sorted(texts, key=str) == sorted((f'"{number}"' for number in range(20)), key=str)


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_lost_reply_registers_once(store: Store, lossy_store: Store, proxy: LossyProxy, losses: int) -> None:
    proxy.lose_reply(Script("register_schema").digest, times=losses)
    assert await lossy_store.schemas.register_schema("s", A, '"int"', ()) == V(1, 1)
    assert proxy.losses == losses
    assert await store.schemas.get_subject("s") == (V(1, 1),)


async def test_a_subject_is_replaced_only_as_it_was_read(
    store: Store, redis_client: Any, settings: Settings, lossy_store: Store, proxy: LossyProxy
) -> None:
    await store.schemas.register_schema("s", A, '"int"', None)
    assert not await store.schemas.replace_subject("s", (V(1, 2),), ())
    await store.schemas.set_level("s", "FULL")
    proxy.lose_reply(Script("replace_entry").digest)
    assert await lossy_store.schemas.replace_subject("s", (V(1, 1),), ())
    assert await store.schemas.get_subject("s") == ()
    assert await store.schemas.get_levels("s") == (None, None)
    for key in (subjects_key, schema_levels_key):
        assert not await redis_client.exists(key(settings.key_namespace))
    assert await redis_client.hgetall(schema_texts_key(settings.key_namespace)) == {b"1": b'"int"'}
    assert await store.schemas.register_schema("s", A, '"int"', None) == V(1, 1)


async def test_levels_are_set_and_taken_away(store: Store) -> None:
    schemas = store.schemas
    assert await schemas.get_levels("s") == (None, None)
    assert await schemas.set_level("s", "FULL") is None
    assert await schemas.set_level(None, "BACKWARD") is None
    assert await schemas.get_levels("s") == ("FULL", "BACKWARD")
    assert await schemas.get_levels("t") == (None, "BACKWARD")
    assert await schemas.set_level("s", None) == "FULL"
    assert await schemas.set_level("s", None) is None
    assert await schemas.set_level(None, "NONE") == "BACKWARD"
    assert await schemas.get_levels("s") == (None, "NONE")


@pytest.fixture
def limited(settings: Settings) -> Settings:
    return replace(settings, max_schemas=2)


async def test_there_are_so_many_schemas_and_subjects_and_no_more(opened: Opened, limited: Settings) -> None:
    schemas = (await opened(limited)).schemas
    await schemas.register_schema("s", A, '"int"', None)
    await schemas.register_schema("s", B, '"long"', None)
    with pytest.raises(QuotaExceeded, match="2 schemas already"):
        await schemas.register_schema("s", C, '"bytes"', None)
    await schemas.register_schema("t", A, '"int"', None)
    with pytest.raises(QuotaExceeded, match="2 subjects already"):
        await schemas.register_schema("u", A, '"int"', None)
    assert await schemas.register_schema("t", B, '"long"', None) == V(2, 2)
    assert await schemas.list_subjects() == {"s": (V(1, 1), V(2, 2)), "t": (V(1, 1), V(2, 2))}


@pytest.mark.parametrize("key", [subjects_key, schema_ids_key, schema_texts_key])
async def test_a_script_that_breaks_off_has_changed_nothing(
    store: Store, redis_client: Any, settings: Settings, key: Callable[[str], bytes], breaks_invariants: None
) -> None:
    """Each key is looked at before the first write: one that is on its way to another master fails then."""
    damaged = key(settings.key_namespace)
    await redis_client.set(damaged, "no hash")
    with pytest.raises(StorageError):
        await store.schemas.register_schema("s", A, '"int"', None)
    prefix = store_key(settings.key_namespace).decode()
    assert await redis_client.keys(f"{prefix}s*") == [damaged]
    await redis_client.delete(damaged)
    assert await store.schemas.register_schema("s", A, '"int"', None) == V(1, 1)


async def test_a_full_redis_refuses_and_changes_nothing(store: Store, redis_client: Any) -> None:
    await redis_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StorageFull):
            await store.schemas.register_schema("s", A, '"int"', None)
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert await store.schemas.list_subjects() == {}
    assert await store.schemas.register_schema("s", A, '"int"', None) == V(1, 1)


async def test_many_subjects_are_all_listed(store: Store) -> None:
    for number in range(700):
        await store.schemas.register_schema(f"s{number}", A, '"int"', None)
    assert set(await store.schemas.list_subjects()) == {f"s{number}" for number in range(700)}


@pytest.mark.parametrize("partitions", [3])
async def test_the_registry_lies_beside_the_partitions(store: Store, redis_client: Any, settings: Settings) -> None:
    await store.schemas.register_schema("s", A, '"int"', None)
    prefix = store_key(settings.key_namespace).decode()
    assert sorted(await redis_client.keys(f"{prefix}s*")) == sorted(
        f"{prefix}{name}".encode() for name in ("schemas", "schemaids", "subjects")
    )


async def test_a_subject_that_cannot_be_read_is_said_to_be(
    store: Store, redis_client: Any, settings: Settings, breaks_invariants: None
) -> None:
    """No release writes such a thing; a later one might write what this one cannot read."""
    await redis_client.hset(subjects_key(settings.key_namespace), "s", b"x")
    with pytest.raises(StorageError, match="subject s cannot be read"):
        await store.schemas.get_subject("s")
