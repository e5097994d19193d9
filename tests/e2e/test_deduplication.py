"""Repeats are recognised: over processes, at the same time, by id and by content."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from qstash import AsyncQStash

from tests.e2e.conftest import connected, settings_for
from tests.support.client import Client
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="module")
def two_apis(e2e_redis: RedisServer) -> Iterator[System]:
    """On four partitions, so that a message and its record could be apart."""
    settings = settings_for(e2e_redis.url, key_namespace="dedup", partitions=4)
    with System(settings, apis=2, workers=1) as system:
        yield system


@pytest.mark.parametrize("by", ["id", "content"])
async def test_of_many_at_once_exactly_one_is_stored(two_apis: System, receiver: Receiver, by: str) -> None:
    token = two_apis.settings.token

    async def publish(sdk: AsyncQStash, key: int) -> tuple[str, bool]:
        result = await sdk.message.publish(
            url=f"{receiver.url}/{by}",
            body=f"content {key}",
            deduplication_id=f"{by}-{key}" if by == "id" else None,
            content_based_deduplication=True if by == "content" else None,
        )
        assert not isinstance(result, list)
        return result.message_id, result.deduplicated

    async with connected(two_apis.apis[0].url, token) as one, connected(two_apis.apis[1].url, token) as other:
        results = await asyncio.gather(
            *(publish(sdk, key) for _ in range(10) for key in range(5) for sdk in (one, other))
        )
    ids = {message_id for message_id, _ in results}
    assert len(ids) == 5
    assert sum(not deduplicated for _, deduplicated in results) == 5
    requests = await receiver.wait_for(5)
    assert {request.header("Upstash-Message-Id") for request in requests} == ids
    assert {request.body for request in requests} == {f"content {key}".encode() for key in range(5)}
    client = Client(two_apis.url, two_apis.settings)
    entries = (await client.call("GET", f"/v2/events?state=CREATED&path=/{by}")).json()["events"]
    assert {entry["messageId"] for entry in entries} == ids
    assert len(entries) == 5


async def test_a_repeat_is_answered_202(client: Client, receiver: Receiver) -> None:
    headers = [("Upstash-Deduplication-Id", f"e2e-{receiver.port}-202")]
    first = await client.publish(receiver.url, b"x", headers)
    answer = await client.call("POST", f"/v2/publish/{receiver.url}/elsewhere", headers, b"y")
    assert (answer.status, answer.json()) == (202, {"messageId": first, "deduplicated": True})
    await receiver.wait_for(1)
    answer = await client.call("POST", f"/v2/publish/{receiver.url}", headers, b"x")
    assert (answer.status, answer.json()["messageId"]) == (202, first), "also of what was delivered"
    query = f"upstash-deduplication-id=e2e-{receiver.port}-202"
    assert (await client.call("POST", f"/v2/publish/{receiver.url}?{query}")).status == 202
    assert len(receiver.requests) == 1


async def test_a_record_is_looked_up_and_cleared(client: Client, receiver: Receiver) -> None:
    name = f"e2e-{receiver.port}-cleared"
    headers = [("Upstash-Deduplication-Id", name), ("Upstash-Deduplication-Window", "1h")]
    first = await client.publish(receiver.url, b"x", headers)
    record = (await client.call("GET", f"/v2/deduplication/{name}")).json()
    assert (record["deduplicationId"], record["messageId"]) == (name, first)
    assert abs(record["expiresAt"] - time.time() * 1000 - 3_600_000) < 10_000
    assert (await client.call("DELETE", f"/v2/deduplication/{name}")).status == 200
    for method in ("GET", "DELETE"):
        assert (await client.call(method, f"/v2/deduplication/{name}")).status == 404
    assert await client.publish(receiver.url, b"x", headers) != first
    await receiver.wait_for(2)


async def test_what_belongs_to_the_content(client: Client, receiver: Receiver) -> None:
    headers = [("Upstash-Content-Based-Deduplication", "true"), ("Upstash-Forward-X", "1")]
    first = await client.publish(receiver.url, b"x", headers)
    for target, more, body, status in (
        (receiver.url, [], b"x", 202),
        (receiver.url, [("Content-Type", "text/plain")], b"x", 202),
        (receiver.url, [], b"y", 200),
        (f"{receiver.url}/p", [], b"x", 200),
        (receiver.url, [("Upstash-Forward-Y", "1")], b"x", 200),
        (receiver.url, [("Upstash-Retries", "1")], b"x", 200),
    ):
        answer = await client.call("POST", f"/v2/publish/{target}", [*headers, *more], body)
        assert (answer.status, answer.json()["messageId"] == first) == (status, status == 202), (target, more, body)
    await receiver.wait_for(5)


async def test_the_preset_decides_about_the_content_and_the_window(e2e_redis: RedisServer, receiver: Receiver) -> None:
    with System(settings_for(e2e_redis.url, key_namespace="current", compat="current"), workers=0) as system:
        client = Client(system.url, system.settings)
        headers = [("Upstash-Content-Based-Deduplication", "true"), ("Content-Type", "text/plain")]
        target = f"/v2/publish/{receiver.url}"
        await client.publish(receiver.url, b"x", headers)
        assert (await client.call("POST", target, [*headers, ("Upstash-Retries", "1")], b"x")).status == 202
        changed = [headers[0], ("Content-Type", "text/html")]
        assert (await client.call("POST", target, changed, b"x")).status == 200
        await client.publish(receiver.url, b"x", [("Upstash-Deduplication-Id", "window")])
        record = (await client.call("GET", "/v2/deduplication/window")).json()
        assert abs(record["expiresAt"] - time.time() * 1000 - 600_000) < 10_000
