"""read_records.lua: what is there from an offset on, a share of each log, never more than asked for."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from qstash_clone.errors import StorageError
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from qstash_clone.topics.interface import ReadFrom
from qstash_clone.topics.records import Bounds, Record, Slice, Topic, TopicConfig
from tests.storage.conftest import Opened
from tests.support.eventually import eventually


@pytest.fixture
async def topic(store: Store) -> Topic:
    return await store.topics.create_topic("orders", TopicConfig(partitions=4))


async def fill(store: Store, topic: Topic, number: int, count: int, size: int = 1) -> None:
    await store.topics.append(topic, number, [Record(b"v" * size)] * count)


async def read(store: Store, topic: Topic, wanted: Sequence[tuple[int, int]], **limits: Any) -> list[list[int]]:
    """The offsets that were read of each partition."""
    parts = await store.topics.read(
        [ReadFrom(topic, number, offset) for number, offset in wanted],
        max_records=limits.get("max_records", 500),
        max_bytes=limits.get("max_bytes", 1 << 22),
    )
    return [[record.offset for record in part.records] if part is not None else [-1] for part in parts]


async def test_a_read_begins_at_its_offset(store: Store, topic: Topic) -> None:
    await fill(store, topic, 1, 5)
    assert await read(store, topic, [(1, 0), (1, 3), (1, 5), (1, 99), (0, 0)]) == [[0, 1, 2, 3, 4], [3, 4], [], [], []]
    assert await store.topics.read_bounds([(topic, 1), (topic, 0)]) == [Bounds(0, 5), Bounds(0, 0)]


@pytest.mark.parametrize("partitions", [1, 5])
async def test_each_log_gets_its_share_and_the_rest_goes_in_order(store: Store, topic: Topic) -> None:
    for number, count in enumerate((400, 10, 400)):
        await fill(store, topic, number, count)
    found = [len(offsets) for offsets in await read(store, topic, [(0, 0), (1, 0), (2, 0)], max_records=500)]
    assert sum(found) == 500
    assert found[1] == 10
    assert min(found) > 0


@pytest.mark.parametrize("partitions", [1, 5])
async def test_a_log_with_more_than_fits_leaves_the_others_their_share(store: Store, topic: Topic) -> None:
    for number, count in enumerate((600, 10, 600)):
        await fill(store, topic, number, count, 100)
    wanted = [(0, 0), (1, 0), (2, 0)]
    by_count = [len(offsets) for offsets in await read(store, topic, wanted, max_records=30)]
    assert (sum(by_count), min(by_count)) == (30, 10)
    by_bytes = [len(offsets) for offsets in await read(store, topic, wanted, max_bytes=2_000)]
    assert min(by_bytes) > 0


async def test_what_is_left_goes_to_the_first(store: Store, topic: Topic) -> None:
    for number, count in enumerate((400, 10, 400)):
        await fill(store, topic, number, count)
    found = await read(store, topic, [(2, 0), (1, 0), (0, 0)], max_records=500)
    assert [len(offsets) for offsets in found] == [323, 10, 167]


async def test_bytes_are_limited_but_never_to_nothing(store: Store, topic: Topic) -> None:
    await fill(store, topic, 0, 3, size=1000)
    assert await read(store, topic, [(0, 0)], max_bytes=2100) == [[0, 1]]
    assert await read(store, topic, [(0, 1)], max_bytes=10) == [[1]]
    assert await read(store, topic, [(1, 0), (0, 2)], max_bytes=10) == [[], [2]]


async def test_records_of_very_different_sizes(store: Store, topic: Topic) -> None:
    sizes = [1] * 200 + [600_000] * 6 + [1] * 200
    await store.topics.append(topic, 0, [Record(bytes(size)) for size in sizes])
    at, reads = 0, 0
    while at < len(sizes):
        [offsets] = await read(store, topic, [(0, at)], max_bytes=1_000_000)
        assert offsets == list(range(at, at + len(offsets)))
        assert sum(sizes[offset] for offset in offsets) <= 1_000_000
        assert offsets
        at, reads = offsets[-1] + 1, reads + 1
    assert reads < 12


async def _asked_for(redis_client: Any, work: Awaitable[object]) -> list[int]:
    """How many entries scripts ask Redis for at once."""
    counts: list[int] = []
    async with redis_client.monitor() as monitor:
        await work
        await redis_client.echo("end")
        while (command := (await monitor.next_command())["command"]) != "ECHO end":
            words = command.split(" ")
            if words[0].lower() == "xrange":
                counts.append(int(words[-1]))
    return counts


async def test_large_records_behind_many_small_ones_are_taken_few_at_a_time(
    store: Store, topic: Topic, redis_client: Any
) -> None:
    """A hundred of 1 MiB would hold Redis up for more than half a second, whatever the limit of the answer is."""
    await fill(store, topic, 0, 2000)
    await store.topics.append(topic, 0, [Record(bytes(10_000), timestamp_ms=5)] * 100)
    counts = await _asked_for(redis_client, read(store, topic, [(0, 2000)], max_bytes=100_000))
    assert max(counts) <= 10
    assert sum(counts) <= 20
    counts = await _asked_for(redis_client, read(store, topic, [(0, 2000)]))
    assert max(counts) <= 10
    assert sum(counts) == 100
    assert max(await _asked_for(redis_client, store.topics.find_offset(topic, 0, 1 << 50))) <= 10
    assert await _asked_for(redis_client, store.topics.trim([(topic, 0)])) == [1]
    topic = await store.topics.change_topic("orders", TopicConfig(partitions=4, retention_bytes=0))
    counts = await _asked_for(redis_client, store.topics.trim([(topic, 0)]))
    assert max(counts) <= 10
    assert sum(counts) == 100


@pytest.mark.usefixtures("breaks_invariants")
async def test_a_log_with_other_entries_than_its_own_is_not_read(
    store: Store, topic: Topic, redis_client: Any, settings: Settings
) -> None:
    await fill(store, topic, 0, 2)
    stream = PartitionKeys(settings.key_namespace, 0, 1).topic_stream("orders", 0)
    await redis_client.xdel(stream, "2-0")
    await redis_client.xadd(stream, {"r": b"x"}, id="9-0")
    with pytest.raises(StorageError, match="no record at offset 1"):
        await read(store, topic, [(0, 1)])


async def test_a_log_of_a_deleted_topic_is_told(store: Store, settings: Settings, opened: Opened, topic: Topic) -> None:
    other = await opened(settings)
    await other.topics.get_topic("orders")
    await fill(store, topic, 0, 1)
    await store.topics.delete_topic("orders")
    assert await other.topics.read([ReadFrom(topic, 0, 0)], max_records=1, max_bytes=1) == [None]
    assert await other.topics.read_bounds([(topic, 0)]) == [None]


async def test_whoever_waits_is_woken_by_an_append(
    store: Store, settings: Settings, opened: Opened, topic: Topic
) -> None:
    other = await opened(settings)
    await fill(store, topic, 0, 3)
    for producer in (store, other):
        [end] = await store.topics.read_bounds([(topic, 0)])
        assert end is not None
        wanted = [ReadFrom(topic, 1, 0), ReadFrom(topic, 0, end.end)]
        waiting = asyncio.ensure_future(store.topics.wait_for_records(wanted, 30))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        await fill(producer, topic, 0, 1)
        await asyncio.wait_for(waiting, 5)


async def test_more_readers_at_once_than_there_are_connections(store: Store, topic: Topic) -> None:
    """One append wakes all that wait for it."""
    await fill(store, topic, 0, 1)
    assert await asyncio.gather(*(read(store, topic, [(0, 0)]) for _ in range(500))) == [[[0]]] * 500
    bounds = await asyncio.gather(*(store.groups.load_group("g") for _ in range(500)))
    assert {one.revision for one in bounds} == {0}


async def test_waiting_ends(store: Store, topic: Topic) -> None:
    await fill(store, topic, 0, 3)
    await asyncio.wait_for(store.topics.wait_for_records([ReadFrom(topic, 0, 2)], 30), 5)
    started_s = time.monotonic()
    await store.topics.wait_for_records([ReadFrom(topic, 0, 3)], 0.05)
    assert time.monotonic() - started_s >= 0.04
    waiting = asyncio.ensure_future(store.topics.wait_for_records([ReadFrom(topic, 0, 3)], 30))
    await asyncio.sleep(0)
    await store.topics.delete_topic("orders")
    await asyncio.wait_for(waiting, 5)


async def test_nobody_asks_when_nobody_waits(store: Store, topic: Topic) -> None:
    before = asyncio.all_tasks()
    waits = [asyncio.ensure_future(store.topics.wait_for_records([ReadFrom(topic, 0, 0)], 30)) for _ in range(5)]
    await asyncio.sleep(0)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_a_slice_has_the_bounds_of_that_moment(store: Store, topic: Topic) -> None:
    await fill(store, topic, 0, 2)
    [part] = await store.topics.read([ReadFrom(topic, 0, 1)], max_records=5, max_bytes=1000)
    assert isinstance(part, Slice)
    assert part.bounds == Bounds(0, 2)
