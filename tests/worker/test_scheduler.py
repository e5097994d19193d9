"""Due schedules are fired in time and once; one that cannot be is put off and holds up neither others nor messages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from qstash_clone.domain.message import State
from qstash_clone.domain.schedules import Firing
from qstash_clone.domain.url_groups import Endpoint, UrlGroup
from qstash_clone.errors import StorageError, StorageUnavailable, StoreIncompatible
from qstash_clone.ids import format_message_id
from qstash_clone.observability import SCHEDULE_LATENESS, SCHEDULES_FAILED, SCHEDULES_FIRED, SCHEDULES_MISSED
from qstash_clone.storage.resources import FireResult
from tests.support.damage import damaged
from tests.support.eventually import eventually
from tests.support.schedules import HOUR_MS, MINUTE_MS, NOON_MS, new_schedule, stored_schedule
from tests.worker.rig import Rig
from worker import telemetry
from worker.loop import LAST_BACKOFF_MS
from worker.scheduler import AGAIN_MS, FIRE_BATCH, LONGEST_SLEEP_MS, SHORTEST_SLEEP_MS, UNPLANNED_AGAIN_MS

ONE_MS = NOON_MS + HOUR_MS
Events = list[dict[str, Any]]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """What is written."""
    written: Events = []

    def emit(event: str, /, *, level: int = 0, **fields: Any) -> None:
        written.append({"event": event, **fields})

    monkeypatch.setattr(telemetry, "emit", emit)
    monkeypatch.setattr(telemetry, "is_enabled", lambda level: True)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return written


async def stop_clock(rig: Rig, at_ms: int) -> None:
    """Let the store's clock stand still at a time."""
    await rig.raw.hset(rig.keys.meta.decode(), "fz", at_ms)  # pyright: ignore


@pytest.fixture(autouse=True)
async def noon(rig: Rig) -> None:
    """The store's clock stands still at noon."""
    await stop_clock(rig, NOON_MS)


async def put(rig: Rig, *names: str, **options: Any) -> None:
    """Schedules that fire on the hour."""
    for name in names or ("s",):
        await rig.real_store.schedules.put_schedule(new_schedule(name, **options))


async def make_group(rig: Rig, *urls: str, name: str = "g") -> None:
    group = UrlGroup(name=name, created_ms=1, updated_ms=1, endpoints=tuple(Endpoint(url=url) for url in urls))
    await rig.real_store.url_groups.change_url_group(name, lambda old, now_ms: group)


async def awaited(rig: Rig) -> dict[str, int]:
    """Schedule -> when a worker will look at it."""
    pairs: list[tuple[bytes, float]] = await rig.raw.zrange(rig.keys.schedules, 0, -1, withscores=True)  # pyright: ignore
    return {name.decode(): int(score) for name, score in pairs}


def names_of(events: Events) -> list[str]:
    return [event["event"] for event in events]


async def test_a_due_schedule_is_fired_and_delivered(rig: Rig) -> None:
    await put(rig)
    report = await rig.scheduler.step()
    assert (report.fired, rig.transport.requests) == (0, [])
    await stop_clock(rig, ONE_MS)
    assert (await rig.scheduler.step()).fired == 1
    await rig.deliver_all()
    [request] = rig.transport.requests
    assert (request.body, dict(request.headers)["Upstash-Schedule-Id"]) == (b"body", "s")
    [message_id] = (await stored_schedule(rig.real_store)).last_message_ids
    assert await rig.state(message_id) is State.DELIVERED
    assert (await rig.scheduler.step()).fired == 0


async def test_every_endpoint_of_a_group_is_delivered_to(rig: Rig) -> None:
    await make_group(rig, "http://a.example/x", "http://b.example/y")
    await put(rig, "one", "two", group="g")
    await stop_clock(rig, ONE_MS)
    assert (await rig.scheduler.step()).fired == 2
    await rig.deliver_all()
    urls = sorted(request.url for request in rig.transport.requests)
    assert urls == ["http://a.example/x"] * 2 + ["http://b.example/y"] * 2
    assert rig.url_groups.calls["get_url_group"] == 1, "read once in a pass"


# Rests


async def rest_after(rig: Rig, early_ms: int) -> float:
    """The rest after a pass so long before the next instant, by a clock that runs."""
    await put(rig)
    await rig.raw.hdel(rig.keys.meta.decode(), "fz")  # pyright: ignore
    seconds, micros = await rig.raw.time()  # pyright: ignore
    offset_ms = ONE_MS - early_ms - (int(seconds) * 1000 + int(micros) // 1000)  # pyright: ignore
    await rig.raw.hset(rig.keys.meta.decode(), "off", offset_ms)  # pyright: ignore
    return rig.scheduler.rest_ms(await rig.scheduler.step())


async def test_the_rest_lasts_until_the_next_instant(rig: Rig) -> None:
    assert SHORTEST_SLEEP_MS <= await rest_after(rig, 700) <= 700


@pytest.mark.parametrize("early_ms", [LONGEST_SLEEP_MS * 2, HOUR_MS // 2])
async def test_a_far_instant_is_looked_at_again_before(rig: Rig, early_ms: int) -> None:
    assert await rest_after(rig, early_ms) == LONGEST_SLEEP_MS


async def test_a_rest_without_schedules(rig: Rig) -> None:
    report = await rig.scheduler.step()
    assert rig.scheduler.rest_ms(report) == rig.scheduler.rest_ms(None) == LONGEST_SLEEP_MS


async def test_nothing_is_awaited_of_a_clock_that_stands_still(rig: Rig) -> None:
    await put(rig)
    await stop_clock(rig, ONE_MS - 10)
    assert (await rig.scheduler.step()).sleep_ms == LONGEST_SLEEP_MS


async def test_after_a_firing_it_looks_again_at_once(rig: Rig) -> None:
    await put(rig)
    await stop_clock(rig, ONE_MS)
    assert (await rig.scheduler.step()).sleep_ms == 0
    assert (await rig.scheduler.step()).sleep_ms == LONGEST_SLEEP_MS


async def test_a_new_earlier_instant_ends_the_rest(rig: Rig) -> None:
    await put(rig, "late")
    running = asyncio.create_task(rig.scheduler.run())
    await eventually(lambda: rig.clock.sleeping)
    passes = rig.firings.calls["due_schedules"]
    await rig.claims.step()  # Answers the doorbell of the first one.
    await eventually(lambda: rig.firings.calls["due_schedules"] > passes and rig.clock.sleeping)
    passes = rig.firings.calls["due_schedules"]
    await put(rig, "early", cron="30 * * * *")
    await rig.claims.step()
    await eventually(lambda: rig.firings.calls["due_schedules"] > passes, what="the manual clock stands still")
    rig.scheduler.stop()
    await running


async def test_many_at_once_are_fired_in_batches_without_a_pause(rig: Rig) -> None:
    names = [f"s{number:04}" for number in range(10 * FIRE_BATCH)]
    for start in range(0, len(names), 50):
        await asyncio.gather(*(put(rig, name) for name in names[start : start + 50]))
    await stop_clock(rig, ONE_MS)
    reports = [await rig.scheduler.step() for _ in range(11)]
    assert [(report.fired, report.sleep_ms) for report in reports] == [(FIRE_BATCH, 0)] * 10 + [(0, LONGEST_SLEEP_MS)]
    assert rig.firings.calls["fire"] == 10
    assert set((await awaited(rig)).values()) == {ONE_MS + HOUR_MS}


# Several workers


async def test_several_workers_fire_each_once(rig: Rig, make_rig: Callable[..., Rig], events: Events) -> None:
    names = [f"s{number}" for number in range(20)]
    await put(rig, *names)
    await stop_clock(rig, ONE_MS)
    rigs = [rig, *(make_rig() for _ in range(4))]
    reports = await asyncio.gather(*(one.scheduler.step() for one in rigs))
    assert sum(report.fired for report in reports) == 20
    assert sorted(event["schedule_id"] for event in events) == sorted(names)


async def test_who_comes_second_says_nothing(rig: Rig, make_rig: Callable[..., Rig], events: Events) -> None:
    other = make_rig()
    await put(rig)
    await stop_clock(rig, ONE_MS)
    overtake_fire(rig, other.scheduler.step)
    before = SCHEDULES_FIRED.value
    report = await rig.scheduler.step()
    assert (report.fired, report.sleep_ms) == (0, 0)
    assert (names_of(events), SCHEDULES_FIRED.value) == (["schedule.fired"], before + 1)


def overtake_fire(rig: Rig, first: Callable[[], Awaitable[object]]) -> None:
    """Something else happens between plan and firing."""
    fire = rig.firings.fire

    async def overtaken(firings: Sequence[Firing]) -> list[FireResult | Exception]:
        await first()
        return await fire(firings)

    rig.firings.fire = overtaken  # type: ignore[method-assign]


async def test_a_schedule_that_is_deleted_in_between_does_not_fire(rig: Rig, events: Events) -> None:
    await put(rig)
    await stop_clock(rig, ONE_MS)
    overtake_fire(rig, lambda: rig.real_store.schedules.delete_schedule("s"))
    assert (await rig.scheduler.step()).fired == 0
    assert events == []
    await rig.deliver_all()
    assert rig.transport.requests == []


# What one schedule does to the others


async def spoil(rig: Rig, name: str) -> None:
    """Make the cron expression of a stored schedule one that a later release might know."""
    key = rig.keys.schedule(name).decode()
    record: bytes = await rig.raw.get(key)  # pyright: ignore
    assert record.count(b"0 * * * *") == 1
    await rig.raw.set(key, record.replace(b"0 * * * *", b"0 * * * L"))  # pyright: ignore


async def test_one_that_cannot_be_planned_is_put_off(rig: Rig, events: Events) -> None:
    await put(rig, "bad", "good")
    await spoil(rig, "bad")
    await stop_clock(rig, ONE_MS)
    assert (await rig.scheduler.step()).fired == 1
    assert names_of(events) == ["schedule.stuck", "schedule.fired"]
    assert events[0]["schedule_id"] == "bad"
    assert 'invalid cron expression "0 * * * L"' in events[0]["error"]
    assert await awaited(rig) == {"bad": ONE_MS + UNPLANNED_AGAIN_MS, "good": ONE_MS + HOUR_MS}
    assert (await rig.scheduler.step()).sleep_ms == LONGEST_SLEEP_MS
    assert len(events) == 2


async def test_a_planner_with_a_bug_is_survived(rig: Rig, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(rig, "bad", "good")
    await stop_clock(rig, ONE_MS)
    derive = rig.firings.new_firing_ids

    def derive_or_fail(stored: Any, instant_ms: int, urls: Sequence[str]) -> Any:
        if stored.schedule.id == "bad":
            raise ZeroDivisionError
        return derive(stored, instant_ms, urls)

    monkeypatch.setattr(rig.firings, "new_firing_ids", derive_or_fail)
    assert (await rig.scheduler.step()).fired == 1
    assert events[0] == {"event": "schedule.stuck", "schedule_id": "bad", "error": "ZeroDivisionError()"}


async def test_one_that_cannot_be_read_is_named(rig: Rig, events: Events) -> None:
    await put(rig, "bad", "good")
    await rig.raw.setrange(rig.keys.schedule("bad").decode(), 0, b"\x09")  # pyright: ignore
    await stop_clock(rig, ONE_MS)
    report = await rig.scheduler.step()
    assert (report.fired, report.sleep_ms) == (1, 0)
    assert names_of(events) == ["schedule.stuck", "schedule.fired"]
    assert events[0]["error"].startswith("bad: ")
    await rig.scheduler.step()
    assert len(events) == 2


async def test_one_whose_lane_fails_is_tried_again_a_second_later(rig: Rig, events: Events) -> None:
    await put(rig, "bad", queue="jobs")
    await put(rig, "good")
    await stop_clock(rig, ONE_MS)
    async with damaged(rig.raw, rig.keys.limits("q:jobs")):
        assert (await rig.scheduler.step()).fired == 1
    assert sorted(names_of(events)) == ["schedule.fired", "schedule.stuck"]
    assert await awaited(rig) == {"bad": ONE_MS + AGAIN_MS, "good": ONE_MS + HOUR_MS}
    await stop_clock(rig, ONE_MS + AGAIN_MS)
    assert (await rig.scheduler.step()).fired == 1
    assert (await stored_schedule(rig.real_store, "bad")).last_fire_ms == ONE_MS


async def test_one_that_cannot_be_encoded_is_put_off(rig: Rig, events: Events) -> None:
    await put(rig, "bad")
    await stop_clock(rig, ONE_MS)

    async def fire(firings: Sequence[Firing]) -> list[FireResult | Exception]:
        return [ValueError("lane of 9999 bytes")] * len(firings)

    rig.firings.fire = fire  # type: ignore[method-assign]
    assert (await rig.scheduler.step()).fired == 0
    assert events == [{"event": "schedule.stuck", "schedule_id": "bad", "error": "lane of 9999 bytes"}]
    assert await awaited(rig) == {"bad": ONE_MS + UNPLANNED_AGAIN_MS}


@pytest.mark.parametrize("error", [StorageUnavailable("Away."), StorageError("The URL group g cannot be read.")])
async def test_groups_that_cannot_be_read_hold_up_only_what_needs_them(
    rig: Rig, events: Events, error: StorageError
) -> None:
    await make_group(rig, "http://a.example/x")
    await put(rig, "a", "b", group="g")
    await put(rig, "plain")
    await stop_clock(rig, ONE_MS)
    rig.url_groups.fail_before("get_url_group", times=2, error=error)
    assert (await rig.scheduler.step()).fired == 1
    assert names_of(events) == ["schedule.stuck", "schedule.stuck", "schedule.fired"]
    # What does not answer is not asked again and again, each time until the end of its patience.
    assert rig.url_groups.calls["get_url_group"] == (1 if isinstance(error, StorageUnavailable) else 2)
    assert {name: at_ms for name, at_ms in (await awaited(rig)).items() if name != "plain"} == {
        "a": ONE_MS + AGAIN_MS,
        "b": ONE_MS + AGAIN_MS,
    }


# Redis away, Redis full


@pytest.mark.parametrize("call", ["due_schedules", "fire"])
@pytest.mark.parametrize("fail", ["fail_before", "fail_after"])
async def test_an_outage_loses_no_instant_and_repeats_none(rig: Rig, call: str, fail: str) -> None:
    await put(rig)
    await stop_clock(rig, ONE_MS)
    getattr(rig.firings, fail)(call, 3)
    running = asyncio.create_task(rig.scheduler.run())
    for _ in range(4):
        await eventually(lambda: rig.clock.sleeping)
        rig.clock.advance(LAST_BACKOFF_MS)
    await eventually(lambda: rig.health.storage_answers(rig.scheduler.name) and rig.clock.sleeping)
    rig.scheduler.stop()
    await running
    await rig.deliver_all()
    assert len(rig.transport.requests) == 1
    assert (await stored_schedule(rig.real_store)).last_fire_ms == ONE_MS


async def test_what_was_fired_is_told_before_an_outage_is(rig: Rig, events: Events) -> None:
    await put(rig, "a", "b", "c")
    await stop_clock(rig, ONE_MS)
    fire = rig.firings.fire

    async def fire_but_one(firings: Sequence[Firing]) -> list[FireResult | Exception]:
        return [StorageUnavailable("Away."), *await fire(firings[1:])]

    rig.firings.fire = fire_but_one  # type: ignore[method-assign]
    with pytest.raises(StorageUnavailable, match="Away"):
        await rig.scheduler.step()
    assert names_of(events) == ["schedule.fired", "schedule.fired"]
    assert sorted((await awaited(rig)).values()) == [ONE_MS, ONE_MS + HOUR_MS, ONE_MS + HOUR_MS]


async def test_an_outage_while_one_is_put_off_is_no_fault_of_it(rig: Rig, events: Events) -> None:
    await put(rig)
    await spoil(rig, "s")
    await stop_clock(rig, ONE_MS)
    rig.firings.fail_before("postpone")
    with pytest.raises(StorageUnavailable):
        await rig.scheduler.step()
    assert events == []
    await rig.scheduler.step()
    assert names_of(events) == ["schedule.stuck"]


async def test_a_store_of_another_version_ends_the_loop(rig: Rig) -> None:
    await put(rig)
    await stop_clock(rig, ONE_MS)
    rig.firings.fail_before("fire", error=StoreIncompatible("The store has version 99."))
    with pytest.raises(StoreIncompatible):
        await rig.scheduler.run()


async def test_a_full_redis_keeps_instants_and_stops_nothing_else(rig: Rig, events: Events) -> None:
    await put(rig, "a", "b")
    await stop_clock(rig, ONE_MS)
    rig.open_gate()
    config: Any = rig.raw
    await config.config_set("maxmemory", "1")
    try:
        for _ in range(3):
            report = await rig.scheduler.step()
            assert (report.fired, report.held, rig.scheduler.rest_ms(report)) == (0, 2, AGAIN_MS)
        running = asyncio.create_task(rig.scheduler.run())
        await eventually(lambda: rig.clock.sleeping)
        assert rig.worker.gate.is_open, "leases are taken over all the same"
        assert rig.health.unready_reason() is None
        rig.scheduler.stop()
        await running
    finally:
        await config.config_set("maxmemory", "0")
    assert events == [{"event": "schedules.held", "count": 2}], "said once"
    assert (await rig.scheduler.step()).fired == 2
    await stop_clock(rig, ONE_MS + HOUR_MS)
    await config.config_set("maxmemory", "1")
    try:
        await rig.scheduler.step()
    finally:
        await config.config_set("maxmemory", "0")
    assert names_of(events) == ["schedules.held", "schedule.fired", "schedule.fired", "schedules.held"]


# What is told


async def test_a_firing_is_told_with_its_lateness(rig: Rig, events: Events) -> None:
    await make_group(rig, "http://a.example/x", "http://b.example/y")
    await put(rig, group="g")
    await stop_clock(rig, ONE_MS + 250)
    fired, count, total = SCHEDULES_FIRED.value, SCHEDULE_LATENESS.count, SCHEDULE_LATENESS.sum
    await rig.scheduler.step()
    first, _ = (await stored_schedule(rig.real_store)).last_message_ids
    assert events == [
        {
            "event": "schedule.fired",
            "schedule_id": "s",
            "instant_ms": ONE_MS,
            "lateness_ms": 250,
            "messages": 2,
            "message_id": format_message_id(first),
        }
    ]
    assert (SCHEDULES_FIRED.value, SCHEDULE_LATENESS.count) == (fired + 1, count + 1)
    assert SCHEDULE_LATENESS.sum == pytest.approx(total + 0.25)


async def test_a_firing_is_counted_but_not_written_where_nobody_reads_it(
    rig: Rig, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "is_enabled", lambda level: False)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    await put(rig)
    await stop_clock(rig, ONE_MS)
    fired = SCHEDULES_FIRED.value
    await rig.scheduler.step()
    assert (events, SCHEDULES_FIRED.value) == ([], fired + 1)


async def test_instants_that_were_passed_over_are_told(rig: Rig, events: Events) -> None:
    await put(rig)
    missed = SCHEDULES_MISSED.value
    await stop_clock(rig, ONE_MS + 3 * HOUR_MS + MINUTE_MS)
    await rig.scheduler.step()
    assert names_of(events) == ["schedule.missed", "schedule.fired"]
    assert events[0] == {
        "event": "schedule.missed",
        "schedule_id": "s",
        "first_missed_ms": ONE_MS,
        "made_up_ms": ONE_MS + 3 * HOUR_MS,
    }
    assert events[1]["lateness_ms"] == MINUTE_MS
    assert SCHEDULES_MISSED.value == missed + 1


async def test_an_instant_that_is_too_old_is_told_and_not_made_up_for(
    make_rig: Callable[..., Rig], events: Events
) -> None:
    rig = make_rig(schedule_max_lateness_ms=MINUTE_MS)
    await put(rig)
    fired = SCHEDULES_FIRED.value
    await stop_clock(rig, ONE_MS + MINUTE_MS + 1)
    assert (await rig.scheduler.step()).fired == 1
    assert events == [{"event": "schedule.missed", "schedule_id": "s", "first_missed_ms": ONE_MS, "made_up_ms": None}]
    assert SCHEDULES_FIRED.value == fired
    assert (await stored_schedule(rig.real_store)).next_fire_ms == ONE_MS + HOUR_MS
    await rig.deliver_all()
    assert rig.transport.requests == []


async def test_nobody_to_publish_to_is_told(rig: Rig, events: Events) -> None:
    await put(rig, group="gone")
    await stop_clock(rig, ONE_MS)
    failed, fired = SCHEDULES_FAILED.value, SCHEDULES_FIRED.value
    assert (await rig.scheduler.step()).fired == 1
    assert events == [
        {"event": "schedule.failed", "schedule_id": "s", "instant_ms": ONE_MS, "error": "topic gone not found"}
    ]
    assert (SCHEDULES_FAILED.value, SCHEDULES_FIRED.value) == (failed + 1, fired)
    assert (await stored_schedule(rig.real_store)).error == "topic gone not found"
