"""`POST /v2/enqueue/<queue>/<destination>`: as a publish, in the line of a queue that it makes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone import observability
from qstash_clone.api.app import create_app
from qstash_clone.domain.message import SettlementKind
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.api.conftest import Events
from tests.api.lives import NOT_FOUND, claims, settle

URL = "https://example.com/hook"


async def enqueue(
    client: httpx.AsyncClient, queue: str = "orders", url: str = URL, content: bytes = b"", **headers: str
) -> str:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    answer = await client.post(f"/v2/enqueue/{queue}/{url}", headers=named, content=content)
    assert answer.status_code == 200, answer.text
    return answer.json()["messageId"]


async def message(client: httpx.AsyncClient, message_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v2/messages/{message_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_answers_as_a_publish_and_makes_the_queue(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "text/plain", "Upstash-Retries": "1", "Upstash-Forward-X-A": "1", "Upstash-Label": "eu"}
    answer = await client.post(f"/v2/enqueue/orders/{URL}?x=1&y=2", headers=headers, content=b"hello")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    message_id = answer.json()["messageId"]
    assert answer.json() == {"messageId": message_id, "url": f"{URL}?x=1&y=2"}
    shown = await message(client, message_id)
    assert shown == {
        "messageId": message_id,
        "url": f"{URL}?x=1&y=2",
        "method": "POST",
        "header": {"Content-Type": ["text/plain"], "X-A": ["1"]},
        "body": "hello",
        "maxRetries": 1,
        "queueName": "orders",
        "label": "eu",
        "labels": ["eu"],
        "notBefore": shown["createdAt"],
        "createdAt": shown["createdAt"],
        "callerIP": "192.0.2.7",
        "callerIp": "192.0.2.7",
    }
    queue = (await client.get("/v2/queues/orders")).json()
    assert (queue["parallelism"], queue["paused"], queue["lag"]) == (1, False, 1)


async def test_an_existing_queue_stays_as_it_is(client: httpx.AsyncClient) -> None:
    await client.post("/v2/queues", json={"queueName": "orders", "parallelism": 7, "paused": True})
    before = (await client.get("/v2/queues/orders")).json()
    await enqueue(client)
    assert (await client.get("/v2/queues/orders")).json() == before | {"lag": 1}


@pytest.mark.parametrize(
    ("path", "queue", "url"),
    [
        ("/v2/enqueue/q1/https://e.com/x?y=1", "q1", "https://e.com/x?y=1"),
        ("/V2/Enqueue/Q1/https://e.com//a//b/", "Q1", "https://e.com//a//b/"),
        ("//v2/enqueue/a%2Db.c_d/https:/e.com", "a-b.c_d", "https://e.com"),
        ("/v2/enqueue/q1/https%3A%2F%2Fe.com%2Fp?x=2", "q1", "https://e.com/p?x=2"),
        ("/v2/enqueue/https/https://e.com", "https", "https://e.com"),
    ],
)
async def test_queue_and_destination_are_taken_from_the_raw_path(
    client: httpx.AsyncClient, path: str, queue: str, url: str
) -> None:
    answer = await client.post(httpx.URL("http://api", raw_path=path.encode()))
    assert answer.status_code == 200, answer.text
    shown = await message(client, answer.json()["messageId"])
    assert (shown["queueName"], shown["url"]) == (queue, url)


@pytest.mark.parametrize(
    ("target", "headers", "status", "text"),
    [
        ("orders/", {}, 400, "a non-empty destination must be provided"),
        ("orders", {}, 400, "a non-empty destination must be provided"),
        ("", {}, 400, "a non-empty destination must be provided"),
        ("/", {}, 400, "queue: invalid name"),
        (f"/{URL}", {}, 400, "queue: invalid name"),
        (f"a%20b/{URL}", {}, 400, "queue: invalid name"),
        (f"a%2Fb/{URL}", {}, 400, "queue: invalid name"),
        (f"{'a' * 257}/{URL}", {}, 400, "queue: invalid name"),
        (URL, {}, 400, "queue: invalid name"),
        ("orders/ftp://e.com", {}, 400, "invalid destination url: endpoint has invalid scheme"),
        ("orders/my-group", {}, 404, "topic my-group not found"),
        ("orders/api/llm", {}, 400, "api/llm: no LLM upstream is configured"),
        (f"orders/{URL}", {"Upstash-Delay": "5x"}, 400, "Upstash-Delay"),
        (f"orders/{URL}", {"Upstash-Retries": "1001"}, 412, "Upstash-Retries"),
        (f"orders/{URL}", {"Upstash-Not-Before": "99999999999"}, 412, "Upstash-Not-Before"),
    ],
)
async def test_bad_input_is_named_and_stores_nothing(
    client: httpx.AsyncClient, target: str, headers: dict[str, str], status: int, text: str
) -> None:
    answer = await client.post(httpx.URL("http://api", raw_path=f"/v2/enqueue/{target}".encode()), headers=headers)
    assert answer.status_code == status
    assert text in answer.json()["error"]
    assert (await client.get("/v2/queues")).json() == []
    assert (await client.get("/v2/messages")).json() == {"messages": []}


async def test_a_body_over_the_limit_is_refused(settings: Settings, store: Store) -> None:
    transport = httpx.ASGITransport(create_app(replace(settings, max_message_bytes=100), store))
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        answer = await client.post(f"/v2/enqueue/orders/{URL}", content=b"x" * 101)
        assert answer.status_code == 413
        assert (await client.get("/v2/queues")).json() == []


async def test_only_post_enqueues(client: httpx.AsyncClient) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = await client.request(method, f"/v2/enqueue/orders/{URL}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_members_go_one_after_the_other(client: httpx.AsyncClient, store: Store) -> None:
    first, second, third = [await enqueue(client, content=b"%d" % number) for number in range(3)]
    [claim] = await claims(store)
    assert claim.body == b"0"
    await settle(store, claim, SettlementKind.RETRY, NOT_FOUND)
    assert await claims(store) == [], "a member keeps its slot through its retries"
    await store.delivery.promote(0, 10)
    [claim] = await claims(store)
    assert (claim.body, claim.retried) == (b"0", 1)
    await settle(store, claim, SettlementKind.FAILED, NOT_FOUND)
    [claim] = await claims(store)
    assert claim.body == b"1"
    assert (await client.delete(f"/v2/messages/{third}")).json() == {"cancelled": 1}
    await settle(store, claim, SettlementKind.DELIVERED)
    assert await claims(store) == []
    [letter] = (await client.get("/v2/dlq")).json()["messages"]
    assert (letter["messageId"], letter["queueName"]) == (first, "orders")
    assert (await message(client, second))["queueName"] == "orders"


async def test_a_higher_parallelism_lets_more_go(client: httpx.AsyncClient, store: Store) -> None:
    for _ in range(4):
        await enqueue(client)
    assert len(await claims(store)) == 1
    await client.post("/v2/queues", json={"queueName": "orders", "parallelism": 3})
    assert len(await claims(store)) == 2


async def test_a_delayed_member_joins_when_it_is_due(
    client: httpx.AsyncClient, store: Store, move_clock: Callable[[int], Any]
) -> None:
    await enqueue(client, content=b"late", Upstash_Delay="60")
    await enqueue(client, content=b"early")
    [claim] = await claims(store)
    assert claim.body == b"early"
    await settle(store, claim, SettlementKind.DELIVERED)
    assert await claims(store) == []
    await move_clock(60_000)
    await store.delivery.promote(0, 10)
    [claim] = await claims(store)
    assert claim.body == b"late"


async def test_queue_and_flow_control_both_hold(client: httpx.AsyncClient, store: Store) -> None:
    limits: dict[str, Any] = {"Upstash_Flow_Control_Key": "tenant", "Upstash_Flow_Control_Value": "parallelism=1"}
    await client.post("/v2/queues", json={"queueName": "orders", "parallelism": 2})
    one = await enqueue(client, **limits)
    await enqueue(client, **limits)
    shown = await message(client, one)
    assert (shown["queueName"], shown["flowControlKey"], shown["parallelism"]) == ("orders", "tenant", 1)
    [claim] = await claims(store)
    await settle(store, claim, SettlementKind.DELIVERED)
    assert len(await claims(store)) == 1


@pytest.mark.parametrize("way", ["Upstash-Deduplication-Id", "Upstash-Content-Based-Deduplication"])
async def test_a_repeat_is_answered_202(client: httpx.AsyncClient, way: str) -> None:
    headers = {way: "true"}
    first = await client.post(f"/v2/enqueue/orders/{URL}", headers=headers, content=b"x")
    again = await client.post(f"/v2/enqueue/orders/{URL}", headers=headers, content=b"x")
    assert (again.status_code, again.json()) == (
        202, {"messageId": first.json()["messageId"], "deduplicated": True},
    )  # fmt: skip
    assert (await client.get("/v2/queues/orders")).json()["lag"] == 1


async def test_the_queue_is_a_part_of_the_content_and_not_of_an_id(client: httpx.AsyncClient) -> None:
    by_content, by_id = {"Upstash-Content-Based-Deduplication": "true"}, {"Upstash-Deduplication-Id": "one"}
    paths = (f"/v2/enqueue/a/{URL}", f"/v2/enqueue/b/{URL}", f"/v2/publish/{URL}")
    assert [(await client.post(path, headers=by_content)).status_code for path in paths] == [200, 200, 200]
    assert [(await client.post(path, headers=by_id)).status_code for path in paths] == [200, 202, 202]


async def test_an_enqueue_is_one_event(client: httpx.AsyncClient, events: Events) -> None:
    served = observability.REQUESTS.value("enqueue", "2xx")
    message_id = await enqueue(client)
    [event] = [event for event in events() if event["event"] == observability.MESSAGE_PUBLISHED]
    assert (event["message_id"], event["lane"], event["messages"]) == (message_id, "q:orders", 1)
    assert observability.REQUESTS.value("enqueue", "2xx") == served + 1
