"""Schedules on a clock that tests move: each instant fires once, whatever happens between and to them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from qstash.schedule import ScheduleState

from tests.e2e.conftest import connected
from tests.support.client import Client
from tests.support.dev_clock import HOUR_MS, MINUTE_MS, DevClock
from tests.support.eventually import eventually
from tests.support.gates import Gates, arrived_paths
from tests.support.processes import System
from tests.support.receiver import Receiver

BERLIN = ZoneInfo("Europe/Berlin")


class Schedules:
    """Creates schedules on a clock that stands still, and deletes them at the end."""

    def __init__(self, client: Client, receiver: Receiver, clock: DevClock) -> None:
        self.client = client
        self.clock = clock
        self._receiver = receiver
        self._ids: list[str] = []

    async def create(self, cron: str, destination: str = "/", body: bytes = b"", **headers: str) -> str:
        """One for a path of the receiver, or for a group; `queue_name` stands for `Upstash-Queue-Name`."""
        lines = [(f"Upstash-{name.replace('_', '-')}", value) for name, value in ({"cron": cron} | headers).items()]
        target = self._receiver.url + destination if destination.startswith("/") else destination
        answer = await self.client.call("POST", f"/v2/schedules/{target}", lines, body)
        assert answer.status == 200, answer
        assert list(answer.json()) == ["scheduleId"]
        self._ids.append(answer.json()["scheduleId"])
        return self._ids[-1]

    async def shown(self, schedule_id: str) -> dict[str, Any]:
        return await self.client.send("GET", f"/v2/schedules/{schedule_id}")

    async def fire(self, schedule_id: str) -> int:
        """Move to the next instant; returns it."""
        at_ms = (await self.shown(schedule_id))["nextScheduleTime"]
        assert await self.clock.to(at_ms) == at_ms

        async def has_fired() -> bool:
            return (await self.shown(schedule_id)).get("lastScheduleTime") == at_ms

        await eventually(has_fired)
        return at_ms

    async def has_states(self, schedule_id: str, *states: str) -> dict[str, str]:
        """Wait until the messages of the last firing are in these states."""

        async def states_if_reached() -> dict[str, str] | None:
            found = (await self.shown(schedule_id)).get("lastScheduleStates", {})
            return found if sorted(found.values()) == sorted(states) else None

        found = await eventually(states_if_reached, what=f"messages in the states {states}")
        assert found is not None
        return found

    async def clear(self) -> None:
        for schedule_id in self._ids:
            await self.client.send("DELETE", f"/v2/schedules/{schedule_id}")


@pytest.fixture
async def schedules(later: Client, receiver: Receiver, clock: DevClock) -> AsyncIterator[Schedules]:
    await clock.freeze()
    schedules = Schedules(later, receiver, clock)
    yield schedules
    await schedules.clear()


async def test_two_workers_fire_each_instant_once(
    later: Client, schedules: Schedules, receiver: Receiver, clock: DevClock
) -> None:
    schedule_id = await schedules.create(
        "*/5 * * * *", "/tick?a=b", b"body", method="PUT", forward_x_kind="tick", retries="2", label="ticks"
    )
    before = await schedules.shown(schedule_id)
    assert before["isPaused"] is False
    assert not before.keys() & {"lastScheduleTime", "lastScheduleStates"}
    at_ms = 0
    for count in range(1, 6):
        at_ms = await schedules.fire(schedule_id)
        assert at_ms % (5 * MINUTE_MS) == 0
        await receiver.wait_for(count, path="/tick")
        await later.pass_by(receiver)
        assert arrived_paths(receiver) == ["/tick"] * count
        assert (await schedules.shown(schedule_id))["nextScheduleTime"] == at_ms + 5 * MINUTE_MS
    ticks = await receiver.wait_for(5, path="/tick")
    ids = [request.header("Upstash-Message-Id") for request in ticks]
    assert len(set(ids)) == 5
    request = ticks[-1]
    assert (request.method, request.target, request.body) == ("PUT", "/tick?a=b", b"body")
    assert request.values("X-Kind") == ["tick"]
    assert request.values("Upstash-Schedule-Id") == [schedule_id]
    assert await schedules.has_states(schedule_id, "SUCCESS") == {ids[-1]: "SUCCESS"}
    message = await later.message(str(ids[-1]))
    assert message is not None
    assert (message["scheduleId"], message["maxRetries"], message["label"]) == (schedule_id, 2, "ticks")
    assert message["createdAt"] == at_ms
    events = (await later.send("GET", f"/v2/events?scheduleId={schedule_id}&state=DELIVERED"))["events"]
    assert len(events) == 5


async def test_an_instant_comes_by_itself(
    schedules: Schedules, receiver: Receiver, later: Client, clock: DevClock
) -> None:
    schedule_id = await schedules.create("0 * * * *", "/tick")
    at_ms = (await schedules.shown(schedule_id))["nextScheduleTime"]
    await clock.to(at_ms - 300)
    await clock.go_on()
    (request,) = await receiver.wait_for(1, path="/tick")
    message = await later.message(str(request.header("Upstash-Message-Id")))
    assert message is not None
    assert message["createdAt"] >= at_ms


async def test_a_schedule_is_replaced_whole(schedules: Schedules, receiver: Receiver, later: Client) -> None:
    name = f"replaced-{receiver.port}"
    await schedules.create("0 * * * *", "/old", b"old", schedule_id=name, label="old", delay="5s")
    await schedules.fire(name)
    assert await later.send("PATCH", f"/v2/schedules/{name}/pause") == {}
    await schedules.create(" */30 * * * * ", "/new", schedule_id=name)
    shown = await schedules.shown(name)
    assert (shown["cron"], shown["destination"], shown["isPaused"]) == ("*/30 * * * *", f"{receiver.url}/new", False)
    assert not shown.keys() & {"body", "label", "labels", "delay", "lastScheduleTime", "lastScheduleStates", "error"}
    assert [each["scheduleId"] for each in await later.send("GET", "/v2/schedules")].count(name) == 1
    await schedules.clock.advance("5s")
    await receiver.wait_for(1, path="/old")
    await schedules.fire(name)
    request, *_ = await receiver.wait_for(1, path="/new")
    assert request.body == b""


@pytest.mark.parametrize("method", ["PATCH", "POST", "PUT"])
async def test_a_paused_schedule_lets_its_instants_pass(
    schedules: Schedules, receiver: Receiver, later: Client, clock: DevClock, method: str
) -> None:
    schedule_id = await schedules.create("0 * * * *", "/tick")
    for _ in range(2):
        await later.send(method, f"/v2/schedules/{schedule_id}/pause")
    shown = await schedules.shown(schedule_id)
    assert (shown["isPaused"], "nextScheduleTime" in shown) == (True, False)
    now_ms = await clock.advance("5h")
    await later.pass_by(receiver)
    for _ in range(2):
        await later.send(method, f"/v2/schedules/{schedule_id}/resume")
    shown = await schedules.shown(schedule_id)
    assert (shown["isPaused"], shown["nextScheduleTime"]) == (False, now_ms - now_ms % HOUR_MS + HOUR_MS)
    await later.pass_by(receiver)
    assert arrived_paths(receiver) == []
    await schedules.fire(schedule_id)
    await receiver.wait_for(1, path="/tick")
    assert (await later.call(method, "/v2/schedules/no-such-schedule/pause")).status == 404


async def test_a_deleted_schedule_fires_no_more_but_its_messages_are_delivered(
    schedules: Schedules, receiver: Receiver, later: Client, clock: DevClock
) -> None:
    schedule_id = await schedules.create("0 * * * *", "/tick", delay="10m")
    await schedules.fire(schedule_id)
    await later.send("DELETE", f"/v2/schedules/{schedule_id}")
    assert (await later.call("GET", f"/v2/schedules/{schedule_id}")).status == 404
    await clock.advance("2h")
    await receiver.wait_for(1, path="/tick")
    await later.pass_by(receiver)
    assert arrived_paths(receiver) == ["/tick"]


async def test_a_delay_is_that_of_each_message(
    schedules: Schedules, receiver: Receiver, later: Client, clock: DevClock
) -> None:
    schedule_id = await schedules.create("0 * * * *", "/tick", delay="90s")
    assert (await schedules.shown(schedule_id))["delay"] == 90
    at_ms = await schedules.fire(schedule_id)
    [message_id] = await schedules.has_states(schedule_id, "IN_PROGRESS")
    message = await later.message(message_id)
    assert message is not None
    assert (message["createdAt"], message["notBefore"]) == (at_ms, at_ms + 90_000)
    await clock.advance("90s")
    await receiver.wait_for(1, path="/tick")
    await schedules.has_states(schedule_id, "SUCCESS")


async def test_the_states_of_the_last_messages(schedules: Schedules, receiver: Receiver, gates: Gates) -> None:
    receiver.respond(500, path="/fails")
    failing = await schedules.create("0 * * * *", "/fails", retries="0")
    working = await schedules.create("0 * * * *", "/works")
    await schedules.fire(failing)
    await schedules.has_states(failing, "FAIL")
    await schedules.has_states(working, "IN_PROGRESS")
    gates.open_all()
    await schedules.has_states(working, "SUCCESS")
    await schedules.fire(failing)
    await schedules.has_states(failing, "SUCCESS")


async def test_the_python_sdk_reads_what_became_of_a_firing(
    schedules: Schedules, receiver: Receiver, clocked: System
) -> None:
    receiver.respond(500, path="/tick")
    schedule_id = await schedules.create("0 * * * *", "/tick", retries="0")
    at_ms = await schedules.fire(schedule_id)
    await schedules.has_states(schedule_id, "FAIL")
    async with connected(clocked.url, clocked.settings.token) as sdk:
        schedule = await sdk.schedule.get(schedule_id)
        assert (schedule.last_schedule_time, schedule.next_schedule_time) == (at_ms, at_ms + HOUR_MS)
        assert schedule.last_schedule_states is not None
        [(message_id, state)] = schedule.last_schedule_states.items()
        assert state is ScheduleState.FAIL
        message = await sdk.message.get(message_id)
        assert message.schedule_id == schedule_id


async def test_a_group_is_looked_up_at_each_firing(schedules: Schedules, receiver: Receiver, later: Client) -> None:
    name = f"scheduled-{receiver.port}"
    url = receiver.url
    await later.send("POST", f"/v2/topics/{name}/endpoints", {"endpoints": [{"url": f"{url}/1"}, {"url": f"{url}/2"}]})
    schedule_id = await schedules.create("0 * * * *", name)
    assert (await schedules.shown(schedule_id))["destination"] == name
    await schedules.fire(schedule_id)
    await schedules.has_states(schedule_id, "SUCCESS", "SUCCESS")
    assert sorted(request.path for request in receiver.requests) == ["/1", "/2"]
    assert receiver.requests[0].values("Upstash-Topic-Name") == [name]
    await later.send("POST", f"/v2/topics/{name}/endpoints", {"endpoints": [{"url": f"{url}/3"}]})
    await schedules.fire(schedule_id)
    await schedules.has_states(schedule_id, "SUCCESS", "SUCCESS", "SUCCESS")
    await later.send("DELETE", f"/v2/topics/{name}")
    await schedules.clock.advance("1h")

    async def error() -> str | None:
        return (await schedules.shown(schedule_id)).get("error")

    assert name in str(await eventually(error))
    await later.send("POST", f"/v2/topics/{name}/endpoints", {"endpoints": [{"url": f"{url}/4"}]})
    await schedules.fire(schedule_id)
    await receiver.wait_for(1, path="/4")
    assert "error" not in await schedules.shown(schedule_id)


async def test_firings_into_a_queue_wait_for_each_other(
    schedules: Schedules, receiver: Receiver, later: Client, gates: Gates
) -> None:
    name = f"scheduled-{receiver.port}"
    schedule_id = await schedules.create("0 * * * *", "/tick", queue_name=name)
    assert (await schedules.shown(schedule_id))["queueName"] == name
    assert (await later.call("GET", f"/v2/queues/{name}")).status == 404
    await schedules.fire(schedule_id)
    await receiver.wait_for(1, path="/tick")
    await later.send("POST", "/v2/queues", {"queueName": name, "parallelism": 1})
    await schedules.fire(schedule_id)
    await later.pass_by(receiver)
    assert gates.paths == ["/tick"]
    queue = await later.send("GET", f"/v2/queues/{name}")
    assert (queue["lag"], queue["parallelism"]) == (2, 1)
    gates.open_all()
    await gates.wait_for(2)


async def test_schedules_made_by_publishing(schedules: Schedules, receiver: Receiver, later: Client) -> None:
    queue = f"published-{receiver.port}"
    cron = ("Upstash-Cron", "0 * * * *")
    published = await later.call("POST", f"/v2/publish/{receiver.url}/published", [cron])
    enqueued = await later.call("POST", f"/v2/enqueue/{queue}/{receiver.url}/enqueued", [cron])
    [batched] = await later.send(
        "POST", "/v2/batch", [{"destination": f"{receiver.url}/batched", "headers": dict([cron])}]
    )
    ids = [result["scheduleId"] for result in (published.json(), enqueued.json(), batched)]
    assert {len(result) for result in (published.json(), enqueued.json(), batched)} == {1}
    assert (await schedules.shown(ids[1]))["queueName"] == queue
    assert receiver.requests == []
    await schedules.fire(ids[0])
    requests = await receiver.wait_for(3)
    assert {request.path for request in requests} == {"/published", "/enqueued", "/batched"}
    for schedule_id in ids:
        await later.send("DELETE", f"/v2/schedules/{schedule_id}")


def local_time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, BERLIN):%H:%M}"


def next_change(after_ms: int, *, forward: bool) -> datetime:
    """The next day on which Berlin's clocks are put forward, or back, but not tomorrow; its midnight there."""
    today = datetime.fromtimestamp(after_ms / 1000, BERLIN).replace(hour=0, minute=0, second=0, microsecond=0)
    day = today + timedelta(days=1)
    while True:
        day += timedelta(days=1)
        change = (day + timedelta(days=1)).astimezone(UTC) - day.astimezone(UTC)
        if change == timedelta(hours=23 if forward else 25):
            return day


async def test_local_times_over_changes_of_the_clocks(
    schedules: Schedules, receiver: Receiver, clock: DevClock
) -> None:
    # Of three nights, one has no half past two where the clocks go forward, and two of them where they go back.
    for forward, nights in ((True, 2), (False, 3)):
        day = next_change(await clock.now(), forward=forward)
        await clock.to(round((day - timedelta(days=1)).timestamp() * 1000))
        morning = await schedules.create("CRON_TZ=Europe/Berlin 0 8 * * *", f"/morning-{forward}")
        nightly = await schedules.create("CRON_TZ=Europe/Berlin 30 2 * * *", f"/nightly-{forward}")
        fired: list[int] = []
        for _ in range(3):
            fired.append(await schedules.fire(morning))
            await receiver.wait_for(len(fired), path=f"/morning-{forward}")
        assert [local_time(at_ms) for at_ms in fired] == ["08:00"] * 3
        spans = [later_ms - earlier_ms for earlier_ms, later_ms in pairwise(fired)]
        assert spans == [(23 if forward else 25) * HOUR_MS, 24 * HOUR_MS]
        await receiver.wait_for(nights, path=f"/nightly-{forward}")
        assert arrived_paths(receiver).count(f"/nightly-{forward}") == nights
        assert local_time((await schedules.shown(nightly))["lastScheduleTime"]) == "02:30"
        await schedules.clear()


async def test_a_preview_of_local_times(later: Client) -> None:
    after = datetime(2026, 3, 28, 12, tzinfo=UTC)
    asked = {"cron": "CRON_TZ=Europe/Berlin 30 2 * * *", "count": 2, "after": int(after.timestamp() * 1000)}
    told = await later.send("POST", "/v2/preview/cron", asked)
    # The clocks went forward in the first night, over the time.
    assert [local_time(firing["time"]) for firing in told["firings"]] == ["02:30", "02:30"]
    assert [firing["local"][:10] for firing in told["firings"]] == ["2026-03-30", "2026-03-31"]
    assert told["zone"] == "Europe/Berlin"


async def test_after_an_outage_the_latest_missed_instant_fires_once(
    schedules: Schedules, receiver: Receiver, later: Client, clock: DevClock, clocked: System
) -> None:
    schedule_id = await schedules.create("0 * * * *", "/tick")
    for worker in clocked.workers:
        worker.send_signal(15)
    for worker in clocked.workers:
        worker.wait()
    now_ms = await clock.advance("10h")
    latest_ms = now_ms - now_ms % HOUR_MS
    assert (await schedules.shown(schedule_id))["nextScheduleTime"] < latest_ms
    clocked.start()
    await receiver.wait_for(1, path="/tick")

    async def has_moved_on() -> bool:
        return (await schedules.shown(schedule_id))["nextScheduleTime"] == latest_ms + HOUR_MS

    await eventually(has_moved_on)
    assert (await schedules.shown(schedule_id))["lastScheduleTime"] == latest_ms
    await later.pass_by(receiver)
    assert arrived_paths(receiver) == ["/tick"]
