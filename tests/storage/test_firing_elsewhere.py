"""Firings whose messages belong to another partition than their schedule: these first, then the schedule moves on."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.lanes import queue_lane
from qstash_clone.domain.schedules import Firing, Schedule
from qstash_clone.domain.url_groups import Endpoint, UrlGroup
from qstash_clone.errors import InvalidRequest, StorageError, StorageFull, StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition, partition_of
from qstash_clone.storage.resources import FireResult
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, Opened, StopClock
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.schedules import (
    HOUR_MS,
    NOON_MS,
    new_schedule,
    partition_of_schedule,
    plan_due,
    plan_one,
    stored_schedule,
)

PARTITIONS = 4
HERE = partition_of_schedule("s", PARTITIONS)
QUEUE = next(f"q{n}" for n in range(100) if lane_partition(queue_lane(f"q{n}"), PARTITIONS) != HERE)
THERE = lane_partition(queue_lane(QUEUE), PARTITIONS)
FIRED, STALE = FireResult.FIRED, FireResult.STALE
ONE_MS = NOON_MS + HOUR_MS

pytestmark = pytest.mark.parametrize("partitions", [PARTITIONS])


@pytest.fixture(autouse=True)
async def noon(store: Store, stop_clock: StopClock) -> None:
    """The clock stands still at noon."""
    await stop_clock(NOON_MS)


@pytest.fixture
def there(settings: Settings) -> PartitionKeys:
    """The keys of the partition of the queue."""
    return PartitionKeys(settings.key_namespace, THERE, PARTITIONS)


async def due(store: Store, stop_clock: StopClock, **options: Any) -> Firing:
    """What is planned for the first instant of a schedule that was created at noon."""
    await store.schedules.put_schedule(new_schedule(queue=QUEUE, **options))
    await stop_clock(ONE_MS + 5)
    return await plan_one(store, partition=HERE)


async def make_group(store: Store, *urls: str) -> None:
    group = UrlGroup(name="g", created_ms=1, updated_ms=1, endpoints=tuple(Endpoint(url=url) for url in urls))
    await store.url_groups.change_url_group("g", lambda old, now_ms: group)


def urls_there(look: Look) -> list[str]:
    return sorted(record.stored.message.url for record in look(THERE).records.values())


async def test_messages_go_where_their_lane_is(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = await due(store, stop_clock)
    [message] = firing.messages
    assert partition_of(message.id, PARTITIONS) == THERE
    assert await store.schedules.fire([firing]) == [FIRED]
    stored = await stored_schedule(store)
    assert (stored.last_message_ids, stored.last_fire_ms) == ((message.id,), ONE_MS)
    assert stored.next_fire_ms == ONE_MS + HOUR_MS
    record = look(THERE).records[message.id].stored
    assert (record.message, record.body, record.lane) == (message.message, message.body, f"q:{QUEUE}")
    assert look(HERE).records == {}


async def test_a_worker_that_ended_in_between_has_lost_nothing(
    store: Store, lossy_store: Store, proxy: LossyProxy, stop_clock: StopClock, look: Look
) -> None:
    firing = await due(store, stop_clock)
    proxy.lose_request(Script("fire_schedule").digest, 3)
    [result] = await lossy_store.schedules.fire([firing])
    assert isinstance(result, StorageUnavailable)
    assert (await stored_schedule(store)).last_fire_ms is None
    assert len(look(THERE).records) == 1
    assert await store.schedules.fire([await plan_one(store, partition=HERE)]) == [FIRED]
    assert len(look(THERE).records) == 1
    assert await lossy_store.schedules.fire([firing]) == [STALE]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["https://a"], ["https://b", "https://a"]),
        (["https://a", "https://b"], ["https://b", "https://c"]),
        (["https://a", "https://b", "https://c"], ["https://c"]),
        (["https://a"], ["https://b"]),
    ],
)
async def test_a_group_that_changes_in_between_gets_every_message_once(
    store: Store,
    lossy_store: Store,
    proxy: LossyProxy,
    stop_clock: StopClock,
    look: Look,
    before: list[str],
    after: list[str],
) -> None:
    """Endpoints of either state, each once."""
    await make_group(store, *before)
    firing = await due(store, stop_clock, group="g")
    proxy.lose_request(Script("fire_schedule").digest, 3)
    await lossy_store.schedules.fire([firing])
    assert urls_there(look) == before
    await make_group(store, *after)
    assert await store.schedules.fire([await plan_one(store, partition=HERE)]) == [FIRED]
    assert urls_there(look) == sorted({*before, *after})
    noted = (await stored_schedule(store)).last_message_ids
    assert [look(THERE).records[message_id].stored.message.url for message_id in noted] == after


async def replace(store: Store) -> None:
    await store.schedules.put_schedule(new_schedule(queue=QUEUE, body=b"new"))


async def pause(store: Store) -> None:
    await store.schedules.set_schedule_paused("s", True)


async def delete(store: Store) -> None:
    await store.schedules.delete_schedule("s")


async def fire(store: Store) -> None:
    assert await store.schedules.fire([await plan_one(store, partition=HERE)]) == [FIRED]


@pytest.mark.parametrize("change", [replace, pause, delete, fire])
async def test_who_was_held_up_publishes_nothing(
    store: Store, redis_client: Any, there: PartitionKeys, stop_clock: StopClock, look: Look, change: Callable[..., Any]
) -> None:
    firing = await due(store, stop_clock)
    await change(store)
    # What was published meanwhile may have been delivered, and its retention be over.
    for message_id in list(look(THERE).records):
        await store.admin.cancel(MessageId(message_id))
        await redis_client.delete(there.message(MessageId(message_id)))
    before = look(HERE), look(THERE).records
    assert await store.schedules.fire([firing]) == [STALE]
    assert (look(HERE), look(THERE).records) == before


async def test_what_fails_elsewhere_holds_up_nothing_here(
    store: Store, redis_client: Any, there: PartitionKeys, stop_clock: StopClock, look: Look
) -> None:
    others = [f"o{n}" for n in range(100) if partition_of_schedule(f"o{n}", PARTITIONS) == HERE][:3]
    for name in others:
        await store.schedules.put_schedule(new_schedule(name))
    await store.schedules.put_schedule(new_schedule(queue=QUEUE))
    await stop_clock(ONE_MS)
    firings = await plan_due(store, partition=HERE)
    async with damaged(redis_client, there.limits(f"q:{QUEUE}")):
        results = await store.schedules.fire(firings)
    for firing, result in zip(firings, results, strict=True):
        if firing.stored.schedule.id == "s":
            assert type(result) is StorageError
            assert "belong to another partition than the schedule" in str(result)
        else:
            assert result is FIRED
    assert (await stored_schedule(store)).next_fire_ms == ONE_MS
    assert await store.schedules.fire(firings) == [
        FIRED if firing.stored.schedule.id == "s" else STALE for firing in firings
    ]
    assert len(look(THERE).records) == 1


async def test_what_cannot_be_encoded_holds_up_nothing(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = await due(store, stop_clock)
    too_long = tuple(msgspec.structs.replace(message, lane="h:" + "x" * 10_000) for message in firing.messages)
    [result] = await store.schedules.fire([msgspec.structs.replace(firing, messages=too_long)])
    assert isinstance(result, ValueError)
    assert (await stored_schedule(store)).next_fire_ms == ONE_MS


async def test_a_full_redis_keeps_the_instant(
    store: Store, redis_client: Any, stop_clock: StopClock, look: Look
) -> None:
    firing = await due(store, stop_clock)
    await redis_client.config_set("maxmemory", "1")
    try:
        [result] = await store.schedules.fire([firing])
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert isinstance(result, StorageFull)
    assert look(THERE).records == {}
    assert await store.schedules.fire([firing]) == [FIRED]


async def test_a_passed_over_instant_needs_no_other_partition(store: Store, stop_clock: StopClock, look: Look) -> None:
    await due(store, stop_clock)
    firing = await plan_one(store, partition=HERE, max_lateness_ms=1)
    assert await store.schedules.fire([firing]) == [FIRED]
    assert look(THERE).records == {}


async def test_many_workers_publish_once(
    store: Store, opened: Opened, settings: Settings, stop_clock: StopClock, look: Look
) -> None:
    await make_group(store, "https://a", "https://b")
    firing = await due(store, stop_clock, group="g")
    stores = [store, *[await opened(settings) for _ in range(4)]]
    results = await asyncio.gather(*(one.schedules.fire([firing]) for one in stores * 4))
    assert sorted(word for [word] in results) == sorted([FIRED] + [STALE] * 19)  # pyright: ignore
    assert urls_there(look) == ["https://a", "https://b"]


async def test_a_callbacks_key_decides_too(store: Store, stop_clock: StopClock, partitions: int) -> None:
    """All lanes of a schedule live together, or it is refused when it is created."""
    key = next(f"k{n}" for n in range(100) if lane_partition(f"f:k{n}", partitions) not in (THERE, HERE))
    schedule: Schedule = new_schedule(queue=QUEUE, key=key)
    with pytest.raises(InvalidRequest):
        await store.schedules.put_schedule(schedule)
