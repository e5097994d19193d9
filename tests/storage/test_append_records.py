"""append_records.lua: dense offsets whoever appends, once however often a call is sent, nothing once a log is gone."""

import asyncio
import re
from typing import Any

import msgspec
import pytest

from qstash_clone.errors import StorageError, StorageFull
from qstash_clone.settings import Settings
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import MAX_TRIES, Script
from qstash_clone.storage.store import Store
from qstash_clone.storage.topic_codec import encode_record
from qstash_clone.storage.topic_log import MAX_UNIT_RECORDS
from qstash_clone.topics.interface import ReadFrom, TopicGone
from qstash_clone.topics.records import MAX_TIMESTAMP_MS, Appended, Record, StoredRecord, Topic, TopicConfig
from tests.storage.conftest import Opened, StopClock
from tests.support.lossy_proxy import LossyProxy

APPEND = Script("append_records").digest


async def make(store: Store, name: str = "orders", partitions: int = 4, **config: Any) -> Topic:
    return await store.topics.create_topic(name, TopicConfig(partitions=partitions, **config))


async def read_all(store: Store, topic: Topic, number: int) -> list[StoredRecord]:
    """Everything that is in a log."""
    found: list[StoredRecord] = []
    while True:
        wanted = ReadFrom(topic, number, found[-1].offset + 1 if found else 0)
        [part] = await store.topics.read([wanted], max_records=1000, max_bytes=1 << 22)
        assert part is not None
        found += part.records
        if not part.records:
            return found


@pytest.mark.parametrize("partitions", [1, 3])
async def test_fifty_producers_of_several_processes(store: Store, settings: Settings, opened: Opened) -> None:
    stores = [store, await opened(settings), await opened(settings)]
    topic = await make(store)
    answered: dict[int, bytes] = {}

    async def produce(producer: int) -> list[int]:
        offsets: list[int] = []
        for number in range(200):
            value = f"{producer}-{number}".encode()
            appended = await stores[producer % 3].topics.append(topic, 2, [Record(value)])
            answered[appended.offsets[0]] = value
            offsets += appended.offsets
        return offsets

    per_producer = await asyncio.gather(*map(produce, range(50)))
    assert all(offsets == sorted(offsets) for offsets in per_producer)
    found = await read_all(store, topic, 2)
    assert [record.offset for record in found] == list(range(10_000))
    assert {record.offset: record.value for record in found} == answered


async def test_records_come_back_as_they_were_sent(store: Store) -> None:
    topic = await make(store)
    records = [
        Record(b"\x00\xff\r\n", b"", (("a", b"1"), ("a", b"\x00"), ("ü", None)), 0),
        Record(b"", None, (), MAX_TIMESTAMP_MS),
        Record(None, "schlüssel".encode()),
    ]
    appended = await store.topics.append(topic, 0, records)
    assert appended.offsets == (0, 1, 2)
    assert appended.timestamps_ms[:2] == (0, MAX_TIMESTAMP_MS)
    found = await read_all(store, topic, 0)
    assert [Record(one.value, one.key, one.headers) for one in found] == [
        msgspec.structs.replace(record, timestamp_ms=None) for record in records
    ]
    assert tuple(one.timestamp_ms for one in found) == appended.timestamps_ms


async def test_the_time_of_an_append_is_that_of_the_store(store: Store, stop_clock: StopClock) -> None:
    created, appended = await make(store), await make(store, "logged", timestamp_type="append")
    await stop_clock(1_700_000_000_123)
    for topic, expected in ((created, (5, 1_700_000_000_123)), (appended, (1_700_000_000_123,) * 2)):
        place = await store.topics.append(topic, 1, [Record(b"a", timestamp_ms=5), Record(b"b")])
        assert place.timestamps_ms == expected
        assert tuple(one.timestamp_ms for one in await read_all(store, topic, 1)) == expected


async def test_more_than_fits_into_a_step_keeps_its_order(store: Store) -> None:
    topic = await make(store)
    values = [b"%d" % number for number in range(2 * MAX_UNIT_RECORDS + 1)] + [bytes(700_000)] * 3
    appended = await store.topics.append(topic, 0, [Record(value) for value in values])
    assert appended.offsets == tuple(range(len(values)))
    assert [one.value for one in await read_all(store, topic, 0)] == values


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_call_whose_reply_was_lost_appends_once(
    store: Store, lossy_store: Store, proxy: LossyProxy, losses: int
) -> None:
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"before")])
    [_, first] = await asyncio.gather(
        *(lossy_store.topics.append(topic, 0, [Record(b"x"), Record(b"y")]) for _ in range(2))
    )
    assert first.offsets == (3, 4)
    proxy.lose_reply(APPEND, times=losses)
    groups = [
        lossy_store.topics.append(topic, 0, [Record(b"a"), Record(b"b")]),
        lossy_store.topics.append(topic, 1, [Record(b"c")]),
        lossy_store.topics.append(topic, 0, [Record(b"d", timestamp_ms=7)]),
    ]
    one, two, three = await asyncio.gather(*groups)
    assert (one.offsets, two.offsets, three.offsets) == ((5, 6), (0,), (7,))
    assert three.timestamps_ms == (7,)
    found = await read_all(store, topic, 0)
    assert [record.value for record in found] == [b"before", b"x", b"y", b"x", b"y", b"a", b"b", b"d"]
    assert one.timestamps_ms == (found[5].timestamp_ms,) * 2


async def test_a_note_is_of_one_call(store: Store, lossy_store: Store, proxy: LossyProxy) -> None:
    """What an earlier call has appended says nothing about this one, whose request was lost."""
    topic = await make(store)
    await lossy_store.topics.append(topic, 0, [Record(b"a")])
    proxy.lose_request(APPEND)
    assert (await lossy_store.topics.append(topic, 0, [Record(b"a")])).offsets == (1,)


async def test_without_an_answer_nothing_is_promised(store: Store, lossy_store: Store, proxy: LossyProxy) -> None:
    topic = await make(store)
    proxy.lose_request(APPEND, times=MAX_TRIES)
    with pytest.raises(StorageError):
        await lossy_store.topics.append(topic, 0, [Record(b"a")])
    assert await read_all(store, topic, 0) == []


async def test_a_topic_that_is_gone_takes_nothing(store: Store, settings: Settings, opened: Opened) -> None:
    other = await opened(settings)
    topic, kept = await make(store), await make(store, "kept")
    assert await other.topics.get_topic("orders") == topic
    await store.topics.delete_topic("orders")
    outcomes = await asyncio.gather(
        other.topics.append(topic, 0, [Record(b"a")]),
        other.topics.append(kept, 0, [Record(b"b")]),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], TopicGone)
    assert len(await read_all(store, kept, 0)) == 1
    again = await make(store)
    with pytest.raises(TopicGone):
        await other.topics.append(topic, 0, [Record(b"a")])
    assert (await other.topics.append(again, 0, [Record(b"c")])).offsets == (0,)


@pytest.mark.usefixtures("breaks_invariants")
@pytest.mark.parametrize("lost", ["stream", "state", "entry"])
async def test_a_log_that_lost_records_is_not_written_to(
    store: Store, redis_client: Any, settings: Settings, lost: str
) -> None:
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"a"), Record(b"b")])
    keys = PartitionKeys(settings.key_namespace, 0, 1)
    match lost:
        case "stream":
            await redis_client.delete(keys.topic_stream("orders", 0))
        case "state":
            await redis_client.delete(keys.topic_state("orders", 0))
        case _:
            await redis_client.xdel(keys.topic_stream("orders", 0), "1-0")
    refused, other = await asyncio.gather(
        store.topics.append(topic, 0, [Record(b"c")]),
        store.topics.append(topic, 1, [Record(b"c")]),
        return_exceptions=True,
    )
    assert isinstance(refused, StorageError)
    assert re.search(r"lost|should have 2", str(refused))
    assert isinstance(other, Appended), "others are not affected"
    with pytest.raises(StorageError):
        await read_all(store, topic, 0)


async def test_a_full_redis_takes_nothing(store: Store, redis_client: Any) -> None:
    topic = await make(store)
    await redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StorageFull):
            await store.topics.append(topic, 0, [Record(b"a")])
    finally:
        await redis_client.config_set("maxmemory", 0)
    assert (await store.topics.append(topic, 0, [Record(b"a")])).offsets == (0,)


async def test_the_index_knows_one_in_sixty_four(store: Store, redis_client: Any, settings: Settings) -> None:
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"a", timestamp_ms=number) for number in range(200)])
    index = PartitionKeys(settings.key_namespace, 0, 1).topic_index("orders", 0)
    assert await redis_client.zrange(index, 0, -1) == [b"0", b"64", b"128", b"192"]


async def test_commands_do_not_depend_on_the_length_of_the_log(store: Store, redis_client: Any) -> None:
    async def commands_of_an_append() -> dict[str, int]:
        await redis_client.config_resetstat()
        await store.topics.append(topic, 0, [Record(b"x" * 200)])
        stats = await redis_client.info("commandstats")
        return {name: values["calls"] for name, values in stats.items() if "config" not in name}

    topic = await make(store, retention_ms=-1)
    await store.topics.append(topic, 0, [Record(b"first")])
    few = await commands_of_an_append()
    await store.topics.append(topic, 0, [Record(b"x", timestamp_ms=1)] * 20_000)
    assert await commands_of_an_append() == few | {"cmdstat_zadd": 1}


async def test_a_try_that_arrives_behind_a_later_call_appends_nothing(
    store: Store, redis_client: Any, settings: Settings
) -> None:
    """A try that was given up for lost may still be on its way when the next one has been answered."""
    topic = await make(store)
    meta = PartitionKeys(settings.key_namespace, 0, 1).meta

    async def send(call: int, number: int, value: bytes) -> list[bytes]:
        args = (STORAGE_VERSION, b"producer", call.to_bytes(8, "big"), 60_000)
        unit = ("orders", number, topic.generation, 1, "", encode_record(Record(value)))
        return await redis_client.eval(Script("append_records").text, 1, meta, *args, *unit)

    assert (await send(255, 0, b"a"))[1].startswith(b"appended 0 ")
    assert (await send(256, 0, b"b"))[1].startswith(b"appended 1 ")
    assert (await send(255, 0, b"a"))[1].startswith(b"error a later call")
    assert (await send(255, 1, b"c"))[1].startswith(b"appended 0 "), "of this log no later call has told anything"
    assert (await send(256, 0, b"b"))[1].startswith(b"appended 1 ")
