"""Looking at messages and cancelling them, waiting or on their way."""

import asyncio

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver


async def test_a_message_can_be_read_back(client: Client, receiver: Receiver) -> None:
    message_id = await client.publish(
        f"{receiver.url}/p?q=1",
        b'{"a": 1}',
        [
            ("Content-Type", "application/json"),
            ("Upstash-Method", "put"),
            ("Upstash-Forward-test-header", "test-value"),
            ("Upstash-Label", "one, two,,one"),
            ("Upstash-Retries", "5"),
            ("Upstash-Retry-Delay", "1000 * (1 + retried)"),
            ("Upstash-Timeout", "30s"),
            ("Upstash-Delay", "5s"),
        ],
    )
    message = await client.message(message_id)
    assert message is not None
    created_ms = message.pop("createdAt")
    assert isinstance(created_ms, int)
    assert message == {
        "messageId": message_id,
        "url": f"{receiver.url}/p?q=1",
        "method": "PUT",
        "header": {"Content-Type": ["application/json"], "Test-Header": ["test-value"]},
        "body": '{"a": 1}',
        "maxRetries": 5,
        "notBefore": created_ms + 5000,
        "retryDelayExpression": "1000 * (1 + retried)",
        "label": "one",
        "labels": ["one", "two"],
        "callerIP": "127.0.0.1",
        "callerIp": "127.0.0.1",
    }
    assert (await client.cancel(message_id)).json() == {"cancelled": 1}


async def test_a_finished_message_can_be_read_for_a_while(client: Client, receiver: Receiver, system: System) -> None:
    message_id = await client.publish(receiver.url, b"x")
    await eventually(lambda: system.attempts(message_id))
    assert await client.message(message_id) is not None
    assert (await client.cancel(message_id)).status == 404


async def test_a_waiting_message_is_cancelled(client: Client, receiver: Receiver) -> None:
    cancelled = await client.publish(f"{receiver.url}/cancelled", b"x", [("Upstash-Delay", "1s")])
    await client.publish(f"{receiver.url}/later", b"x", [("Upstash-Delay", "1s")])
    assert (await client.cancel(cancelled)).json() == {"cancelled": 1}
    assert await client.message(cancelled) is None
    assert (await client.cancel(cancelled)).status == 404
    await receiver.wait_for(1, path="/later")
    assert [request.target for request in receiver.requests] == ["/later"]


async def test_a_message_waiting_for_its_retry_is_cancelled(client: Client, receiver: Receiver, system: System) -> None:
    receiver.respond(500)
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", "3600000")])
    await eventually(lambda: system.attempts(message_id))
    assert (await client.cancel(message_id)).json() == {"cancelled": 1}
    assert await client.message(message_id) is None


async def test_an_attempt_under_way_is_not_aborted_but_is_the_last(
    client: Client, receiver: Receiver, system: System
) -> None:
    release = asyncio.Event()
    receiver.respond(500, after=release)
    message_id = await client.publish(receiver.url, b"x", [("Upstash-Retry-Delay", "0")])
    await receiver.wait_for(1)
    assert (await client.cancel(message_id)).json() == {"cancelled": 1}
    assert (await client.cancel(message_id)).json() == {"cancelled": 0}
    release.set()
    (attempt,) = await eventually(lambda: system.attempts(message_id))
    assert attempt["decision"] == "canceled"
    assert await client.message(message_id) is None
    assert await client.dead_letter_of(message_id) is None
    assert (await client.cancel(message_id)).status == 404
    assert len(receiver.requests) == 1


async def test_a_success_after_the_cancellation_is_a_delivery(
    client: Client, receiver: Receiver, system: System
) -> None:
    release = asyncio.Event()
    receiver.respond(200, after=release)
    message_id = await client.publish(receiver.url, b"x")
    await receiver.wait_for(1)
    assert (await client.cancel(message_id)).json() == {"cancelled": 1}
    release.set()
    (attempt,) = await eventually(lambda: system.attempts(message_id))
    assert attempt["decision"] == "delivered"


async def test_the_list_is_read_in_pages(client: Client, receiver: Receiver) -> None:
    label = f"pages-{receiver.port}"
    headers = [("Upstash-Delay", "1h"), ("Upstash-Label", label)]
    ids = [await client.publish(receiver.url, headers=headers) for _ in range(5)]
    found: list[str] = []
    target = base = f"/v2/messages?label={label}&count=2"
    while True:
        page = (await client.call("GET", target)).json()
        assert len(page["messages"]) <= 2
        found += [message["messageId"] for message in page["messages"]]
        if "cursor" not in page:
            break
        target = f"{base}&cursor={page['cursor']}"
    assert sorted(found) == sorted(ids)
    assert (await client.call("DELETE", f"/v2/messages?label={label}")).json() == {"cancelled": 5}


async def test_unknown_messages(client: Client) -> None:
    for target in ("msg_00000000000000000000", "msg_x", "x", "msg_%2F..", "msg_" + "z" * 20):
        for method in ("GET", "DELETE"):
            answer = await client.call(method, f"/v2/messages/{target}")
            assert (answer.status, "not found" in answer.error) == (404, True)
