"""put_schedule.lua: schedules are created, replaced as a whole, counted, and awaited from their first instant on."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qstash_clone.domain.lanes import queue_lane
from qstash_clone.domain.message import CallbackSpec, Extras, FlowControl, Message, Redaction
from qstash_clone.domain.schedules import Schedule, StoredSchedule
from qstash_clone.errors import InvalidRequest, QuotaExceeded, StorageError, StorageFull, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, Opened, StopClock
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.schedules import (
    DAY_MS,
    HOUR_MS,
    NOON_MS,
    fire_due,
    new_schedule,
    partition_of_schedule,
    stored_schedule,
)


async def test_a_new_schedule(store: Store, stop_clock: StopClock, look: Look) -> None:
    await stop_clock(NOON_MS + 5)
    schedule = new_schedule()
    created = await store.schedules.put_schedule(schedule)
    assert created == StoredSchedule(
        schedule=schedule, created_ms=NOON_MS + 5, revision=1, next_fire_ms=NOON_MS + HOUR_MS
    )
    assert await store.schedules.get_schedule("s") == created
    assert (look().catalogue, look().schedules) == ({"s": NOON_MS + 5}, {"s": NOON_MS + HOUR_MS})
    assert await store.schedules.get_schedule("other") is None


async def test_everything_of_a_schedule_survives(store: Store) -> None:
    control = FlowControl(key="k", rate=3, period_s=60)
    schedule = Schedule(
        id="a.b-c_1",
        cron="CRON_TZ=Europe/Berlin */5 1-3 * jan mon",
        message=Message(
            url="https://receiver.example/?q=\u00e4",
            method="PATCH",
            headers=(("X", "\xc3\xa4"), ("X", "")),
            caller_ip="10.0.0.1",
            max_retries=0,
            timeout_ms=1,
            retry_delay_expression="1000 * retried",
            labels=("a", "b"),
            extras=Extras(
                callback=CallbackSpec(url="https://callback.example", flow_control=control),
                failure_callback=CallbackSpec(url="https://failed.example", delay_ms=5),
                redaction=Redaction(body=True, header_names=("X",)),
                flow_control=control,
                schedule_id="a.b-c_1",
            ),
        ),
        body=bytes(range(256)) * 300,
        delay_ms=12_345,
        queue="jobs",
    )
    created = await store.schedules.put_schedule(schedule)
    assert created.schedule == schedule
    assert await store.schedules.get_schedule("a.b-c_1") == created


@pytest.mark.parametrize(("now_ms", "first_ms"), [(-1, 0), (0, HOUR_MS), (1, HOUR_MS), (HOUR_MS - 1, HOUR_MS)])
@pytest.mark.parametrize("years", [-55, 0, 100])
async def test_the_first_instant_is_the_first_after_the_creation(
    store: Store, stop_clock: StopClock, now_ms: int, first_ms: int, years: int
) -> None:
    """By the store's clock, however far from this machine's."""
    hour_ms = NOON_MS + years * 365 * DAY_MS
    await stop_clock(hour_ms + now_ms)
    created = await store.schedules.put_schedule(new_schedule())
    assert created.next_fire_ms == hour_ms + first_ms
    assert await stored_schedule(store) == created


async def test_an_instant_at_the_very_moment_of_the_creation_is_not_the_first(
    store: Store, stop_clock: StopClock
) -> None:
    """Both clocks show nearly the same, so that the first try counts from a moment ago."""
    minute = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    minute_ms = int(minute.timestamp() * 1000)
    await stop_clock(minute_ms)
    cron = f"{minute.minute} {minute.hour} {minute.day} * *"
    created = await store.schedules.put_schedule(new_schedule(cron=cron))
    assert created.next_fire_ms is not None
    assert created.next_fire_ms > minute_ms


async def test_a_clock_that_jumps_at_every_try(
    store: Store, stop_clock: StopClock, monkeypatch: pytest.MonkeyPatch, look: Look
) -> None:
    now_ms, tries = NOON_MS, 0
    runner = store.schedules._access.runner  # pyright: ignore[reportPrivateUsage]
    run = runner.run

    async def jump_and_run(*call: Any) -> Any:
        nonlocal now_ms, tries
        tries += 1
        now_ms += DAY_MS
        await stop_clock(now_ms)
        return await run(*call)

    monkeypatch.setattr(runner, "run", jump_and_run)
    with pytest.raises(StorageUnavailable, match="clock jumps"):
        await store.schedules.put_schedule(new_schedule())
    assert tries == 10
    assert look().schedule_records == {}


async def test_an_overwritten_schedule_is_replaced_entirely(store: Store, stop_clock: StopClock, look: Look) -> None:
    await stop_clock(NOON_MS)
    await store.schedules.put_schedule(new_schedule(queue="jobs", key="k", delay_ms=5, body=b"a longer body"))
    await stop_clock(NOON_MS + HOUR_MS)
    await fire_due(store)
    before = await stored_schedule(store)
    assert before.last_fire_ms is not None
    assert await store.schedules.set_schedule_paused("s", True)
    await stop_clock(NOON_MS + 2 * HOUR_MS + 7)
    schedule = new_schedule(cron="30 * * * *", body=b"")
    created = await store.schedules.put_schedule(schedule)
    assert created == StoredSchedule(
        schedule=schedule,
        created_ms=NOON_MS + 2 * HOUR_MS + 7,
        revision=before.revision + 2,
        next_fire_ms=NOON_MS + 2 * HOUR_MS + HOUR_MS // 2,
    )
    assert await stored_schedule(store) == created
    assert look().catalogue == {"s": created.created_ms}
    assert [look().records[message_id].stored.body for message_id in before.last_message_ids] == [b"a longer body"]


async def test_a_schedule_that_is_created_paused(store: Store, stop_clock: StopClock, look: Look) -> None:
    await stop_clock(NOON_MS)
    created = await store.schedules.put_schedule(new_schedule(), is_paused=True)
    assert created == StoredSchedule(schedule=new_schedule(), created_ms=NOON_MS, revision=1, is_paused=True)
    assert await stored_schedule(store) == created
    assert (look().catalogue, look().schedules) == ({"s": NOON_MS}, {})
    await stop_clock(NOON_MS + HOUR_MS)
    assert await fire_due(store) == []
    assert await store.schedules.set_schedule_paused("s", False)
    assert look().schedules == {"s": NOON_MS + 2 * HOUR_MS}


async def test_a_schedule_that_is_replaced_by_a_paused_one(store: Store, stop_clock: StopClock, look: Look) -> None:
    await stop_clock(NOON_MS)
    await store.schedules.put_schedule(new_schedule())
    await store.schedules.put_schedule(new_schedule(body=b"new"), is_paused=True)
    stored = await stored_schedule(store)
    assert (stored.schedule.body, stored.is_paused, stored.next_fire_ms) == (b"new", True, None)
    assert look().schedules == {}


async def test_no_revision_comes_twice(store: Store) -> None:
    revisions: list[int] = []
    for _ in range(3):
        revisions.append((await store.schedules.put_schedule(new_schedule())).revision)
        await store.schedules.set_schedule_paused("s", True)
        revisions.append((await stored_schedule(store)).revision)
        await store.schedules.set_schedule_paused("s", False)
        revisions.append((await stored_schedule(store)).revision)
        await store.schedules.delete_schedule("s")
        revisions.append((await store.schedules.put_schedule(new_schedule("t"))).revision)
    assert revisions == list(range(1, 13))


@pytest.mark.parametrize("partitions", [1, 5])
async def test_the_number_of_schedules_is_limited(opened: Opened, settings: Settings) -> None:
    store = await opened(replace(settings, max_schedules=7))
    for number in range(7):
        await store.schedules.put_schedule(new_schedule(f"s{number}"))
    with pytest.raises(QuotaExceeded, match="there are 7 schedules already"):
        await store.schedules.put_schedule(new_schedule("another"))
    assert await store.schedules.get_schedule("another") is None
    for number in range(7):
        overwritten = await store.schedules.put_schedule(new_schedule(f"s{number}", body=b"new"))
        assert overwritten.schedule.body == b"new"
    assert await store.schedules.delete_schedule("s3")
    await store.schedules.put_schedule(new_schedule("another"))
    with pytest.raises(QuotaExceeded):
        await store.schedules.put_schedule(new_schedule("s3"))


@pytest.mark.parametrize("partitions", [1, 5])
async def test_a_limit_below_what_there_is_admits_nothing(store: Store, opened: Opened, settings: Settings) -> None:
    for number in range(20):
        await store.schedules.put_schedule(new_schedule(f"s{number}"))
    strict = await opened(replace(settings, max_schedules=3))
    for number in range(20, 30):
        with pytest.raises(QuotaExceeded):
            await strict.schedules.put_schedule(new_schedule(f"s{number}"))
    await strict.schedules.put_schedule(new_schedule("s0"))


async def test_many_created_at_once_do_not_pass_the_limit_of_one_partition(opened: Opened, settings: Settings) -> None:
    stores = [await opened(replace(settings, max_schedules=10)) for _ in range(3)]
    results = await asyncio.gather(
        *(stores[number % 3].schedules.put_schedule(new_schedule(f"s{number}")) for number in range(30)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, StoredSchedule) for result in results) == 10
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 20


async def test_workers_are_woken_for_a_new_earliest_instant_only(
    store: Store, stop_clock: StopClock, look: Look
) -> None:
    await stop_clock(NOON_MS)
    bells: list[int] = []
    for schedule_id, cron in (("a", "0 * * * *"), ("b", "30 * * * *"), ("c", "45 * * * *"), ("b", "20 * * * *")):
        await store.schedules.put_schedule(new_schedule(schedule_id, cron=cron))
        bells.append(look().bells)
    assert bells == [1, 2, 2, 3]


async def test_nobody_is_woken_where_nobody_works(store: Store, look: Look) -> None:
    await store.delivery.leave("w1")
    await store.schedules.put_schedule(new_schedule())
    assert look().bells == 0


@pytest.mark.parametrize("lose", [LossyProxy.lose_reply, LossyProxy.lose_request])
async def test_what_is_lost_on_the_way_is_created_once(
    store: Store,
    lossy_store: Store,
    proxy: LossyProxy,
    stop_clock: StopClock,
    look: Look,
    lose: Callable[[LossyProxy, str, int], None],
) -> None:
    await stop_clock(NOON_MS)
    # The first try counts from this machine's time, far from the store's, and is told so.
    await lossy_store.schedules.put_schedule(new_schedule("other"))
    lose(proxy, Script("put_schedule").digest, 2)
    created = await lossy_store.schedules.put_schedule(new_schedule())
    assert proxy.losses == 2
    assert await stored_schedule(store) == created
    assert look().catalogue.keys() == {"s", "other"}


@pytest.mark.parametrize("partitions", [5])
async def test_lanes_that_live_apart_are_refused(store: Store, look: Look, partitions: int) -> None:
    queue = lane_partition(queue_lane("jobs"), partitions)
    key = next(f"k{n}" for n in range(100) if lane_partition(f"f:k{n}", partitions) != queue)
    with pytest.raises(InvalidRequest, match="live in different partitions"):
        await store.schedules.put_schedule(new_schedule(queue="jobs", key=key))
    assert all(look(partition).schedule_records == {} for partition in range(partitions))


async def test_what_clock_changes_keep_from_ever_firing_is_refused(store: Store, look: Look) -> None:
    with pytest.raises(InvalidRequest, match=r"Upstash-Cron: .* has no instant in the next fifty years"):
        await store.schedules.put_schedule(new_schedule(cron="TZ=Europe/Berlin 30 2 25-31 3 */7"))
    assert look().schedule_records == {}


@pytest.mark.parametrize("partitions", [5])
async def test_schedules_are_spread_by_their_ids(store: Store, look: Look, partitions: int) -> None:
    names = [f"s{number}" for number in range(40)]
    for name in names:
        await store.schedules.put_schedule(new_schedule(name))
    found = {name: partition for partition in range(partitions) for name in look(partition).schedule_records}
    assert found == {name: partition_of_schedule(name, partitions) for name in names}
    assert set(found.values()) == set(range(partitions))


async def test_a_full_redis_refuses_and_keeps_what_is(
    store: Store, redis_client: Any, stop_clock: StopClock, look: Look
) -> None:
    await stop_clock(NOON_MS)
    await store.schedules.put_schedule(new_schedule())
    before = look()
    await redis_client.config_set("maxmemory", "1")
    try:
        for name in ("s", "new"):
            with pytest.raises(StorageFull):
                await store.schedules.put_schedule(new_schedule(name, body=b"new"))
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert look() == before


@pytest.mark.parametrize("failing", ["schedules", "catalogue", "ready", "record"])
@pytest.mark.parametrize("exists", [False, True])
async def test_a_creation_that_breaks_off_changes_nothing(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look, failing: str, exists: bool
) -> None:
    if exists:
        await store.schedules.put_schedule(new_schedule())
    before = look()
    key = keys.schedule("s") if failing == "record" else getattr(keys, failing)
    async with damaged(redis_client, key):
        with pytest.raises(StorageError):
            await store.schedules.put_schedule(new_schedule(body=b"new"))
    assert look() == before


async def test_one_of_a_later_format_can_be_replaced(store: Store, keys: PartitionKeys, redis_client: Any) -> None:
    await store.schedules.put_schedule(new_schedule())
    await redis_client.setrange(keys.schedule("s"), 0, b"\x09")
    with pytest.raises(StorageError, match="The schedule s has a format that this release cannot read"):
        await store.schedules.get_schedule("s")
    created = await store.schedules.put_schedule(new_schedule(body=b"new"))
    assert await stored_schedule(store) == created
