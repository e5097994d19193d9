"""Each filter of each operation that takes some: with the value of a message it selects that one, else none."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.receiver import Receiver

CALLER = "127.0.0.1"
FAR_FUTURE_MS = 32_000_000_000_000


@pytest.fixture
async def traits(client: Client, receiver: Receiver) -> AsyncIterator[dict[str, Any]]:
    """What a message to a URL group, in a queue and under a key, can be found by."""
    name = f"traits-{receiver.port}"
    await client.send("POST", f"/v2/topics/{name}/endpoints", {"endpoints": [{"url": f"{receiver.url}/found"}]})
    yield {
        "url": f"{receiver.url}/found",
        "label": name,
        "callerIp": CALLER,
        "callerIP": CALLER,
        "topicName": name,
        "queueName": name,
        "flowControlKey": name,
        "fromDate": 0,
        "toDate": FAR_FUTURE_MS,
    }
    await client.send("DELETE", f"/v2/topics/{name}")
    await client.send("DELETE", f"/v2/queues/{name}")


async def enqueued(client: Client, name: str, *headers: tuple[str, str]) -> str:
    """The id of a message that has all the traits."""
    control = [("Upstash-Flow-Control-Key", name), ("Upstash-Flow-Control-Value", "parallelism=1")]
    answer = await client.call(
        "POST", f"/v2/enqueue/{name}/{name}", [("Upstash-Label", name), *control, *headers], b"payload"
    )
    assert answer.status == 200, answer
    return answer.json()[0]["messageId"]


def missing(name: str) -> object:
    """A value of the filter that no message has."""
    return {"fromDate": FAR_FUTURE_MS, "toDate": 0, "responseStatus": 999}.get(name, "none.example")


async def ask(client: Client, method: str, path: str, filters: dict[str, Any], *, in_body: bool) -> dict[str, Any]:
    """The answer to filters in the query or in a body."""
    if in_body:
        return await client.send(method, path, filters)
    answer = await client.call(method, f"{path}?{urlencode(filters)}")
    assert answer.status in (200, 201), (filters, answer)
    return json.loads(answer.body)


@pytest.mark.parametrize(
    ("path", "key"), [("/v2/events", "events"), ("/v2/logs", "logs"), ("/v2/messages", "messages")]
)
async def test_lists(client: Client, receiver: Receiver, traits: dict[str, Any], path: str, key: str) -> None:
    name = traits["label"]
    message_id = await enqueued(client, name, ("Upstash-Delay", "1h"))
    only = {"label": name} | ({"state": "CREATED"} if key != "messages" else {})
    host, url_path = receiver.url.removeprefix("http://"), "/found"
    for filter_, value in (traits | {"host": host, "path": url_path}).items():
        page = await ask(client, "GET", path, {**only, filter_: value, "count": 5, "api": "x"}, in_body=False)
        assert [entry["messageId"] for entry in page[key]] == [message_id], filter_
        if filter_ != "label":
            page = await ask(client, "GET", path, {**only, filter_: missing(filter_)}, in_body=False)
            assert page[key] == [], filter_
    assert (await ask(client, "GET", path, {**only, "scheduleId": "none"}, in_body=False))[key] == []
    assert (await ask(client, "DELETE", "/v2/messages", {"label": name}, in_body=False)) == {"cancelled": 1}


@pytest.mark.parametrize("in_body", [False, True], ids=["query", "body"])
async def test_cancelling(client: Client, receiver: Receiver, traits: dict[str, Any], in_body: bool) -> None:
    name = traits["label"]
    wanted = traits | {"host": receiver.url.removeprefix("http://"), "path": "/found"}
    for filter_, value in wanted.items():
        await enqueued(client, name, ("Upstash-Delay", "1h"))
        for given, cancelled in ((missing(filter_), 0), (value, 1)):
            if filter_ != "label" or cancelled:
                filters = {"label": name, filter_: given, "count": 5, "api": "x", "cursor": "x"}
                assert await ask(client, "DELETE", "/v2/messages", filters, in_body=in_body) == {"cancelled": cancelled}
    nothing = {"label": name, "scheduleId": "none"}
    assert await ask(client, "DELETE", "/v2/messages", nothing, in_body=in_body) == {"cancelled": 0}


@pytest.mark.parametrize("in_body", [False, True], ids=["query", "body"])
async def test_dead_letters(client: Client, receiver: Receiver, traits: dict[str, Any], in_body: bool) -> None:
    name = traits["label"]
    receiver.respond(404, times=None)

    async def failed() -> str:
        message_id = await enqueued(client, name, ("Upstash-Retries", "0"))
        await eventually(lambda: client.dead_letter_of(message_id))
        return message_id

    nobody: list[tuple[str, str, dict[str, Any]]] = [
        ("DELETE", "/v2/dlq", {"deleted": 0}),
        ("POST", "/v2/dlq/retry", {"responses": []}),
    ]
    message_id = await failed()
    for filter_, value in (traits | {"responseStatus": 404, "messageId": message_id}).items():
        page = await ask(client, "GET", "/v2/dlq", {"label": name, filter_: value, "api": "x"}, in_body=False)
        assert [letter["messageId"] for letter in page["messages"]] == [message_id], filter_
        for method, path, none in nobody:
            if filter_ != "label":
                filters = {"label": name, filter_: missing(filter_), "count": 5, "api": "x"}
                assert await ask(client, method, path, filters, in_body=in_body) == none, filter_
    nothing = {"label": name, "scheduleId": "none"}
    assert await ask(client, "DELETE", "/v2/dlq", nothing, in_body=in_body) == {"deleted": 0}
    assert await ask(client, "POST", "/v2/dlq/retry", nothing, in_body=in_body) == {"responses": []}
    assert (await ask(client, "GET", "/v2/dlq", nothing, in_body=False))["messages"] == []

    first = (await ask(client, "GET", "/v2/dlq", {"label": name, "count": 1}, in_body=False))["messages"][0]["dlqId"]
    second = await failed()
    after = {"label": name, "cursor": first}
    [retried] = (await ask(client, "POST", "/v2/dlq/retry", after, in_body=in_body))["responses"]
    assert retried["messageId"] != second
    await eventually(lambda: client.dead_letter_of(retried["messageId"]))
    assert await ask(client, "DELETE", "/v2/dlq", after, in_body=in_body) == {"deleted": 1}
    assert await ask(client, "DELETE", "/v2/dlq", {"label": name}, in_body=in_body) == {"deleted": 1}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", "/v2/messages/"), ("DELETE", "/v2/dlq/"), ("POST", "/v2/dlq/retry/"), ("DELETE", "/v2/queues/"),
        ("DELETE", "/v2/schedules/"), ("POST", "/v2/schedules"), ("DELETE", "/v2/topics/"),
        ("GET", "/v2/flowControl/"), ("POST", "/v2/flowControl//pause"),
        ("GET", "/v2/deduplication/"), ("DELETE", "/v2/deduplication/"),
    ],
)  # fmt: skip
async def test_a_forgotten_id_is_no_filter(client: Client, method: str, target: str) -> None:
    assert (await client.call(method, target)).status == 400
