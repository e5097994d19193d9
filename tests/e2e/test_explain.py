"""Why a message waits, asked in each of the places where it can be."""

import asyncio
from typing import Any

from tests.e2e.conftest import settings_for
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver
from tests.support.redis_server import RedisServer


async def explained(client: Client, message_id: str, reason: str) -> dict[str, Any]:
    """The explanation, once it gives this reason."""

    async def told() -> dict[str, Any] | None:
        answer = await client.call("GET", f"/v2/messages/{message_id}/explain")
        assert answer.status == 200, answer
        fields = answer.json()
        return fields if fields["reason"] == reason else None

    found = await eventually(told)
    assert found is not None
    return found


async def test_a_life_explained(client: Client, receiver: Receiver) -> None:
    delayed = await client.publish(receiver.url, b"", [("Upstash-Delay", "1h")])
    told = await explained(client, delayed, "delayed")
    assert "in 1 h." in told["explanation"] or "in 59 min" in told["explanation"]
    await client.cancel(delayed)
    assert (await client.call("GET", f"/v2/messages/{delayed}/explain")).status == 404

    answered = asyncio.Event()
    receiver.respond(503, after=answered)
    message_id = await client.publish(receiver.url, b"", [("Upstash-Retry-Delay", "1500"), ("Upstash-Retries", "1")])
    await receiver.wait_for(1)
    told = await explained(client, message_id, "in_flight")
    assert told["createdAt"] <= told["activeSince"] <= told["now"]
    assert "Attempt 1 of 2 is under way since" in told["explanation"]
    answered.set()
    told = await explained(client, message_id, "retry")
    assert told["lastAttempt"]["status"] == 503
    assert 0 < told["dueAt"] - told["now"] <= 1500
    told = await explained(client, message_id, "delivered")
    assert told["explanation"].endswith("after 1 failed attempt.")

    receiver.respond(404)
    failed = await client.publish(receiver.url, b"", [("Upstash-Retries", "0")])
    told = await explained(client, failed, "failed")
    assert "is a dead letter" in told["explanation"]
    assert "404" in told["explanation"]


async def test_a_cancellation_that_waits_for_an_answer(client: Client, receiver: Receiver) -> None:
    answered = asyncio.Event()
    receiver.respond(200, after=answered)
    message_id = await client.publish(receiver.url)
    await receiver.wait_for(1)
    assert (await client.cancel(message_id)).json() == {"cancelled": 1}
    told = await explained(client, message_id, "cancel_requested")
    assert told["cancelRequested"] is True
    answered.set()
    await explained(client, message_id, "delivered")


async def test_nobody_there_and_no_room(e2e_redis: RedisServer, receiver: Receiver) -> None:
    settings = settings_for(e2e_redis.url, key_namespace="explain", worker_concurrency=2)
    with System(settings, workers=0) as system:
        client = Client(system.url, settings)
        alone = await client.publish(receiver.url)
        told = await explained(client, alone, "no_worker")
        assert (told["workers"], told["capacity"]) == (0, 0)
        answered = asyncio.Event()
        receiver.respond(200, after=answered, times=None)
        system.add_worker().start()
        await explained(client, alone, "in_flight")
        ids = [await client.publish(receiver.url) for _ in range(5)]
        told = await explained(client, ids[-1], "lane")
        assert told["lane"]["name"] == "h:" + receiver.url.removeprefix("http://")
        assert 1 <= told["lane"]["waiting"] <= 5
        assert f"{told['lane']['waiting']} messages wait there" in told["explanation"]
        answered.set()
        await receiver.wait_for(6)
        for message_id in (alone, *ids):
            await explained(client, message_id, "delivered")


async def test_a_preview_of_retries(client: Client) -> None:
    answer = await client.call(
        "POST", "/v2/preview/retries", body=b'{"expression": "1000 * (1 + retried)", "count": 3}'
    )
    assert [retry["delay"] for retry in answer.json()["retries"]] == [1000, 2000, 3000]
    answer = await client.call("POST", "/v2/preview/retries")
    assert [retry["delay"] for retry in answer.json()["retries"]] == [7_000, 54_000, 403_000]
