"""Cancelling many messages: those named, those that match, or all; wherever they are."""

import asyncio
import json

import pytest
from qstash import AsyncQStash
from qstash.errors import QStashError

from tests.e2e.conftest import connected, settings_for
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer


async def publish(sdk: AsyncQStash, url: str, count: int, label: str, delay: str | None = "1h") -> list[str]:
    results = await asyncio.gather(
        *(sdk.message.publish(url=url, delay=delay, label=label, retry_delay="3600000") for _ in range(count))
    )
    return [result.message_id for result in results if not isinstance(result, list)]


async def test_active_and_waiting_ones_by_their_ids(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    answered = asyncio.Event()
    receiver.respond(404, path="/active", after=answered)
    receiver.respond(404, path="/retrying")
    label = f"by-id-{receiver.port}"
    [active] = await publish(sdk, f"{receiver.url}/active", 1, label, None)
    [retrying] = await publish(sdk, f"{receiver.url}/retrying", 1, label, None)
    delayed, kept = await publish(sdk, receiver.url, 2, label)
    await receiver.wait_for(2)

    async def is_retrying() -> bool:
        return (await client.call("GET", f"/v2/messages/{retrying}/explain")).json()["reason"] == "retry"

    await eventually(is_retrying)
    ids = [active, retrying, delayed, "msg_00000000000000000000"]
    assert await sdk.message.cancel_many(ids) == 3
    assert await sdk.message.cancel_many(ids) == 0, "asked for already"
    answered.set()

    async def left() -> bool:
        pending = (await client.call("GET", f"/v2/messages?label={label}")).json()["messages"]
        return [message["messageId"] for message in pending] == [kept]

    await eventually(left)
    with pytest.raises(QStashError, match="not found"):
        await sdk.message.get(delayed)
    assert await sdk.message.cancel_many([kept]) == 1
    assert len(receiver.requests) == 2


async def test_every_filter_selects(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    host = receiver.url.removeprefix("http://")
    label = f"filters-{receiver.port}"
    cases: list[tuple[str, dict[str, object] | None, int]] = [
        (f"label={label}-a", None, 2),
        (f"label={label}-a,{label}-b", None, 3),
        (f"host={host}", None, 3),
        (f"host={host}&path=/b", None, 1),
        (f"url={receiver.url}/a%3Fx", None, 2),
        (f"host={host}&count=1", None, 1),
        (f"host={host}&callerIp=127.0.0.1", None, 3),
        (f"host={host}&callerIp=192.0.2.1", None, 0),
        (f"host={host}&fromDate=1", None, 3),
        (f"host={host}&toDate=1", None, 0),
        (f"host={host}&topicName=t", None, 0),
        (f"host={host}&queueName=q", None, 0),
        (f"host={host}&scheduleId=s", None, 0),
        (f"host={host}&flowControlKey=k", None, 0),
        ("", {"label": [f"{label}-a", f"{label}-b"]}, 3),
        ("", {"host": host, "path": "/b"}, 1),
        ("", {"messageIds": [], "host": host}, 0),
        (f"host={host}", {"host": "elsewhere.example"}, 3),
    ]
    for query, body, expected in cases:
        await publish(sdk, f"{receiver.url}/a?x", 2, f"{label}-a")
        await publish(sdk, f"{receiver.url}/b", 1, f"{label}-b")
        content = b"" if body is None else json.dumps(body).encode()
        answer = await client.call("DELETE", f"/v2/messages?{query}" if query else "/v2/messages", body=content)
        assert (answer.status, answer.json()) == (200, {"cancelled": expected}), (query, body)
        rest = (await client.call("DELETE", f"/v2/messages?host={host}")).json()["cancelled"]
        assert rest == 3 - expected, (query, body)


async def test_a_mistake_cancels_nothing(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    label = f"mistakes-{receiver.port}"
    await publish(sdk, receiver.url, 2, label)
    for target, body in (
        ("/v2/messages/", b""),
        ("/v2/messages?lable=x", b""),
        ("/v2/messages?label=", b""),
        ("/v2/messages?messageIds=", b""),
        ("/v2/messages?count=0", b""),
        ("/v2/messages", b"[]"),
        ("/v2/messages", b'"all"'),
        ("/v2/messages", b'{"messageIDs": ["x"]}'),
        ("/v2/messages", b"{"),
    ):
        answer = await client.call("DELETE", target, [("Content-Type", "application/json")], body)
        assert answer.status == 400, (target, body)
        assert answer.error
    assert (await client.call("DELETE", f"/v2/messages?label={label}")).json() == {"cancelled": 2}


async def test_all(e2e_redis: RedisServer, receiver: Receiver) -> None:
    answered = asyncio.Event()
    receiver.respond(200, path="/active", after=answered)
    with System(settings_for(e2e_redis.url, key_namespace="all", partitions=3), workers=1) as system:
        async with connected(system.url, system.settings.token) as sdk:
            await publish(sdk, f"{receiver.url}/active", 1, "all", None)
            await receiver.wait_for(1)
            await publish(sdk, receiver.url, 30, "all")
            assert await sdk.message.cancel_all() == 31
            assert await sdk.message.cancel_all() == 0
            # As the Go client does it: no body, but a content type.
            await publish(sdk, receiver.url, 3, "all")
            client = Client(system.url, system.settings)
            answer = await client.call("DELETE", "/v2/messages", [("Content-Type", "application/json")])
            assert answer.json() == {"cancelled": 3}
            answered.set()
