"""`GET /v2/messages/{id}/explain`: each place a message can be in, in fields and in a sentence."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from qstash_clone.api.explain import explain
from qstash_clone.domain.message import Message, SettlementKind, State, StoredMessage
from qstash_clone.ids import MessageId
from qstash_clone.storage.interface import HeldUpBy, Whereabouts
from qstash_clone.storage.store import Store
from tests.api.lives import NOT_FOUND, claims, deliver, fail, publish, settle


async def explained(client: httpx.AsyncClient, message_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v2/messages/{message_id}/explain")
    assert answer.status_code == 200, answer.text
    assert answer.json()["messageId"] == message_id
    return answer.json()


async def test_a_delayed_message_says_until_when(client: httpx.AsyncClient, store: Store) -> None:
    message_id = await publish(client, Upstash_Delay="90s", Upstash_Retries="5")
    told = await explained(client, message_id)
    assert (told["state"], told["reason"], told["attempts"], told["maxRetries"]) == ("DELAYED", "delayed", 0, 5)
    assert told["dueAt"] == told["notBefore"] == told["createdAt"] + 90_000
    assert "not before" in told["explanation"]
    assert "in 1 min 30 s" in told["explanation"]
    assert "No worker is alive" in told["explanation"]
    await store.delivery.heartbeat("test", 10)
    assert "No worker" not in (await explained(client, message_id))["explanation"]


async def test_without_a_worker_that_is_the_reason(client: httpx.AsyncClient) -> None:
    told = await explained(client, await publish(client))
    assert (told["state"], told["reason"], told["workers"]) == ("WAITING", "no_worker", 0)
    assert "no worker is alive" in told["explanation"]


async def test_a_message_waits_for_its_lane(client: httpx.AsyncClient, store: Store) -> None:
    await store.delivery.heartbeat("test", 2)
    ids = [await publish(client) for _ in range(6)]
    told = await explained(client, ids[-1])
    assert (told["state"], told["reason"], told["isAdmitted"]) == ("WAITING", "lane", False)
    assert told["lane"]["name"] == "h:example.com"
    assert told["lane"]["waiting"] + told["lane"]["admitted"] == 6
    assert (told["workers"], told["capacity"]) == (1, 2)
    assert "place of its lane h:example.com" in told["explanation"]
    assert f"{told['lane']['waiting']} messages wait there" in told["explanation"]
    first = await explained(client, ids[0])
    assert (first["reason"], first["isAdmitted"]) == ("ready", True)
    assert "about to be taken" in first["explanation"]


async def enqueue(client: httpx.AsyncClient, **headers: str) -> str:
    options = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.post("/v2/enqueue/orders/https://example.com", headers=options)
    assert answer.status_code == 200, answer.text
    return answer.json()["messageId"]


async def publish_limited(client: httpx.AsyncClient, limits: str, delay: str = "0s") -> str:
    return await publish(
        client, Upstash_Flow_Control_Key="tenant", Upstash_Flow_Control_Value=limits, Upstash_Delay=delay
    )


async def test_a_member_waits_for_those_before_it(client: httpx.AsyncClient, store: Store) -> None:
    await store.delivery.heartbeat("test", 10)
    first, second = await enqueue(client), await enqueue(client)
    assert (await explained(client, first))["reason"] == "ready"
    told = await explained(client, second)
    assert (told["state"], told["reason"], told["lane"]["name"]) == ("WAITING", "queue", "q:orders")
    assert "queue orders" in told["explanation"]
    assert "1 wait for their turn" in told["explanation"]
    assert (await client.post("/v2/queues/orders/pause")).status_code == 200
    told = await explained(client, second)
    assert told["reason"] == "paused"
    assert told["explanation"].endswith("because the queue orders is paused.")


async def test_a_message_waits_for_its_key(client: httpx.AsyncClient, store: Store) -> None:
    await store.delivery.heartbeat("test", 10)
    first = await publish_limited(client, "parallelism=1")
    second = await publish_limited(client, "parallelism=1")
    assert (await explained(client, first))["reason"] == "ready"
    told = await explained(client, second)
    assert (told["state"], told["reason"]) == ("WAITING", "parallelism")
    assert told["lane"] == {"name": "f:tenant", "waiting": 1, "admitted": 1, "isParked": False}
    assert "1 calls with the flow-control key tenant are under way" in told["explanation"]
    await publish_limited(client, "rate=1, period=1h", delay="1h")
    told = await explained(client, second)
    assert told["reason"] == "rate"
    assert "which ends at" not in told["explanation"], "no window is open before the first call"
    await claims(store)
    assert "in this period, which ends at" in (await explained(client, second))["explanation"]
    assert (await client.post("/v2/flowControl/tenant/pause")).status_code == 200
    told = await explained(client, second)
    assert told["reason"] == "paused"
    assert told["explanation"].endswith("because the flow-control key tenant is paused.")


async def test_of_a_queue_and_a_key_the_one_is_named_that_holds_it_up(client: httpx.AsyncClient, store: Store) -> None:
    await store.delivery.heartbeat("test", 10)
    other = await publish_limited(client, "parallelism=1")
    first, second = [
        await enqueue(client, Upstash_Flow_Control_Key="tenant", Upstash_Flow_Control_Value="parallelism=1")
        for _ in range(2)
    ]
    told = await explained(client, first)
    assert (told["reason"], told["lane"]["name"], told["lane"]["waiting"]) == ("parallelism", "f:tenant", 1)
    told = await explained(client, second)
    assert (told["reason"], told["lane"]["name"], told["lane"]["waiting"]) == ("queue", "q:orders", 1)
    await deliver(store)
    assert (await explained(client, other))["state"] == "DELIVERED"
    told = await explained(client, first)
    assert (told["reason"], told["lane"]["name"], told["isAdmitted"]) == ("ready", "f:tenant", True)


async def test_an_attempt_under_way_says_since_when(client: httpx.AsyncClient, store: Store) -> None:
    message_id = await publish(client, Upstash_Timeout="30s", Upstash_Retries="1")
    await claims(store)
    told = await explained(client, message_id)
    assert (told["state"], told["reason"], told["cancelRequested"]) == ("ACTIVE", "in_flight", False)
    assert told["createdAt"] <= told["activeSince"] <= told["now"]
    for part in ("Attempt 1 of 2 is under way since 2", "may take 30 s", "after 20 s"):
        assert part in told["explanation"]
    await client.delete(f"/v2/messages/{message_id}")
    told = await explained(client, message_id)
    assert (told["reason"], told["cancelRequested"]) == ("cancel_requested", True)
    assert "cancellation was requested" in told["explanation"]


async def test_between_two_attempts_it_says_why_and_when(client: httpx.AsyncClient, store: Store) -> None:
    message_id = await publish(client)
    [claim] = await claims(store)
    await settle(store, claim, SettlementKind.RETRY, NOT_FOUND, delay_ms=7_000)
    told = await explained(client, message_id)
    assert (told["state"], told["reason"], told["attempts"]) == ("DELAYED", "retry", 1)
    assert told["lastAttempt"] == {"status": 404, "error": "destination answered 404", "duration": 12}
    assert "Attempt 1 of 4 failed (destination answered 404)" in told["explanation"]
    assert 0 < told["dueAt"] - told["now"] <= 7_000


async def test_a_due_timer_is_about_to_be_taken(
    client: httpx.AsyncClient, store: Store, move_clock: Callable[[int], Awaitable[None]]
) -> None:
    message_id = await publish(client, Upstash_Delay="10s")
    await move_clock(11_000)
    assert (await explained(client, message_id))["reason"] == "no_worker"
    await store.delivery.heartbeat("test", 2)
    assert (await explained(client, message_id))["reason"] == "ready"


async def test_what_ended_says_how(client: httpx.AsyncClient, store: Store) -> None:
    delivered = await publish(client)
    await deliver(store)
    told = await explained(client, delivered)
    assert (told["state"], told["reason"]) == ("DELIVERED", "delivered")
    assert told["endedAt"] >= told["createdAt"]
    assert "dueAt" not in told
    assert "It was delivered at 2" in told["explanation"]

    failed = await publish(client)
    await fail(store)
    told = await explained(client, failed)
    assert (told["state"], told["reason"]) == ("FAILED", "failed")
    assert told["explanation"].endswith("is a dead letter: destination answered 404.")

    cancelled = await publish(client, Upstash_Delay="1h")
    await client.delete(f"/v2/messages/{cancelled}")
    assert (await client.get(f"/v2/messages/{cancelled}/explain")).status_code == 404


async def test_unknown_messages_and_other_methods(client: httpx.AsyncClient) -> None:
    for message_id in ("msg_00000000000000000000", "nonsense", "%2e%2e"):
        answer = await client.get(f"/v2/messages/{message_id}/explain")
        assert (answer.status_code, "not found" in answer.json()["error"]) == (404, True)
    assert (await client.post("/v2/messages/msg_1/explain")).status_code == 405


def where(state: State, **changes: Any) -> Whereabouts:
    """A message that waits behind others, described by hand."""
    message: dict[str, Any] = {
        "id": MessageId(bytes(12)), "message": Message(url="https://e.com"), "body": b"", "lane": "h:e.com",
        "state": state, "cancel_requested": False, "generation": 0, "claims": 0, "retried": 0, "created_ms": 0,
        "not_before_ms": 0, "due_ms": 0, "last_attempt": None,
    }  # fmt: skip
    around: dict[str, Any] = {
        "now_ms": 1000, "is_admitted": False, "lane": "h:e.com", "held_up_by": HeldUpBy.NOTHING,
        "held_until_ms": None, "lane_waiting": 5, "lane_admitted": 2, "is_lane_parked": False,
        "free_places": 3, "workers": 1, "capacity": 4,
    }  # fmt: skip
    for name, value in changes.items():
        (message if name in message else around)[name] = value
    return Whereabouts(stored=StoredMessage(**message), **around)


def sentence(place: Whereabouts, since_ms: int | None = None) -> str:
    return explain(place, active_since_ms=since_ms, lease_ms=20_000)["explanation"]


def test_a_lane_tells_what_it_waits_for() -> None:
    assert "as many as it may have" in sentence(where(State.QUEUED, is_lane_parked=True))
    assert "all 4 places of the workers are taken" in sentence(where(State.QUEUED, free_places=0))
    assert "its turn is next" in sentence(where(State.QUEUED))


def test_what_is_not_known_is_left_out() -> None:
    assert "under way and may take" in sentence(where(State.ACTIVE))
    assert "again without reporting a result" in sentence(where(State.FAILED))
    assert sentence(where(State.CANCELED)) == "It was cancelled at 1970-01-01T00:00:00.000Z."
    assert "after 1 failed attempt." in sentence(where(State.DELIVERED, retried=2))
    assert "after 2 failed attempts." in sentence(where(State.DELIVERED, retried=3))
    assert sentence(where(State.DELIVERED, retried=1)) == "It was delivered at 1970-01-01T00:00:00.000Z."


def test_spans_are_short() -> None:
    spans = {250: "250 ms", 1000: "1 s", 61_000: "1 min 1 s", 3_600_000: "1 h", 90_061_000: "1 d 1 h"}
    for ms, text in spans.items():
        assert f", in {text}." in sentence(where(State.DELAYED, due_ms=1000 + ms))
