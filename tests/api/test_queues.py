"""`/v2/queues`: made, changed, shown, paused and deleted; every answer shows what was answered before it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.domain.message import SettlementKind
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.api.lives import claims, deliver, settle

URL = "https://example.com/hook"


async def put(client: httpx.AsyncClient, name: str, **fields: Any) -> None:
    answer = await client.post("/v2/queues", json={"queueName": name, **fields})
    assert (answer.status_code, answer.json()) == (200, {})


async def shown(client: httpx.AsyncClient, name: str = "orders") -> dict[str, Any]:
    answer = await client.get(f"/v2/queues/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def enqueue(client: httpx.AsyncClient, name: str = "orders", **headers: str) -> str:
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    answer = await client.post(f"/v2/enqueue/{name}/{URL}", headers=named)
    assert answer.status_code == 200, answer.text
    return answer.json()["messageId"]


async def test_a_queue_is_made_with_defaults(client: httpx.AsyncClient) -> None:
    await put(client, "orders")
    queue = await shown(client)
    assert queue == {
        "name": "orders",
        "parallelism": 1,
        "createdAt": queue["createdAt"],
        "updatedAt": queue["createdAt"],
        "lag": 0,
        "paused": False,
    }
    assert [type(value) for value in queue.values()] == [str, int, int, int, int, bool]
    assert (await client.get("/v2/queues")).json() == [queue]


async def test_what_an_update_does_not_name_stays(client: httpx.AsyncClient) -> None:
    await put(client, "orders", parallelism=5, paused=True)
    created = (await shown(client))["createdAt"]
    for fields, parallelism, is_paused in (
        ({}, 5, True),
        ({"parallelism": 2}, 2, True),
        ({"paused": False}, 2, False),
        ({"parallelism": None, "paused": None}, 2, False),
        ({"parallelism": 3, "paused": True}, 3, True),
    ):
        await put(client, "orders", **fields)
        queue = await shown(client)
        assert (queue["parallelism"], queue["paused"]) == (parallelism, is_paused), fields
        assert queue["updatedAt"] >= queue["createdAt"] == created


@pytest.mark.parametrize("path", ["/v2/queues", "/v2/queues/", "/V2/Queues"])
async def test_a_collection_in_any_spelling(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).json() == []
    answer = await client.post(path, content=b'{"queueName": "orders"}')
    assert (answer.status_code, answer.json()) == (200, {})
    assert [queue["name"] for queue in (await client.get(path)).json()] == ["orders"]


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"", 400, "queueName: "),
        (b"{}", 400, "queueName: "),
        (b"[]", 400, "the body is not a JSON object"),
        (b'{"queueName": "orders"', 400, "the body is not JSON"),
        (b'{"queueName": "a b"}', 400, "queueName: invalid name"),
        (b'{"queueName": ""}', 400, "queueName: invalid name"),
        (b'{"queueName": "orders", "parallelism": 0}', 400, "parallelism: "),
        (b'{"queueName": "orders", "parallelism": 1.5}', 400, "parallelism: "),
        (b'{"queueName": "orders", "parallelism": "2"}', 400, "parallelism: "),
        (b'{"queueName": "orders", "paused": "true"}', 400, "paused: "),
        (b'{"queueName": "orders", "parallelism": 1001}', 412, "parallelism: "),
    ],
)
async def test_bad_input_makes_no_queue(client: httpx.AsyncClient, content: bytes, status: int, text: str) -> None:
    answer = await client.post("/v2/queues", content=content)
    assert answer.status_code == status
    assert text in answer.json()["error"]
    assert (await client.get("/v2/queues")).json() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/queues/a%20b"),
        ("DELETE", "/v2/queues/a%20b"),
        ("POST", "/v2/queues/a%20b/pause"),
        ("POST", "/v2/queues/a%2Fb/resume"),
        ("GET", "/v2/queues/" + "a" * 257),
    ],
)
async def test_a_bad_name_is_malformed(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("queueName: invalid name")


async def test_unknown_queues(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("POST", "/pause"), ("POST", "/resume")):
        answer = await client.request(method, f"/v2/queues/none{path}")
        assert (answer.status_code, answer.json()) == (404, {"error": 'queue "none" not found'})
    answer = await client.delete("/v2/queues/none")
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await client.get("/v2/queues")).json() == []


async def test_a_forgotten_name_is_not_everything(client: httpx.AsyncClient) -> None:
    await put(client, "orders")
    assert (await client.delete("/v2/queues/")).status_code == 400
    assert (await client.delete("/v2/queues")).status_code == 405
    assert (await shown(client))["name"] == "orders"


async def test_more_queues_than_there_may_be(settings: Settings, store: Store) -> None:
    limited = create_app(replace(settings, max_queues=2), store)
    headers = {"authorization": f"Bearer {settings.token}"}
    transport = httpx.ASGITransport(limited)
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        await put(client, "one")
        await put(client, "two")
        answer = await client.post("/v2/queues", json={"queueName": "three"})
        assert answer.status_code == 412
        assert answer.json() == {"error": 'queueName: "three" would be one queue more than the maximum of 2'}
        await put(client, "two", parallelism=7)
        assert (await shown(client, "two"))["parallelism"] == 7
        assert (await client.get("/v2/queues/three")).status_code == 404
        await client.delete("/v2/queues/one")
        await put(client, "three")


async def test_pause_and_resume(client: httpx.AsyncClient, store: Store) -> None:
    await put(client, "orders")
    created = (await shown(client))["createdAt"]
    for _ in range(2):
        answer = await client.post("/v2/queues/orders/pause")
        assert (answer.status_code, answer.json()) == (200, {})
        assert (await shown(client))["paused"] is True
    message_id = await enqueue(client)
    assert await claims(store) == []
    for _ in range(2):
        answer = await client.post("/v2/queues/orders/resume")
        assert (answer.status_code, answer.json()) == (200, {})
        queue = await shown(client)
        assert (queue["paused"], queue["createdAt"]) == (False, created)
    [claim] = await claims(store)
    assert (await client.get(f"/v2/messages/{message_id}")).json()["url"] == claim.message.url


async def test_the_lag_counts_what_has_not_ended(
    client: httpx.AsyncClient, store: Store, move_clock: Callable[[int], Any]
) -> None:
    await enqueue(client)
    await enqueue(client, Upstash_Delay="1h")
    assert (await shown(client))["lag"] == 2
    [claim] = await claims(store)
    assert (await shown(client))["lag"] == 2
    await settle(store, claim, SettlementKind.DELIVERED)
    assert (await shown(client))["lag"] == 1
    await move_clock(3_600_000)
    await store.delivery.promote(0, 10)
    await deliver(store)
    assert (await shown(client))["lag"] == 0


async def test_a_deleted_queue_cancels_what_waits(client: httpx.AsyncClient, store: Store) -> None:
    in_flight, waiting = await enqueue(client), await enqueue(client)
    [claim] = await claims(store)
    answer = await client.delete("/v2/queues/orders")
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await client.get("/v2/queues/orders")).status_code == 404
    assert (await client.get("/v2/queues")).json() == []
    assert (await client.get(f"/v2/messages/{waiting}")).status_code == 404
    assert (await client.get(f"/v2/messages/{in_flight}")).status_code == 200
    await settle(store, claim, SettlementKind.DELIVERED)
    events = (await client.get(f"/v2/events?messageId={in_flight}")).json()["events"]
    assert [event["state"] for event in events] == ["DELIVERED", "ACTIVE", "CREATED"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v2/queues", "GET, HEAD, POST"),
        ("POST", "/v2/queues/orders", "DELETE, GET, HEAD"),
        ("GET", "/v2/queues/orders/pause", "POST"),
        ("PATCH", "/v2/queues/orders/resume", "POST"),
    ],
)
async def test_wrong_methods(client: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
