"""trim_topic_logs.lua: the oldest records go, none too early; offsets go on where they were."""

from typing import Any

import pytest

from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from qstash_clone.topics.interface import ReadFrom
from qstash_clone.topics.records import Bounds, Record, Topic, TopicConfig
from tests.storage.conftest import MoveClock, StopClock
from tests.storage.test_append_records import make, read_all

HOUR_MS = 3_600_000


async def trim(store: Store, topic: Topic) -> int:
    """Until there is no more; how many went."""
    dropped, unfinished = await store.topics.trim([(topic, number) for number in range(topic.config.partitions)])
    while unfinished:
        more, unfinished = await store.topics.trim(unfinished)
        dropped += more
    return dropped


async def test_old_records_go(store: Store, stop_clock: StopClock) -> None:
    await stop_clock(1_700_000_000_000)
    topic = await make(store, retention_ms=HOUR_MS)
    await store.topics.append(topic, 0, [Record(b"old")] * 250)
    await stop_clock(1_700_000_000_000 + HOUR_MS // 2)
    await store.topics.append(topic, 0, [Record(b"new")])
    await stop_clock(1_700_000_000_000 + HOUR_MS)
    assert await trim(store, topic) == 0
    await stop_clock(1_700_000_000_000 + HOUR_MS + 1)
    assert await trim(store, topic) == 250
    assert [record.offset for record in await read_all(store, topic, 0)] == [250]
    assert await store.topics.read_bounds([(topic, 0)]) == [Bounds(250, 251)]


async def test_a_record_with_an_old_timestamp_stays_as_long_as_any_other(store: Store, stop_clock: StopClock) -> None:
    await stop_clock(1_700_000_000_000)
    topic = await make(store, retention_ms=HOUR_MS)
    await store.topics.append(topic, 0, [Record(b"a", timestamp_ms=12), Record(b"b", timestamp_ms=13)])
    await store.topics.append(topic, 1, [Record(b"c", timestamp_ms=1_700_000_000_000 + 2 * HOUR_MS)])
    await stop_clock(1_700_000_000_000 + HOUR_MS)
    assert await trim(store, topic) == 0
    await stop_clock(1_700_000_000_000 + HOUR_MS + 1)
    assert await trim(store, topic) == 2
    await stop_clock(1_700_000_000_000 + 3 * HOUR_MS + 1)
    assert await trim(store, topic) == 1


async def test_a_young_record_keeps_what_is_behind_it(store: Store, stop_clock: StopClock) -> None:
    """Records go from the front only."""
    await stop_clock(1_700_000_000_000)
    topic = await make(store, retention_ms=HOUR_MS)
    await store.topics.append(topic, 0, [Record(b"a", timestamp_ms=1_700_000_000_000 + HOUR_MS), Record(b"b")])
    await stop_clock(1_700_000_000_000 + HOUR_MS + 1)
    assert await trim(store, topic) == 0


async def test_what_is_too_large_goes(store: Store) -> None:
    topic = await make(store, retention_bytes=10_000)
    await store.topics.append(topic, 0, [Record(b"v" * 1000)] * 500)
    await store.topics.append(topic, 1, [Record(b"v" * 1000)] * 5)
    assert await trim(store, topic) == 491
    assert await store.topics.read_bounds([(topic, 0), (topic, 1)]) == [Bounds(491, 500), Bounds(0, 5)]


async def test_what_just_fits_stays(store: Store, redis_client: Any, settings: Settings) -> None:
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"v" * 1000)] * 3)
    size = int(await redis_client.hget(PartitionKeys(settings.key_namespace, 0, 1).topic_state("orders", 0), "b"))
    for retention_bytes, dropped in ((size, 0), (size - 1, 1)):
        topic = await store.topics.change_topic("orders", TopicConfig(partitions=4, retention_bytes=retention_bytes))
        assert await trim(store, topic) == dropped


@pytest.mark.parametrize("partitions", [1, 3])
async def test_it_is_told_which_logs_have_more(store: Store) -> None:
    topic = await make(store, partitions=60, retention_bytes=0)
    for number, count in ((2, 150), (30, 1), (59, 101)):
        await store.topics.append(topic, number, [Record(b"v")] * count)
    dropped, unfinished = await store.topics.trim([(topic, number) for number in range(60)])
    assert dropped == 201
    assert sorted(unfinished, key=lambda log: log[1]) == [(topic, 2), (topic, 59)]


async def test_for_ever_is_for_ever(store: Store, stop_clock: StopClock) -> None:
    await stop_clock(1_000)
    topic = await make(store, retention_ms=-1)
    await store.topics.append(topic, 0, [Record(b"a")])
    await stop_clock(9_000_000_000_000)
    assert await trim(store, topic) == 0


@pytest.mark.parametrize("partitions", [1, 3])
async def test_offsets_go_on_behind_an_empty_log(store: Store) -> None:
    topic = await make(store, retention_bytes=0)
    await store.topics.append(topic, 3, [Record(b"a")] * 130)
    assert await trim(store, topic) == 130
    assert await store.topics.read_bounds([(topic, 3)]) == [Bounds(130, 130)]
    assert await store.topics.find_offset(topic, 3, 0) == 130
    assert (await store.topics.append(topic, 3, [Record(b"b")])).offsets == (130,)
    [part] = await store.topics.read([ReadFrom(topic, 3, 0)], max_records=5, max_bytes=100)
    assert part is not None
    assert [(record.offset, record.value) for record in part.records] == [(130, b"b")]


async def test_a_full_redis_is_relieved(store: Store, redis_client: Any) -> None:
    topic = await make(store, retention_bytes=0)
    await store.topics.append(topic, 0, [Record(b"a")] * 10)
    await redis_client.config_set("maxmemory", 1)
    try:
        assert await trim(store, topic) == 10
    finally:
        await redis_client.config_set("maxmemory", 0)


async def test_the_index_gets_shorter_too(store: Store, redis_client: Any, settings: Settings) -> None:
    topic = await make(store, retention_bytes=600)
    await store.topics.append(topic, 0, [Record(b"a", timestamp_ms=number) for number in range(1000)])
    await trim(store, topic)
    index = PartitionKeys(settings.key_namespace, 0, 1).topic_index("orders", 0)
    [bounds] = await store.topics.read_bounds([(topic, 0)])
    assert bounds is not None
    assert all(int(offset) >= bounds.start for offset in await redis_client.zrange(index, 0, -1))


async def test_a_changed_retention_counts_at_once(store: Store) -> None:
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"v")] * 3)
    config = TopicConfig(partitions=4, retention_bytes=0)
    assert await trim(store, await store.topics.change_topic("orders", config)) == 3


async def test_a_moved_clock_is_the_one_that_counts(store: Store, move_clock: MoveClock) -> None:
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"v")])
    assert await trim(store, topic) == 0
    await move_clock(topic.config.retention_ms + 1000)
    assert await trim(store, topic) == 1
