"""`/v2/events` and `/v2/logs`."""

import base64
from dataclasses import replace

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.domain.message import AttemptRecord, SettlementKind
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store, open_store
from tests.api.lives import NOT_FOUND, claims, deliver, fail, log_of, publish, settle


def states(entries: list[dict[str, object]]) -> list[object]:
    return [entry["state"] for entry in entries]


async def test_a_life_is_told_in_order(client: httpx.AsyncClient, store: Store) -> None:
    message_id = await publish(client)
    assert states(await log_of(client)) == ["CREATED"]
    [claim] = await claims(store)
    await settle(store, claim, SettlementKind.RETRY, NOT_FOUND)
    await store.delivery.promote(0, 10)
    await deliver(store)
    entries = await log_of(client)
    assert states(entries) == ["CREATED", "ACTIVE", "ERROR", "RETRY", "ACTIVE", "DELIVERED"]
    assert {entry["messageId"] for entry in entries} == {message_id}
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    newest_first = (await client.get("/v2/events")).json()["events"]
    assert newest_first == entries[::-1]


async def test_an_entry_of_a_failed_attempt_shows_everything(client: httpx.AsyncClient, store: Store) -> None:
    message_id = await publish(
        client,
        body=b"payload",
        Content_Type="text/plain",
        Upstash_Label="a,b",
        Upstash_Timeout="30s",
        Upstash_Retry_Delay="7000 * retried",
        Upstash_Callback="https://example.com/cb",
        Upstash_Callback_Forward_X_Cb="1",
        Upstash_Failure_Callback="https://example.com/fcb",
        Upstash_Failure_Callback_Forward_X_Fcb="2",
    )
    await fail(store)
    created, active, error, failed = await log_of(client)
    for entry in (created, active, error, failed):
        assert isinstance(entry.pop("time"), int)
    common = {
        "messageId": message_id,
        "url": "https://example.com/hook",
        "method": "POST",
        "header": {"Content-Type": ["text/plain"]},
        "body": base64.b64encode(b"payload").decode(),
        "maxRetries": 3,
        "timeout": 30_000,
        "callback": "https://example.com/cb",
        "callbackHeaders": {"X-Cb": ["1"]},
        "failureCallback": "https://example.com/fcb",
        "failureCallbackHeaders": {"X-Fcb": ["2"]},
        "retryDelayExpr": "7000 * retried",
        "retryDelayExpression": "7000 * retried",
        "label": "a",
        "labels": ["a", "b"],
        "callerIP": "192.0.2.7",
        "callerIp": "192.0.2.7",
    }
    answer_headers = {"Content-Type": ["text/plain"], "X-A": ["1", "2"]}
    assert created == common | {"state": "CREATED"}
    assert active == common | {"state": "ACTIVE"}
    assert error == common | {
        "state": "ERROR",
        "error": "destination answered 404",
        "responseStatus": 404,
        "responseHeader": answer_headers,
        "responseHeaders": answer_headers,
        "responseBody": base64.b64encode(b"404 Not Found").decode(),
    }
    assert failed == common | {"state": "FAILED", "error": "destination answered 404"}


async def test_no_http_answer_is_status_0(client: httpx.AsyncClient, store: Store) -> None:
    await publish(client)
    await fail(store, AttemptRecord(status=0, error="connection refused"))
    [error] = await log_of(client, "state=ERROR")
    assert (error["responseStatus"], error["error"]) == (0, "connection refused")
    assert not {"responseBody", "responseHeader", "responseHeaders", "body"} & set(error)


async def test_the_next_delivery_is_announced(client: httpx.AsyncClient, store: Store) -> None:
    await publish(client)
    [claim] = await claims(store)
    await settle(store, claim, SettlementKind.RETRY, NOT_FOUND, delay_ms=5000)
    await publish(client, Upstash_Delay="1h")
    created, _, _, retry, delayed = await log_of(client)
    assert "nextDeliveryTime" not in created
    assert 4000 <= retry["nextDeliveryTime"] - retry["time"] <= 6000
    assert 3_599_000 <= delayed["nextDeliveryTime"] - delayed["time"] <= 3_601_000


async def test_both_paths_show_the_same_under_their_own_name(client: httpx.AsyncClient) -> None:
    await publish(client)
    events, logs = (await client.get("/v2/events")).json(), (await client.get("/v2/Logs/")).json()
    assert set(events) == {"events"}
    assert set(logs) == {"logs"}
    assert events["events"] == logs["logs"]
    assert (await client.get("/v2/events?label=none")).json() == {"events": []}
    assert (await client.get("/v2/logs?label=none")).json() == {"logs": []}


@pytest.mark.parametrize(("path", "key", "most"), [("/v2/logs", "logs", 100), ("/v2/events", "events", 1000)])
async def test_pages_have_a_greatest_length(
    client: httpx.AsyncClient, store: Store, path: str, key: str, most: int
) -> None:
    for _ in range(101):
        await publish(client)
    for query in ("", "?count=5000"):
        page = (await client.get(path + query)).json()
        assert len(page[key]) == min(most, 101)
        assert ("cursor" in page) is (most < 101)


@pytest.mark.parametrize("order", ["earliestFirst", "latestFirst"])
async def test_pages_follow_the_cursor(client: httpx.AsyncClient, order: str) -> None:
    ids = [await publish(client) for _ in range(5)]
    expected = ids if order == "earliestFirst" else ids[::-1]
    seen: list[str] = []
    target = base = f"/v2/logs?count=2&order={order}"
    while True:
        page = (await client.get(target)).json()
        seen += [entry["messageId"] for entry in page["logs"]]
        if "cursor" not in page:
            break
        await publish(client, Upstash_Label="later")
        target = f"{base}&cursor={page['cursor']}"
    assert seen[:5] == expected


async def test_every_filter_selects(client: httpx.AsyncClient, store: Store) -> None:
    one = await publish(client, "https://a.example:8443/x/y?z=1", Upstash_Label="red,blue")
    other = await publish(client, "https://b.example/", Upstash_Label="green")
    await deliver(store)
    [first, *_] = await log_of(client)
    for query, expected in (
        (f"messageId={one}", {one}),
        (f"messageIds={one}&messageIds={other}", {one, other}),
        (f"messageIds={one},{other}&label=ignored", {one, other}),
        ("url=https://a.example:8443/x/y?z=1".replace("?z=", "%3Fz="), {one}),
        ("url=https://a.example:8443/x/y", set[str]()),
        ("host=a.example", {one}),
        ("host=a.example:8443", {one}),
        ("host=B.example", {other}),
        ("path=/x/y", {one}),
        ("path=/", {other}),
        ("label=red", {one}),
        ("label=red&label=green", {one, other}),
        ("label=blue,green", {one, other}),
        ("label=red&host=b.example", set[str]()),
        ("callerIp=192.0.2.7", {one, other}),
        ("callerIP=192.0.2.8", set[str]()),
        ("topicName=t", set[str]()),
        ("queueName=q", set[str]()),
        ("scheduleId=s", set[str]()),
        ("flowControlKey=k", set[str]()),
        (f"fromDate={first['time']}", {one, other}),
        (f"toDate={first['time'] - 1}", set[str]()),
        ("fromDate=%22" + str(first["time"] + 60_000) + "%22", set[str]()),
        ("api=llm", {one, other}),
        ("upstash-anything=1", {one, other}),
    ):
        assert {entry["messageId"] for entry in await log_of(client, query)} == expected, query


async def test_states_select(client: httpx.AsyncClient, store: Store) -> None:
    message_id = await publish(client)
    await fail(store)
    await client.delete(f"/v2/messages/{await publish(client, Upstash_Delay='1h')}")
    for query, expected in (
        ("state=CREATED", ["CREATED", "CREATED"]),
        ("state=IN_PROGRESS", ["ACTIVE", "ERROR"]),
        ("state=FAILED&state=ERROR", ["ERROR", "FAILED"]),
        ("state=CANCELLED", ["CANCELED"]),
        ("state=CANCELED,CANCEL_REQUESTED", ["CANCEL_REQUESTED", "CANCELED"]),
        (f"messageId={message_id}&state=FAILED", ["FAILED"]),
        ("state=DELIVERED", []),
    ):
        assert states(await log_of(client, query)) == expected, query


@pytest.mark.parametrize(("trim", "body", "answer"), [(3, b"pay", b"404"), (0, None, None), (-1, None, None)])
async def test_bodies_are_trimmed(
    client: httpx.AsyncClient, store: Store, trim: int, body: bytes | None, answer: bytes | None
) -> None:
    await publish(client, body=b"payload")
    await fail(store)
    [error] = await log_of(client, f"state=ERROR&trimBody={trim}")
    for field, expected in (("body", body), ("responseBody", answer)):
        assert error.get(field) == (None if expected is None else base64.b64encode(expected).decode())


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("lable=a", '"lable" is not a filter'),
        ("groupBy=messageId", '"groupBy" is not a filter'),
        ("dlqIds=1-0", '"dlqIds" is not a filter'),
        ("responseStatus=404", '"responseStatus" is not a filter'),
        ("label=", "label: the value is empty"),
        ("label=a,,b", "label: the value is empty"),
        ("state=SLEEPING", 'state: invalid state "SLEEPING"'),
        ("fromDate=today", "fromDate: invalid timestamp"),
        ("toDate=-1", "toDate: invalid timestamp"),
        ("count=0", "count: invalid number"),
        ("count=x", "count: invalid number"),
        ("cursor=x", "cursor"),
        ("order=random", "order: invalid value"),
        ("trimBody=x", "trimBody: invalid number"),
        ("cursor=1-0&cursor=2-0", "cursor: given twice"),
    ],
)
@pytest.mark.parametrize("path", ["/v2/events", "/v2/logs"])
async def test_what_cannot_be_honoured_is_refused(client: httpx.AsyncClient, path: str, query: str, text: str) -> None:
    answer = await client.get(f"{path}?{query}")
    assert answer.status_code == 400
    assert text in answer.json()["error"]


async def test_without_a_log_there_are_no_entries(settings: Settings) -> None:
    silent = replace(settings, message_log=False)
    store = await open_store(silent)
    headers = {"authorization": f"Bearer {settings.token}"}
    transport = httpx.ASGITransport(create_app(silent, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        message_id = await publish(client)
        await deliver(store)
        assert await log_of(client) == []
        assert (await client.get(f"/v2/messages/{message_id}")).status_code == 200
    await store.aclose()
