"""postpone_schedule.lua: a due schedule is looked at again later, and its instant is kept."""

from typing import Any

import msgspec
import pytest

from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.resources import FireResult
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, StopClock
from tests.support.schedules import HOUR_MS, NOON_MS, fire_due, new_schedule, plan_due, plan_one, stored_schedule


@pytest.fixture(autouse=True)
async def due(store: Store, stop_clock: StopClock) -> None:
    """A schedule is due."""
    await stop_clock(NOON_MS)
    await store.schedules.put_schedule(new_schedule())
    await stop_clock(NOON_MS + HOUR_MS + 5)


async def test_its_instant_fires_later(store: Store, stop_clock: StopClock, look: Look) -> None:
    stored = await stored_schedule(store)
    await store.schedules.postpone(stored, 1_000)
    assert await plan_due(store) == []
    assert await stored_schedule(store) == stored
    assert look().schedules == {"s": NOON_MS + HOUR_MS + 1_005}
    await stop_clock(NOON_MS + HOUR_MS + 1_005)
    assert (await plan_one(store)).instant_ms == NOON_MS + HOUR_MS
    assert await fire_due(store) == [FireResult.FIRED]
    assert look().schedules == {"s": NOON_MS + 2 * HOUR_MS}


async def test_a_firing_that_was_planned_before_is_not_held_up(store: Store, look: Look) -> None:
    firing = await plan_one(store)
    await store.schedules.postpone(firing.stored, 1_000)
    assert await store.schedules.fire([firing]) == [FireResult.FIRED]
    assert look().schedules == {"s": NOON_MS + 2 * HOUR_MS}


async def test_only_what_was_looked_at_is_put_off(
    store: Store, stop_clock: StopClock, look: Look, redis_client: Any, keys: PartitionKeys
) -> None:
    stored = await stored_schedule(store)
    before = look()
    for other in (
        msgspec.structs.replace(stored, revision=stored.revision + 1),
        msgspec.structs.replace(stored, next_fire_ms=NOON_MS),
        msgspec.structs.replace(stored, schedule=new_schedule("other")),
    ):
        await store.schedules.postpone(other, 1_000)
        assert look() == before
    await fire_due(store)
    before = look()
    await store.schedules.postpone(stored, 1_000)
    assert look() == before


async def test_a_full_redis_puts_off(store: Store, redis_client: Any, look: Look) -> None:
    stored = await stored_schedule(store)
    await redis_client.config_set("maxmemory", "1")
    try:
        await store.schedules.postpone(stored, 1_000)
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert look().schedules == {"s": NOON_MS + HOUR_MS + 1_005}
