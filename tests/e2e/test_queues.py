"""FIFO queues: order, what holds a slot, parallelism, pause, lag, and what a member may have besides."""

import asyncio
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.gates import PASSES_BY, Gates, arrived_paths
from tests.support.receiver import Receiver

AT_ONCE = ("Upstash-Retry-Delay", "0")


@pytest.fixture
def queue(receiver: Receiver) -> str:
    """A queue that no other test uses."""
    return f"queue-{receiver.port}"


async def shown(client: Client, queue: str) -> dict[str, Any]:
    return await client.send("GET", f"/v2/queues/{queue}")


async def has_lag(client: Client, queue: str, lag: int) -> None:
    async def is_reached() -> bool:
        return (await shown(client, queue))["lag"] == lag

    await eventually(is_reached, what=f"a lag of {lag}")


async def test_members_arrive_one_after_the_other(client: Client, receiver: Receiver, queue: str, gates: Gates) -> None:
    ids = [await client.enqueue(queue, f"{receiver.url}/{number}") for number in range(5)]
    assert (await shown(client, queue)).items() >= {"name": queue, "parallelism": 1, "paused": False, "lag": 5}.items()
    for number in range(5):
        await receiver.wait_for(1, path=f"/{number}")
        await client.pass_by(receiver)
        assert gates.paths == [f"/{earlier}" for earlier in range(number + 1)]
        gates.open(f"/{number}")
    await has_lag(client, queue, 0)
    arrived = [request.header("Upstash-Message-Id") for request in receiver.requests if request.path != PASSES_BY]
    assert arrived == ids


async def test_a_retrying_member_keeps_its_slot_and_a_failed_one_does_not_stop_the_queue(
    client: Client, receiver: Receiver, queue: str
) -> None:
    receiver.respond(500, path="/fails", times=None)
    receiver.respond(500, path="/recovers", times=2)
    first = await client.enqueue(queue, f"{receiver.url}/fails", headers=[("Upstash-Retries", "1"), AT_ONCE])
    await client.enqueue(queue, f"{receiver.url}/recovers", headers=[("Upstash-Retries", "2"), AT_ONCE])
    await client.enqueue(queue, f"{receiver.url}/last")
    await receiver.wait_for(1, path="/last")
    assert arrived_paths(receiver) == ["/fails", "/fails", "/recovers", "/recovers", "/recovers", "/last"]
    letter = await client.dead_letter_of(first)
    assert letter is not None
    assert letter["queueName"] == queue


async def test_a_waiting_retry_keeps_its_slot_until_it_is_cancelled(
    client: Client, receiver: Receiver, queue: str
) -> None:
    receiver.respond(500, path="/fails")
    failing = await client.enqueue(queue, f"{receiver.url}/fails", headers=[("Upstash-Retry-Delay", "3600000")])
    await client.enqueue(queue, f"{receiver.url}/next")

    async def waits_for_its_retry() -> bool:
        return (await client.states(failing))[-1] == "RETRY"

    await eventually(waits_for_its_retry)
    await client.pass_by(receiver)
    assert arrived_paths(receiver) == ["/fails"]
    assert (await client.cancel(failing)).json() == {"cancelled": 1}
    await receiver.wait_for(1, path="/next")


async def test_callbacks_keep_the_slot_with_their_retries(
    client: Client, receiver: Receiver, queue: str, gates: Gates
) -> None:
    receiver.respond(500, path="/fails")
    receiver.respond(500, path="/failure")
    gates.open("/fails", "/next", "/failure")
    await client.enqueue(
        queue,
        f"{receiver.url}/fails",
        headers=[
            ("Upstash-Retries", "0"),
            ("Upstash-Callback", f"{receiver.url}/callback"),
            ("Upstash-Failure-Callback", f"{receiver.url}/failure"),
            ("Upstash-Failure-Callback-Retries", "1"),
            ("Upstash-Failure-Callback-Retry-Delay", "0"),
        ],
    )
    await client.enqueue(queue, f"{receiver.url}/next")
    await receiver.wait_for(2, path="/failure")
    await receiver.wait_for(1, path="/callback")
    await client.pass_by(receiver)
    assert "/next" not in gates.paths
    assert (await shown(client, queue))["lag"] == 1, "callbacks are no members"
    gates.open("/callback")
    await receiver.wait_for(1, path="/next")


async def test_parallelism(client: Client, receiver: Receiver, queue: str, gates: Gates) -> None:
    await client.send("POST", "/v2/queues", {"queueName": queue, "parallelism": 2})
    for number in range(6):
        await client.enqueue(queue, f"{receiver.url}/{number}")
    await receiver.wait_for(2)
    await client.pass_by(receiver)
    assert sorted(gates.paths) == ["/0", "/1"]
    gates.open("/1")
    await receiver.wait_for(1, path="/2")
    await client.pass_by(receiver)
    assert sorted(gates.paths) == ["/0", "/1", "/2"]
    await client.send("POST", "/v2/queues", {"queueName": queue, "parallelism": 3})
    await receiver.wait_for(1, path="/3")
    await client.send("POST", "/v2/queues", {"queueName": queue, "parallelism": 1})
    gates.open("/0", "/2")
    await has_lag(client, queue, 3)
    await client.pass_by(receiver)
    assert sorted(gates.paths) == ["/0", "/1", "/2", "/3"], "one that holds a slot finishes, and no other begins"
    gates.open("/3")
    await receiver.wait_for(1, path="/4")
    gates.open("/4", "/5")
    await has_lag(client, queue, 0)


async def test_a_paused_queue_begins_no_attempt(client: Client, receiver: Receiver, queue: str) -> None:
    answered = asyncio.Event()
    receiver.respond(500, path="/0", after=answered)
    first = await client.enqueue(queue, f"{receiver.url}/0", headers=[AT_ONCE])
    await receiver.wait_for(1, path="/0")
    await client.send("POST", f"/v2/queues/{queue}/pause")
    await client.enqueue(queue, f"{receiver.url}/1")
    answered.set()

    async def is_retried() -> bool:
        return (await client.states(first))[-1] == "RETRY"

    await eventually(is_retried)
    await client.pass_by(receiver)
    assert arrived_paths(receiver) == ["/0"]
    assert (await shown(client, queue)).items() >= {"paused": True, "lag": 2}.items()
    assert (await client.send("GET", f"/v2/messages/{first}/explain"))["reason"] == "paused"
    await client.send("POST", f"/v2/queues/{queue}/resume")
    await receiver.wait_for(1, path="/1")
    assert arrived_paths(receiver) == ["/0", "/0", "/1"]


async def test_a_paused_queue_is_created_and_resumed_by_upserts(client: Client, receiver: Receiver, queue: str) -> None:
    await client.send("POST", "/v2/queues", {"queueName": queue, "parallelism": 3, "paused": True})
    created = await shown(client, queue)
    await client.enqueue(queue, f"{receiver.url}/0")
    await client.send("POST", "/v2/queues", {"queueName": queue, "parallelism": 2})
    updated = await shown(client, queue)
    assert (updated["parallelism"], updated["paused"], updated["lag"]) == (2, True, 1)
    assert (updated["createdAt"], updated["updatedAt"] >= created["updatedAt"]) == (created["createdAt"], True)
    await client.send("POST", "/v2/queues", {"queueName": queue, "paused": False})
    assert (await shown(client, queue))["parallelism"] == 2
    await receiver.wait_for(1, path="/0")
    for body, status in (
        ({"queueName": queue, "parallelism": 0}, 400),
        ({"queueName": "a/b"}, 400),
        ({"queueName": queue, "parallelism": 1_000_000_000}, 412),
    ):
        with pytest.raises(AssertionError, match=f"status={status}"):
            await client.send("POST", "/v2/queues", body)
    assert (await shown(client, queue))["parallelism"] == 2


async def test_lag_counts_every_member_that_has_not_ended(
    client: Client, receiver: Receiver, queue: str, gates: Gates
) -> None:
    await client.enqueue(queue, f"{receiver.url}/in-flight")
    await receiver.wait_for(1)
    waiting = await client.enqueue(queue, f"{receiver.url}/waits")
    delayed = await client.enqueue(queue, f"{receiver.url}/delayed", headers=[("Upstash-Delay", "1h")])
    assert (await shown(client, queue))["lag"] == 3
    for message_id, lag in ((waiting, 2), (delayed, 1)):
        await client.cancel(message_id)
        assert (await shown(client, queue))["lag"] == lag
    gates.open("/in-flight")
    await has_lag(client, queue, 0)


async def test_a_deleted_queue_cancels_what_waits(client: Client, receiver: Receiver, queue: str, gates: Gates) -> None:
    in_flight = await client.enqueue(queue, f"{receiver.url}/in-flight")
    await receiver.wait_for(1)
    waiting = [
        await client.enqueue(queue, f"{receiver.url}/waits"),
        await client.enqueue(queue, f"{receiver.url}/delayed", headers=[("Upstash-Delay", "1h")]),
    ]
    await client.send("DELETE", f"/v2/queues/{queue}")
    assert (await client.call("GET", f"/v2/queues/{queue}")).status == 404
    for message_id in waiting:
        assert await client.message(message_id) is None
        assert await client.states(message_id) == ["CREATED", "CANCEL_REQUESTED", "CANCELED"]
    gates.open("/in-flight")

    async def is_delivered() -> bool:
        return await client.states(in_flight) == ["CREATED", "ACTIVE", "DELIVERED"]

    await eventually(is_delivered)
    await client.send("DELETE", f"/v2/queues/{queue}")  # which need not exist
    gates.open("/again")
    await client.enqueue(queue, f"{receiver.url}/again")
    await receiver.wait_for(1, path="/again")
    assert gates.paths == ["/in-flight", "/again"]


async def test_a_repeat_is_not_enqueued(client: Client, receiver: Receiver, queue: str) -> None:
    headers = [("Upstash-Deduplication-Id", f"member-{queue}")]
    message_id = await client.enqueue(queue, f"{receiver.url}/once", headers=headers)
    answer = await client.call("POST", f"/v2/enqueue/{queue}/{receiver.url}/twice", headers)
    assert (answer.status, answer.json()) == (202, {"messageId": message_id, "deduplicated": True})
    await client.enqueue(queue, f"{receiver.url}/last")
    await receiver.wait_for(1, path="/last")
    assert arrived_paths(receiver) == ["/once", "/last"]


async def test_members_with_a_flow_control_key_stand_under_both_limits(
    client: Client, receiver: Receiver, queue: str, gates: Gates
) -> None:
    await client.send("POST", "/v2/queues", {"queueName": queue, "parallelism": 3})
    headers = [("Upstash-Flow-Control-Key", queue), ("Upstash-Flow-Control-Value", "parallelism=2")]
    for number in range(4):
        await client.enqueue(queue, f"{receiver.url}/{number}", headers=headers)
    await receiver.wait_for(2)
    await client.enqueue(queue, f"{receiver.url}/without-key")
    await client.pass_by(receiver)
    assert sorted(gates.paths) == ["/0", "/1"], "the third holds a slot and waits for the key"
    assert (await client.send("GET", f"/v2/flowControl/{queue}"))["waitListSize"] == 1
    gates.open("/0", "/1", "/2", "/3", "/without-key")
    await has_lag(client, queue, 0)
    assert sorted(gates.paths) == ["/0", "/1", "/2", "/3", "/without-key"]


async def test_a_bad_member_changes_nothing(client: Client, receiver: Receiver, queue: str) -> None:
    for target in (
        f"{queue}/",
        f"{queue}/no-group",
        f"{queue}/ftp://x",
        f"bad%20name/{receiver.url}",
        f"/{receiver.url}",
    ):
        answer = await client.call("POST", f"/v2/enqueue/{target}")
        assert answer.status in (400, 404), (target, answer)
        assert answer.error
    assert (await client.call("GET", f"/v2/queues/{queue}")).status == 404


async def test_a_retry_does_not_wait_for_the_callback_of_the_attempt_before(
    client: Client, receiver: Receiver, queue: str, gates: Gates
) -> None:
    receiver.respond(500, path="/fails")
    gates.open("/fails", "/next")
    headers = [AT_ONCE, ("Upstash-Callback", f"{receiver.url}/callback")]
    await client.enqueue(queue, f"{receiver.url}/fails", headers=headers)
    await client.enqueue(queue, f"{receiver.url}/next")
    await receiver.wait_for(2, path="/fails")
    await receiver.wait_for(2, path="/callback")
    await client.pass_by(receiver)
    assert "/next" not in gates.paths
    gates.open("/callback")
    await receiver.wait_for(1, path="/next")


async def test_a_member_that_is_cancelled_in_flight_frees_its_slot_when_it_fails(
    client: Client, receiver: Receiver, queue: str
) -> None:
    answered = asyncio.Event()
    receiver.respond(500, path="/fails", after=answered)
    message_id = await client.enqueue(queue, f"{receiver.url}/fails", headers=[AT_ONCE])
    await client.enqueue(queue, f"{receiver.url}/next")
    await receiver.wait_for(1, path="/fails")
    assert (await client.cancel(message_id)).json() == {"cancelled": 1}
    await client.pass_by(receiver)
    assert arrived_paths(receiver) == ["/fails"]
    answered.set()
    await receiver.wait_for(1, path="/next")
    assert arrived_paths(receiver) == ["/fails", "/next"]
    assert await client.states(message_id) == ["CREATED", "ACTIVE", "CANCEL_REQUESTED", "ERROR", "CANCELED"]


async def test_a_dead_letter_goes_back_into_its_queue(client: Client, receiver: Receiver, queue: str) -> None:
    receiver.respond(500, path="/fails")
    message_id = await client.enqueue(queue, f"{receiver.url}/fails", headers=[("Upstash-Retries", "0")])
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    await client.send("POST", "/v2/queues", {"queueName": queue, "paused": True})
    await client.enqueue(queue, f"{receiver.url}/before")
    await client.send("POST", f"/v2/dlq/retry/{letter['dlqId']}")
    await client.enqueue(queue, f"{receiver.url}/after")
    await client.send("POST", f"/v2/queues/{queue}/resume")
    await receiver.wait_for(1, path="/after")
    assert arrived_paths(receiver) == ["/fails", "/before", "/fails", "/after"]
