"""Retention of topics: in rounds over all logs, hurrying only while there is more."""

from collections.abc import Callable
from typing import Any

import pytest

from qstash_clone.errors import StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage import topic_log
from qstash_clone.storage.keys import PartitionKeys, topics_key
from qstash_clone.topics.records import Bounds, Record, TopicConfig
from tests.worker.rig import Rig
from worker import topic_janitor
from worker.janitor import BUSY_INTERVAL_MS, IDLE_INTERVAL_MS, JITTER
from worker.topic_janitor import LOGS_TOGETHER, TrimReport


async def test_a_round_visits_every_log_until_it_has_no_more(rig: Rig) -> None:
    topics = rig.real_store.topics
    topic = await topics.create_topic("orders", TopicConfig(partitions=LOGS_TOGETHER + 5, retention_bytes=0))
    await topics.create_topic("kept", TopicConfig(partitions=3, retention_ms=-1))
    await topics.append(topic, 0, [Record(b"a")] * 250)
    await topics.append(topic, LOGS_TOGETHER + 4, [Record(b"b")])
    janitor = rig.worker.loops.topic_janitor
    report = await janitor.step()
    assert janitor.rest_ms(report) == BUSY_INTERVAL_MS
    dropped = report.dropped
    while report.left:
        report = await janitor.step()
        dropped += report.dropped
    assert dropped == 251
    assert IDLE_INTERVAL_MS * (1 - JITTER) <= janitor.rest_ms(report) <= IDLE_INTERVAL_MS * (1 + JITTER)
    assert await topics.read_bounds([(topic, 0)]) == [Bounds(250, 250)]


async def test_a_log_that_always_has_more_holds_up_no_other(rig: Rig) -> None:
    topics = rig.real_store.topics
    janitor = rig.worker.loops.topic_janitor
    busy = await topics.create_topic("busy", TopicConfig(partitions=1, retention_bytes=0))
    await topics.append(busy, 0, [Record(b"a")] * 300)
    await janitor.step()
    later = await topics.create_topic("later", TopicConfig(partitions=1, retention_bytes=0))
    await topics.append(later, 0, [Record(b"b")])
    await janitor.step()
    assert await topics.read_bounds([(later, 0), (busy, 0)]) == [Bounds(1, 1), Bounds(200, 300)]


async def test_a_retention_that_was_raised_counts_for_what_is_still_there(rig: Rig) -> None:
    topics = rig.real_store.topics
    janitor = rig.worker.loops.topic_janitor
    topic = await topics.create_topic("orders", TopicConfig(partitions=1, retention_bytes=0))
    await topics.append(topic, 0, [Record(b"a")] * 300)
    assert (await janitor.step()).dropped == 100
    await topics.change_topic("orders", TopicConfig(partitions=1))
    assert await janitor.step() == TrimReport(dropped=0, left=0)
    assert await topics.read_bounds([(topic, 0)]) == [Bounds(100, 300)]


async def test_without_topics_there_is_nothing_to_do(rig: Rig) -> None:
    assert await rig.worker.loops.topic_janitor.step() == TrimReport(dropped=0, left=0)


async def test_a_moved_clock_wakes_it(rig: Rig, move_clock: Callable[[int], Any]) -> None:
    topics = rig.real_store.topics
    topic = await topics.create_topic("orders", TopicConfig(partitions=1))
    await topics.append(topic, 0, [Record(b"a")])
    assert (await rig.worker.loops.topic_janitor.step()).dropped == 0
    await move_clock(topic.config.retention_ms + 1000)
    assert (await rig.worker.loops.topic_janitor.step()).dropped == 1


async def test_a_damaged_log_is_told_and_holds_up_nobody(
    rig: Rig, settings: Settings, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def tell(event: str, *, level: int, error: str) -> None:
        told.append(f"{event} {error}")

    monkeypatch.setattr(topic_log, "emit", tell)
    topics = rig.real_store.topics
    topic = await topics.create_topic("orders", TopicConfig(partitions=2, retention_bytes=0))
    for number in range(2):
        await topics.append(topic, number, [Record(b"a")])
    await redis_client.delete(PartitionKeys(settings.key_namespace, 0, 1).topic_stream("orders", 1))
    assert (await rig.worker.loops.topic_janitor.step()).dropped == 1
    assert len(told) == 1
    assert told[0].startswith("topic.log_damaged ")
    assert "orders:1" in told[0]


async def test_a_topic_of_a_later_release_does_not_count_as_an_outage(
    rig: Rig, settings: Settings, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store seems to be away, a worker takes over nothing that others have left."""
    told: list[str] = []

    def tell(event: str, *, level: int, error: str) -> None:
        told.append(f"{event} {error}")

    monkeypatch.setattr(topic_janitor, "emit", tell)
    await redis_client.hset(topics_key(settings.key_namespace), "orders", b"\xc1")
    assert await rig.worker.loops.topic_janitor.step() == TrimReport(dropped=0, left=0)
    assert len(told) == 1
    assert told[0].startswith("topic.log_damaged The topic orders cannot be read")


async def test_an_outage_is_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise StorageUnavailable("away")

    monkeypatch.setattr(rig.real_store.topics, "list_topics", fail)
    with pytest.raises(StorageUnavailable):
        await rig.worker.loops.topic_janitor.step()
