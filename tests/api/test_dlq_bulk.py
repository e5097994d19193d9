"""Many dead letters at once, selected by id or by filter; and other options for those that are retried."""

import json
import time
from typing import Any

import httpx
import pytest

from qstash_clone.domain.message import AttemptRecord
from qstash_clone.storage.store import Store
from tests.api.lives import claims, dead_letters, fail, publish


async def dead(client: httpx.AsyncClient, store: Store, url: str = "https://example.com/hook", **headers: str) -> str:
    """The DLQ id of a fresh dead letter."""
    message_id = await publish(client, url, b"payload", **headers)
    await fail(store)
    [letter] = await dead_letters(client, f"messageId={message_id}")
    return letter["dlqId"]


async def delete(client: httpx.AsyncClient, query: str = "", body: object = None) -> dict[str, Any]:
    content = b"" if body is None else json.dumps(body).encode()
    answer = await client.request("DELETE", f"/v2/dlq{query}", content=content)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def left(client: httpx.AsyncClient) -> set[str]:
    return {letter["dlqId"] for letter in await dead_letters(client)}


async def test_every_filter_selects(client: httpx.AsyncClient, store: Store) -> None:
    one = await dead(client, store, "https://a.example/p?q", Upstash_Label="red")
    message_id = await publish(client, "https://b.example/", Upstash_Label="green")
    await fail(store, AttemptRecord(status=500, error="no"))
    [letter] = await dead_letters(client, "label=green")
    other = letter["dlqId"]
    entered_ms = int(other.partition("-")[0])
    for query, expected in (
        ("", {one, other}),
        (f"messageId={message_id}", {other}),
        (f"messageId={message_id}&count=1", {other}),
        ("messageId=nonsense", set[str]()),
        ("url=https://a.example/p?q".replace("?q", "%3Fq"), {one}),
        ("label=red,green", {one, other}),
        ("label=red&responseStatus=500", set[str]()),
        ("responseStatus=404&responseStatus=999", {one}),
        ("responseStatus=500,404", {one, other}),
        ("callerIp=192.0.2.7", {one, other}),
        ("callerIP=192.0.2.8", set[str]()),
        ("topicName=t", set[str]()),
        ("queueName=q", set[str]()),
        ("scheduleId=s", set[str]()),
        ("flowControlKey=k", set[str]()),
        (f"fromDate={entered_ms}&label=green", {other}),
        (f"fromDate={entered_ms + 1}", set[str]()),
        (f"toDate={entered_ms}", {one, other}),
        ("toDate=1", set[str]()),
        (f"dlqIds={one}&dlqIds=1-0", {one}),
        (f"dlqIds=1-0,{other}&label=red", {other}),
        ("source=workflow", set[str]()),
        ("api=llm", {one, other}),
    ):
        assert {letter["dlqId"] for letter in await dead_letters(client, query)} == expected, query


async def test_deleting_by_ids_passes_over_absent_ones(client: httpx.AsyncClient, store: Store) -> None:
    ids = [await dead(client, store) for _ in range(5)]
    assert await delete(client, f"?dlqIds={ids[0]}&dlqIds=1-0") == {"deleted": 1}
    assert await delete(client, body={"dlqIds": [ids[1], ids[0], "x"]}) == {"deleted": 1}
    assert await delete(client, f"?dlqIds={ids[2]},{ids[3]}&label=ignored") == {"deleted": 2}
    assert await delete(client, body={"dlqIds": ids[:4]}) == {"deleted": 0}
    assert await left(client) == {ids[4]}


@pytest.mark.parametrize("body", [{"dlqIds": []}, {"dlqIds": None}, {"dlqIds": [], "label": "a"}])
async def test_an_empty_list_means_nothing(client: httpx.AsyncClient, store: Store, body: object) -> None:
    dlq_id = await dead(client, store, Upstash_Label="a")
    assert await delete(client, body=body) == {"deleted": 0}
    answer = await client.post("/v2/dlq/retry", json=body)
    assert (answer.status_code, answer.json()) == (201, {"responses": []})
    assert await left(client) == {dlq_id}


async def test_deleting_by_filter_goes_page_by_page(client: httpx.AsyncClient, store: Store) -> None:
    kept = await dead(client, store)
    ids = [await dead(client, store, Upstash_Label="old") for _ in range(3)]
    first = await delete(client, "?label=old&count=1")
    assert first == {"deleted": 1, "cursor": first["cursor"]}
    assert ids[0] not in await left(client)
    assert await delete(client, f"?label=old&cursor={first['cursor']}") == {"deleted": 2}
    assert await delete(client, "?label=old") == {"deleted": 0}
    assert await left(client) == {kept}


async def test_nothing_at_all_means_a_page_of_everything(client: httpx.AsyncClient, store: Store) -> None:
    for _ in range(3):
        await dead(client, store)
    assert await delete(client) == {"deleted": 3}
    await dead(client, store)
    answer = await client.post("/v2/dlq/retry")
    assert answer.status_code == 201
    assert len(answer.json()["responses"]) == 1
    assert await left(client) == set()


@pytest.mark.parametrize("form", ["repeated", "joined", "body"])
async def test_retrying_by_ids(client: httpx.AsyncClient, store: Store, form: str) -> None:
    ids = [await dead(client, store, f"https://example.com/{number}") for number in range(3)]
    queries = {"repeated": f"?dlqIds={ids[0]}&dlqIds={ids[2]}", "joined": f"?dlqIds={ids[0]},{ids[2]}"}
    content = json.dumps({"dlqIds": [ids[0], ids[2]]}).encode() if form == "body" else b""
    answer = await client.post(f"/v2/dlq/retry{queries.get(form, '')}", content=content)
    assert answer.status_code == 201
    assert set(answer.json()) == {"responses"}
    urls = [result["url"] for result in answer.json()["responses"]]
    assert urls == ["https://example.com/0", "https://example.com/2"]
    assert await left(client) == {ids[1]}
    for result in answer.json()["responses"]:
        message = (await client.get(f"/v2/messages/{result['messageId']}")).json()
        assert (message["url"], message["body"]) == (result["url"], "payload")


async def test_one_absent_id_retries_nothing(client: httpx.AsyncClient, store: Store) -> None:
    ids = [await dead(client, store) for _ in range(2)]
    answer = await client.post(f"/v2/dlq/retry?dlqIds={ids[0]},1-0,{ids[1]}")
    assert answer.status_code == 404
    assert '"1-0" not found' in answer.json()["error"]
    assert await left(client) == set(ids)
    assert await claims(store) == []


async def test_retrying_by_filter_goes_page_by_page(client: httpx.AsyncClient, store: Store) -> None:
    kept = await dead(client, store)
    for _ in range(3):
        await dead(client, store, Upstash_Label="again")
    page = (await client.post("/v2/dlq/retry?label=again&count=2")).json()
    assert (len(page["responses"]), set(page)) == (2, {"responses", "cursor"})
    rest = (await client.post(f"/v2/dlq/retry?label=again&cursor={page['cursor']}")).json()
    assert (len(rest["responses"]), set(rest)) == (1, {"responses"})
    answer = await client.post("/v2/dlq/retry?label=again")
    assert (answer.status_code, answer.json()) == (201, {"responses": []})
    assert await left(client) == {kept}


OVERRIDES = {
    "Upstash-Method": "PUT",
    "Upstash-Retries": "0",
    "Upstash-Timeout": "5s",
    "Upstash-Retry-Delay": "1000",
    "Upstash-Label": "second",
    "Upstash-Callback": "https://example.com/new-callback",
    "Upstash-Forward-X-B": "new",
    "Upstash-Forward-X-C": "more",
    "Upstash-Deduplication-Id": "does-not-apply",
    "Content-Type": "application/x-of-this-request",
}


@pytest.mark.parametrize("is_bulk", [False, True])
async def test_other_options_replace_those_of_the_message(
    client: httpx.AsyncClient, store: Store, is_bulk: bool
) -> None:
    dlq_id = await dead(
        client,
        store,
        Content_Type="text/plain",
        Upstash_Label="first",
        Upstash_Forward_X_A="old",
        Upstash_Forward_X_B="old",
        Upstash_Failure_Callback="https://example.com/kept",
        Upstash_Deduplication_Id="x",
    )
    path = f"/v2/dlq/retry?dlqIds={dlq_id}" if is_bulk else f"/v2/dlq/retry/{dlq_id}"
    answer = await client.post(path, headers=OVERRIDES)
    assert answer.status_code == 201
    result = answer.json()["responses"][0] if is_bulk else answer.json()
    message = (await client.get(f"/v2/messages/{result['messageId']}")).json()
    for times in ("createdAt", "notBefore"):
        assert isinstance(message.pop(times), int)
    assert message == {
        "messageId": result["messageId"],
        "url": "https://example.com/hook",
        "method": "PUT",
        "header": {"Content-Type": ["text/plain"], "X-A": ["old"], "X-B": ["new"], "X-C": ["more"]},
        "body": "payload",
        "maxRetries": 0,
        "retryDelayExpression": "1000",
        "callback": "https://example.com/new-callback",
        "failureCallback": "https://example.com/kept",
        "label": "second",
        "labels": ["second"],
        "callerIP": "192.0.2.7",
        "callerIp": "192.0.2.7",
    }
    [claim] = await claims(store)
    assert claim.message.timeout_ms == 5000


async def test_other_options_may_come_by_the_query(client: httpx.AsyncClient, store: Store) -> None:
    dlq_id = await dead(client, store, Upstash_Retries="7")
    answer = await client.post(f"/v2/dlq/retry/{dlq_id}?upstash-retries=0&upstash-forward-x-a=b+c")
    message = (await client.get(f"/v2/messages/{answer.json()['messageId']}")).json()
    assert (message["maxRetries"], message["header"]) == (0, {"X-A": ["b c"]})


@pytest.mark.parametrize("form", ["/v2/dlq/retry/{}", "/v2/dlq/retry?dlqIds={}", "/v2/dlq/retry?label=again"])
async def test_a_retry_may_begin_later(client: httpx.AsyncClient, store: Store, form: str) -> None:
    dlq_id = await dead(client, store, Upstash_Label="again", Upstash_Delay="0s")
    answer = await client.post(form.format(dlq_id), headers={"Upstash-Delay": "1h"})
    assert answer.status_code == 201
    result = answer.json().get("responses", [answer.json()])[0]
    message = (await client.get(f"/v2/messages/{result['messageId']}")).json()
    assert message["notBefore"] - message["createdAt"] == 3_600_000
    assert await left(client) == set()
    assert await claims(store) == []


async def test_a_retry_may_begin_at_a_certain_time(client: httpx.AsyncClient, store: Store) -> None:
    dlq_id = await dead(client, store)
    at_s = int(time.time()) + 86_400
    answer = await client.post(f"/v2/dlq/retry/{dlq_id}?upstash-not-before={at_s}", headers={"Upstash-Delay": "1s"})
    message = (await client.get(f"/v2/messages/{answer.json()['messageId']}")).json()
    assert message["notBefore"] == at_s * 1000
    assert await claims(store) == []


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Upstash-Retries": "x"}, 400, "Upstash-Retries"),
        ({"Upstash-Retries": "100000"}, 412, "Upstash-Retries"),
        ({"Upstash-Delay": "soon"}, 400, "Upstash-Delay"),
        ({"Upstash-Delay": "3650d"}, 412, "Upstash-Delay"),
        ({"Upstash-Not-Before": "9999999999"}, 412, "Upstash-Not-Before"),
        ({"Upstash-Callback": "nowhere"}, 400, "invalid callback url"),
        ({"Upstash-Cron": "* * * * *"}, 400, "it cannot become a schedule"),
    ],
)
async def test_options_that_cannot_be_honoured_retry_nothing(
    client: httpx.AsyncClient, store: Store, headers: dict[str, str], status: int, text: str
) -> None:
    dlq_id = await dead(client, store)
    for path in (f"/v2/dlq/retry/{dlq_id}", f"/v2/dlq/retry?dlqIds={dlq_id}", "/v2/dlq/retry"):
        answer = await client.post(path, headers=headers)
        assert answer.status_code == status
        assert text in answer.json()["error"]
    assert await left(client) == {dlq_id}


@pytest.mark.parametrize("method_and_path", [("DELETE", "/v2/dlq"), ("POST", "/v2/dlq/retry")])
@pytest.mark.parametrize(
    ("query", "content", "text"),
    [
        ("?lable=a", b"", '"lable" is not a filter'),
        ("?host=a", b"", '"host" is not a filter'),
        ("?path=/a", b"", '"path" is not a filter'),
        ("?state=FAILED", b"", '"state" is not a filter'),
        ("?messageIds=msg_1", b"", '"messageIds" is not a filter'),
        ("?order=latestFirst", b"", '"order" is not a filter'),
        ("?label=", b"", "label: the value is empty"),
        ("?dlqIds=", b"", "dlqIds: the value is empty"),
        ("?cursor=x", b"", "cursor"),
        ("?count=0", b"", "count: invalid number"),
        ("", b"[]", "not a JSON object"),
        ("", b"{", "not JSON"),
        ("", b'{"dlqIDs": ["1-0"]}', '"dlqIDs" is not a filter'),
    ],
)
async def test_a_mistake_never_means_everything(
    client: httpx.AsyncClient, store: Store, method_and_path: tuple[str, str], query: str, content: bytes, text: str
) -> None:
    dlq_id = await dead(client, store)
    method, path = method_and_path
    answer = await client.request(method, path + query, content=content)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert await left(client) == {dlq_id}


async def test_a_json_content_type_on_an_empty_body_is_no_mistake(client: httpx.AsyncClient, store: Store) -> None:
    dlq_id = await dead(client, store)
    answer = await client.request("DELETE", f"/v2/dlq/{dlq_id}", headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    await dead(client, store)
    answer = await client.request("DELETE", "/v2/dlq", headers={"Content-Type": "application/json"})
    assert answer.json() == {"deleted": 1}
