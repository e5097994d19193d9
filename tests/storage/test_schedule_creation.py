"""Repeats of the creation of a schedule: whoever dies at whatever point, exactly one is stored."""

import asyncio
import struct
from collections import Counter
from collections.abc import Sequence

import pytest

from qstash_clone.domain.lanes import queue_lane
from qstash_clone.domain.message import Deduplication, Extras, FlowControl, Message
from qstash_clone.domain.schedules import Schedule
from qstash_clone.errors import InvalidRequest, QuotaExceeded, StorageUnavailable
from qstash_clone.ids import MessageId, new_schedule_id
from qstash_clone.settings import Settings
from qstash_clone.storage import reservations
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition, partition_of
from qstash_clone.storage.resources import ScheduleCreation
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import MoveClock, Opened
from tests.support.lossy_proxy import LossyProxy

WINDOW_MS = 600_000
ONCE = Deduplication(digest=bytes(16), window_ms=WINDOW_MS)


@pytest.fixture(params=[1, 3])
def partitions(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "PATIENCE_S", (0.001,) * 6)


def schedule(url: str = "https://example.com", schedule_id: str | None = None, queue: str | None = None) -> Schedule:
    return Schedule(id=schedule_id or new_schedule_id(), cron="* * * * *", message=Message(url=url), queue=queue)


async def urls(store: Store) -> Sequence[str]:
    return [stored.schedule.message.url async for part in store.schedules.list_schedules() for stored in part]


async def age_reservation(store: Store, settings: Settings) -> None:
    """As if its publisher had died long ago."""
    partition = partition_of(MessageId(ONCE.digest), settings.partitions)
    key = PartitionKeys(settings.key_namespace, partition, settings.partitions).reservation(ONCE.digest)
    reservation = await store.commands.ask("GET", key)
    since_ms = int.from_bytes(reservation[12:18], "big") - reservations.GIVEN_UP_MS - 1
    aged = reservation[:12] + struct.pack(">Q", since_ms)[2:] + reservation[18:]
    await store.commands.ask("SET", key, aged, "KEEPTTL")


def new(schedule_id: str) -> ScheduleCreation:
    return ScheduleCreation(schedule_id=schedule_id, is_duplicate=False)


def repeat(schedule_id: str) -> ScheduleCreation:
    return ScheduleCreation(schedule_id=schedule_id, is_duplicate=True)


async def test_without_a_digest_every_creation_counts(store: Store) -> None:
    first, second = schedule("https://1.example"), schedule("https://2.example")
    assert await store.schedules.create_schedule(first, None) == new(first.id)
    assert await store.schedules.create_schedule(second, None) == new(second.id)
    assert sorted(await urls(store)) == ["https://1.example", "https://2.example"]


async def test_a_repeat_is_not_stored_and_names_the_first(store: Store) -> None:
    first, second = schedule("https://1.example"), schedule("https://2.example")
    assert await store.schedules.create_schedule(first, ONCE) == new(first.id)
    assert await store.schedules.create_schedule(second, ONCE) == repeat(first.id)
    assert await urls(store) == ["https://1.example"]
    record = await store.admin.get_deduplication(ONCE.digest)
    assert record is not None
    assert (record.schedule_id, record.message_id) == (first.id, None)


async def test_a_repeat_replaces_nothing(store: Store) -> None:
    await store.schedules.create_schedule(schedule("https://1.example", "named"), ONCE)
    assert await store.schedules.set_schedule_paused("named", is_paused=True)
    assert await store.schedules.create_schedule(schedule("https://2.example", "named"), ONCE) == repeat("named")
    stored = await store.schedules.get_schedule("named")
    assert stored is not None
    assert (stored.schedule.message.url, stored.is_paused) == ("https://1.example", True)


async def test_after_its_window_a_repeat_counts(store: Store, move_clock: MoveClock) -> None:
    first, second = schedule("https://1.example"), schedule("https://2.example")
    await store.schedules.create_schedule(first, ONCE)
    await move_clock(WINDOW_MS)
    assert await store.schedules.create_schedule(second, ONCE) == new(second.id)


async def test_of_many_creations_exactly_one_is_stored(
    opened: Opened, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "PATIENCE_S", (0.02, 0.1, 0.5, 2, 5))
    stores = [await opened(settings) for _ in range(2)]
    wanted = [schedule(f"https://{number}.example") for number in range(30)]
    results = await asyncio.gather(
        *(stores[number % 2].schedules.create_schedule(one, ONCE) for number, one in enumerate(wanted))
    )
    assert Counter(result.is_duplicate for result in results) == {False: 1, True: 29}
    assert len({result.schedule_id for result in results}) == 1
    assert len(await urls(stores[0])) == 1


async def test_a_publisher_that_dies_before_storing_swallows_nothing(
    store: Store, lossy_store: Store, proxy: LossyProxy, settings: Settings
) -> None:
    proxy.lose_request(Script("put_schedule").digest, times=3)
    with pytest.raises(StorageUnavailable):
        await lossy_store.schedules.create_schedule(schedule("https://1.example"), ONCE)
    second = schedule("https://2.example")
    with pytest.raises(StorageUnavailable, match="under way"):
        await store.schedules.create_schedule(second, ONCE)
    assert await urls(store) == []
    await age_reservation(store, settings)
    assert await store.schedules.create_schedule(second, ONCE) == new(second.id)
    assert await urls(store) == ["https://2.example"]


async def test_an_older_schedule_of_that_id_is_not_taken_for_the_first(
    store: Store, lossy_store: Store, proxy: LossyProxy, settings: Settings
) -> None:
    older = Deduplication(digest=bytes([1]) * 16, window_ms=WINDOW_MS)
    await store.schedules.create_schedule(schedule("https://old.example", "named"), older)
    proxy.lose_request(Script("put_schedule").digest, times=3)
    with pytest.raises(StorageUnavailable):
        await lossy_store.schedules.create_schedule(schedule("https://1.example", "named"), ONCE)
    await age_reservation(store, settings)
    assert await store.schedules.create_schedule(schedule("https://2.example", "named"), ONCE) == new("named")
    assert await urls(store) == ["https://2.example"]


async def test_what_a_publisher_stored_before_it_died_is_the_first(
    store: Store, lossy_store: Store, proxy: LossyProxy
) -> None:
    first, second = schedule("https://1.example"), schedule("https://2.example")
    proxy.lose_request(Script("confirm_deduplication").digest, times=3)
    with pytest.raises(StorageUnavailable):
        await lossy_store.schedules.create_schedule(first, ONCE)
    assert await store.schedules.create_schedule(second, ONCE) == repeat(first.id)
    assert await urls(store) == ["https://1.example"]
    record = await store.admin.get_deduplication(ONCE.digest)
    assert record is not None
    assert record.schedule_id == first.id


@pytest.mark.parametrize("name", ["reserve_deduplication", "put_schedule", "confirm_deduplication"])
async def test_a_lost_reply_stores_once(store: Store, lossy_store: Store, proxy: LossyProxy, name: str) -> None:
    first = schedule("https://1.example")
    proxy.lose_reply(Script(name).digest)
    assert await lossy_store.schedules.create_schedule(first, ONCE) == new(first.id)
    assert await store.schedules.create_schedule(schedule(), ONCE) == repeat(first.id)
    assert await urls(store) == ["https://1.example"]


async def test_what_is_refused_is_not_the_first(store: Store) -> None:
    store.schedules._max_schedules = 1  # pyright: ignore[reportPrivateUsage]
    await store.schedules.put_schedule(schedule("https://1.example", "only"))
    second = schedule("https://2.example")
    for _ in range(2):
        with pytest.raises(QuotaExceeded):
            await store.schedules.create_schedule(second, ONCE)
    await store.schedules.delete_schedule("only")
    assert await store.schedules.create_schedule(second, ONCE) == new(second.id)


@pytest.mark.parametrize("partitions", [3])
async def test_lanes_that_live_apart_are_not_the_first(store: Store) -> None:
    apart = next(
        key for key in map(str, range(100)) if lane_partition(f"f:{key}", 3) != lane_partition(queue_lane("q"), 3)
    )
    message = Message(url="https://1.example", extras=Extras(flow_control=FlowControl(key=apart, rate=1)))
    refused = Schedule(id=new_schedule_id(), cron="* * * * *", message=message, queue="q")
    with pytest.raises(InvalidRequest, match="live in different partitions"):
        await store.schedules.create_schedule(refused, ONCE)
    second = schedule("https://2.example", queue="q")
    assert await store.schedules.create_schedule(second, ONCE) == new(second.id)
