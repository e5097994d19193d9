"""A secret reaches its destination and shows up nowhere else."""

import base64
import json
from typing import Any, cast

import pytest
from qstash import AsyncQStash
from qstash.message import Redact

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver

SECRET = "s3cret-that-is-delivered-only"


@pytest.mark.parametrize(
    "redact",
    [Redact(body=True), Redact(header=True), Redact(header=["x-secret"]), Redact(body=True, header=["X-Secret"])],
    ids=["body", "headers", "one header", "both"],
)
async def test_a_secret_is_delivered_and_never_shown(
    sdk: AsyncQStash, client: Client, receiver: Receiver, system: System, redact: Redact
) -> None:
    hides_body, hides_header = "body" in redact, "header" in redact
    label = f"redacted-{receiver.port}"
    receiver.respond(500, path="/source", times=2)
    receiver.respond(500, path="/callback")
    result = await sdk.message.publish(
        url=f"{receiver.url}/source",
        body=f"body with {SECRET}" if hides_body else "open",
        headers={"X-Secret": SECRET if hides_header else "open"},
        callback_headers={"Forward-X-Secret": SECRET} if hides_header else {"Retries": "0"},
        retries=1,
        retry_delay="0",
        label=label,
        callback=f"{receiver.url}/callback",
        redact=redact,
    )
    assert not isinstance(result, list)
    first, _ = await receiver.wait_for(2, path="/source")
    assert (SECRET in first.body.decode(), SECRET in str(first.header("X-Secret"))) == (hides_body, hides_header)
    callbacks = await receiver.wait_for(2, path="/callback")
    for callback in callbacks:
        body = json.loads(callback.body)
        assert (SECRET in base64.b64decode(body["sourceBody"]).decode()) == hides_body
        assert (SECRET in str(body["sourceHeader"])) == hides_header

    letter = await eventually(lambda: client.dead_letter_of(result.message_id))
    assert letter is not None
    callback_ids = [str(callback.header("Upstash-Message-Id")) for callback in callbacks]
    targets = [
        f"/v2/messages/{result.message_id}",
        f"/v2/messages/{result.message_id}/explain",
        *(f"/v2/messages/{message_id}" for message_id in callback_ids),
        f"/v2/messages?label={label}",
        f"/v2/dlq/{letter['dlqId']}",
        f"/v2/dlq?label={label}",
        f"/v2/events?label={label}",
        f"/v2/logs?label={label}",
    ]
    for target in targets:
        answer = await client.call("GET", target)
        assert answer.status == 200, target
        text = answer.body.decode()
        assert SECRET not in text, target
        for word in _words(answer.json()):
            assert SECRET.encode() not in _unpacked(word), target
    for process in system.processes:
        assert SECRET not in process.log_text()

    again = await client.call("POST", f"/v2/dlq/retry/{letter['dlqId']}")
    request = (await receiver.wait_for(3, path="/source"))[2]
    assert request.header("Upstash-Message-Id") == again.json()["messageId"]
    assert (request.body, request.header("X-Secret")) == (first.body, first.header("X-Secret"))
    message = await client.message(again.json()["messageId"])
    assert SECRET not in str(message)


def _words(value: Any) -> list[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    return [word for item in cast("list[Any]", value) for word in _words(item)] if isinstance(value, list) else []


def _unpacked(word: str) -> bytes:
    """What a text may hold in base64."""
    try:
        return base64.b64decode(word, validate=True)
    except ValueError:
        return b""
