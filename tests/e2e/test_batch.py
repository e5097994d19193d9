"""Batches: each item on its own, results in the order of the items, and as many of them as fit one request."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="module")
def bulk(e2e_redis: RedisServer) -> Iterator[System]:
    """A system of its own: thousands of entries in the shared log would slow down whoever filters that."""
    with System(settings_for(e2e_redis.url, key_namespace="bulk"), workers=2) as system:
        yield system


async def batch(client: Client, items: Sequence[object]) -> list[Any]:
    results = await client.send("POST", "/v2/batch", items)
    assert len(results) == len(items)
    return results


async def test_items_are_published_each_with_its_own_settings(client: Client, receiver: Receiver) -> None:
    results = await batch(
        client,
        [
            {
                "destination": f"{receiver.url}/put?a=b",
                "headers": {"Upstash-Method": "PUT", "upstash-forward-x": "1", "Content-Type": "text/plain"},
                "body": "wörld",
            },
            {"destination": f"{receiver.url}/nothing", "headers": None, "body": None, "queue": None},
            {"destination": f"{receiver.url}/object", "body": {"a": [1, "b"]}},
            {"destination": f"{receiver.url}/later", "headers": {"Upstash-Delay": ["1h"]}},
            {"destination": f"{receiver.url}/source", "callback": f"{receiver.url}/callback"},
        ],
    )
    arrived = {request.path: request for request in await receiver.wait_for(5)}
    put, nothing, shown = arrived["/put"], arrived["/nothing"], arrived["/object"]
    assert (put.method, put.target, put.values("X"), put.body) == ("PUT", "/put?a=b", ["1"], "wörld".encode())
    assert put.values("Content-Type") == ["text/plain"]
    assert (nothing.method, nothing.body, nothing.values("Content-Type")) == ("POST", b"", [])
    assert (shown.values("Content-Type"), shown.body) == (["application/json"], b'{"a":[1,"b"]}')
    assert json.loads(arrived["/callback"].body)["sourceMessageId"] == results[4]["messageId"]
    later = await client.message(results[3]["messageId"])
    assert later is not None
    assert later["notBefore"] - later["createdAt"] == 3_600_000
    for path, result in zip(("/put", "/nothing", "/object"), results, strict=False):
        assert result == {
            "messageId": arrived[path].header("Upstash-Message-Id"),
            "url": receiver.url + arrived[path].target,
        }
    await client.cancel(results[3]["messageId"])


async def test_a_bad_item_says_so_in_its_place(client: Client, receiver: Receiver) -> None:
    url = receiver.url
    results = await batch(
        client,
        [
            {"destination": f"{url}/first"},
            {"destination": ""},
            {"destination": "no-such-group"},
            {"destination": "ftp://x/y"},
            {"destination": url, "headers": {"Upstash-Retries": "many"}},
            {"destination": url, "headers": {"Upstash-Forward-X": "a\r\nb"}},
            {"destination": url, "queue": "a queue"},
            {"destination": url, "body": "x" * (1024 * 1024 + 1)},
            "no object",
            {"destination": f"{url}/last"},
        ],
    )
    wrong = (
        "a non-empty destination must be provided",
        "topic no-such-group not found",
        "invalid destination url: endpoint has invalid scheme, add http:// or https://",
        "Upstash-Retries",
        "Upstash-Forward-X",
        "queue",
        "1048576",
        "",
    )
    for result, text in zip(results[1:-1], wrong, strict=True):
        assert list(result) == ["error"], result
        assert text.lower() in result["error"].lower()
    await receiver.wait_for(2)
    ids = {request.path: request.header("Upstash-Message-Id") for request in receiver.requests}
    assert ids == {"/first": results[0]["messageId"], "/last": results[-1]["messageId"]}


async def test_an_item_repeats_an_earlier_one(client: Client, receiver: Receiver) -> None:
    def item(path: str, deduplication_id: str) -> dict[str, object]:
        headers = {"Upstash-Deduplication-Id": f"{deduplication_id}-{receiver.port}"}
        return {"destination": receiver.url + path, "headers": headers}

    results = await batch(client, [item("/1", "a"), item("/2", "b"), item("/3", "a"), item("/4", "a")])
    first, second, *repeats = results
    assert repeats == [{"messageId": first["messageId"], "deduplicated": True}] * 2
    assert "deduplicated" not in first | second
    again = await batch(client, [item("/5", "b"), item("/6", "c")])
    assert again[0] == {"messageId": second["messageId"], "deduplicated": True}
    await receiver.wait_for(3)
    await client.pass_by(receiver)
    assert sorted(request.path for request in receiver.requests) == ["/1", "/2", "/6", "/passes-by"]


async def test_a_queue_gets_its_items_in_their_order(bulk: System, receiver: Receiver) -> None:
    client = Client(bulk.url, bulk.settings)
    queue = f"batch-{receiver.port}"
    items = [{"destination": f"{receiver.url}/{number}", "queue": queue} for number in range(250)]
    ids = [result["messageId"] for result in await batch(client, items)]
    requests = await receiver.wait_for(250)
    assert [request.header("Upstash-Message-Id") for request in requests] == ids


async def test_a_thousand_items(bulk: System, receiver: Receiver) -> None:
    client = Client(bulk.url, bulk.settings)
    items = [{"destination": f"{receiver.url}/{number}", "body": f"body {number}"} for number in range(1000)]
    results = await batch(client, items)
    ids = {result["messageId"]: number for number, result in enumerate(results)}
    assert len(ids) == 1000
    requests = await receiver.wait_for(1000, timeout_s=20)
    assert len(requests) == 1000
    for request in requests:
        number = ids.pop(str(request.header("Upstash-Message-Id")))
        assert (request.path, request.body) == (f"/{number}", f"body {number}".encode())
    assert not ids


async def test_what_is_no_array_of_items_is_refused_as_a_whole(client: Client, receiver: Receiver) -> None:
    for body in (b"", b"{", b"{}", b"null", b'[{"destination": "%s"}' % receiver.url.encode()):
        answer = await client.call("POST", "/v2/batch", body=body)
        assert answer.status == 400, (body, answer)
        assert answer.error
    assert await batch(client, []) == []
    await client.pass_by(receiver)
    assert len(receiver.requests) == 1
