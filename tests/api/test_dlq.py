"""`/v2/dlq`."""

from collections.abc import Awaitable, Callable

import httpx
import pytest

from qstash_clone.domain.message import AttemptRecord, DeadLetter
from qstash_clone.storage.store import Store

FailMessage = Callable[..., Awaitable[DeadLetter]]

NOT_FOUND = AttemptRecord(
    status=404,
    error="destination answered 404",
    headers=(("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")),
    body=b"404 Not Found",
    duration_ms=12,
)


async def test_a_dead_letter_shows_the_message_and_its_last_attempt(
    client: httpx.AsyncClient, fail_message: FailMessage
) -> None:
    letter = await fail_message(NOT_FOUND)
    listed = (await client.get("/v2/dlq")).json()
    assert set(listed) == {"messages"}
    [shown] = listed["messages"]
    assert shown["dlqId"] == letter.dlq_id
    assert shown["url"] == "https://example.com/hook"
    assert shown["body"] == "payload"
    assert shown["responseStatus"] == 404
    assert shown["responseHeader"] == {"Content-Type": ["text/plain"], "X-A": ["1", "2"]}
    assert shown["responseBody"] == "404 Not Found"
    assert (await client.get(f"/v2/dlq/{letter.dlq_id}")).json() == shown


async def test_an_answer_that_is_not_text_comes_in_base64(client: httpx.AsyncClient, fail_message: FailMessage) -> None:
    letter = await fail_message(AttemptRecord(status=500, error="", body=b"\xff"))
    shown = (await client.get(f"/v2/dlq/{letter.dlq_id}")).json()
    assert shown["responseBodyBase64"] == "/w=="
    assert not {"responseBody", "responseHeader"} & set(shown)


@pytest.mark.parametrize("attempt", [None, AttemptRecord(status=0, error="connection refused")])
async def test_no_http_answer_is_status_0(
    client: httpx.AsyncClient, fail_message: FailMessage, attempt: AttemptRecord | None
) -> None:
    letter = await fail_message(attempt)
    shown = (await client.get(f"/v2/dlq/{letter.dlq_id}")).json()
    assert shown["responseStatus"] == 0
    assert not {"responseBody", "responseBodyBase64", "responseHeader"} & set(shown)


async def test_an_empty_queue_is_an_empty_list(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v2/dlq")).json() == {"messages": []}


async def test_pages_follow_the_cursor_in_both_orders(client: httpx.AsyncClient, fail_message: FailMessage) -> None:
    ids = [(await fail_message()).dlq_id for _ in range(5)]
    for order, expected in ((None, ids), ("earliestFirst", ids), ("latestFirst", ids[::-1])):
        seen: list[str] = []
        cursor: str | None = None
        pages = 0
        while pages == 0 or cursor is not None:
            given = {"count": "2", "cursor": cursor, "order": order}
            page = (await client.get("/v2/dlq", params={k: v for k, v in given.items() if v is not None})).json()
            seen += [message["dlqId"] for message in page["messages"]]
            cursor = page.get("cursor")
            pages += 1
            assert cursor != ""
        assert (seen, pages) == (expected, 3)


@pytest.mark.parametrize("count", ["100", "101", "5000", "999999999999999999"])
async def test_a_large_count_is_clamped(client: httpx.AsyncClient, fail_message: FailMessage, count: str) -> None:
    await fail_message()
    answer = await client.get("/v2/dlq", params={"count": count})
    assert (answer.status_code, len(answer.json()["messages"])) == (200, 1)


REFUSED = [
    ("count=0", "count"),
    ("count=-1", "count"),
    ("count=1.5", "count"),
    ("count=abc", "count"),
    ("count=", "count: the value is empty"),
    ("count=%D9%A1", "count"),
    ("count=1&count=2", "count: given twice"),
    ("cursor=abc", "cursor"),
    ("cursor=", "cursor: the value is empty"),
    ("order=up", "order"),
    ("lable=a", '"lable" is not a filter'),
    ("host=e.com", '"host" is not a filter'),
    ("path=/a", '"path" is not a filter'),
    ("messageIds=msg_1", '"messageIds" is not a filter'),
    ("state=FAILED", '"state" is not a filter'),
    ("label=", "label: the value is empty"),
    ("fromDate=yesterday", "fromDate: invalid timestamp"),
    ("responseStatus=4xx", "responseStatus: invalid number"),
    ("dlqIds=" + ",".join(f"1-{number}" for number in range(101)), "101 ids are more than the 100"),
    ("&".join(f"a{number}=1" for number in range(1001)), "more than 1000 parameters"),
]


@pytest.mark.parametrize(("query", "text"), REFUSED, ids=[query[:30] for query, _ in REFUSED])
async def test_what_cannot_be_honoured_is_refused(client: httpx.AsyncClient, query: str, text: str) -> None:
    answer = await client.get(f"/v2/dlq?{query}")
    assert answer.status_code == 400
    assert text in answer.json()["error"]


async def test_what_clients_send_along_is_tolerated(client: httpx.AsyncClient, fail_message: FailMessage) -> None:
    await fail_message()
    for query in ("api=llm", "source=api", "upstash-retries=1", "callerIP=192.0.2.7"):
        answer = await client.get(f"/v2/dlq?{query}")
        assert len(answer.json()["messages"]) == 1, query
    assert (await client.get("/v2/dlq/?source=workflow")).json() == {"messages": []}


@pytest.mark.parametrize(
    ("trim", "body", "answer"),
    [
        ("0", {}, {}),
        ("-1", {}, {}),
        ("3", {"body": "pay"}, {"responseBodyBase64": "/w=="}),
        ("1", {"body": "p"}, {"responseBodyBase64": "/w=="}),
        ("100", {"body": "payload"}, {"responseBodyBase64": "/w=="}),
    ],
)
@pytest.mark.parametrize("selection", ["", "dlqIds={}&"])
async def test_bodies_are_trimmed(
    client: httpx.AsyncClient,
    fail_message: FailMessage,
    trim: str,
    body: dict[str, str],
    answer: dict[str, str],
    selection: str,
) -> None:
    letter = await fail_message(AttemptRecord(status=500, error="e", headers=(), body=b"\xff"))
    [shown] = (await client.get(f"/v2/dlq?{selection.format(letter.dlq_id)}trimBody={trim}")).json()["messages"]
    assert {name: value for name, value in shown.items() if "ody" in name} == body | answer


async def test_a_trimmed_text_stays_text(client: httpx.AsyncClient, fail_message: FailMessage) -> None:
    await fail_message(AttemptRecord(status=500, error="e", headers=(), body="zwölf".encode()))
    for trim, text in ((1, "z"), (2, "zw"), (3, "zw"), (4, "zwö"), (6, "zwölf")):
        [shown] = (await client.get(f"/v2/dlq?trimBody={trim}")).json()["messages"]
        assert shown["responseBody"] == text
    await fail_message(AttemptRecord(status=500, error="e", headers=(), body="ö".encode()))
    [shown] = (await client.get("/v2/dlq?order=latestFirst&count=1&trimBody=1")).json()["messages"]
    assert not shown.keys() & {"responseBody", "responseBodyBase64"}


async def test_a_deleted_dead_letter_is_gone(client: httpx.AsyncClient, fail_message: FailMessage) -> None:
    letter = await fail_message()
    answer = await client.delete(f"/v2/dlq/{letter.dlq_id}")
    assert (answer.status_code, answer.json()) == (200, {})
    for method, path in (("GET", "/v2/dlq/"), ("DELETE", "/v2/dlq/"), ("POST", "/v2/dlq/retry/")):
        again = await client.request(method, path + letter.dlq_id)
        assert again.status_code == 404
        assert letter.dlq_id in again.json()["error"]


async def test_a_retry_is_a_fresh_message(client: httpx.AsyncClient, fail_message: FailMessage) -> None:
    letter = await fail_message(NOT_FOUND)
    old = (await client.get(f"/v2/dlq/{letter.dlq_id}")).json()
    answer = await client.post(f"/v2/dlq/retry/{letter.dlq_id}")
    assert answer.status_code == 201
    assert answer.json() == {"messageId": answer.json()["messageId"], "url": "https://example.com/hook"}
    fresh = (await client.get(f"/v2/messages/{answer.json()['messageId']}")).json()
    assert fresh["messageId"] != old["messageId"]
    assert {name: fresh[name] for name in ("url", "method", "header", "body", "maxRetries")} == {
        name: old[name] for name in ("url", "method", "header", "body", "maxRetries")
    }
    assert (await client.get("/v2/dlq")).json() == {"messages": []}


async def test_statistics_headers_do_not_hinder_a_retry(client: httpx.AsyncClient, fail_message: FailMessage) -> None:
    letter = await fail_message()
    answer = await client.post(f"/v2/dlq/retry/{letter.dlq_id}", headers={"Upstash-Telemetry-Sdk": "x"})
    assert answer.status_code == 201


async def test_nothing_without_an_id_touches_the_queue(
    client: httpx.AsyncClient, store: Store, fail_message: FailMessage
) -> None:
    await fail_message()
    for method, path, text in (
        ("DELETE", "/v2/dlq/", "an id must follow"),
        ("POST", "/v2/dlq/retry/", "an id must follow"),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == 400
        assert text in answer.json()["error"]
    assert (await store.admin.stats()).dead_letters == 1
