"""`POST /v2/batch`: a result for each item in its place, whatever becomes of the others."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone import observability
from qstash_clone.api.app import create_app
from qstash_clone.errors import StorageUnavailable
from qstash_clone.ids import format_message_id
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition
from qstash_clone.storage.store import Store, open_store
from tests.api.conftest import Events
from tests.api.lives import claims

URL = "https://example.com/hook"


async def batch(client: httpx.AsyncClient, *items: Any) -> list[Any]:
    answer = await client.post("/v2/batch", content=json.dumps(items))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    results = answer.json()
    assert len(results) == len(items)
    return results


async def message(client: httpx.AsyncClient, result: dict[str, Any]) -> dict[str, Any]:
    assert "messageId" in result, result
    answer = await client.get(f"/v2/messages/{result['messageId']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def calling(settings: Settings, store: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(settings, store)),
        base_url="http://api",
        headers={"authorization": f"Bearer {settings.token}"},
    )


@pytest.mark.parametrize("path", ["/v2/batch", "/v2/batch/", "/V2/Batch"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
async def test_an_empty_batch(client: httpx.AsyncClient, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await client.post(path, content=b" [ ] ", headers=headers)
    assert (answer.status_code, answer.json()) == (200, [])


async def test_a_single_item_is_answered_with_an_array(client: httpx.AsyncClient) -> None:
    [result] = await batch(client, {"destination": URL})
    assert result == {"messageId": result["messageId"], "url": URL}
    shown = await message(client, result)
    assert set(shown) == {
        "messageId", "url", "method", "header", "maxRetries", "notBefore", "createdAt", "callerIP", "callerIp",
    }  # fmt: skip


async def test_results_stand_in_the_place_of_their_items(client: httpx.AsyncClient) -> None:
    endpoints = [{"url": "https://a.example"}, {"url": "https://b.example"}]
    await client.post("/v2/topics/g/endpoints", json={"endpoints": endpoints})
    results = await batch(
        client,
        {"destination": "g"},
        {"destination": URL + "?1"},
        {"destination": "ftp://e.com"},
        {"destination": "none"},
        {"destination": URL + "?2", "queue": "orders"},
    )
    assert [result["url"] for result in results[0]] == ["https://a.example", "https://b.example"]
    assert results[1]["url"] == URL + "?1"
    assert results[2] == {"error": "invalid destination url: endpoint has invalid scheme, add http:// or https://"}
    assert results[3] == {"error": "topic none not found"}
    assert (await message(client, results[4]))["queueName"] == "orders"
    assert len((await client.get("/v2/messages")).json()["messages"]) == 4


@pytest.mark.parametrize(
    ("name", "value", "field", "shown"),
    [
        ("Upstash-Method", "put", "method", "PUT"),
        ("upstash-retries", "7", "maxRetries", 7),
        ("UPSTASH-LABEL", "a, b", "labels", ["a", "b"]),
        ("Upstash-Label", ["a", "b"], "labels", ["a", "b"]),
        ("upstash-forward-test-header", "v, w", "header", {"Test-Header": ["v, w"]}),
        ("Upstash-Forward-X-A", ["1", "2"], "header", {"X-A": ["1", "2"]}),
        ("upstash-forward-content-type", "text/plain", "header", {"Content-Type": ["text/plain"]}),
        ("content-type", "text/plain", "header", {"Content-Type": ["text/plain"]}),
        ("Upstash-Forward-X-A", "ü", "header", {"X-A": ["ü"]}),
        ("Upstash-Retry-Delay", "1000 * retried", "retryDelayExpression", "1000 * retried"),
        ("Upstash-Callback", "https://cb.example", "callback", "https://cb.example"),
    ],
)
async def test_headers_of_an_item(client: httpx.AsyncClient, name: str, value: Any, field: str, shown: Any) -> None:
    [result] = await batch(client, {"destination": URL, "headers": {name: value}})
    assert (await message(client, result))[field] == shown


@pytest.mark.parametrize(
    ("item", "body", "content_type"),
    [
        ({}, None, None),
        ({"body": None, "headers": None, "queue": None, "callback": None}, None, None),
        ({"body": "", "queue": "", "callback": ""}, None, None),
        ({"body": "text"}, "text", None),
        ({"body": "ü\u0000\n"}, "ü\u0000\n", None),
        ({"body": '{"n": 1}'}, '{"n": 1}', None),
        ({"body": {"n": [1, 2.5, None], "t": "ü"}}, '{"n":[1,2.5,null],"t":"ü"}', "application/json"),
        ({"body": [1, 2]}, "[1,2]", "application/json"),
        ({"body": 0}, "0", "application/json"),
        ({"body": False}, "false", "application/json"),
        ({"body": {"n": 1}, "headers": {"content-type": "text/x"}}, '{"n":1}', "text/x"),
        ({"body": {"n": 1}, "headers": {"Upstash-Forward-Content-Type": "text/x"}}, '{"n":1}', "text/x"),
    ],
)
async def test_bodies_of_an_item(
    client: httpx.AsyncClient, item: dict[str, Any], body: str | None, content_type: str | None
) -> None:
    # Not escaped: what is no string is delivered as it was written, without blanks.
    answer = await client.post("/v2/batch", content=json.dumps([{"destination": URL} | item], ensure_ascii=False))
    shown = await message(client, answer.json()[0])
    assert shown.get("body") == body
    assert shown["header"] == ({} if content_type is None else {"Content-Type": [content_type]})
    assert "queueName" not in shown


async def test_another_way_to_give_a_callback(client: httpx.AsyncClient) -> None:
    header = {"headers": {"Upstash-Callback": "https://of-the-header.example"}}
    results = await batch(
        client,
        {"destination": URL, "callback": "https://cb.example"},
        {"destination": URL, "callback": "https://cb.example", **header},
        {"destination": URL, "callback": "nowhere"},
    )
    assert (await message(client, results[0]))["callback"] == "https://cb.example"
    assert (await message(client, results[1]))["callback"] == "https://of-the-header.example"
    assert results[2]["error"].startswith("invalid callback url: endpoint has invalid scheme")


async def test_a_query_in_a_destination_is_its_own(client: httpx.AsyncClient) -> None:
    url = f"{URL}?upstash-retries=1&qstash_token=theirs"
    [result] = await batch(client, {"destination": url})
    shown = await message(client, result)
    assert (shown["url"], shown["maxRetries"]) == (url, 3)


async def test_headers_of_the_request_are_none_of_the_items(client: httpx.AsyncClient) -> None:
    headers = {"Upstash-Retries": "x", "Upstash-Delay": "1h", "Upstash-Forward-X-A": "1", "Content-Type": "text/plain"}
    answer = await client.post("/v2/batch?upstash-label=a", headers=headers, json=[{"destination": URL}])
    shown = await message(client, answer.json()[0])
    assert (shown["maxRetries"], shown["header"], "label" in shown) == (3, {}, False)
    assert shown["notBefore"] == shown["createdAt"]


async def test_flow_control_of_items(client: httpx.AsyncClient) -> None:
    values = ("rate=4", "rate=4, period=1h30m3s", "parallelism=2")
    results = await batch(
        client,
        *(
            {"destination": URL, "headers": {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": value}}
            for value in values
        ),
    )
    shown = [await message(client, result) for result in results]
    given = [{name: one[name] for name in ("parallelism", "rate", "period") if name in one} for one in shown]
    assert given == [{"rate": 4, "period": 1}, {"rate": 4, "period": 5403}, {"parallelism": 2, "period": 1}]


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"", 400, "the body is not a JSON array"),
        (b"{}", 400, "the body is not a JSON array"),
        (b"null", 400, "the body is not a JSON array"),
        (b'"text"', 400, "the body is not a JSON array"),
        (b'[{"destination": "https://e.com"}', 400, "the body is not a JSON array"),
        (b'[{"destination": "https://e.com"}] x', 400, "the body is not a JSON array"),
        (b"\xff", 400, "the body is not a JSON array"),
    ],
)
async def test_what_is_no_array_stores_nothing(
    client: httpx.AsyncClient, content: bytes, status: int, text: str
) -> None:
    answer = await client.post("/v2/batch", content=content)
    assert answer.status_code == status
    assert text in answer.json()["error"]
    assert (await client.get("/v2/messages")).json() == {"messages": []}


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({}, "a non-empty destination must be provided"),
        ({"destination": ""}, "a non-empty destination must be provided"),
        ({"destination": None}, "a non-empty destination must be provided"),
        ({"destination": 7}, "the item is malformed"),
        ("text", "the item is malformed"),
        (None, "the item is malformed"),
        ({"destination": URL, "headers": {"Upstash-Retries": 3}}, "the item is malformed"),
        ({"destination": URL, "headers": ["Upstash-Retries"]}, "the item is malformed"),
        ({"destination": "example.com/x"}, "endpoint has invalid scheme"),
        ({"destination": "api/llm"}, "api/llm: no LLM upstream is configured"),
        ({"destination": URL, "queue": "a b"}, "queue: invalid name"),
        ({"destination": URL, "headers": {"Upstash-Retries": "x"}}, "Upstash-Retries: invalid number"),
        ({"destination": URL, "headers": {"Upstash-Retries": "1001"}}, "Upstash-Retries"),
        ({"destination": URL, "headers": {"Upstash-Not-Before": "99999999999"}}, "Upstash-Not-Before"),
        ({"destination": URL, "headers": {"Upstash-Forward-X": "a\r\nX-B: c"}}, "a control character"),
        ({"destination": URL, "headers": {"bad name": "a"}}, '"bad name" is not a header name'),
        ({"destination": URL, "headers": {"X": "v" * 70_000}}, "are more than the limit of 65536"),
        ({"destination": URL, "headers": {f"X-{n}": "v" for n in range(300)}}, "are more than the limit of 256"),
        ({"destination": URL, "body": "x" * (1024 * 1024 + 1)}, "the body is larger than the limit"),
    ],
)  # fmt: skip
async def test_a_bad_item_keeps_no_other_from_being_sent(client: httpx.AsyncClient, item: Any, text: str) -> None:
    before, bad, after = await batch(client, {"destination": URL}, item, {"destination": URL})
    assert list(bad) == ["error"]
    assert text in bad["error"]
    for result in (before, after):
        await message(client, result)
    assert len((await client.get("/v2/messages")).json()["messages"]) == 2


async def test_private_addresses_are_refused(settings: Settings, store: Store) -> None:
    async with calling(replace(settings, allow_private_destinations=False), store) as client:
        inside = "http://169.254.169.254/latest"
        results = await batch(
            client,
            {"destination": inside},
            {"destination": URL, "callback": inside},
            {"destination": URL},
        )
        assert ["is not allowed" in result.get("error", "") for result in results] == [True, True, False]


async def test_items_are_held_to_the_limits_of_the_request(settings: Settings, store: Store) -> None:
    limited = replace(settings, max_batch_items=3, max_batch_bytes=2_000, max_message_bytes=100)
    async with calling(limited, store) as client:
        results = await batch(client, {"destination": URL, "body": "x" * 100}, {"destination": URL, "body": "x" * 101})
        assert ["error" in result for result in results] == [False, True]
        answer = await client.post("/v2/batch", json=[{"destination": URL}] * 4)
        assert answer.status_code == 413
        assert answer.json() == {"error": "the batch has more than the limit of 3 items"}
        answer = await client.post("/v2/batch", content=b"[" + b" " * 2_000 + b"]")
        assert answer.status_code == 413
        assert len((await client.get("/v2/messages")).json()["messages"]) == 1


async def test_an_earlier_item_makes_a_later_one_a_repeat(client: httpx.AsyncClient) -> None:
    by_id, by_content = {"Upstash-Deduplication-Id": "one"}, {"upstash-content-based-deduplication": "True"}
    results = await batch(
        client,
        {"destination": URL, "headers": by_id},
        {"destination": URL + "?other", "headers": by_id, "queue": "orders"},
        {"destination": URL, "headers": by_content, "body": "x"},
        {"destination": URL, "headers": by_content, "body": "x"},
        {"destination": URL, "headers": by_content, "body": "y"},
    )
    assert results[1] == {"messageId": results[0]["messageId"], "deduplicated": True}
    assert results[3] == {"messageId": results[2]["messageId"], "deduplicated": True}
    assert "deduplicated" not in results[4]
    answer = await client.post(f"/v2/publish/{URL}", headers=by_id)
    assert (answer.status_code, answer.json()["messageId"]) == (202, results[0]["messageId"])
    [again] = await batch(client, {"destination": URL, "headers": by_id})
    assert again == results[1], "the status of a batch stays 200"


async def test_members_of_a_queue_are_in_the_order_of_the_items(client: httpx.AsyncClient, store: Store) -> None:
    items = [{"destination": f"https://h{number % 7}.example/{number}", "queue": "orders"} for number in range(250)]
    results = await batch(client, *items)
    assert [result["url"] for result in results] == [item["destination"] for item in items]
    await client.post("/v2/queues", json={"queueName": "orders", "parallelism": 1000})
    await store.delivery.heartbeat("test", 1000)
    urls: list[str] = []
    while taken := (await store.delivery.claim(0, "test", 1000)).claims:
        urls += [claim.message.url for claim in taken]
    assert urls == [item["destination"] for item in items][: len(urls)]
    assert len(urls) >= 100


async def test_items_that_look_alike_are_each_their_own(client: httpx.AsyncClient, store: Store) -> None:
    headers = {"Upstash-Forward-X-A": "1"}
    results = await batch(client, *({"destination": URL, "headers": headers, "body": str(n)} for n in range(5)))
    assert len({result["messageId"] for result in results}) == 5
    assert sorted(claim.body for claim in await claims(store)) == [b"0", b"1", b"2", b"3", b"4"]


async def test_only_post_sends_batches(client: httpx.AsyncClient) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = await client.request(method, "/v2/batch")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_store_that_fails_ends_the_whole_request(settings: Settings, store: Store) -> None:
    async with calling(settings, _Broken(store)) as client:
        answer = await client.post("/v2/batch", json=[{"destination": "ftp://e.com"}, {"destination": URL}])
    assert answer.status_code == 503
    assert "the store does not answer" in answer.json()["error"]


async def test_members_keep_their_order_where_other_partitions_decide_about_repeats(settings: Settings) -> None:
    """Then storing one takes several steps, in which others could overtake it."""
    settings = replace(settings, partitions=3)
    store = await open_store(settings)
    try:
        assert await store.queues.put_queue("orders", parallelism=None, is_paused=True, max_queues=1)
        items = [
            {
                "destination": f"{URL}?{number}",
                "queue": "orders",
                "headers": {"Upstash-Deduplication-Id": f"{number}"} if number % 5 < 3 else {},
            }
            for number in range(60)
        ]
        async with calling(settings, store) as client:
            results = await batch(client, *items)
        keys = PartitionKeys(settings.key_namespace, lane_partition("q:orders", 3), 3)
        line = await store.commands.ask("LRANGE", keys.lane("q:orders"), 0, -1)
        assert [format_message_id(message_id) for message_id in line] == [result["messageId"] for result in results]
    finally:
        await store.aclose()


async def test_the_first_of_two_repeats_is_stored_whatever_partitions_they_belong_to(settings: Settings) -> None:
    settings = replace(settings, partitions=3)
    store = await open_store(settings)
    try:
        items: list[dict[str, object]] = []
        for number in range(30):
            headers = {"Upstash-Deduplication-Id": f"{number}"}
            first: dict[str, object] = {"destination": URL, "headers": headers}
            in_queue: dict[str, object] = {"destination": URL, "queue": f"queue-{number % 7}", "headers": headers}
            items += [first, in_queue] if number % 2 else [in_queue, first]
        async with calling(settings, store) as client:
            results = await batch(client, *items)
        assert ["deduplicated" in result for result in results] == [False, True] * 30
        assert [result["messageId"] for result in results[::2]] == [result["messageId"] for result in results[1::2]]
    finally:
        await store.aclose()


async def test_a_batch_is_one_event(client: httpx.AsyncClient, events: Events) -> None:
    await client.post("/v2/topics/g/endpoints", json={"endpoints": [{"url": URL}, {"url": URL + "?2"}]})
    published, repeated = observability.MESSAGES_PUBLISHED.value, observability.MESSAGES_DEDUPLICATED.value
    once = {"Upstash-Deduplication-Id": "once"}
    await batch(
        client,
        {"destination": "g"},
        {"destination": URL, "headers": once},
        {"destination": URL, "headers": once},
        {"destination": "ftp://private.example"},
        {"destination": URL, "headers": {"Upstash-Cron": "* * * * *"}},
    )
    [event] = [event for event in events() if event["event"] == observability.BATCH_PUBLISHED]
    counts = {name: event[name] for name in ("items", "messages", "schedules", "duplicates", "refused")}
    assert counts == {"items": 5, "messages": 3, "schedules": 1, "duplicates": 1, "refused": 1}
    assert observability.MESSAGES_PUBLISHED.value == published + 3
    assert observability.MESSAGES_DEDUPLICATED.value == repeated + 1
    assert "private" not in str(event)


class _Broken:
    """The real store, whose publishes fail."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def publishing(self) -> "_BrokenPublishing":
        return _BrokenPublishing(self._store)


class _BrokenPublishing:
    def __init__(self, store: Store) -> None:
        self.new_message_id = store.publishing.new_message_id
        self.new_message_ids = store.publishing.new_message_ids
        self.decides_elsewhere = store.publishing.decides_elsewhere

    async def publish(self, message: object) -> None:
        raise StorageUnavailable("away")

    async def fan_out(self, messages: object) -> None:
        raise StorageUnavailable("away")
