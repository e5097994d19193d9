"""fire_schedule.lua: a due schedule publishes once per instant, whoever plans it and however often it is asked for."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.message import State
from qstash_clone.domain.schedules import Firing, Schedule
from qstash_clone.domain.url_groups import Endpoint, UrlGroup
from qstash_clone.errors import StorageError, StorageFull, StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.resources import FireResult
from qstash_clone.storage.schedule_codec import MAX_ERROR_BYTES
from qstash_clone.storage.schedule_store import MAX_BYTES
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, Opened, StopClock
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import claim_all, claim_one, delivered, publish
from tests.support.schedules import (
    HOUR_MS,
    MINUTE_MS,
    NOON_MS,
    URL,
    fire_due,
    new_schedule,
    plan_due,
    plan_one,
    stored_schedule,
)

FIRED, STALE = FireResult.FIRED, FireResult.STALE
ONE_MS = NOON_MS + HOUR_MS
"""The first instant of a schedule that is created at noon."""


@pytest.fixture(autouse=True)
async def noon(store: Store, stop_clock: StopClock) -> None:
    """The clock stands still at noon."""
    await stop_clock(NOON_MS)


async def due(store: Store, stop_clock: StopClock, schedule: Schedule | None = None, *, late_ms: int = 5) -> Firing:
    """What is planned for the first instant of a schedule that was created at noon."""
    await store.schedules.put_schedule(schedule or new_schedule())
    await stop_clock(ONE_MS + late_ms)
    return await plan_one(store)


async def make_group(store: Store, *urls: str) -> None:
    """The URL group `g` with these endpoints; without any it is empty, and there all the same."""
    group = UrlGroup(name="g", created_ms=1, updated_ms=1, endpoints=tuple(Endpoint(url=url) for url in urls))
    await store.url_groups.change_url_group("g", lambda old, now_ms: group)


async def delete_group(store: Store) -> None:
    await store.url_groups.change_url_group("g", lambda old, now_ms: None)


# One firing


async def test_a_firing_publishes_and_moves_on(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = await due(store, stop_clock)
    before = firing.stored
    assert await store.schedules.fire([firing]) == [FIRED]
    [message] = firing.messages
    assert await stored_schedule(store) == msgspec.structs.replace(
        before, next_fire_ms=ONE_MS + HOUR_MS, last_fire_ms=ONE_MS, last_message_ids=(message.id,)
    )
    assert look().schedules == {"s": ONE_MS + HOUR_MS}
    assert look().letters(message.id) == "C"
    claim = await claim_one(store)
    assert (claim.id, claim.message, claim.body) == (message.id, message.message, b"body")
    assert claim.created_ms == claim.due_ms == ONE_MS + 5


async def test_firing_after_firing(store: Store, stop_clock: StopClock) -> None:
    await store.schedules.put_schedule(new_schedule())
    seen: list[MessageId] = []
    for hour in range(1, 6):
        await stop_clock(NOON_MS + hour * HOUR_MS)
        assert await fire_due(store) == [FIRED]
        claim = await claim_one(store)
        await store.delivery.settle(delivered(claim))
        stored = await stored_schedule(store)
        assert (stored.last_fire_ms, stored.last_message_ids) == (NOON_MS + hour * HOUR_MS, (claim.id,))
        seen.append(claim.id)
    assert len(set(seen)) == 5


async def test_a_firing_does_not_wait_for_the_one_before(store: Store, stop_clock: StopClock) -> None:
    await store.schedules.put_schedule(new_schedule())
    for hour in range(1, 4):
        await stop_clock(NOON_MS + hour * HOUR_MS)
        assert await fire_due(store) == [FIRED]
    assert len(await claim_all(store)) == 3


async def test_a_delay_counts_from_the_instant(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = await due(store, stop_clock, new_schedule(delay_ms=60_000))
    assert await store.schedules.fire([firing]) == [FIRED]
    [record] = look().records.values()
    assert (record.stored.state, record.stored.due_ms) == (State.DELAYED, ONE_MS + 60_000)
    assert look().timers == {record.stored.id: ONE_MS + 60_000}


async def test_a_delay_that_is_over_already(store: Store, stop_clock: StopClock) -> None:
    firing = await due(store, stop_clock, new_schedule(delay_ms=1_000), late_ms=30 * MINUTE_MS)
    await store.schedules.fire([firing])
    assert (await claim_one(store)).due_ms == ONE_MS + 30 * MINUTE_MS


async def test_workers_are_woken_for_an_earlier_timer(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = await due(store, stop_clock, new_schedule(delay_ms=60_000))
    bells = look().bells
    await store.schedules.fire([firing])
    assert look().bells == bells + 1


async def test_an_empty_body(store: Store, stop_clock: StopClock) -> None:
    firing = await due(store, stop_clock, new_schedule(body=b""))
    await store.schedules.fire([firing])
    assert (await claim_one(store)).body == b""


async def test_nothing_is_logged_without_a_log(
    store: Store, opened: Opened, settings: Settings, stop_clock: StopClock, look: Look
) -> None:
    firing = await due(store, stop_clock)
    quiet = await opened(replace(settings, message_log=False))
    assert await quiet.schedules.fire([firing]) == [FIRED]
    assert look().log == []


async def test_what_has_no_further_instant_is_at_rest(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = msgspec.structs.replace(await due(store, stop_clock), next_fire_ms=None)
    assert await store.schedules.fire([firing]) == [FIRED]
    stored = await stored_schedule(store)
    assert (stored.next_fire_ms, stored.is_paused, stored.last_fire_ms) == (None, False, ONE_MS)
    assert look().schedules == {}


# Lanes


async def test_a_queue_comes_into_being_with_the_first_firing(store: Store, stop_clock: StopClock) -> None:
    await store.schedules.put_schedule(new_schedule(queue="jobs"))
    assert await store.queues.get_queue("jobs") is None
    await stop_clock(ONE_MS)
    await fire_due(store)
    queue = await store.queues.get_queue("jobs")
    assert queue is not None
    assert (queue.parallelism, queue.lag, queue.is_paused) == (1, 1, False)


async def test_scheduling_into_a_queue_leaves_its_parallelism_and_pause_alone(
    store: Store, stop_clock: StopClock
) -> None:
    await store.queues.put_queue("jobs", parallelism=7, is_paused=True, max_queues=10)
    before = await store.queues.get_queue("jobs")
    await store.schedules.put_schedule(new_schedule(queue="jobs"))
    assert await store.queues.get_queue("jobs") == before
    for hour in (1, 2):
        await stop_clock(NOON_MS + hour * HOUR_MS)
        await fire_due(store)
        after = await store.queues.get_queue("jobs")
        assert before is not None
        assert after == msgspec.structs.replace(before, lag=hour)
    assert await claim_all(store) == []


async def test_messages_of_a_queue_go_one_after_the_other(store: Store, stop_clock: StopClock) -> None:
    await store.schedules.put_schedule(new_schedule(queue="jobs"))
    for hour in (1, 2):
        await stop_clock(NOON_MS + hour * HOUR_MS)
        await fire_due(store)
    first = await claim_one(store)
    assert await claim_all(store) == []
    await store.delivery.settle(delivered(first))
    assert (await claim_one(store)).id != first.id


async def test_a_flow_control_key_gets_its_limits(store: Store, stop_clock: StopClock, look: Look) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        await store.schedules.put_schedule(new_schedule(name, key="k"))
    await stop_clock(ONE_MS)
    assert await fire_due(store) == [FIRED] * 5
    assert look().limits["f:k"]["p"] == "3"
    assert len(await claim_all(store)) == 3


async def test_a_queue_and_a_key_together(store: Store, stop_clock: StopClock) -> None:
    firing = await due(store, stop_clock, new_schedule(queue="jobs", key="k"))
    assert await store.schedules.fire([firing]) == [FIRED]
    assert (await claim_one(store)).lane == "q:jobs f:k"


# URL groups


async def test_every_endpoint_of_a_group_gets_a_message_in_one_step(
    store: Store, stop_clock: StopClock, look: Look
) -> None:
    urls = [f"https://{number}.example/x" for number in range(100)]
    await make_group(store, *urls)
    firing = await due(store, stop_clock, new_schedule(group="g", body=b"shared"))
    assert await store.schedules.fire([firing]) == [FIRED]
    stored = await stored_schedule(store)
    records = look().records
    assert [records[message_id].stored.message.url for message_id in stored.last_message_ids] == urls
    assert {record.stored.body for record in records.values()} == {b"shared"}


async def test_several_messages_in_one_lane(store: Store, stop_clock: StopClock) -> None:
    await make_group(store, *(f"https://{number}.example" for number in range(5)))
    for options in ({"queue": "jobs"}, {"key": "k"}):
        await stop_clock(NOON_MS)
        firing = await due(store, stop_clock, new_schedule(group="g", **options))  # pyright: ignore[reportArgumentType]
        assert await store.schedules.fire([firing]) == [FIRED]
    assert len(await claim_all(store)) == 1 + 3


async def test_several_messages_in_a_lane_with_few_places(store: Store, stop_clock: StopClock, look: Look) -> None:
    """Each is looked at anew: the one before may have taken the last place."""
    await store.delivery.heartbeat("w1", 4)
    await make_group(store, *(f"https://a.example/{number}" for number in range(8)))
    firing = await due(store, stop_clock, new_schedule(group="g"))
    assert await store.schedules.fire([firing]) == [FIRED]
    assert len(look().admitted["h:a.example"]) < 4
    assert len(look().lanes["h:a.example"]) == 8 - len(look().admitted["h:a.example"])
    assert look().ring == ["h:a.example"]


async def test_the_group_is_that_of_the_firing(store: Store, stop_clock: StopClock, look: Look) -> None:
    await make_group(store, "https://a.example")
    await store.schedules.put_schedule(new_schedule(group="g"))
    await make_group(store, "https://b.example", "https://c.example")
    await stop_clock(ONE_MS)
    await fire_due(store)
    urls = sorted(record.stored.message.url for record in look().records.values())
    assert urls == ["https://b.example", "https://c.example"]


async def test_without_anybody_to_publish_to_the_reason_is_noted(
    store: Store, stop_clock: StopClock, look: Look
) -> None:
    await make_group(store, "https://a.example")
    await store.schedules.put_schedule(new_schedule(group="g"))
    await stop_clock(ONE_MS)
    await fire_due(store)
    assert len((await stored_schedule(store)).last_message_ids) == 1

    await delete_group(store)
    await stop_clock(ONE_MS + HOUR_MS)
    assert await fire_due(store) == [FIRED]
    stored = await stored_schedule(store)
    assert (stored.error, stored.last_message_ids) == ("topic g not found", ())
    assert (stored.last_fire_ms, stored.next_fire_ms) == (ONE_MS + HOUR_MS, ONE_MS + 2 * HOUR_MS)

    await make_group(store)
    await stop_clock(ONE_MS + 2 * HOUR_MS)
    assert await fire_due(store) == [FIRED]
    assert (await stored_schedule(store)).error == "topic g has no endpoints"
    assert len(look().records) == 1

    await make_group(store, "https://a.example", "https://b.example")
    await stop_clock(ONE_MS + 3 * HOUR_MS)
    assert await fire_due(store) == [FIRED]
    stored = await stored_schedule(store)
    assert (stored.error, len(stored.last_message_ids)) == (None, 2)
    assert set(look().records) >= set(stored.last_message_ids)


async def test_a_long_error_is_cut_between_characters(store: Store, stop_clock: StopClock) -> None:
    firing = msgspec.structs.replace(await due(store, stop_clock), messages=(), error="x" + "\u00e4" * 1000)
    assert await store.schedules.fire([firing]) == [FIRED]
    error = (await stored_schedule(store)).error
    assert error == "x" + "\u00e4" * ((MAX_ERROR_BYTES - 1) // 2)


# Missed instants and clocks


async def test_after_an_outage_the_newest_instant_fires_once(store: Store, stop_clock: StopClock, look: Look) -> None:
    await store.schedules.put_schedule(new_schedule())
    await stop_clock(NOON_MS + 100 * HOUR_MS + 1)
    firing = await plan_one(store)
    assert firing.has_missed
    assert await store.schedules.fire([firing]) == [FIRED]
    stored = await stored_schedule(store)
    assert (stored.last_fire_ms, stored.next_fire_ms) == (NOON_MS + 100 * HOUR_MS, NOON_MS + 101 * HOUR_MS)
    assert len(look().records) == 1
    assert await plan_due(store) == []


@pytest.mark.parametrize("age_ms", [1_000, 1_001])
async def test_an_instant_that_is_too_old_is_passed_over(
    store: Store, stop_clock: StopClock, look: Look, age_ms: int
) -> None:
    await store.schedules.put_schedule(new_schedule())
    await stop_clock(ONE_MS)
    await fire_due(store)
    before = await stored_schedule(store)
    await stop_clock(ONE_MS + 3 * HOUR_MS + age_ms)
    firing = await plan_one(store, max_lateness_ms=1_000)
    assert await store.schedules.fire([firing]) == [FIRED]
    stored = await stored_schedule(store)
    assert stored.next_fire_ms == ONE_MS + 4 * HOUR_MS
    is_passed_over = age_ms > 1_000
    assert len(look().records) == 2 - is_passed_over
    if is_passed_over:
        assert (stored.last_fire_ms, stored.last_message_ids) == (before.last_fire_ms, before.last_message_ids)


async def test_a_clock_that_goes_back_repeats_nothing(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = await due(store, stop_clock)
    await store.schedules.fire([firing])
    await stop_clock(NOON_MS - HOUR_MS)
    assert await plan_due(store) == []
    await stop_clock(ONE_MS + 5)
    assert await plan_due(store) == []
    assert len(look().records) == 1


async def test_a_firing_whose_clock_has_gone_back_since_is_applied(store: Store, stop_clock: StopClock) -> None:
    firing = await due(store, stop_clock)
    await stop_clock(NOON_MS)
    assert await store.schedules.fire([firing]) == [FIRED]
    assert (await stored_schedule(store)).next_fire_ms == ONE_MS + HOUR_MS


# Once


async def test_a_second_plan_of_an_instant_is_stale(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = await due(store, stop_clock)
    again = await plan_one(store)
    assert again == firing
    assert await store.schedules.fire([firing]) == [FIRED]
    before = look()
    assert await store.schedules.fire([again, firing]) == [STALE, STALE]
    assert look() == before


async def test_the_same_schedule_twice_in_one_call_fires_once(store: Store, stop_clock: StopClock, look: Look) -> None:
    firing = await due(store, stop_clock)
    assert await store.schedules.fire([firing, firing]) == [FIRED, STALE]
    assert len(look().records) == 1


async def test_plans_of_different_moments_fire_one_instant(store: Store, stop_clock: StopClock, look: Look) -> None:
    """A worker that was held up for hours finds that another one was there."""
    old = await due(store, stop_clock)
    await stop_clock(ONE_MS + 3 * HOUR_MS)
    new = await plan_one(store)
    assert await store.schedules.fire([new]) == [FIRED]
    assert await store.schedules.fire([old]) == [STALE]
    assert [record.stored.id for record in look().records.values()] == [message.id for message in new.messages]


async def fire_until_done(store: Store, partitions: int) -> int:
    """A worker: plans and fires until nothing is due."""
    fired = 0
    for partition in range(partitions):
        while firings := await plan_due(store, partition=partition, limit=7):
            fired += sum(result is FIRED for result in await store.schedules.fire(firings))
            await asyncio.sleep(0)
    return fired


@pytest.mark.parametrize("partitions", [1, 3])
async def test_many_workers_fire_every_instant_once(
    store: Store, opened: Opened, settings: Settings, stop_clock: StopClock, look: Look, partitions: int
) -> None:
    await make_group(store, "https://a.example", "https://b.example")
    for number in range(12):
        await store.schedules.put_schedule(new_schedule(f"plain{number}"))
        await store.schedules.put_schedule(new_schedule(f"group{number}", group="g"))
        await store.schedules.put_schedule(new_schedule(f"queue{number}", queue=f"q{number}"))
        await store.schedules.put_schedule(new_schedule(f"key{number}", key=f"k{number}", group="g"))
    stores = [store, *[await opened(settings) for _ in range(3)]]
    for hour in (1, 2, 3):
        await stop_clock(NOON_MS + hour * HOUR_MS)
        fired = await asyncio.gather(*(fire_until_done(one, partitions) for one in stores * 3))
        assert sum(fired) == 48
        records = [record.stored for partition in range(partitions) for record in look(partition).records.values()]
        assert len(records) == hour * 12 * (1 + 2 + 1 + 2)
    stored = [one async for part in store.schedules.list_schedules() for one in part]
    assert sorted(message_id for one in stored for message_id in one.last_message_ids) == sorted(
        record.id for record in records if record.not_before_ms == NOON_MS + 3 * HOUR_MS
    )


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_lost_reply_fires_once(
    store: Store, lossy_store: Store, proxy: LossyProxy, stop_clock: StopClock, look: Look, losses: int
) -> None:
    firing = await due(store, stop_clock)
    proxy.lose_reply(Script("fire_schedule").digest, losses)
    assert await lossy_store.schedules.fire([firing]) == [FIRED]
    assert proxy.losses == losses
    assert len(look().records) == 1
    assert (await stored_schedule(store)).last_message_ids == tuple(look().records)


async def test_when_all_replies_are_lost_it_fires_once(
    store: Store, lossy_store: Store, proxy: LossyProxy, stop_clock: StopClock, look: Look
) -> None:
    firing = await due(store, stop_clock)
    proxy.lose_reply(Script("fire_schedule").digest, 3)
    [result] = await lossy_store.schedules.fire([firing])
    assert isinstance(result, StorageUnavailable)
    assert await lossy_store.schedules.fire([firing]) == [STALE]
    assert len(look().records) == 1


async def test_a_lost_request_fires(
    store: Store, lossy_store: Store, proxy: LossyProxy, stop_clock: StopClock, look: Look
) -> None:
    firing = await due(store, stop_clock)
    proxy.lose_request(Script("fire_schedule").digest, 2)
    assert await lossy_store.schedules.fire([firing]) == [FIRED]
    assert len(look().records) == 1


async def test_another_workers_firing_is_not_taken_for_ones_own(
    store: Store, lossy_store: Store, proxy: LossyProxy, stop_clock: StopClock
) -> None:
    firing = await due(store, stop_clock)
    proxy.lose_reply(Script("fire_schedule").digest)
    later = msgspec.structs.replace(firing, stored=msgspec.structs.replace(firing.stored, revision=99))
    assert await lossy_store.schedules.fire([later, firing]) == [STALE, FIRED]


# One firing among others


async def test_one_firing_that_fails_holds_up_no_other(
    store: Store, keys: PartitionKeys, redis_client: Any, stop_clock: StopClock, look: Look
) -> None:
    for name in ("a", "b", "c"):
        await store.schedules.put_schedule(new_schedule(name, queue=f"q{name}"))
    await stop_clock(ONE_MS)
    firings = await plan_due(store)
    async with damaged(redis_client, keys.limits("q:qb")):
        first, second, third = await store.schedules.fire(firings)
    assert (first, third) == (FIRED, FIRED)
    assert type(second) is StorageError
    assert look().schedules == {"a": ONE_MS + HOUR_MS, "b": ONE_MS, "c": ONE_MS + HOUR_MS}
    assert await store.schedules.fire(firings) == [STALE, FIRED, STALE]


async def test_one_firing_that_cannot_be_encoded_holds_up_no_other(
    store: Store, stop_clock: StopClock, look: Look
) -> None:
    for name in ("a", "b"):
        await store.schedules.put_schedule(new_schedule(name))
    await stop_clock(ONE_MS)
    first, second = await plan_due(store)
    too_long = tuple(msgspec.structs.replace(message, lane="h:" + "x" * 10_000) for message in first.messages)
    result, other = await store.schedules.fire([msgspec.structs.replace(first, messages=too_long), second])
    assert isinstance(result, ValueError)
    assert other is FIRED
    assert look().schedules == {"a": ONE_MS, "b": ONE_MS + HOUR_MS}


KEYS = ["schedules", "ready", "timers", "ring", "log", "record", "message", "lane", "places"]
LIMITED = ["queues", "flows", "parked", "blocked", "windows", "queue", "slots", "returning", "key", "line", "in flight"]


@pytest.mark.parametrize("failing", KEYS + LIMITED)
@pytest.mark.parametrize("has_group", [False, True])
async def test_a_firing_that_breaks_off_publishes_nothing(
    store: Store,
    keys: PartitionKeys,
    redis_client: Any,
    stop_clock: StopClock,
    look: Look,
    failing: str,
    has_group: bool,
) -> None:
    """That is what a slot on its way to another master looks like to a script: single commands fail."""
    await make_group(store, "https://a.example", URL)
    await publish(store, delay_ms=HOUR_MS * 1000)
    group = "g" if has_group else None
    is_limited = failing in LIMITED or failing in ("places", "lane")
    schedule = new_schedule(queue="jobs", key="k", group=group) if is_limited else new_schedule(group=group)
    firing = await due(store, stop_clock, schedule)
    before = look()
    key = {
        "record": keys.schedule("s"),
        "message": keys.message(firing.messages[-1].id),
        "lane": keys.lane("q:jobs"),
        "places": keys.admitted("f:k"),
        "queue": keys.limits("q:jobs"),
        "slots": keys.slots("q:jobs"),
        "returning": keys.returning("q:jobs"),
        "key": keys.limits("f:k"),
        "line": keys.lane("f:k"),
        "in flight": keys.in_flight("f:k"),
    }.get(failing)
    async with damaged(redis_client, key or getattr(keys, failing)):
        try:
            [result] = await store.schedules.fire([firing])
        except StorageError as error:
            result = error
    assert isinstance(result, StorageError)
    assert look() == before
    assert await store.schedules.fire([firing]) == [FIRED]
    assert len(look().records) == len(before.records) + len(firing.messages)


async def test_large_bodies_are_fired_in_several_calls(
    store: Store, stop_clock: StopClock, monkeypatch: pytest.MonkeyPatch, look: Look
) -> None:
    await make_group(store, "https://a.example", "https://b.example", "https://c.example")
    for number in range(5):
        await store.schedules.put_schedule(new_schedule(f"s{number}", body=bytes(MAX_BYTES // 2 - 1000)))
    await store.schedules.put_schedule(new_schedule("t", body=bytes(MAX_BYTES // 2), group="g"))
    await store.schedules.put_schedule(new_schedule("u"))
    await stop_clock(ONE_MS)
    firings: list[Firing] = []
    while planned := [one for one in await plan_due(store) if one not in firings]:
        firings += planned
        for one in planned:
            await store.schedules.postpone(one.stored, 1000)
    assert len(firings) == 7
    sizes: list[int] = []
    runner = store.schedules._access.runner  # pyright: ignore[reportPrivateUsage]
    run = runner.run

    async def run_and_count(name: str, keys: Any, args: Any) -> Any:
        records = len(look().records)
        reply = await run(name, keys, args)
        sizes.append(len(look().records) - records)
        return reply

    monkeypatch.setattr(runner, "run", run_and_count)
    assert await store.schedules.fire(firings) == [FIRED] * 7
    assert sorted(sizes) == [1, 1, 2, 2, 3], "a firing that is larger goes alone"


async def test_what_was_fired_before_redis_went_away_is_told(
    store: Store, lossy_store: Store, proxy: LossyProxy, stop_clock: StopClock, look: Look
) -> None:
    for name in ("a", "b"):
        await store.schedules.put_schedule(new_schedule(name, body=bytes(MAX_BYTES)))
    await stop_clock(ONE_MS)
    [first] = await plan_due(store)
    await store.schedules.postpone(first.stored, HOUR_MS * 5)
    [second] = await plan_due(store)
    proxy.lose_request(b"\r\nb\r\n", 3)
    fired, lost = await lossy_store.schedules.fire([first, second])
    assert fired is FIRED
    assert isinstance(lost, StorageUnavailable)
    assert len(look().records) == 1


# A full Redis


async def test_a_full_redis_keeps_the_instant(
    store: Store, redis_client: Any, stop_clock: StopClock, look: Look
) -> None:
    await make_group(store, "https://a.example")
    for name, group in (("plain", None), ("group", "g"), ("gone", "none")):
        await store.schedules.put_schedule(new_schedule(name, group=group))
    await stop_clock(ONE_MS)
    firings = await plan_due(store)
    late = [msgspec.structs.replace(firings[0], messages=(), is_too_late=True)]
    before = look()
    await redis_client.config_set("maxmemory", "1")
    try:
        assert [type(result) for result in await store.schedules.fire(firings)] == [StorageFull] * 3
        assert [type(result) for result in await store.schedules.fire(late)] == [StorageFull]
        assert look() == before
        assert len(await plan_due(store)) == 3
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert await store.schedules.fire(firings) == [FIRED] * 3
    assert len(look().records) == 2
