"""change_schedule.lua: schedules are paused, resumed and deleted; what was planned before does not count any more."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.message import State
from qstash_clone.errors import StorageError, StorageFull, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.resources import FireResult
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, Opened, StopClock
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import claim_all
from tests.support.schedules import HOUR_MS, NOON_MS, fire_due, new_schedule, plan_due, plan_one, stored_schedule


@pytest.fixture(autouse=True)
async def noon(store: Store, stop_clock: StopClock) -> None:
    """It is noon, and there is a schedule that fires on the hour."""
    await stop_clock(NOON_MS)
    await store.schedules.put_schedule(new_schedule())


async def pause(store: Store, schedule_id: str = "s") -> None:
    assert await store.schedules.set_schedule_paused(schedule_id, True)


async def resume(store: Store, schedule_id: str = "s") -> None:
    assert await store.schedules.set_schedule_paused(schedule_id, False)


async def test_a_paused_schedule_ignores_its_instants(store: Store, stop_clock: StopClock, look: Look) -> None:
    await pause(store)
    stored = await stored_schedule(store)
    assert (stored.is_paused, stored.next_fire_ms) == (True, None)
    assert look().schedules == {}
    await stop_clock(NOON_MS + 10 * HOUR_MS)
    assert await plan_due(store) == []


async def test_a_resumed_schedule_goes_on_with_its_next_instant(store: Store, stop_clock: StopClock) -> None:
    before = await stored_schedule(store)
    await pause(store)
    await stop_clock(NOON_MS + 10 * HOUR_MS + 1)
    await resume(store)
    assert await plan_due(store) == []
    stored = await stored_schedule(store)
    assert stored == msgspec.structs.replace(before, revision=stored.revision, next_fire_ms=NOON_MS + 11 * HOUR_MS)
    await stop_clock(NOON_MS + 11 * HOUR_MS)
    assert await fire_due(store) == [FireResult.FIRED]
    assert (await stored_schedule(store)).last_fire_ms == NOON_MS + 11 * HOUR_MS


async def test_a_pause_and_a_resume_keep_the_history(store: Store, stop_clock: StopClock) -> None:
    await stop_clock(NOON_MS + HOUR_MS)
    await fire_due(store)
    before = await stored_schedule(store)
    await pause(store)
    paused = await stored_schedule(store)
    await resume(store)
    for stored in (paused, await stored_schedule(store)):
        assert (stored.last_fire_ms, stored.last_message_ids) == (before.last_fire_ms, before.last_message_ids)
        assert stored.created_ms == before.created_ms


async def test_a_pause_survives_a_restart(
    store: Store, opened: Opened, settings: Settings, stop_clock: StopClock
) -> None:
    await pause(store)
    await store.aclose()
    again = await opened(settings)
    await stop_clock(NOON_MS + 2 * HOUR_MS)
    assert (await stored_schedule(again)).is_paused
    assert await plan_due(again) == []


async def test_what_is_so_already_stays_as_it_is(store: Store, look: Look) -> None:
    before = look()
    await resume(store)
    assert look() == before
    await pause(store)
    paused = look()
    await pause(store)
    assert look() == paused


async def test_what_is_not_there_cannot_be_changed(store: Store, look: Look) -> None:
    before = look()
    assert not await store.schedules.set_schedule_paused("other", True)
    assert not await store.schedules.set_schedule_paused("other", False)
    assert not await store.schedules.delete_schedule("other")
    assert look() == before


async def test_a_deleted_schedule_leaves_nothing_but_its_messages(
    store: Store, stop_clock: StopClock, look: Look
) -> None:
    await stop_clock(NOON_MS + HOUR_MS)
    await fire_due(store)
    [message_id] = (await stored_schedule(store)).last_message_ids
    assert await store.schedules.delete_schedule("s")
    partition = look()
    assert (partition.schedules, partition.catalogue, partition.schedule_records) == ({}, {}, {})
    await stop_clock(NOON_MS + 5 * HOUR_MS)
    assert await plan_due(store) == []
    assert [claim.id for claim in await claim_all(store)] == [message_id]
    assert not await store.schedules.delete_schedule("s")


async def test_a_paused_schedule_can_be_deleted(store: Store, look: Look) -> None:
    await pause(store)
    assert await store.schedules.delete_schedule("s")
    assert (look().catalogue, look().schedule_records) == ({}, {})


async def replace(store: Store) -> None:
    await store.schedules.put_schedule(new_schedule(body=b"new"))


async def replace_by_the_same(store: Store) -> None:
    await store.schedules.put_schedule(new_schedule())


async def pause_and_resume(store: Store) -> None:
    await pause(store)
    await resume(store)


async def delete(store: Store) -> None:
    assert await store.schedules.delete_schedule("s")


async def delete_and_create(store: Store) -> None:
    await delete(store)
    await replace_by_the_same(store)


@pytest.mark.parametrize("change", [replace, replace_by_the_same, pause, pause_and_resume, delete, delete_and_create])
async def test_a_change_between_plan_and_firing_wins(
    store: Store, stop_clock: StopClock, look: Look, change: Callable[[Store], Any]
) -> None:
    await stop_clock(NOON_MS + HOUR_MS + 5)
    firing = await plan_one(store)
    await change(store)
    before = look()
    assert await store.schedules.fire([firing]) == [FireResult.STALE]
    await store.schedules.postpone(firing.stored, 1000)
    assert look() == before
    assert before.records == {}


@pytest.mark.parametrize("change", [replace, replace_by_the_same, pause_and_resume, delete_and_create])
async def test_it_wins_even_if_the_clock_went_back_to_the_same_instant(
    store: Store, stop_clock: StopClock, look: Look, change: Callable[[Store], Any]
) -> None:
    await stop_clock(NOON_MS + HOUR_MS + 5)
    firing = await plan_one(store)
    await stop_clock(NOON_MS)
    await change(store)
    assert (await stored_schedule(store)).next_fire_ms == firing.stored.next_fire_ms
    before = look()
    assert await store.schedules.fire([firing]) == [FireResult.STALE]
    await store.schedules.postpone(firing.stored, 1000)
    assert look() == before


async def test_a_replaced_schedule_fires_what_it_is_now(store: Store, stop_clock: StopClock, look: Look) -> None:
    await stop_clock(NOON_MS + HOUR_MS + 5)
    await plan_one(store)
    await replace(store)
    await stop_clock(NOON_MS + 2 * HOUR_MS)
    assert await fire_due(store) == [FireResult.FIRED]
    assert [record.stored.body for record in look().records.values()] == [b"new"]


async def test_a_resume_of_what_was_changed_meanwhile_counts_with_what_it_is_now(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pause(store)
    schedules = store.schedules
    get = schedules.get_schedule
    overtaking = 3

    async def get_and_be_overtaken(schedule_id: str) -> Any:
        nonlocal overtaking
        found = await get(schedule_id)
        if overtaking:
            overtaking -= 1
            await schedules.put_schedule(new_schedule(cron=f"{overtaking} * * * *"))
            await pause(store)
        return found

    monkeypatch.setattr(schedules, "get_schedule", get_and_be_overtaken)
    await resume(store)
    stored = await stored_schedule(store)
    assert (stored.schedule.cron, stored.next_fire_ms) == ("0 * * * *", NOON_MS + HOUR_MS)


async def test_a_resume_that_is_overtaken_again_and_again_gives_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pause(store)
    schedules = store.schedules
    get = schedules.get_schedule

    async def get_and_be_overtaken(schedule_id: str) -> Any:
        found = await get(schedule_id)
        await replace(store)
        await pause(store)
        return found

    monkeypatch.setattr(schedules, "get_schedule", get_and_be_overtaken)
    with pytest.raises(StorageUnavailable, match='"s" is changed again and again'):
        await schedules.set_schedule_paused("s", False)
    assert (await get("s") or await stored_schedule(store)).is_paused


async def test_a_resume_while_an_instant_passes(
    store: Store, stop_clock: StopClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pause(store)
    runner = store.schedules._access.runner  # pyright: ignore[reportPrivateUsage]
    run = runner.run
    times = [NOON_MS + 1, NOON_MS + HOUR_MS + 1, NOON_MS + 2 * HOUR_MS + 1]

    async def move_and_run(*call: Any) -> Any:
        if times:
            await stop_clock(times.pop(0))
        return await run(*call)

    monkeypatch.setattr(runner, "run", move_and_run)
    await resume(store)
    assert times == []
    assert (await stored_schedule(store)).next_fire_ms == NOON_MS + 3 * HOUR_MS


async def test_workers_are_woken_for_a_resumed_schedule(store: Store, look: Look) -> None:
    await store.schedules.put_schedule(new_schedule("late", cron="30 15 * * *"))
    await pause(store)
    bells = look().bells
    await resume(store)
    assert look().bells == bells + 1
    await pause(store, "late")
    await resume(store, "late")
    assert look().bells == bells + 1


@pytest.mark.parametrize("losses", [1, 2])
async def test_lost_replies(
    store: Store, lossy_store: Store, proxy: LossyProxy, stop_clock: StopClock, losses: int
) -> None:
    digest = Script("change_schedule").digest
    revision = (await stored_schedule(store)).revision
    proxy.lose_reply(digest, losses)
    await pause(lossy_store)
    assert ((await stored_schedule(store)).is_paused, (await stored_schedule(store)).revision) == (True, revision + 1)
    # The first try of the resumption counts from this machine's time and is refused, so its reply is not worth losing.
    await stop_clock(None)
    proxy.lose_reply(digest, losses)
    await resume(lossy_store)
    assert ((await stored_schedule(store)).is_paused, (await stored_schedule(store)).revision) == (False, revision + 2)
    proxy.lose_reply(digest, losses)
    assert await lossy_store.schedules.delete_schedule("s")
    assert await store.schedules.get_schedule("s") is None
    assert proxy.losses == 3 * losses


async def test_a_full_redis_pauses_and_deletes_but_resumes_nothing(store: Store, redis_client: Any, look: Look) -> None:
    await store.schedules.put_schedule(new_schedule("t"))
    await redis_client.config_set("maxmemory", "1")
    try:
        await pause(store)
        before = look()
        with pytest.raises(StorageFull):
            await store.schedules.set_schedule_paused("s", False)
        assert look() == before
        await resume(store, "t")
        assert await store.schedules.delete_schedule("t")
    finally:
        await redis_client.config_set("maxmemory", "0")
    await resume(store)
    assert look().schedules == {"s": NOON_MS + HOUR_MS}


@pytest.mark.parametrize("failing", ["schedules", "catalogue", "ready", "record"])
@pytest.mark.parametrize("change", [pause, resume, delete])
async def test_a_change_that_breaks_off_changes_nothing(
    store: Store,
    keys: PartitionKeys,
    redis_client: Any,
    look: Look,
    failing: str,
    change: Callable[[Store], Any],
) -> None:
    if change is resume:
        await pause(store)
    before = look()
    key = keys.schedule("s") if failing == "record" else getattr(keys, failing)
    async with damaged(redis_client, key):
        with pytest.raises(StorageError):
            await change(store)
    assert look() == before


async def test_one_of_a_later_format_can_only_be_deleted(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    await redis_client.setrange(keys.schedule("s"), 0, b"\x09")
    before = look()
    for is_paused in (True, False):
        with pytest.raises(StorageError, match="format that this release cannot read"):
            await store.schedules.set_schedule_paused("s", is_paused)
    assert look() == before
    assert await store.schedules.delete_schedule("s")
    assert look().schedule_records == {}


async def test_messages_of_a_paused_schedule_are_delivered(store: Store, stop_clock: StopClock, look: Look) -> None:
    await store.schedules.put_schedule(new_schedule(delay_ms=5_000))
    await stop_clock(NOON_MS + HOUR_MS)
    await fire_due(store)
    await pause(store)
    [record] = look().records.values()
    assert record.stored.state is State.DELAYED
    await stop_clock(NOON_MS + HOUR_MS + 5_000)
    await store.delivery.promote(0, 10)
    assert [claim.id for claim in await claim_all(store)] == [record.stored.id]
