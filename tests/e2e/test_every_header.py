"""Every header of a publish, wherever it can be given: asked for in each way, it does to a message what it says."""

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.ways import CREATING, RETRIES, Asking, Way
from tests.support.client import Client
from tests.support.dev_clock import HOUR_MS, DevClock
from tests.support.eventually import eventually
from tests.support.receiver import Receiver

SECRET = "s3cret of a header test"

in_each_way = pytest.mark.parametrize("way", list(Way))
in_each_creating_way = pytest.mark.parametrize("way", CREATING)


@pytest.fixture
async def timed(way: Way, later: Client, receiver: Receiver, clock: DevClock) -> AsyncIterator[Asking]:
    """On a clock that stands still."""
    await clock.freeze()
    asking = Asking(way, later, receiver, clock)
    yield asking
    await asking.clear()


@pytest.fixture
async def asking(way: Way, client: Client, receiver: Receiver) -> AsyncIterator[Asking]:
    """On the real clock, by which no schedule fires within a test."""
    asking = Asking(way, client, receiver)
    yield asking
    await asking.clear()


def hold(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Assert that these are among the fields."""
    assert {name: fields.get(name) for name in expected} == expected


@in_each_way
async def test_settings_of_a_message(timed: Asking, receiver: Receiver) -> None:
    key = timed.name
    headers = [
        ("Upstash-Method", "PATCH"),
        ("Upstash-Retries", "7"),
        ("Upstash-Retry-Delay", "9000"),
        ("Upstash-Timeout", "7s"),
        ("Upstash-Label", "one,two"),
        ("Upstash-Flow-Control-Key", key),
        ("Upstash-Flow-Control-Value", "parallelism=3, rate=50, period=2m"),
        ("Upstash-Forward-X-Key", "v"),
    ]
    message_id = await timed.send("/p", headers, b"body")
    shown = {
        "method": "PATCH",
        "header": {"X-Key": ["v"]},
        "retryDelayExpression": "9000",
        "label": "one",
        "labels": ["one", "two"],
        "flowControlKey": key,
        "parallelism": 3,
        "rate": 50,
        "period": 120,
    }
    message = await timed.client.message(message_id)
    assert message is not None
    hold(message, {**shown, "maxRetries": 7, "body": "body"})
    hold(await timed.entry(message_id), {**shown, "maxRetries": 7, "timeout": 7000})
    if timed.schedule:
        hold(timed.schedule, {**shown, "retries": 7, "timeout": 7, "body": "body"})
    request = (await receiver.wait_for(2 if timed.way in RETRIES else 1, path="/p"))[-1]
    assert (request.header("Upstash-Message-Id"), request.method, request.body) == (message_id, "PATCH", b"body")
    assert request.values("X-Key") == ["v"]
    limits = await timed.client.send("GET", f"/v2/flowControl/{key}")
    assert (limits["parallelismMax"], limits["rateMax"], limits["ratePeriod"]) == (3, 50, 120)


@in_each_way
@pytest.mark.parametrize("kind", ["Callback", "Failure-Callback"])
async def test_settings_of_a_callback(timed: Asking, receiver: Receiver, clock: DevClock, kind: str) -> None:
    receiver.respond(500, path="/source", times=None)
    label = timed.name
    headers = [
        ("Upstash-Retries", "0"),
        ("Upstash-Label", "source"),
        (f"Upstash-{kind}", f"{receiver.url}/callback"),
        (f"Upstash-{kind}-Method", "PUT"),
        (f"Upstash-{kind}-Retries", "7"),
        (f"Upstash-{kind}-Retry-Delay", "9000"),
        (f"Upstash-{kind}-Timeout", "7s"),
        (f"Upstash-{kind}-Delay", "1h"),
        (f"Upstash-{kind}-Label", f"{label},more"),
        (f"Upstash-{kind}-Flow-Control-Key", timed.name),
        (f"Upstash-{kind}-Flow-Control-Value", "parallelism=2"),
        (f"Upstash-{kind}-Forward-X-Key", "v"),
    ]
    source_id = await timed.send("/source", headers)

    async def created() -> dict[str, Any] | None:
        events = (await timed.client.send("GET", f"/v2/events?label={label}&state=CREATED"))["events"]
        return events[0] if events else None

    callback = await eventually(created)
    assert callback is not None
    shown = {
        "url": f"{receiver.url}/callback",
        "method": "PUT",
        "header": {"Content-Type": ["application/json"], "X-Key": ["v"]},
        "maxRetries": 7,
        "retryDelayExpression": "9000",
        "timeout": 7000,
        "nextDeliveryTime": callback["time"] + HOUR_MS,
        "labels": [label, "more"],
        "flowControlKey": timed.name,
        "parallelism": 2,
    }
    hold(callback, shown)
    source = await timed.entry(source_id)
    assert (source["method"], source["maxRetries"], source["labels"]) == ("POST", 0, ["source"])
    assert not source.keys() & {"retryDelayExpression", "flowControlKey", "nextDeliveryTime"}
    assert await clock.advance("59m") < callback["nextDeliveryTime"]
    await timed.client.pass_by(receiver)
    assert not any(request.path == "/callback" for request in receiver.requests)
    await clock.advance("1m")
    [request] = await receiver.wait_for(1, path="/callback")
    assert (request.method, request.header("Upstash-Message-Id")) == ("PUT", callback["messageId"])
    assert request.values("X-Key") == ["v"]
    told = json.loads(request.body)
    assert (told["sourceMessageId"], told["status"], "dlqId" in told) == (source_id, 500, kind != "Callback")


@pytest.mark.parametrize("way", [way for way in Way if way is not Way.SCHEDULE])
@pytest.mark.parametrize("header", ["Upstash-Delay", "Upstash-Not-Before"])
async def test_a_later_time(asking: Asking, receiver: Receiver, header: str) -> None:
    at_s = int(time.time()) + 3600
    message_id = await asking.send("/p", [(header, str(at_s) if header == "Upstash-Not-Before" else "1h")])
    message = await asking.client.message(message_id)
    assert message is not None
    due_ms = at_s * 1000 if header == "Upstash-Not-Before" else message["createdAt"] + HOUR_MS
    assert message["notBefore"] == due_ms
    assert (await asking.client.send("GET", f"/v2/messages/{message_id}/explain"))["reason"] == "delayed"
    await asking.client.pass_by(receiver)
    assert message_id not in [request.header("Upstash-Message-Id") for request in receiver.requests]
    assert (await asking.client.cancel(message_id)).json() == {"cancelled": 1}


@in_each_way
async def test_headers_of_the_request_itself_are_sent_on(timed: Asking, receiver: Receiver) -> None:
    headers = [
        ("Upstash-Header-Forward", "true"),
        ("X-Own", "mine"),
        ("X-Both", "own"),
        ("Upstash-Forward-X-Both", "f"),
    ]
    message_id = await timed.send("/p", headers)
    request = (await receiver.wait_for(2 if timed.way in RETRIES else 1, path="/p"))[-1]
    assert request.header("Upstash-Message-Id") == message_id
    assert (request.values("X-Own"), request.values("X-Both")) == (["mine"], ["f"])
    assert request.values("Authorization") == []
    assert request.values("Upstash-Header-Forward") == []
    message = await timed.client.message(message_id)
    assert message is not None
    assert message["header"] == {"X-Own": ["mine"], "X-Both": ["f"]}


@in_each_way
async def test_a_secret_is_delivered_and_never_shown(timed: Asking, receiver: Receiver) -> None:
    headers = [("Upstash-Redact-Fields", "body,header[x-secret]"), ("Upstash-Forward-X-Secret", SECRET)]
    message_id = await timed.send("/p", headers, SECRET.encode())
    request = (await receiver.wait_for(2 if timed.way in RETRIES else 1, path="/p"))[-1]
    assert (request.header("Upstash-Message-Id"), request.header("X-Secret")) == (message_id, SECRET)
    assert request.body == SECRET.encode()
    hidden = f"REDACTED:{hashlib.sha256(SECRET.encode()).hexdigest()}"
    message = await timed.client.message(message_id)
    for shown in (message, timed.schedule) if timed.schedule else (message,):
        assert shown is not None
        assert (shown["body"], shown["header"]["X-Secret"]) == (hidden, [hidden])
    entry = await timed.entry(message_id)
    assert (base64.b64decode(entry["body"]).decode(), entry["header"]["X-Secret"]) == (hidden, [hidden])


@in_each_creating_way
@pytest.mark.parametrize("by", ["Upstash-Deduplication-Id", "Upstash-Content-Based-Deduplication"])
async def test_a_repeat_within_its_window(timed: Asking, receiver: Receiver, clock: DevClock, by: str) -> None:
    value = timed.name if by == "Upstash-Deduplication-Id" else "true"
    headers = [(by, value), ("Upstash-Deduplication-Window", "1h")]
    id_field = "messageId"
    if timed.way is Way.SCHEDULE:
        id_field = "scheduleId"
        headers += [("Upstash-Cron", "0 0 1 1 *"), ("Upstash-Schedule-Paused", "true")]
    first = await timed.created("/p", headers, b"x")
    assert "deduplicated" not in first
    if value == timed.name:
        record = await timed.client.send("GET", f"/v2/deduplication/{value}")
        assert (record[id_field], record["expiresAt"]) == (first[id_field], await clock.now() + HOUR_MS)
    repeat = {id_field: first[id_field], "deduplicated": True}
    assert await timed.created("/p", headers, b"x") == repeat
    await clock.advance("59m")
    assert await timed.created("/p", headers, b"x") == repeat
    await clock.advance("1m")
    again = await timed.created("/p", headers, b"x")
    assert "deduplicated" not in again
    assert again[id_field] != first[id_field]
    if timed.way is Way.SCHEDULE:
        for schedule in (first, again):
            await timed.client.send("DELETE", f"/v2/schedules/{schedule['scheduleId']}")
    else:
        ids = [request.header("Upstash-Message-Id") for request in await receiver.wait_for(2, path="/p")]
        assert ids == [first["messageId"], again["messageId"]]


@in_each_creating_way
async def test_settings_of_a_schedule(asking: Asking) -> None:
    schedule_id, queue = f"{asking.name}-schedule", f"{asking.name}-queue"
    headers = [
        ("Upstash-Cron", "0 0 1 1 *"),
        ("Upstash-Schedule-Id", schedule_id),
        ("Upstash-Queue-Name", queue),
        ("Upstash-Schedule-Paused", "true"),
    ]
    assert await asking.created("/p", headers) == {"scheduleId": schedule_id}
    shown = await asking.client.send("GET", f"/v2/schedules/{schedule_id}")
    assert (shown["cron"], shown["isPaused"], "nextScheduleTime" in shown) == ("0 0 1 1 *", True, False)
    # An enqueue says which queue it means in its path.
    assert shown["queueName"] == (asking.name if asking.way is Way.ENQUEUE else queue)
    await asking.client.send("PATCH", f"/v2/schedules/{schedule_id}/resume")
    shown = await asking.client.send("GET", f"/v2/schedules/{schedule_id}")
    assert (shown["isPaused"], "nextScheduleTime" in shown) == (False, True)
    await asking.client.send("DELETE", f"/v2/schedules/{schedule_id}")


# What the columns of the conformance page leave out is refused, or has no effect.


@in_each_creating_way
async def test_a_schedule_has_no_single_moment(asking: Asking) -> None:
    schedule_id = f"{asking.name}-schedule"
    headers = [("Upstash-Cron", "0 0 1 1 *"), ("Upstash-Schedule-Id", schedule_id)]
    answer = await asking.ask("/p", [*headers, ("Upstash-Not-Before", str(int(time.time()) + 3600))])
    if asking.way is Way.BATCH:
        assert (answer.status, "Upstash-Not-Before" in answer.json()[0]["error"]) == (200, True)
    else:
        assert (answer.status, "Upstash-Not-Before" in answer.error) == (400, True)
    assert (await asking.client.call("GET", f"/v2/schedules/{schedule_id}")).status == 404


@pytest.mark.parametrize("way", RETRIES)
async def test_a_retry_is_no_schedule_and_no_repeat(asking: Asking, receiver: Receiver) -> None:
    dlq_id = await asking.failed("/p")
    answer = await asking.retry(dlq_id, [("Upstash-Cron", "* * * * *")])
    assert (answer.status, "Upstash-Cron" in answer.error) == (400, True)
    assert (await asking.client.call("GET", f"/v2/dlq/{dlq_id}")).status == 200
    repeated = [("Upstash-Deduplication-Id", asking.name), ("Upstash-Content-Based-Deduplication", "true")]
    await asking.client.publish(f"{receiver.url}/first", headers=repeated)
    assert (await asking.retry(dlq_id, repeated)).status == 201
    await receiver.wait_for(2, path="/p")
