"""Schedules are listed completely and in order, and the states of their last messages are found."""

import asyncio
from typing import Any

import pytest

from qstash_clone.domain.message import State
from qstash_clone.ids import MessageId
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.schedule_store import MAX_BYTES, READ_TOGETHER
from qstash_clone.storage.store import Store
from tests.storage.conftest import StopClock
from tests.support.messages import claim_all, delivered, failed, publish
from tests.support.schedules import NOON_MS, new_schedule


async def slices(store: Store) -> list[list[str]]:
    return [[stored.schedule.id for stored in part] async for part in store.schedules.list_schedules()]


async def listed(store: Store) -> list[str]:
    return [schedule_id for part in await slices(store) for schedule_id in part]


async def test_without_any(store: Store) -> None:
    assert await slices(store) == []


@pytest.mark.parametrize("partitions", [1, 5])
async def test_in_the_order_of_their_creation(store: Store, stop_clock: StopClock) -> None:
    names = ["b", "a", "d", "c", "e", "z", "y", "x"]
    for number, name in enumerate(names):
        await stop_clock(NOON_MS + number // 2)
        await store.schedules.put_schedule(new_schedule(name))
    assert await listed(store) == ["a", "b", "c", "d", "e", "z", "x", "y"]
    await stop_clock(NOON_MS + 100)
    await store.schedules.put_schedule(new_schedule("a"))
    await store.schedules.delete_schedule("d")
    assert await listed(store) == ["b", "c", "e", "z", "x", "y", "a"]


@pytest.mark.parametrize("partitions", [1, 3])
async def test_many(store: Store) -> None:
    names = [f"s{number:04}" for number in range(1_200)]
    for start in range(0, len(names), 50):
        await asyncio.gather(*(store.schedules.put_schedule(new_schedule(one)) for one in names[start : start + 50]))
    parts = await slices(store)
    assert sorted(name for part in parts for name in part) == names
    assert max(len(part) for part in parts) == READ_TOGETHER


async def test_what_is_listed_is_what_is_stored(store: Store) -> None:
    created = await store.schedules.put_schedule(new_schedule(queue="jobs", key="k", body=bytes(range(256))))
    assert [part async for part in store.schedules.list_schedules()] == [[created]]


async def test_large_ones_come_in_smaller_slices(store: Store, stop_clock: StopClock) -> None:
    for number, size in enumerate((10, MAX_BYTES * 2, MAX_BYTES // 2, MAX_BYTES // 2 - 2_000, 10)):
        await stop_clock(NOON_MS + number)
        await store.schedules.put_schedule(new_schedule(f"s{number}", body=bytes(size)))
    assert await slices(store) == [["s0"], ["s1"], ["s2", "s3", "s4"]]


async def test_one_of_a_later_format_takes_no_others_along(
    store: Store, keys: PartitionKeys, redis_client: Any
) -> None:
    for name in ("a", "b", "c"):
        await store.schedules.put_schedule(new_schedule(name))
    await redis_client.setrange(keys.schedule("b"), 0, b"\x09")
    assert await listed(store) == ["a", "c"]


async def test_what_is_deleted_or_created_meanwhile_takes_no_others_along(store: Store) -> None:
    names = [f"s{number:03}" for number in range(READ_TOGETHER * 3)]
    for name in names:
        await store.schedules.put_schedule(new_schedule(name))
    found: list[str] = []
    async for part in store.schedules.list_schedules():
        if not found:
            await store.schedules.delete_schedule(names[-1])
            await store.schedules.put_schedule(new_schedule("new"))
        found += [stored.schedule.id for stored in part]
    assert sorted(found) == names[:-1]


async def test_states_of_messages(store: Store) -> None:
    done, dead = await publish(store), await publish(store)
    claims = await claim_all(store)
    gone, later, waiting = await publish(store), await publish(store, delay_ms=60_000), await publish(store)
    await store.delivery.settle(delivered(claims[0]))
    await store.delivery.settle(failed(claims[1]))
    await store.admin.cancel(gone)
    unknown = MessageId(bytes(12))
    assert await store.schedules.read_states([done, dead, gone, later, waiting, unknown]) == {
        done: State.DELIVERED,
        dead: State.FAILED,
        gone: State.CANCELED,
        later: State.DELAYED,
        waiting: State.QUEUED,
    }
    assert await store.schedules.read_states([]) == {}


@pytest.mark.parametrize("partitions", [4])
async def test_states_of_many_messages(store: Store) -> None:
    ids = [await publish(store) for _ in range(20)]
    assert await store.schedules.read_states(ids * 30) == dict.fromkeys(ids, State.QUEUED)
