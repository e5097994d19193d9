"""`DELETE /v2/messages`: these, those that match, or all; never all by mistake."""

import json

import httpx
import pytest

from qstash_clone.storage.store import Store
from tests.api.lives import claims, deliver, fail, log_of, publish


async def cancel(client: httpx.AsyncClient, query: str = "", body: object = None) -> httpx.Response:
    content = b"" if body is None else json.dumps(body).encode()
    return await client.request("DELETE", f"/v2/messages{query}", content=content)


async def cancelled(client: httpx.AsyncClient, query: str = "", body: object = None) -> int:
    """How many; asserts that nothing else is said."""
    answer = await cancel(client, query, body)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"cancelled"}
    return answer.json()["cancelled"]


async def pending(client: httpx.AsyncClient) -> set[str]:
    return {message["messageId"] for message in (await client.get("/v2/messages")).json()["messages"]}


@pytest.mark.parametrize("form", ["repeated", "joined", "body"])
async def test_these_are_cancelled_and_unknown_ones_passed_over(
    client: httpx.AsyncClient, store: Store, form: str
) -> None:
    done = await publish(client)
    await deliver(store)
    first, second, kept = [await publish(client, Upstash_Delay="1h") for _ in range(3)]
    ids = [first, "msg_00000000000000000000", "nonsense", done, second, first]
    queries = {"repeated": "?" + "&".join(f"messageIds={i}" for i in ids), "joined": "?messageIds=" + ",".join(ids)}
    assert await cancelled(client, queries.get(form, ""), {"messageIds": ids} if form == "body" else None) == 2
    assert await pending(client) == {kept}
    assert await cancelled(client, queries.get(form, ""), {"messageIds": ids} if form == "body" else None) == 0


@pytest.mark.parametrize("body", [{"messageIds": []}, {"messageIds": None}, {"messageIds": [], "label": "a"}])
async def test_an_empty_list_cancels_nothing(client: httpx.AsyncClient, body: object) -> None:
    message_id = await publish(client, Upstash_Delay="1h", Upstash_Label="a")
    assert await cancelled(client, body=body) == 0
    assert await pending(client) == {message_id}


async def test_ids_that_are_none_cancel_nothing(client: httpx.AsyncClient) -> None:
    message_id = await publish(client, Upstash_Delay="1h")
    assert await cancelled(client, body={"messageIds": ["nonsense"]}) == 0
    assert await pending(client) == {message_id}


@pytest.mark.parametrize("content", [b"", b"  ", b"{}", b'{"count": 100}'])
@pytest.mark.parametrize("content_type", ["", "application/json"])
async def test_nothing_at_all_means_everything_pending(
    client: httpx.AsyncClient, store: Store, content: bytes, content_type: str
) -> None:
    await publish(client)
    await claims(store)
    for _ in range(3):
        await publish(client)
        await publish(client, Upstash_Delay="1h")
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await client.request("DELETE", "/v2/messages", content=content, headers=headers)
    assert answer.json() == {"cancelled": 7}
    # The one under way was asked to end; it is not counted twice, so a caller's loop comes to its end.
    assert await cancelled(client) == 0
    assert len(await log_of(client, "state=CANCEL_REQUESTED")) == 7
    assert len(await log_of(client, "state=CANCELED")) == 6


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ("?label=red", None, {"a"}),
        ("?label=red&label=green", None, {"a", "b"}),
        ("", {"label": ["red", "green"]}, {"a", "b"}),
        ("", {"label": "red,green"}, {"a", "b"}),
        ("?label=red", {"label": "green"}, {"a"}),
        ("?label=red", {"host": "b.example"}, set[str]()),
        ("?host=b.example", None, {"b"}),
        ("?path=/p", None, {"a"}),
        ("?url=https://b.example/", None, {"b"}),
        ("?callerIp=192.0.2.7", None, {"a", "b", "c"}),
        ("?callerIp=192.0.2.8", None, set[str]()),
        ("?queueName=q", None, set[str]()),
        ("?flowControlKey=k", None, set[str]()),
        ("?fromDate=1", None, {"a", "b", "c"}),
        ("?toDate=1", None, set[str]()),
        ("", {"fromDate": 1, "toDate": 2}, set[str]()),
        ("?api=llm&cursor=anything", None, {"a", "b", "c"}),
        ("?count=2", None, {"a", "b"}),
        ("?callerIp=192.0.2.7&count=1", None, {"a"}),
        ("", {"count": 999_999}, {"a", "b", "c"}),
    ],
)
async def test_filters_select(client: httpx.AsyncClient, query: str, body: object, expected: set[str]) -> None:
    ids = {
        "a": await publish(client, "https://a.example/p?q=1", Upstash_Delay="1h", Upstash_Label="red"),
        "b": await publish(client, "https://b.example/", Upstash_Delay="2h", Upstash_Label="green,blue"),
        "c": await publish(client, "https://c.example/", Upstash_Delay="3h"),
    }
    assert await cancelled(client, query, body) == len(expected)
    left = await pending(client)
    assert {name for name, message_id in ids.items() if message_id not in left} == expected


async def test_count_stops_also_among_given_ids(client: httpx.AsyncClient) -> None:
    ids = [await publish(client, Upstash_Delay="1h") for _ in range(4)]
    unknown = "msg_00000000000000000000"
    assert await cancelled(client, body={"messageIds": [unknown, ids[0], unknown, *ids[1:]], "count": 2}) == 2
    assert await pending(client) == set(ids[2:])


async def test_finished_messages_are_none_of_its_business(client: httpx.AsyncClient, store: Store) -> None:
    await publish(client)
    await deliver(store)
    await publish(client)
    await fail(store)
    assert await cancelled(client) == 0
    assert (await store.admin.stats()).dead_letters == 1


@pytest.mark.parametrize(
    ("query", "content", "text"),
    [
        ("", b"[]", "not a JSON object"),
        ("", b'["msg_1"]', "not a JSON object"),
        ("", b"null", "not a JSON object"),
        ("", b'"all"', "not a JSON object"),
        ("", b"{", "not JSON"),
        ("", b"messageIds=msg_1", "not JSON"),
        ("", b'{"messageIDs": ["msg_1"]}', '"messageIDs" is not a filter'),
        ("", b'{"messageId": "msg_1"}', '"messageId" is not a filter'),
        ("", b'{"label": []}', "label: the list is empty"),
        ("", b'{"label": null}', "label"),
        ("", b'{"label": {"a": 1}}', "label"),
        ("", b'{"messageIds": [{}]}', "messageIds"),
        ("", b'{"messageIds": [""]}', "messageIds: the value is empty"),
        ("?lable=a", b"", '"lable" is not a filter'),
        ("?label=", b"", "label: the value is empty"),
        ("?messageIds=", b"", "messageIds: the value is empty"),
        ("?messageId=msg_1", b"", '"messageId" is not a filter'),
        ("?state=CREATED", b"", '"state" is not a filter'),
        ("?responseStatus=404", b"", '"responseStatus" is not a filter'),
        ("?dlqIds=1-0", b"", '"dlqIds" is not a filter'),
        ("?order=latestFirst", b"", '"order" is not a filter'),
        ("?count=0", b"", "count: invalid number"),
        ("?count=all", b"", "count: invalid number"),
        ("", b'{"count": 1.5}', "count"),
    ],
)
async def test_a_mistake_never_means_everything(
    client: httpx.AsyncClient, query: str, content: bytes, text: str
) -> None:
    message_id = await publish(client, Upstash_Delay="1h")
    answer = await client.request("DELETE", f"/v2/messages{query}", content=content)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert await pending(client) == {message_id}


async def test_pending_messages_are_listed_in_pages(client: httpx.AsyncClient, store: Store) -> None:
    await publish(client)
    await deliver(store)
    await publish(client)
    await claims(store)
    ids = [await publish(client, Upstash_Delay="1h", Upstash_Label="l") for _ in range(5)]
    seen: list[str] = []
    target = "/v2/messages?count=2&label=l"
    while True:
        page = (await client.get(target)).json()
        assert set(page) <= {"messages", "cursor"}
        seen += [message["messageId"] for message in page["messages"]]
        if "cursor" not in page:
            break
        target = f"/v2/messages?count=2&label=l&cursor={page['cursor']}"
    assert (sorted(seen), len(await pending(client))) == (sorted(ids), 6)
    [message] = (await client.get("/v2/messages?count=1&label=l")).json()["messages"]
    assert message == (await client.get(f"/v2/messages/{message['messageId']}")).json()


@pytest.mark.parametrize(
    "query", ["messageIds=msg_1", "order=latestFirst", "cursor=x", "lable=a", "state=CREATED", "count=0"]
)
async def test_what_a_list_cannot_honour_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/v2/messages?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]
