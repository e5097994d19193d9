"""`Upstash-Cron` on publish, enqueue and the items of a batch: a schedule instead of a message."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone import observability
from qstash_clone.api.app import create_app
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.api.lives import fire

CRON = {"Upstash-Cron": "* * * * *"}
URL = "https://example.com/nightly"


async def schedules(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get("/v2/schedules")
    assert answer.status_code == 200
    return answer.json()


async def pending(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return (await client.get("/v2/messages")).json()["messages"]


async def batch(client: httpx.AsyncClient, *items: dict[str, Any]) -> list[Any]:
    answer = await client.post("/v2/batch", content=json.dumps(items))
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("path", "queue"),
    [("/v2/publish/", None), ("/v2/enqueue/orders/", "orders"), ("/V2/Enqueue/a%2Db/", "a-b")],
)
async def test_a_schedule_is_created_instead_of_a_message(
    client: httpx.AsyncClient, path: str, queue: str | None
) -> None:
    headers = CRON | {"Upstash-Schedule-Id": "nightly", "Upstash-Retries": "1", "Upstash-Delay": "5s"}
    answer = await client.post(path + URL, headers=headers, content=b"payload")
    assert (answer.status_code, answer.json()) == (200, {"scheduleId": "nightly"})
    assert answer.headers["content-type"] == "application/json"
    assert await pending(client) == []
    [schedule] = await schedules(client)
    assert (schedule["destination"], schedule["body"], schedule["retries"], schedule["delay"]) == (
        URL, "payload", 1, 5,
    )  # fmt: skip
    assert schedule.get("queueName") == queue
    assert (await client.get("/v2/queues")).json() == []


async def test_the_queue_of_an_enqueue_wins_over_that_of_the_header(client: httpx.AsyncClient) -> None:
    named = CRON | {"Upstash-Queue-Name": "other"}
    await client.post(f"/v2/publish/{URL}", headers=named | {"Upstash-Schedule-Id": "published"})
    await client.post(f"/v2/enqueue/orders/{URL}", headers=named | {"Upstash-Schedule-Id": "enqueued"})
    queues = {schedule["scheduleId"]: schedule["queueName"] for schedule in await schedules(client)}
    assert queues == {"published": "other", "enqueued": "orders"}


async def test_a_queue_name_means_nothing_without_cron(client: httpx.AsyncClient) -> None:
    headers = {"Upstash-Queue-Name": "not a name", "Upstash-Schedule-Id": "neither is this"}
    answer = await client.post(f"/v2/publish/{URL}", headers=headers)
    assert answer.status_code == 200
    message = (await client.get(f"/v2/messages/{answer.json()['messageId']}")).json()
    assert not {"queueName", "scheduleId"} & set(message)
    assert (await client.get("/v2/queues")).json() == []


async def test_the_query_may_ask_for_a_schedule(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"/v2/publish/{URL}?a=1&upstash-cron=0+4+*+*+*&upstash-schedule-id=s")
    assert answer.json() == {"scheduleId": "s"}
    [schedule] = await schedules(client)
    assert (schedule["destination"], schedule["cron"]) == (f"{URL}?a=1", "0 4 * * *")


async def test_a_group_may_ask_for_a_schedule(client: httpx.AsyncClient) -> None:
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": URL}]})
    await client.patch("/v2/topics/g", json={"headers": CRON | {"Upstash-Schedule-Id": "of-the-group"}})
    answer = await client.post("/v2/publish/g")
    assert (answer.status_code, answer.json()) == (200, {"scheduleId": "of-the-group"})
    assert [schedule["destination"] for schedule in await schedules(client)] == ["g"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "text"),
    [
        ("/v2/publish/" + URL, {"Upstash-Cron": "tomorrow"}, 400, "Upstash-Cron: "),
        ("/v2/publish/" + URL, CRON | {"Upstash-Not-Before": "1700000000"}, 400, "Upstash-Not-Before: not possible"),
        ("/v2/publish/" + URL, CRON | {"Upstash-Schedule-Id": "a b"}, 400, "Upstash-Schedule-Id: invalid name"),
        ("/v2/publish/" + URL, CRON | {"Upstash-Queue-Name": "a b"}, 400, "Upstash-Queue-Name: invalid name"),
        ("/v2/publish/none", CRON, 404, "topic none not found"),
        ("/v2/publish/api/llm", CRON, 400, "api/llm: no LLM upstream is configured"),
        ("/v2/enqueue/a%20b/" + URL, CRON, 400, "queue: invalid name"),
        ("/v2/enqueue/q/" + URL, CRON | {"Upstash-Not-Before": "1700000000"}, 400, "Upstash-Not-Before"),
    ],
)
async def test_bad_input_stores_nothing(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], status: int, text: str
) -> None:
    answer = await client.post(path, headers=headers)
    assert answer.status_code == status
    assert text in answer.json()["error"]
    [item] = await batch(client, batch_item(path, headers))
    assert text in item["error"]
    assert await schedules(client) == []
    assert await pending(client) == []


def batch_item(path: str, headers: dict[str, str]) -> dict[str, Any]:
    """The item that asks for the same as a publish or enqueue."""
    _, _, verb, rest = path.split("/", 3)
    if verb == "publish":
        return {"destination": rest, "headers": headers}
    queue, _, destination = rest.partition("/")
    return {"destination": destination, "headers": headers, "queue": queue}


async def test_more_schedules_than_there_may_be(client: httpx.AsyncClient, store: Store) -> None:
    store.schedules._max_schedules = 1  # pyright: ignore[reportPrivateUsage]
    headers = CRON | {"Upstash-Deduplication-Id": "refused"}
    await client.post(f"/v2/publish/{URL}", headers=CRON | {"Upstash-Schedule-Id": "one"})
    for _ in range(2):
        answer = await client.post(f"/v2/publish/{URL}", headers=headers)
        assert answer.status_code == 412, "what was refused is not on record"
    [result] = await batch(client, {"destination": URL, "headers": headers})
    assert "there are 1 schedules already" in result["error"]
    await client.delete("/v2/schedules/one")
    assert (await client.post(f"/v2/publish/{URL}", headers=headers)).status_code == 200


async def test_items_of_a_batch(client: httpx.AsyncClient) -> None:
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": URL}, {"url": URL + "?2"}]})
    results = await batch(
        client,
        {"destination": URL, "body": "first"},
        {"destination": URL, "headers": CRON | {"Upstash-Schedule-Id": "plain"}, "body": "payload"},
        {"destination": "g", "headers": CRON | {"upstash-schedule-id": "group"}, "queue": "orders"},
        {"destination": URL, "headers": {"Upstash-Cron": "never"}},
        {"destination": "g"},
    )
    assert results[1:3] == [{"scheduleId": "plain"}, {"scheduleId": "group"}]
    assert "Upstash-Cron" in results[3]["error"]
    assert [set(results[0]), len(results[4])] == [{"messageId", "url"}, 2]
    by_id = {schedule["scheduleId"]: schedule for schedule in await schedules(client)}
    assert (by_id["plain"]["body"], by_id["plain"].get("queueName")) == ("payload", None)
    assert (by_id["group"]["destination"], by_id["group"]["queueName"]) == ("g", "orders")
    assert len(await pending(client)) == 3


async def test_items_of_a_batch_are_stored_in_order(client: httpx.AsyncClient) -> None:
    named = CRON | {"Upstash-Schedule-Id": "same"}
    results = await batch(
        client,
        *({"destination": f"{URL}?{number}", "headers": named} for number in range(5)),
        {"destination": URL, "headers": {"Upstash-Deduplication-Id": "once"}},
        {"destination": URL, "headers": CRON | {"Upstash-Deduplication-Id": "once"}},
        {"destination": URL, "headers": CRON | {"Upstash-Deduplication-Id": "once"}},
        {"destination": URL, "headers": {"Upstash-Deduplication-Id": "once"}},
    )
    assert results[:5] == [{"scheduleId": "same"}] * 5
    assert results[8] == {"messageId": results[5]["messageId"], "deduplicated": True}
    assert results[7] == {"scheduleId": results[6]["scheduleId"], "deduplicated": True}
    by_id = {schedule["scheduleId"]: schedule["destination"] for schedule in await schedules(client)}
    assert by_id == {"same": f"{URL}?4", results[6]["scheduleId"]: URL}


@pytest.mark.parametrize("way", ["id", "content"])
async def test_a_repeat_names_the_first_schedule(client: httpx.AsyncClient, way: str) -> None:
    dedup = {"Upstash-Deduplication-Id": "once"} if way == "id" else {"Upstash-Content-Based-Deduplication": "true"}
    first = await client.post(f"/v2/publish/{URL}", headers=CRON | dedup, content=b"x")
    assert first.status_code == 200
    for path in (f"/v2/publish/{URL}", f"/v2/schedules/{URL}"):
        again = await client.post(path, headers=CRON | dedup, content=b"x")
        assert (again.status_code, again.json()) == (202, first.json() | {"deduplicated": True})
    assert len(await schedules(client)) == 1
    await client.delete(f"/v2/schedules/{first.json()['scheduleId']}")
    again = await client.post(f"/v2/publish/{URL}", headers=CRON | dedup, content=b"x")
    assert again.status_code == 202, "the record outlives its schedule, as it outlives a message"
    assert await schedules(client) == []


async def test_a_message_and_a_schedule_are_not_repeats_of_each_other(client: httpx.AsyncClient) -> None:
    dedup = {"Upstash-Deduplication-Id": "once"}
    assert (await client.post(f"/v2/publish/{URL}", headers=dedup)).status_code == 200
    assert (await client.post(f"/v2/publish/{URL}", headers=CRON | dedup)).status_code == 200
    assert (await client.post(f"/v2/publish/{URL}", headers=dedup)).status_code == 202
    assert len(await schedules(client)) == len(await pending(client)) == 1


async def test_the_messages_of_a_schedule_are_never_deduplicated(
    client: httpx.AsyncClient, store: Store, move_clock: Callable[[int], Awaitable[None]]
) -> None:
    await client.post(f"/v2/publish/{URL}", headers=CRON | {"Upstash-Deduplication-Id": "once"})
    for fired in (1, 2):
        await move_clock(60_000)
        assert await fire(store) == 1
        assert len(await pending(client)) == fired


async def test_the_record_of_a_schedule_can_be_looked_up_and_cleared(client: httpx.AsyncClient) -> None:
    headers = CRON | {"Upstash-Deduplication-Id": "once", "Upstash-Deduplication-Window": "1h"}
    schedule_id = (await client.post(f"/v2/publish/{URL}", headers=headers)).json()["scheduleId"]
    record = (await client.get("/v2/deduplication/once")).json()
    assert record == {"deduplicationId": "once", "scheduleId": schedule_id, "expiresAt": record["expiresAt"]}
    answer = await client.delete("/v2/deduplication/once")
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await client.get("/v2/deduplication/once")).status_code == 404
    assert (await client.delete("/v2/deduplication/once")).status_code == 404
    again = await client.post(f"/v2/publish/{URL}", headers=headers)
    assert again.status_code == 200
    message = await client.post(f"/v2/publish/{URL}", headers={"Upstash-Deduplication-Id": "once"})
    record = (await client.get("/v2/deduplication/once")).json()
    assert record["messageId"] == message.json()["messageId"], "if there are both, the message's is shown"
    await client.delete("/v2/deduplication/once")
    assert (await client.get("/v2/deduplication/once")).status_code == 404, "and both are cleared"


@pytest.mark.parametrize("path", ["/v2/publish/", "/v2/enqueue/q/"])
async def test_a_publish_only_token_cannot_create_schedules(settings: Settings, store: Store, path: str) -> None:
    app = create_app(replace(settings, publish_only_tokens=("publisher",)), store)
    headers = {"authorization": "Bearer publisher"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as publisher:
        answer = await publisher.post(path + URL, headers=CRON)
        assert answer.status_code == 403
        assert "publish-only" in answer.json()["error"]
        assert (await publisher.post(f"/v2/schedules/{URL}", headers=CRON)).status_code == 403
        result, refused = await batch(publisher, {"destination": URL}, {"destination": URL, "headers": CRON})
        assert "messageId" in result
        assert "publish-only" in refused["error"]
    assert [stored async for stored in store.schedules.list_schedules()] == []


async def test_a_schedule_counts_as_a_request_and_not_as_a_message(client: httpx.AsyncClient) -> None:
    published, observed = observability.MESSAGES_PUBLISHED.value, observability.PUBLISH_DURATION.count
    served, repeated = observability.REQUESTS.value("publish", "2xx"), observability.MESSAGES_DEDUPLICATED.value
    for _ in range(2):
        await client.post(f"/v2/publish/{URL}", headers=CRON | {"Upstash-Deduplication-Id": "once"})
    assert observability.MESSAGES_PUBLISHED.value == published
    assert observability.PUBLISH_DURATION.count == observed + 2
    assert observability.REQUESTS.value("publish", "2xx") == served + 2
    assert observability.MESSAGES_DEDUPLICATED.value == repeated + 1
