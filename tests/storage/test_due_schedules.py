"""due_schedules.lua: what is due and when the next one will be; what cannot be read holds up nothing."""

from typing import Any

import pytest

from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.resources import DueSchedules
from qstash_clone.storage.schedule_store import MAX_BYTES, UNREADABLE_AGAIN_MS
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, StopClock
from tests.support.damage import damaged
from tests.support.schedules import (
    HOUR_MS,
    MINUTE_MS,
    NOON_MS,
    fire_due,
    new_schedule,
    partition_of_schedule,
    stored_schedule,
)


@pytest.fixture(autouse=True)
async def noon(store: Store, stop_clock: StopClock) -> None:
    """The clock stands still at noon."""
    await stop_clock(NOON_MS)


async def put(store: Store, *names: str, minute: int = 0, body: bytes = b"body") -> None:
    for name in names:
        await store.schedules.put_schedule(new_schedule(name, cron=f"{minute} * * * *", body=body))


def ids_of(due: DueSchedules) -> list[str]:
    return [stored.schedule.id for stored in due.schedules]


async def due_now(store: Store, limit: int = 100, spread: float = 0) -> DueSchedules:
    return await store.schedules.due_schedules(0, limit, spread)


async def test_without_any(store: Store) -> None:
    due = await due_now(store)
    assert (due.schedules, due.faults, due.now_ms, due.next_fire_ms) == ([], [], NOON_MS, None)


@pytest.mark.parametrize(("early_ms", "is_due"), [(1, False), (0, True), (-1, True)])
async def test_due_means_not_later_than_now(store: Store, stop_clock: StopClock, early_ms: int, is_due: bool) -> None:
    await put(store, "s")
    await stop_clock(NOON_MS + HOUR_MS - early_ms)
    due = await due_now(store)
    assert ids_of(due) == ["s"] * is_due
    assert (due.now_ms, due.next_fire_ms) == (NOON_MS + HOUR_MS - early_ms, NOON_MS + HOUR_MS)


async def test_the_earliest_first_and_no_more_than_the_limit(store: Store, stop_clock: StopClock) -> None:
    for minute in (30, 10, 50, 20):
        await put(store, f"s{minute}", minute=minute)
    await stop_clock(NOON_MS + 40 * MINUTE_MS)
    assert ids_of(await due_now(store)) == ["s10", "s20", "s30"]
    due = await due_now(store, limit=2)
    assert ids_of(due) == ["s10", "s20"]
    assert due.next_fire_ms == NOON_MS + 10 * MINUTE_MS


async def test_workers_with_other_spreads_get_others(store: Store, stop_clock: StopClock) -> None:
    names = [f"s{number}" for number in range(10)]
    await put(store, *names)
    await stop_clock(NOON_MS + HOUR_MS)
    slices = [ids_of(await due_now(store, limit=3, spread=spread)) for spread in (0, 0.5, 0.999999)]
    assert slices == [names[0:3], names[3:6], names[6:9]]
    assert ids_of(await due_now(store, limit=10, spread=0.999999)) == names


async def test_whether_the_clock_stands_still_is_told(store: Store, stop_clock: StopClock) -> None:
    assert (await due_now(store)).is_frozen
    await stop_clock(None)
    assert not (await due_now(store)).is_frozen


async def test_records_of_a_mebibyte_at_most_or_one_larger(store: Store, stop_clock: StopClock) -> None:
    await put(store, "a", body=bytes(MAX_BYTES * 2))
    await put(store, "b", "c", "d", body=bytes(MAX_BYTES // 2 - 2000))
    await put(store, "e")
    await stop_clock(NOON_MS + HOUR_MS)
    rounds: list[list[str]] = []
    while due := (await due_now(store)).schedules:
        rounds.append([stored.schedule.id for stored in due])
        for stored in due:
            await store.schedules.delete_schedule(stored.schedule.id)
    assert rounds == [["a"], ["b", "c"], ["d", "e"]]


async def test_one_of_a_later_format_is_put_off_and_named(
    store: Store, keys: PartitionKeys, redis_client: Any, stop_clock: StopClock, look: Look
) -> None:
    await put(store, "bad", "good")
    await redis_client.setrange(keys.schedule("bad"), 0, b"\x09")
    await stop_clock(NOON_MS + HOUR_MS)
    due = await due_now(store)
    assert ids_of(due) == ["good"]
    [fault] = due.faults
    assert fault.startswith("bad: error ")
    assert "the schedule has a format that this release cannot read" in fault
    again = await due_now(store)
    assert (ids_of(again), again.faults) == (["good"], []), "no loop spins because of it"
    assert look().schedules["bad"] == NOON_MS + HOUR_MS + UNREADABLE_AGAIN_MS
    await redis_client.setrange(keys.schedule("bad"), 0, b"\x01")
    await stop_clock(NOON_MS + HOUR_MS + UNREADABLE_AGAIN_MS)
    due = await due_now(store)
    assert ids_of(due) == ["good", "bad"]
    assert due.schedules[1].next_fire_ms == NOON_MS + HOUR_MS, "its instant was kept"


DAMAGES = {
    "a definition that is none": (38, b"\xc1"),
    "a definition of another shape": (38, b"\x90"),
    "a cron expression that is no text": (39, b"\x05"),
    "no definition": (31, b"\x00\x00\x00"),
    "an error that is no text": (23, b"\x00\x02"),
}
"""What is written at which place of the record."""


@pytest.mark.parametrize("damage", DAMAGES)
async def test_one_whose_definition_cannot_be_read_is_put_off_and_named(
    store: Store, keys: PartitionKeys, redis_client: Any, stop_clock: StopClock, look: Look, damage: str
) -> None:
    await put(store, "bad", "good")
    record = await redis_client.get(keys.schedule("bad"))
    offset, value = DAMAGES[damage]
    damaged_record = record[:offset] + value + record[offset + len(value) :] + b"\xff\xff"
    await redis_client.set(keys.schedule("bad"), damaged_record)
    await stop_clock(NOON_MS + HOUR_MS)
    due = await due_now(store)
    assert ids_of(due) == ["good"]
    [fault] = due.faults
    assert fault.startswith("The schedule bad cannot be read: ")
    assert (await due_now(store)).faults == []
    assert look().schedules["bad"] == NOON_MS + HOUR_MS + UNREADABLE_AGAIN_MS
    assert await redis_client.get(keys.schedule("bad")) == damaged_record
    await redis_client.set(keys.schedule("bad"), record)


async def test_a_record_that_fails_holds_up_no_other(
    store: Store, keys: PartitionKeys, redis_client: Any, stop_clock: StopClock
) -> None:
    await put(store, "bad", "good")
    await stop_clock(NOON_MS + HOUR_MS)
    async with damaged(redis_client, keys.schedule("bad")):
        due = await due_now(store)
        assert (ids_of(due), len(due.faults)) == (["good"], 1)
        assert (await due_now(store)).faults == []
    await stop_clock(NOON_MS + HOUR_MS + UNREADABLE_AGAIN_MS)
    assert ids_of(await due_now(store)) == ["good", "bad"]


async def test_faults_are_told_while_redis_is_full(
    store: Store, keys: PartitionKeys, redis_client: Any, stop_clock: StopClock
) -> None:
    await put(store, "bad", "good")
    await redis_client.setrange(keys.schedule("bad"), 0, b"\x09")
    await stop_clock(NOON_MS + HOUR_MS)
    await redis_client.config_set("maxmemory", "1")
    try:
        due = await due_now(store)
        assert (ids_of(due), len(due.faults)) == (["good"], 1)
        assert (await due_now(store)).faults == []
    finally:
        await redis_client.config_set("maxmemory", "0")


async def test_the_record_decides(
    store: Store, keys: PartitionKeys, redis_client: Any, stop_clock: StopClock, look: Look
) -> None:
    """What a script left that broke off between its writes is put right."""
    await put(store, "later", "paused")
    await store.schedules.set_schedule_paused("paused", True)
    await redis_client.zadd(keys.schedules, {"later": 1, "paused": 1, "gone": 1})
    due = await due_now(store)
    assert (ids_of(due), due.faults, due.next_fire_ms) == ([], [], NOON_MS + HOUR_MS)
    assert look().schedules == {"later": NOON_MS + HOUR_MS}


@pytest.mark.parametrize("partitions", [5])
async def test_each_partition_has_its_own(store: Store, stop_clock: StopClock, partitions: int) -> None:
    names = [f"s{number}" for number in range(40)]
    await put(store, *names)
    await stop_clock(NOON_MS + HOUR_MS)
    for partition in range(partitions):
        expected = {name for name in names if partition_of_schedule(name, partitions) == partition}
        assert set(ids_of(await store.schedules.due_schedules(partition, 100, 0))) == expected


async def test_a_fired_schedule_is_due_again_at_its_next_instant(store: Store, stop_clock: StopClock) -> None:
    await put(store, "s")
    await stop_clock(NOON_MS + HOUR_MS)
    await fire_due(store)
    due = await due_now(store)
    assert (ids_of(due), due.next_fire_ms) == ([], NOON_MS + 2 * HOUR_MS)
    assert (await stored_schedule(store)).next_fire_ms == NOON_MS + 2 * HOUR_MS
