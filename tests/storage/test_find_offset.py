"""find_offset.lua: the first record with a timestamp or a later one, in any order of timestamps, after any trimming."""

import itertools

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qstash_clone.storage.store import Store
from qstash_clone.topics.interface import TopicGone
from qstash_clone.topics.records import Record, TopicConfig
from tests.storage.test_append_records import make, read_all
from tests.storage.test_trim_topic_logs import trim

_names = itertools.count()


async def test_the_order_of_timestamps_does_not_matter(store: Store) -> None:
    topic = await make(store)
    await store.topics.append(topic, 0, [Record(b"v", timestamp_ms=time_ms) for time_ms in (5, 9, 7, 12)])
    found = {time_ms: await store.topics.find_offset(topic, 0, time_ms) for time_ms in (0, 5, 6, 8, 10, 12, 13)}
    assert found == {0: 0, 5: 0, 6: 1, 8: 1, 10: 3, 12: 3, 13: 4}


async def test_of_an_empty_log_it_is_the_end(store: Store) -> None:
    topic = await make(store)
    assert await store.topics.find_offset(topic, 0, 0) == 0


async def test_a_late_record_behind_a_long_run(store: Store) -> None:
    topic = await make(store)
    times = [1000] * 700 + [5] * 700 + [2000]
    await store.topics.append(topic, 0, [Record(b"v", timestamp_ms=time_ms) for time_ms in times])
    assert [await store.topics.find_offset(topic, 0, one) for one in (1, 1000, 1001, 2001)] == [0, 0, 1400, 1401]


async def test_a_later_record_just_before_the_next_entry_of_the_index(store: Store) -> None:
    """It is 63 behind the last entry: later than all before it, and not in the index."""
    topic = await make(store)
    times = [100] + [50] * 62 + [200] + [60] * 10 + [300]
    await store.topics.append(topic, 0, [Record(b"v", timestamp_ms=time_ms) for time_ms in times])
    assert [await store.topics.find_offset(topic, 0, one) for one in (150, 200, 201)] == [63, 63, 74]


async def test_what_was_dropped_does_not_hide_what_is_there(store: Store) -> None:
    """The record that the index spoke of was the latest so far; those that are left begin anew."""
    topic = await make(store, retention_bytes=-1)
    times = [10, *[5] * 10, 100, *[7] * 400, 50, 8]
    await store.topics.append(topic, 0, [Record(b"v" * 100, timestamp_ms=time_ms) for time_ms in times])
    topic = await store.topics.change_topic("orders", TopicConfig(partitions=4, retention_bytes=120 * 300))
    assert await trim(store, topic) > 12
    assert await store.topics.find_offset(topic, 0, 20) == times.index(50)
    assert await store.topics.find_offset(topic, 0, 51) == len(times)


async def test_a_deleted_topic_is_told(store: Store) -> None:
    topic = await make(store)
    await store.topics.delete_topic("orders")
    with pytest.raises(TopicGone):
        await store.topics.find_offset(topic, 0, 0)


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 120)), min_size=1, max_size=8),
    jitter=st.lists(st.integers(0, 5), min_size=1, max_size=7),
    kept=st.none() | st.integers(0, 400),
    asked=st.lists(st.integers(0, 70), min_size=1, max_size=10),
)
async def test_any_timestamps_and_any_trimming(
    store: Store, runs: list[tuple[int, int]], jitter: list[int], kept: int | None, asked: list[int]
) -> None:
    noise = itertools.cycle(jitter)
    times = [time_ms + next(noise) for time_ms, length in runs for _ in range(length)]
    topic = await make(store, f"t{next(_names)}", partitions=1)
    await store.topics.append(topic, 0, [Record(b"v", timestamp_ms=time_ms) for time_ms in times])
    if kept is not None:
        topic = await store.topics.change_topic(topic.name, TopicConfig(partitions=1, retention_bytes=kept * 20))
        await trim(store, topic)
    left = await read_all(store, topic, 0)
    for time_ms in asked:
        expected = next((record.offset for record in left if record.timestamp_ms >= time_ms), len(times))
        assert await store.topics.find_offset(topic, 0, time_ms) == expected
