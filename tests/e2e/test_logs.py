"""The log tells each life in order, and every filter finds what it names."""

import asyncio
import time
from typing import Any

import pytest
from qstash import AsyncQStash
from qstash.log import Log, LogState

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.receiver import Receiver

CREATED, ACTIVE, ERROR, RETRY = LogState.CREATED, LogState.ACTIVE, LogState.ERROR, LogState.RETRY
DELIVERED, FAILED = LogState.DELIVERED, LogState.FAILED
CANCEL_REQUESTED, CANCELED = LogState.CANCEL_REQUESTED, LogState.CANCELED


async def life(sdk: AsyncQStash, message_id: str, end: LogState) -> list[Log]:
    """The entries of a message that has come to this end, oldest first."""

    async def told() -> list[Log]:
        logs = (await sdk.log.list(filter={"message_id": message_id})).logs
        return logs[::-1] if logs and logs[0].state is end else []

    return await eventually(told)


async def published(sdk: AsyncQStash, url: str, **options: Any) -> str:
    result = await sdk.message.publish(url=url, **options)
    assert not isinstance(result, list)
    return result.message_id


@pytest.mark.parametrize(
    ("failures", "retries", "states"),
    [
        (0, 3, [CREATED, ACTIVE, DELIVERED]),
        (1, 0, [CREATED, ACTIVE, ERROR, FAILED]),
        (1, 1, [CREATED, ACTIVE, ERROR, RETRY, ACTIVE, DELIVERED]),
        (2, 1, [CREATED, ACTIVE, ERROR, RETRY, ACTIVE, ERROR, FAILED]),
    ],
    ids=["success", "failure", "retry", "failure after a retry"],
)
async def test_a_life_is_told_in_order(
    sdk: AsyncQStash, receiver: Receiver, failures: int, retries: int, states: list[LogState]
) -> None:
    for number in range(failures):
        receiver.respond(500 + number, body=b"answer %d" % number)
    message_id = await published(sdk, receiver.url, retries=retries, retry_delay="0", timeout="30s")
    logs = await life(sdk, message_id, states[-1])
    assert [log.state for log in logs] == states
    assert [log.time for log in logs] == sorted(log.time for log in logs)
    assert {log.retry_delay_expression for log in logs} == {"0"}
    assert {log.timeout for log in logs} == {30_000}
    errors = [log for log in logs if log.state is ERROR]
    assert [log.response_status for log in errors] == [500, 501][:failures]
    assert [log.response_body for log in errors] == ["YW5zd2VyIDA=", "YW5zd2VyIDE="][:failures]
    assert all(log.error for log in errors)
    for log in logs:
        assert (log.next_delivery_time is not None) == (log.state is RETRY)


async def test_a_cancelled_life(sdk: AsyncQStash, receiver: Receiver) -> None:
    waiting = await published(sdk, receiver.url, delay="1h")
    await sdk.message.cancel(waiting)
    logs = await life(sdk, waiting, CANCELED)
    assert [log.state for log in logs] == [CREATED, CANCEL_REQUESTED, CANCELED]
    assert logs[0].next_delivery_time is not None
    for status, end in ((500, [ERROR, CANCELED]), (200, [DELIVERED])):
        answered = asyncio.Event()
        receiver.forget()
        receiver.respond(status, after=answered)
        active = await published(sdk, receiver.url)
        await receiver.wait_for(1)
        await sdk.message.cancel(active)
        answered.set()
        logs = await life(sdk, active, end[-1])
        assert [log.state for log in logs] == [CREATED, ACTIVE, CANCEL_REQUESTED, *end]


async def test_four_entries_for_each_of_a_hundred_failures(
    sdk: AsyncQStash, client: Client, receiver: Receiver
) -> None:
    receiver.respond(404, times=None)
    began_ms = int(time.time() * 1000) - 50
    label = f"hundred-{receiver.port}"
    await asyncio.gather(*(published(sdk, receiver.url, retries=0, label=label) for _ in range(100)))

    async def logs() -> list[Log]:
        page = await sdk.log.list(filter={"from_time": began_ms, "label": label})
        assert page.cursor is None
        return page.logs if len(page.logs) >= 400 else []

    assert len(await eventually(logs)) == 400
    # In pages the same, newest first, nothing twice.
    seen: list[tuple[str, str]] = []
    target = base = f"/v2/logs?label={label}&count=90"
    while True:
        page = (await client.call("GET", target)).json()
        assert len(page["logs"]) <= 90
        seen += [(entry["messageId"], entry["state"]) for entry in page["logs"]]
        if "cursor" not in page:
            break
        target = f"{base}&cursor={page['cursor']}"
    assert (len(seen), len(set(seen))) == (400, 400)
    assert (await client.call("DELETE", f"/v2/dlq?label={label}")).json()["deleted"] == 100


async def test_every_filter_finds_what_it_names(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    host = receiver.url.removeprefix("http://")
    first = await published(sdk, f"{receiver.url}/one?q=1", label=f"red-{receiver.port},blue-{receiver.port}")
    second = await published(sdk, f"{receiver.url}/two", label=f"green-{receiver.port}")
    both = [await life(sdk, message_id, DELIVERED) for message_id in (first, second)]
    start_ms, end_ms = both[0][0].time, max(logs[-1].time for logs in both)
    labels = [f"{colour}-{receiver.port}" for colour in ("red", "blue", "green")]
    for query, expected in (
        (f"messageId={first}", {first}),
        (f"messageIds={first}&messageIds={second}&label=ignored", {first, second}),
        (f"url={receiver.url}/one%3Fq=1", {first}),
        (f"url={receiver.url}/one%3Fq=1&url={receiver.url}/two", {first, second}),
        (f"url={receiver.url}/one", set[str]()),
        (f"host={host}", {first, second}),
        (f"host={host}&path=/two", {second}),
        (f"host={host}&path=/one,/two", {first, second}),
        (f"label={labels[1]}", {first}),
        (f"label={labels[0]}&label={labels[2]}", {first, second}),
        (f"label={labels[1]},{labels[2]}", {first, second}),
        (f"label={labels[0]}&path=/two", set[str]()),
        (f"host={host}&callerIp=127.0.0.1", {first, second}),
        (f"host={host}&callerIP=192.0.2.1", set[str]()),
        (f"host={host}&fromDate={start_ms}&toDate={end_ms}", {first, second}),
        (f"host={host}&fromDate=%22{start_ms}%22", {first, second}),
        (f"host={host}&fromDate={end_ms + 1}", set[str]()),
        (f"host={host}&toDate={start_ms - 1}", set[str]()),
        (f"host={host}&topicName=t", set[str]()),
        (f"host={host}&queueName=q", set[str]()),
        (f"host={host}&scheduleId=s", set[str]()),
        (f"host={host}&flowControlKey=k", set[str]()),
        (f"host={host}&api=llm", {first, second}),
    ):
        for path, key in (("/v2/events", "events"), ("/v2/logs", "logs")):
            answer = await client.call("GET", f"{path}?{query}")
            assert answer.status == 200, answer
            assert {entry["messageId"] for entry in answer.json()[key]} == expected, query


async def test_states_and_what_they_stand_for(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    receiver.respond(500)
    message_id = await published(sdk, receiver.url, retries=1, retry_delay="0")
    await life(sdk, message_id, DELIVERED)
    for state, expected in (
        ("CREATED", ["CREATED"]),
        ("DELIVERED", ["DELIVERED"]),
        ("IN_PROGRESS", ["ACTIVE", "RETRY", "ERROR", "ACTIVE"]),
        ("ERROR,RETRY", ["RETRY", "ERROR"]),
        ("CANCELLED", list[str]()),
    ):
        answer = await client.call("GET", f"/v2/events?messageId={message_id}&state={state}")
        assert [entry["state"] for entry in answer.json()["events"]] == expected, state


async def test_labels_are_everywhere(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    receiver.respond(404)
    label = f"everywhere-{receiver.port}"
    message_id = await published(sdk, receiver.url, retries=0, label=f"{label},second")
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    message = await client.message(message_id)
    assert message is not None
    entries = (await client.call("GET", f"/v2/events?label=second&messageId={message_id}")).json()["events"]
    assert len(entries) == 4
    for view in (letter, message, *entries):
        assert (view["label"], view["labels"]) == (label, [label, "second"])


@pytest.mark.parametrize("key", ["events", "logs"])
async def test_pages_in_either_order(sdk: AsyncQStash, client: Client, receiver: Receiver, key: str) -> None:
    label = f"pages-{key}-{receiver.port}"
    ids = [await published(sdk, receiver.url, delay="1h", label=label) for _ in range(5)]
    for order, expected in (("earliestFirst", ids), ("latestFirst", ids[::-1])):
        seen: list[str] = []
        target = base = f"/v2/{key}?label={label}&order={order}&count=2"
        while True:
            page = (await client.call("GET", target)).json()
            assert len(page[key]) <= 2
            seen += [entry["messageId"] for entry in page[key]]
            if "cursor" not in page:
                break
            target = f"{base}&cursor={page['cursor']}"
        assert seen == expected, order
    assert (await client.call("DELETE", f"/v2/messages?label={label}")).json() == {"cancelled": 5}


@pytest.mark.parametrize("key", ["events", "logs"])
async def test_bodies_can_be_trimmed_and_mistakes_are_errors(
    sdk: AsyncQStash, client: Client, receiver: Receiver, key: str
) -> None:
    message_id = await published(sdk, receiver.url, body="a long body")
    for trim, expected in ((4, "YSBsbw=="), (-1, None)):
        answer = await client.call("GET", f"/v2/{key}?messageId={message_id}&state=CREATED&trimBody={trim}")
        assert answer.json()[key][0].get("body") == expected
    for query in (
        "lable=x",
        "groupBy=messageId",
        "state=GONE",
        "count=0",
        "cursor=x",
        "order=up",
        "label=",
        "dlqIds=1",
    ):
        answer = await client.call("GET", f"/v2/{key}?{query}")
        assert answer.status == 400, query
        assert query.partition("=")[0] in answer.error
