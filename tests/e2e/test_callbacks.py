"""Callbacks and failure callbacks: what they say, how they are configured, and that they end with themselves."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from qstash import AsyncQStash
from qstash.log import Log, LogState

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.receiver import ReceivedRequest, Receiver

Signed = Callable[[ReceivedRequest], dict[str, object]]


def decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


async def ended(sdk: AsyncQStash, message_id: str, state: LogState = LogState.DELIVERED) -> Log:
    """The entry that ends a message's log."""

    async def entry() -> Log | None:
        logs = (await sdk.log.list(filter={"message_id": message_id, "state": state})).logs
        return logs[0] if logs else None

    found = await eventually(entry)
    assert found is not None
    return found


async def published(sdk: AsyncQStash, url: str, **options: Any) -> str:
    result = await sdk.message.publish(url=url, **options)
    assert not isinstance(result, list)
    return result.message_id


async def test_a_callback_reports_the_answer(sdk: AsyncQStash, receiver: Receiver, signed: Signed) -> None:
    receiver.respond(201, path="/source", headers=(("X-Answer", "1"), ("x-answer", "2")), body=b"\x00answer")
    source = await published(
        sdk,
        f"{receiver.url}/source?q=1",
        body=b"\xffsource body",
        content_type="application/x-anything",
        method="PUT",
        headers={"X-Source": "s"},
        retries=2,
        callback=f"{receiver.url}/callback?for=this",
        callback_headers={"Forward-X-Mine": "mine"},
    )
    (request,) = await receiver.wait_for(1, path="/callback")
    assert signed(request)["sub"] == f"{receiver.url}/callback?for=this"
    assert request.method == "POST"
    assert request.values("Content-Type") == ["application/json"]
    assert request.values("X-Mine") == ["mine"]
    assert request.values("X-Source") == []
    assert request.values("Upstash-Retried") == ["0"]
    assert request.values("Upstash-Caller-Ip") == ["127.0.0.1"]
    callback_id = request.header("Upstash-Message-Id")
    assert callback_id not in (None, source)

    body = json.loads(request.body)
    created = await ended(sdk, source, LogState.CREATED)
    assert body.pop("header")["X-Answer"] == ["1", "2"]
    assert {body[name].isdigit() for name in ("notBefore", "createdAt")} == {True}
    assert abs(int(body["createdAt"]) - created.time) < 2000
    assert body.pop("notBefore") == body.pop("createdAt")
    assert (decoded(body.pop("body")), decoded(body.pop("sourceBody"))) == (b"\x00answer", b"\xffsource body")
    assert body == {
        "status": 201,
        "retried": 0,
        "maxRetries": 2,
        "sourceMessageId": source,
        "url": f"{receiver.url}/source?q=1",
        "method": "PUT",
        "sourceHeader": {"Content-Type": ["application/x-anything"], "X-Source": ["s"]},
        "callerIP": "127.0.0.1",
    }
    message = await sdk.message.get(source)
    assert message.callback == f"{receiver.url}/callback?for=this"
    assert message.callback_headers == {"X-Mine": ["mine"]}


async def test_every_attempt_is_reported(sdk: AsyncQStash, receiver: Receiver) -> None:
    receiver.respond(500, path="/source", body=b"not yet")
    await published(
        sdk,
        f"{receiver.url}/source",
        retries=1,
        retry_delay="0",
        callback=f"{receiver.url}/callback",
        failure_callback=f"{receiver.url}/failure",
    )
    requests = await receiver.wait_for(2, path="/callback")
    told = sorted((json.loads(request.body) for request in requests), key=lambda body: body["retried"])
    assert [(body["retried"], body["status"], decoded(body["body"])) for body in told] == [
        (0, 500, b"not yet"),
        (1, 200, b""),
    ]
    for request in requests:
        await ended(sdk, str(request.header("Upstash-Message-Id")))
    assert not any(request.path == "/failure" for request in receiver.requests)


async def test_the_last_failure_is_reported_twice_and_names_its_dead_letter(
    sdk: AsyncQStash, receiver: Receiver, signed: Signed
) -> None:
    receiver.respond(418, path="/source", body=b"teapot")
    source = await published(
        sdk,
        f"{receiver.url}/source",
        body="payload",
        retries=0,
        callback=f"{receiver.url}/callback",
        failure_callback=f"{receiver.url}/failure",
        failure_callback_headers={"Forward-X-Why": "failed"},
    )
    (failure,) = await receiver.wait_for(1, path="/failure")
    (callback,) = await receiver.wait_for(1, path="/callback")
    signed(failure)
    signed(callback)
    assert failure.values("X-Why") == ["failed"]
    assert callback.values("X-Why") == []
    body = json.loads(failure.body)
    letter = await sdk.dlq.get(body.pop("dlqId"))
    assert (letter.message_id, letter.response_status, letter.response_body) == (source, 418, "teapot")
    assert (letter.callback, letter.failure_callback) == (f"{receiver.url}/callback", f"{receiver.url}/failure")
    assert letter.failure_callback_headers == {"X-Why": ["failed"]}
    assert body == json.loads(callback.body)
    assert (body["status"], body["retried"], body["maxRetries"]) == (418, 0, 0)


async def test_no_answer_is_status_0(sdk: AsyncQStash, receiver: Receiver) -> None:
    async with Receiver() as gone:
        url = gone.url
    await published(sdk, url, retries=0, failure_callback=f"{receiver.url}/failure")
    (request,) = await receiver.wait_for(1)
    body = json.loads(request.body)
    assert (body["status"], body["header"], body["body"]) == (0, {}, "")


async def test_a_callback_that_fails_is_a_dead_letter_and_nothing_more(sdk: AsyncQStash, receiver: Receiver) -> None:
    receiver.respond(500, path="/callback", times=None)
    receiver.respond(500, path="/failure", times=None)
    receiver.respond(500, path="/source")
    source = await published(
        sdk,
        f"{receiver.url}/source",
        retries=0,
        retry_delay="0",
        label="callback-fails",
        callback=f"{receiver.url}/callback",
        failure_callback=f"{receiver.url}/failure",
        callback_headers={"Retries": "1"},
    )

    async def letters() -> dict[str, str]:
        page = await sdk.dlq.list(filter={"label": "callback-fails"})
        found = {message.url.rpartition("/")[2]: message.message_id for message in page.messages}
        return found if len(found) == 3 else {}

    found = await eventually(letters)
    assert found["source"] == source
    assert sorted(request.path for request in receiver.requests) == ["/callback", "/callback", "/failure", "/source"]
    for message_id in found.values():
        # Each has ended, and so has all that could follow from it: callbacks are stored with the end of an attempt.
        await ended(sdk, message_id, LogState.FAILED)
    assert len((await sdk.log.list(filter={"label": "callback-fails", "state": LogState.CREATED})).logs) == 3


@pytest.mark.parametrize(
    ("suffix", "value", "field", "shown"),
    [
        ("Method", "PATCH", "method", "PATCH"),
        ("Retries", "7", "maxRetries", 7),
        ("Retry-Delay", "9000", "retryDelayExpression", "9000"),
        ("Timeout", "7s", "timeout", 7000),
        ("Label", "of,callback", "labels", ["of", "callback"]),
        ("Forward-X-Key", "v", "header", {"Content-Type": ["application/json"], "X-Key": ["v"]}),
        ("Forward-Content-Type", "application/x-report", "header", {"Content-Type": ["application/x-report"]}),
    ],
)
@pytest.mark.parametrize("kind", ["Callback", "Failure-Callback"])
async def test_each_setting_of_a_callback(
    client: Client, receiver: Receiver, kind: str, suffix: str, value: str, field: str, shown: object
) -> None:
    receiver.respond(500, path="/source")
    await client.publish(
        f"{receiver.url}/source",
        b"",
        [
            ("Upstash-Retries", "0"),
            ("Upstash-Label", "source"),
            (f"Upstash-{kind}", f"{receiver.url}/callback"),
            (f"Upstash-{kind}-{suffix}", value),
        ],
    )
    (request,) = await receiver.wait_for(1, path="/callback")
    answer = await client.call("GET", f"/v2/events?messageId={request.header('Upstash-Message-Id')}&state=CREATED")
    [entry] = answer.json()["events"]
    assert entry[field] == shown
    if field != "maxRetries":
        assert entry["maxRetries"] == 0, "those of the source"
    if field != "labels":
        assert entry["labels"] == ["source"], "those of the source"
    assert request.method == (value if suffix == "Method" else "POST")


async def test_a_callback_may_be_delayed(client: Client, receiver: Receiver) -> None:
    headers = [("Upstash-Callback", f"{receiver.url}/callback"), ("Upstash-Callback-Delay", "1h")]
    headers.append(("Upstash-Label", "delayed-callback"))
    await client.publish(f"{receiver.url}/source", b"", headers)

    async def waiting() -> dict[str, Any] | None:
        answer = await client.call("GET", "/v2/messages?label=delayed-callback&path=/callback")
        return next(iter(answer.json()["messages"]), None)

    message = await eventually(waiting)
    assert message is not None
    assert message["notBefore"] - message["createdAt"] == 3_600_000
    assert (await client.cancel(message["messageId"])).json() == {"cancelled": 1}


async def test_a_cancelled_message_reports_nothing(sdk: AsyncQStash, receiver: Receiver) -> None:
    answered = asyncio.Event()
    receiver.respond(500, path="/source", after=answered)
    source = await published(
        sdk,
        f"{receiver.url}/source",
        label="cancelled-source",
        callback=f"{receiver.url}/callback",
        failure_callback=f"{receiver.url}/failure",
    )
    await receiver.wait_for(1)
    await sdk.message.cancel(source)
    answered.set()
    await ended(sdk, source, LogState.CANCELED)
    logs = (await sdk.log.list(filter={"label": "cancelled-source", "state": LogState.CREATED})).logs
    assert [log.message_id for log in logs] == [source]
    assert len(receiver.requests) == 1
