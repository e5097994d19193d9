import asyncio
import time

import pytest

from qstash_clone.errors import NotFound
from qstash_clone.topics.reading import TopicOffset
from qstash_clone.topics.records import Bounds, Place
from tests.support.eventually import eventually
from tests.topics.conftest import Scene, present, values


async def test_records_come_by_partition_in_the_order_asked_for(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    await scene.make_topic("audit")
    await scene.append("o0", "o1", partition=1)
    await scene.append("a0", "a1", topic="audit")
    wanted = [TopicOffset("audit", 0, 1), TopicOffset("orders", 1, 0), TopicOffset("audit", 0, 0)]
    found = await scene.reader().fetch(wanted, 0, present())
    assert values(found) == ["a1", "o0", "o1"]
    assert [one.place for one in found] == [Place("audit", 0), Place("orders", 1), Place("orders", 1)]


async def test_one_long_partition_leaves_the_others_a_share(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    await scene.append(*["x"] * 20, partition=0)
    await scene.append("late", partition=1)
    wanted = [TopicOffset("orders", 0, 0), TopicOffset("orders", 1, 0)]
    found = values(await scene.reader(max_records=5).fetch(wanted, 0, present()))
    assert len(found) == 5
    assert "late" in found


@pytest.mark.parametrize("offset", [0, 1, 7])
async def test_where_nothing_is_the_call_waits_for_its_time(scene: Scene, offset: int) -> None:
    await scene.make_topic()
    started_s = time.monotonic()
    assert await scene.reader().fetch([TopicOffset("orders", 0, offset)], 60, present()) == []
    assert time.monotonic() - started_s >= 0.06


async def test_a_new_record_ends_the_wait(scene: Scene) -> None:
    await scene.make_topic()
    fetching = asyncio.ensure_future(scene.reader().fetch([TopicOffset("orders", 0, 1)], 60_000, present()))
    await eventually(lambda: scene.waits == 1)
    await scene.append("before")
    assert not fetching.done()
    await scene.append("wanted")
    assert values(await fetching) == ["wanted"]


async def test_who_departs_is_not_waited_for(scene: Scene) -> None:
    await scene.make_topic()
    departed = asyncio.Event()
    before = asyncio.all_tasks()
    fetching = asyncio.ensure_future(scene.reader().fetch([TopicOffset("orders", 0, 0)], 60_000, departed))
    await eventually(lambda: scene.waits == 1)
    departed.set()
    assert await fetching == []
    await eventually(lambda: asyncio.all_tasks() <= before)


async def test_a_topic_that_is_deleted_ends_the_wait(scene: Scene) -> None:
    await scene.make_topic()
    fetching = asyncio.ensure_future(scene.reader().fetch([TopicOffset("orders", 0, 0)], 60_000, present()))
    await eventually(lambda: scene.waits == 1)
    await scene.topics.delete_topic("orders")
    with pytest.raises(NotFound, match="topic orders does not exist"):
        await fetching


async def test_a_log_whose_records_are_all_gone_is_no_news(scene: Scene) -> None:
    """Its end is behind the offset, but there is nothing to read: waiting there must not spin."""
    await scene.make_topic("orders", retention_ms=1)
    topic = await scene.topics.get_topic("orders")
    assert topic is not None
    await scene.append("old")

    async def is_trimmed() -> bool:
        await scene.log.trim([(topic, 0)])
        return await scene.topics.read_bounds([(topic, 0)]) == [Bounds(1, 1)]

    await eventually(is_trimmed)
    assert await scene.reader().fetch([TopicOffset("orders", 0, 0)], 100, present()) == []
    assert (scene.reads, scene.waits) == (2, 1)


@pytest.mark.parametrize(("topic", "partition"), [("nowhere", 0), ("orders", 1), ("orders", -1)])
async def test_what_does_not_exist_is_not_found(scene: Scene, topic: str, partition: int) -> None:
    await scene.make_topic()
    with pytest.raises(NotFound, match="topic"):
        await scene.reader().fetch([TopicOffset(topic, partition, 0)], 0, present())
    with pytest.raises(NotFound, match="topic"):
        await scene.reader().find_offsets("latest", [Place(topic, partition)])


async def test_offsets_of_partitions(scene: Scene) -> None:
    await scene.make_topic("orders", 2)
    await scene.append("a", "b")
    places = [Place("orders", 1), Place("orders", 0), Place("orders", 0)]
    reader = scene.reader()
    assert [one.offset for one in await reader.find_offsets("earliest", places)] == [0, 0, 0]
    assert [one.offset for one in await reader.find_offsets("latest", places)] == [0, 2, 2]
    assert [one.offset for one in await reader.find_offsets(0, places)] == [0, 0, 0]
    assert [one.offset for one in await reader.find_offsets(2**52, places)] == [0, 2, 2]
