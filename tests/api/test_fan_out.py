"""Publishing and enqueueing to a URL group: one message for each endpoint, all or none, answered as a bare array."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from qstash_clone import observability
from qstash_clone.storage.store import Store
from tests.api.conftest import Events
from tests.api.lives import claims

A, B = "https://a.example/hook?x=1", "https://a.example/hook?x=2"


async def make(client: httpx.AsyncClient, name: str = "g", *urls: str) -> None:
    endpoints = [{"url": A, "name": "first one"}, {"url": B}, *({"url": url} for url in urls)]
    answer = await client.post(f"/v2/topics/{name}/endpoints", json={"endpoints": endpoints})
    assert answer.status_code == 200, answer.text


async def message(client: httpx.AsyncClient, result: dict[str, Any]) -> dict[str, Any]:
    answer = await client.get(f"/v2/messages/{result['messageId']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(("path", "queue"), [("/v2/publish/", None), ("/v2/enqueue/orders/", "orders")])
async def test_one_message_for_each_endpoint(client: httpx.AsyncClient, path: str, queue: str | None) -> None:
    await make(client)
    headers = {"Upstash-Retries": "1", "Upstash-Label": "eu", "Upstash-Forward-X-A": "1"}
    answer = await client.post(f"{path}g?dropped=1&upstash-method=PUT", headers=headers, content=b"hello")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    results = answer.json()
    assert [set(result) for result in results] == [{"messageId", "url"}] * 2
    assert [result["url"] for result in results] == [A, B]
    messages = [await message(client, result) for result in results]
    for shown, url in zip(messages, (A, B), strict=True):
        assert shown["url"] == url
        assert (shown["topicName"], shown["urlGroup"]) == ("g", "g")
        assert (shown["method"], shown["body"], shown["maxRetries"], shown["label"]) == ("PUT", "hello", 1, "eu")
        assert shown["header"] == {"X-A": ["1"]}
        assert shown.get("queueName") == queue
    assert messages[0]["endpointName"] == "first one"
    assert "endpointName" not in messages[1]


async def test_a_group_of_one_is_answered_with_an_array(client: httpx.AsyncClient) -> None:
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": A}]})
    answer = await client.post("/v2/publish/g")
    [result] = answer.json()
    assert result == {"messageId": result["messageId"], "url": A}


async def test_members_are_enqueued_in_the_order_of_the_endpoints(client: httpx.AsyncClient, store: Store) -> None:
    await make(client, "g", *(f"https://e{number}.example/" for number in range(3)))
    await client.post("/v2/queues", json={"queueName": "orders", "parallelism": 100})
    await client.post("/v2/enqueue/orders/g")
    urls = [claim.message.url for claim in await claims(store)]
    assert urls == [A, B, *(f"https://e{number}.example/" for number in range(3))]


async def test_every_message_waits_and_is_limited_for_itself(
    client: httpx.AsyncClient, store: Store, move_clock: Callable[[int], Any]
) -> None:
    await make(client)
    headers = {
        "Upstash-Delay": "1h",
        "Upstash-Flow-Control-Key": "tenant",
        "Upstash-Flow-Control-Value": "parallelism=1",
    }
    for result in (await client.post("/v2/publish/g", headers=headers)).json():
        shown = await message(client, result)
        assert shown["notBefore"] == shown["createdAt"] + 3_600_000
        assert (shown["flowControlKey"], shown["parallelism"]) == ("tenant", 1)
    await move_clock(3_600_000)
    await store.delivery.heartbeat("test", 10)
    await store.delivery.promote(0, 10)
    assert len(await claims(store)) == 1


async def test_messages_stay_as_published_whatever_becomes_of_the_group(client: httpx.AsyncClient) -> None:
    await make(client)
    results = (await client.post("/v2/publish/g")).json()
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": A, "name": "renamed"}]})
    await client.request("DELETE", "/v2/topics/g/endpoints", json={"endpoints": [{"url": B}]})
    assert [(await message(client, result))["url"] for result in results] == [A, B]
    assert (await message(client, results[0]))["endpointName"] == "first one"
    assert len((await client.post("/v2/publish/g")).json()) == 1


@pytest.mark.parametrize("way", ["Upstash-Deduplication-Id", "Upstash-Content-Based-Deduplication"])
@pytest.mark.parametrize("path", ["/v2/publish/g", "/v2/enqueue/orders/g"])
async def test_a_repeat_is_decided_once_for_all(client: httpx.AsyncClient, path: str, way: str) -> None:
    await make(client)
    first = await client.post(path, headers={way: "true"})
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": "https://new.example"}]})
    again = await client.post(path, headers={way: "true"})
    assert again.status_code == 202
    assert again.json() == [result | {"deduplicated": True} for result in first.json()]
    assert len((await client.get("/v2/messages")).json()["messages"]) == 2


async def test_a_repeat_of_a_publish_to_a_url_is_an_array_too(client: httpx.AsyncClient) -> None:
    await make(client)
    headers = {"Upstash-Deduplication-Id": "one"}
    first = (await client.post(f"/v2/publish/{A}", headers=headers)).json()
    again = await client.post("/v2/publish/g", headers=headers)
    assert again.status_code == 202
    assert again.json() == [{"messageId": first["messageId"], "deduplicated": True, "url": ""}]


async def test_a_url_repeats_a_fan_out(client: httpx.AsyncClient) -> None:
    await make(client)
    headers = {"Upstash-Deduplication-Id": "one"}
    first = (await client.post("/v2/publish/g", headers=headers)).json()
    again = await client.post(f"/v2/publish/{A}", headers=headers)
    assert (again.status_code, again.json()) == (202, {"messageId": first[0]["messageId"], "deduplicated": True})


async def test_unknown_groups(client: httpx.AsyncClient) -> None:
    for path in ("/v2/publish/none", "/v2/enqueue/orders/none"):
        answer = await client.post(path)
        assert (answer.status_code, answer.json()) == (404, {"error": "topic none not found"})
    assert (await client.get("/v2/queues")).json() == []


async def test_a_refused_header_stores_none_of_them(client: httpx.AsyncClient) -> None:
    await make(client)
    for headers, status in (({"Upstash-Retries": "x"}, 400), ({"Upstash-Not-Before": "99999999999"}, 412)):
        assert (await client.post("/v2/publish/g", headers=headers)).status_code == status
    assert (await client.get("/v2/messages")).json() == {"messages": []}


async def test_messages_are_found_by_their_group(client: httpx.AsyncClient) -> None:
    await make(client, "g")
    await make(client, "other")
    results = (await client.post("/v2/publish/g")).json()
    await client.post("/v2/publish/other")
    found = (await client.get("/v2/messages?topicName=g")).json()["messages"]
    assert {shown["messageId"] for shown in found} == {result["messageId"] for result in results}
    assert (await client.delete("/v2/messages?topicName=g")).json() == {"cancelled": 2}


async def test_a_fan_out_is_one_event_and_counts_its_messages(client: httpx.AsyncClient, events: Events) -> None:
    await make(client)
    published = observability.MESSAGES_PUBLISHED.value
    results = (await client.post("/v2/publish/g")).json()
    [event] = [event for event in events() if event["event"] == observability.MESSAGE_PUBLISHED]
    assert (event["message_id"], event["messages"]) == (results[0]["messageId"], 2)
    assert observability.MESSAGES_PUBLISHED.value == published + 2
