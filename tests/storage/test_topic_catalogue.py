"""make_topic_logs.lua, drop_topic_logs.lua, entries of topics: every broken-off step is ended by the next caller."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from qstash_clone.errors import InvalidRequest, NotFound, QuotaExceeded, StorageError
from qstash_clone.settings import Settings
from qstash_clone.storage import topic_catalogue
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.keys import PartitionKeys, topic_generation_key, topics_key
from qstash_clone.storage.scripts import MAX_TRIES, Script, ScriptRunner
from qstash_clone.storage.store import Store
from qstash_clone.storage.topic_catalogue import TopicCatalogue
from qstash_clone.storage.topic_codec import StoredTopic, decode_topic, encode_topic
from qstash_clone.topics.records import Record, TopicConfig
from tests.storage.conftest import Opened
from tests.storage.test_append_records import make, read_all
from tests.support.lossy_proxy import LossyProxy

CONFIG = TopicConfig(partitions=4)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_topic_is_made_listed_grown_and_deleted(store: Store) -> None:
    topics = store.topics
    assert await topics.get_topic("orders") is None
    made = await topics.create_topic("orders", CONFIG)
    assert await topics.create_topic("orders", CONFIG) == made
    assert await topics.get_topic("orders") == made
    assert await topics.list_topics() == [made]
    await topics.append(made, 3, [Record(b"a")])
    grown = await topics.change_topic("orders", TopicConfig(partitions=7, retention_ms=5))
    assert grown == msgspec.structs.replace(made, config=TopicConfig(partitions=7, retention_ms=5))
    assert (await topics.append(grown, 6, [Record(b"b")])).offsets == (0,)
    assert (await topics.append(grown, 3, [Record(b"b")])).offsets == (1,)
    assert await topics.delete_topic("orders")
    assert not await topics.delete_topic("orders")
    assert await topics.get_topic("orders") is None
    assert await topics.list_topics() == []


async def test_a_new_topic_begins_anew(store: Store) -> None:
    first = await make(store)
    await store.topics.append(first, 0, [Record(b"a")] * 3)
    await store.topics.delete_topic("orders")
    second = await make(store)
    assert second.generation != first.generation
    assert await read_all(store, second, 0) == []
    assert (await store.topics.append(second, 0, [Record(b"b")])).offsets == (0,)


async def test_mistakes_change_nothing(store: Store) -> None:
    made = await make(store)
    with pytest.raises(InvalidRequest, match="exists with another configuration"):
        await store.topics.create_topic("orders", TopicConfig(partitions=5))
    with pytest.raises(InvalidRequest, match="can become more, but not fewer"):
        await store.topics.change_topic("orders", TopicConfig(partitions=3))
    with pytest.raises(NotFound):
        await store.topics.change_topic("unknown", CONFIG)
    assert await store.topics.list_topics() == [made]


async def test_there_are_at_most_so_many(settings: Settings, opened: Opened) -> None:
    store = await opened(replace(settings, max_topics=2))
    for name in ("a", "b"):
        await make(store, name)
    with pytest.raises(QuotaExceeded):
        await make(store, "c")
    await make(store, "a")
    await store.topics.delete_topic("a")
    await make(store, "c")


async def test_many_at_once_make_one_topic(store: Store, settings: Settings, opened: Opened) -> None:
    stores = [store, await opened(settings), await opened(settings)]
    made = await asyncio.gather(*(make(stores[number % 3]) for number in range(30)))
    assert len({topic.generation for topic in made}) == 1
    places = await asyncio.gather(
        *(stores[number % 3].topics.append(topic, 1, [Record(b"x")]) for number, topic in enumerate(made))
    )
    assert sorted(place.offsets[0] for place in places) == list(range(30))


async def test_creations_and_deletions_at_once_leave_one_state(
    store: Store, settings: Settings, opened: Opened
) -> None:
    """Whatever the order was, no log is left of a topic that is gone; the fixture looks for them."""
    stores = [store, await opened(settings), await opened(settings)]

    async def work(number: int) -> None:
        one = stores[number % 3]
        for turn in range(10):
            try:
                topic = await one.topics.create_topic("orders", CONFIG)
                await one.topics.append(topic, turn % 4, [Record(b"x")])
                if turn % 3 == number % 3:
                    await one.topics.delete_topic("orders")
            except (NotFound, StorageError):
                continue

    await asyncio.gather(*map(work, range(6)))
    topic = await store.topics.create_topic("orders", CONFIG)
    await store.topics.append(topic, 0, [Record(b"x")])


@pytest.mark.parametrize("script", ["make_topic_logs", "drop_topic_logs"])
async def test_a_broken_off_step_is_ended_by_the_next_caller(
    store: Store, lossy_store: Store, proxy: LossyProxy, script: str
) -> None:
    if script == "drop_topic_logs":
        topic = await make(store)
        await store.topics.append(topic, 0, [Record(b"x")])
    proxy.lose_request(Script(script).digest, times=MAX_TRIES)
    with pytest.raises(StorageError):
        await (lossy_store.topics.delete_topic("orders") if "drop" in script else make(lossy_store))
    if script == "drop_topic_logs":
        assert await store.topics.list_topics() == []
        again = await make(store)
        assert await read_all(store, again, 0) == []
    found = await lossy_store.topics.get_topic("orders")
    assert found is not None
    assert (await lossy_store.topics.append(found, 3, [Record(b"y")])).offsets == (0,)


@pytest.mark.usefixtures("breaks_invariants")
async def test_partitions_that_are_being_made_are_not_listed(
    store: Store, lossy_store: Store, proxy: LossyProxy
) -> None:
    """To be read they must be there."""
    proxy.lose_request(Script("make_topic_logs").digest, times=MAX_TRIES)
    with pytest.raises(StorageError):
        await make(lossy_store)
    assert await store.topics.list_topics() == []
    made = await make(store)
    proxy.lose_request(Script("make_topic_logs").digest, times=MAX_TRIES)
    with pytest.raises(StorageError):
        await lossy_store.topics.change_topic("orders", TopicConfig(partitions=9))
    [listed] = await store.topics.list_topics()
    assert listed == made
    assert None not in await store.topics.read_bounds([(listed, number) for number in range(4)])


async def test_a_deletion_that_broke_off_is_ended_by_whoever_lists_topics(
    store: Store, lossy_store: Store, proxy: LossyProxy, redis_client: Any, settings: Settings
) -> None:
    """Nobody has to ask for that name again: retention lists topics all the time."""
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"x")])
    proxy.lose_request(Script("drop_topic_logs").digest, times=MAX_TRIES)
    with pytest.raises(StorageError):
        await lossy_store.topics.delete_topic("orders")
    stream = PartitionKeys(settings.key_namespace, 0, 1).topic_stream("orders", 0)
    assert await redis_client.exists(stream)
    assert await store.topics.list_topics() == []
    assert not await redis_client.exists(stream)


async def test_a_slow_maker_does_not_touch_a_later_topic(store: Store, settings: Settings, redis_client: Any) -> None:
    """A process that stood still while it made the logs of a topic finds those of the next topic of that name."""
    first = await make(store)
    await store.topics.delete_topic("orders")
    second = await make(store)
    await store.topics.append(second, 0, [Record(b"x")])
    meta = PartitionKeys(settings.key_namespace, 0, 1).meta
    args = [STORAGE_VERSION, "orders", first.generation, 0, 1]
    assert await redis_client.eval(Script("make_topic_logs").text, 1, meta, *args) == [b"ok", 0]
    assert await redis_client.eval(Script("drop_topic_logs").text, 1, meta, *args) == [b"ok", 0]
    assert len(await read_all(store, second, 0)) == 1


@pytest.mark.usefixtures("breaks_invariants")
async def test_a_new_log_has_nothing_of_what_was_left_of_an_earlier_one(
    store: Store, settings: Settings, redis_client: Any
) -> None:
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"x", timestamp_ms=5)])
    keys = PartitionKeys(settings.key_namespace, 0, 1)
    args = [STORAGE_VERSION, "orders", int(topic.generation) + 1, 0]
    assert await redis_client.eval(Script("make_topic_logs").text, 1, keys.meta, *args) == [b"ok", 1]
    assert not await redis_client.exists(keys.topic_stream("orders", 0), keys.topic_index("orders", 0))


async def test_a_topic_that_is_deleted_while_it_is_made_leaves_no_logs(
    store: Store, settings: Settings, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = await opened(settings)
    await make(store)
    run = ScriptRunner.run
    was_deleted = False

    async def run_late(self: ScriptRunner, name: str, keys: Sequence[bytes], args: Sequence[Argument]) -> Any:
        nonlocal was_deleted
        if name == "make_topic_logs" and not was_deleted:
            was_deleted = True
            assert await store.topics.delete_topic("orders")
        return await run(self, name, keys, args)

    monkeypatch.setattr(ScriptRunner, "run", run_late)
    with pytest.raises(NotFound):
        await slow.topics.change_topic("orders", TopicConfig(partitions=8))
    assert was_deleted


async def test_others_see_a_change_within_a_second(store: Store, settings: Settings, opened: Opened) -> None:
    other = await opened(settings)
    made = await make(store)
    assert await other.topics.get_topic("orders") == made
    grown = await store.topics.change_topic("orders", TopicConfig(partitions=6))
    assert await other.topics.get_topic("orders") in (made, grown)
    assert (await other.topics.create_topic("orders", TopicConfig(partitions=6))) == grown
    assert await other.topics.get_topic("orders") == grown


async def test_topics_that_others_have_deleted_are_not_remembered_for_ever(
    settings: Settings, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_catalogue, "KNOWN_FOR_S", 0.0)
    access = (await opened(settings)).topics._access  # pyright: ignore[reportPrivateUsage]
    keys = topics_key(settings.key_namespace), topic_generation_key(settings.key_namespace)
    one, other = (TopicCatalogue(access, *keys, max_topics=3) for _ in range(2))
    for number in range(10):
        await other.create_topic(f"t{number}", CONFIG)
        assert await one.get_topic(f"t{number}") is not None
        await other.delete_topic(f"t{number}")
    assert len(one._known) <= 3  # pyright: ignore[reportPrivateUsage]


@pytest.mark.usefixtures("breaks_invariants")
async def test_an_entry_of_a_later_release_is_left_alone(store: Store, settings: Settings, redis_client: Any) -> None:
    await redis_client.hset(topics_key(settings.key_namespace), "orders", b"\xc1")
    with pytest.raises(StorageError, match="orders"):
        await make(store)
    assert await redis_client.hget(topics_key(settings.key_namespace), "orders") == b"\xc1"


def test_a_topic_is_stored_and_read() -> None:
    stored = StoredTopic(generation="7", created_ms=5, config=CONFIG, made=3, is_deleted=True)
    assert decode_topic("x", encode_topic(stored)) == stored
