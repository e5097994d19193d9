"""Upstash's Kafka REST API: produce, webhook and the list of topics."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.errors import QuotaExceeded, StorageError, StorageFull, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from qstash_clone.storage.topic_log import RedisTopicLog
from qstash_clone.topics.interface import ReadFrom
from qstash_clone.topics.records import StoredRecord, TopicConfig
from tests.api.conftest import Events, RunningServer
from tests.api.test_burst import StandingClock

FULL = "orders-full-token"
PRODUCER = "orders-produce-token"
CONSUMER = "orders-consume-token"
LIMIT = 20_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(
        settings,
        topic_credentials=(f"full:orders*:{FULL}", f"produce-only:orders:{PRODUCER}", f"consume-only:*:{CONSUMER}"),
        publish_only_tokens=("publisher-token",),
        read_only_tokens=("reader-token",),
        max_produce_bytes=LIMIT,
        max_produce_records=50,
        max_record_bytes=2000,
    )


@pytest.fixture
async def client(settings: Settings, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(settings, store))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api", auth=("anybody", settings.token)
    ) as client:
        yield client


async def stored(store: Store, metadata: dict[str, Any]) -> StoredRecord:
    """The record that an answer tells the place of."""
    assert list(metadata) == ["topic", "partition", "offset", "timestamp"]
    topic = await store.topics.get_topic(metadata["topic"])
    assert topic is not None
    [found] = await store.topics.read(
        [ReadFrom(topic, metadata["partition"], metadata["offset"])], max_records=1, max_bytes=1
    )
    assert found is not None
    [record] = found.records
    assert (record.offset, record.timestamp_ms) == (metadata["offset"], metadata["timestamp"])
    return record


async def one(answer: httpx.Response) -> dict[str, Any]:
    """The only element of a list."""
    assert answer.status_code == 200, answer.text
    [metadata] = answer.json()
    return metadata


def check_refusal(answer: httpx.Response, status: int, *texts: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]
    fields = answer.json()
    assert list(fields) == ["error", "status"]
    assert fields["status"] == status
    assert all(text in fields["error"] for text in texts), fields


# Variant A: the message is in the path.


@pytest.mark.parametrize(
    ("target", "value", "key"),
    [
        ("/produce/orders/hello", b"hello", None),
        ("/produce/orders/hello/", b"hello", None),
        ("/Produce/orders/hello?key=k", b"hello", b"k"),
        ("/produce/orders/a+b%20c", b"a+b c", None),
        ("/produce/orders/a/b", b"a/b", None),
        ("/produce/orders/a%2Fb", b"a/b", None),
        ("/produce/orders/a//b//", b"a//b/", None),
        ("/produce/orders/%C4%B0stanbul", "İstanbul".encode(), None),
        ("/produce/orders/%2525", b"%25", None),
        ("/produce/orders/%00", b"\0", None),
        ("/produce/orders//", b"", None),
        ("/produce/%6Frders/x?key=a+b%2Bc&key=2&partition=1", b"x", b"a b+c"),
        ("/produce/orders/x?key=", b"x", b""),
        ("/produce/orders/x?k%65y=v", b"x", b"v"),
        ("/produce/orders/x?other=%", b"x", None),
        ("//produce/orders/x", b"x", None),
    ],
)
async def test_a_message_in_the_path(
    server: RunningServer, settings: Settings, store: Store, target: str, value: bytes, key: bytes | None
) -> None:
    for method in ("GET", "POST"):
        async with await server.connect() as connection:
            await connection.send(
                f"{method} {target} HTTP/1.1\r\nauthorization: Bearer {settings.token}\r\n"
                "content-length: 7\r\n\r\nignored".encode()
            )
            answer = await connection.receive()
        assert answer.status == 200, answer.body
        metadata = answer.json
        assert metadata["topic"] == "orders"
        record = await stored(store, metadata)
        assert (record.value, record.key, record.headers) == (value, key, ())


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/produce/orders/%zz", "message: a percent sign"),
        ("/produce/orders/100%", "message: a percent sign"),
        ("/produce/orders/%C4", "message: not valid UTF-8"),
        ("/produce/orders/%ED%A0%80", "message: not valid UTF-8"),
        ("/produce/ord%/x", "topic: a percent sign"),
        ("/produce/a%20b/x", "topic: 'a b' is no name of a topic"),
        ("/produce/a%2Fb/x", "is no name of a topic"),
        ("/produce//x", "topic: '' is no name of a topic"),
        ("/produce/" + "x" * 250 + "/x", "is no name of a topic"),
        ("/produce/orders/x?key=%C4", "key: not valid UTF-8"),
        ("/produce/orders/x?key=%", "key: a percent sign"),
    ],
)
async def test_a_path_that_cannot_be_read(
    server: RunningServer, settings: Settings, store: Store, target: str, text: str
) -> None:
    async with await server.connect() as connection:
        await connection.send(f"GET {target} HTTP/1.1\r\nauthorization: Bearer {settings.token}\r\n\r\n".encode())
        answer = await connection.receive()
    assert answer.status == 400
    assert text in answer.json["error"]
    assert await store.topics.list_topics() == []


# Variants B and C: messages are in the body, also with GET.


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/produce/orders", "/produce/orders/"])
async def test_one_message_is_answered_with_an_array(
    client: httpx.AsyncClient, store: Store, method: str, path: str
) -> None:
    body = (
        b'{"value":"v","key":"k","partition":1,"timestamp":5,"headers":[{"key":"a","value":"b"}],"topic":"elsewhere"}'
    )
    metadata = await one(await client.request(method, path, content=body))
    assert metadata == {"topic": "orders", "partition": 1, "offset": 0, "timestamp": 5}
    assert await stored(store, metadata) == StoredRecord(0, 5, b"k", b"v", (("a", b"b"),))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/produce", "/PRODUCE/"])
async def test_messages_for_several_topics(client: httpx.AsyncClient, store: Store, method: str, path: str) -> None:
    body = b"""[
        {"topic": "orders", "key": "city", "value": "paid"},
        {"topic": "audit", "value": 7, "partition": 2,},
        {"topic": "orders", "key": "city", "value": ""},
    ]"""
    answer = await client.request(method, path, content=body)
    assert answer.status_code == 200, answer.text
    found = [(await stored(store, metadata)).value for metadata in answer.json()]
    assert found == [b"paid", b"7", b""]
    places = [(metadata["topic"], metadata["partition"], metadata["offset"]) for metadata in answer.json()]
    assert places == [("orders", 3, 0), ("audit", 2, 0), ("orders", 3, 1)]


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain", "application/json"])
async def test_the_content_type_does_not_count(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    await one(await client.post("/produce/orders", content=b'{"value":"a=b&c=d"}', headers=headers))


async def test_an_empty_array_stores_nothing(client: httpx.AsyncClient, store: Store) -> None:
    for path in ("/produce", "/produce/orders"):
        answer = await client.post(path, content=b" [ ] ")
        assert (answer.status_code, answer.text) == (200, "[]")
    assert await store.topics.list_topics() == []


async def test_a_timestamp_is_replaced_where_the_topic_wants_its_own(client: httpx.AsyncClient, store: Store) -> None:
    await store.topics.create_topic("orders", TopicConfig(partitions=1, timestamp_type="append"))
    metadata = await one(await client.post("/produce/orders", json={"value": "v", "timestamp": 5}))
    assert metadata["timestamp"] > 1_700_000_000_000
    await stored(store, metadata)


async def test_compressed_and_chunked_bodies(server: RunningServer, settings: Settings, store: Store) -> None:
    body = gzip.compress(b'[{"value":"v"},]')
    head = f"POST /produce/orders HTTP/1.1\r\nauthorization: Bearer {settings.token}\r\n"
    framed = [
        (f"content-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n", body),
        ("content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
    ]
    for lines, content in framed:
        async with await server.connect() as connection:
            await connection.send(head.encode() + lines.encode() + content)
            answer = await connection.receive()
            assert answer.status == 200, answer.body
            assert (await stored(store, answer.json[0])).value == b"v"


async def test_a_client_that_waits_before_its_body(server: RunningServer, settings: Settings) -> None:
    body = b'{"value":"v"}'
    async with await server.connect() as connection:
        await connection.send(
            b"POST /produce/orders HTTP/1.1\r\nauthorization: Bearer %b\r\nexpect: 100-continue\r\n"
            b"content-length: %d\r\n\r\n" % (settings.token.encode(), len(body))
        )
        assert (await connection.receive()).status == 100
        await connection.send(body)
        assert (await connection.receive()).status == 200


# Refusals: each in Upstash's form, and nothing is stored.


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/produce", b"", "the body is empty"),
        ("/produce", b"  \n", "the body is empty"),
        ("/produce/orders", b"", "the body is empty"),
        ("/produce", b"value=1", "the body is not JSON"),
        ("/produce", b'{"value":"no topic"}', "message 0: topic is required"),
        ("/produce", b'[{"topic":"a","value":"x"},{"topic":"b"}]', "message 1: value is required"),
        ("/produce", b'[{"topic":"a","value":"x"},{"topic":"a b","value":"x"}]', "message 1: topic: 'a b'"),
        ("/produce", b'[{"topic":"a","value":"x"},{"topic":"b","value":"x","partition":4}]', "message 1: topic b has"),
        ("/produce/orders", b'{"value":"x","partition":4}', "message 0: topic orders has the partitions 0 to 3, not 4"),
        ("/produce/orders", b'{"value":"x","partition":1.0}', "message 0: partition must be an integer"),
        ("/produce/orders", b'{"value":"x","timestamp":-1}', "message 0: timestamp"),
        ("/produce/orders", b'{"value":"\\ud800"}', "the body is not JSON"),
        ("/produce/orders", b'{"value":"\xff"}', "the body is not valid UTF-8"),
        ("/produce/a%20b", b'{"value":"x"}', "is no name of a topic"),
        ("/webhook", b"x", "topic: the query parameter is required"),
        ("/webhook?topic=", b"x", "topic: '' is no name of a topic"),
        ("/webhook?topic=%C4", b"x", "topic: not valid UTF-8"),
    ],
)
async def test_a_malformed_request(client: httpx.AsyncClient, store: Store, path: str, body: bytes, text: str) -> None:
    check_refusal(await client.post(path, content=body), 400, text)
    assert await store.topics.list_topics() == []


@pytest.mark.parametrize("coding", ["br", "deflate"])
async def test_another_compression(client: httpx.AsyncClient, coding: str) -> None:
    answer = await client.post("/produce/orders", content=b"x", headers={"content-encoding": coding})
    check_refusal(answer, 400, "content-encoding: only gzip")


@pytest.mark.parametrize(
    "credential",
    [
        None,
        "Basic",
        "Basic !!!",
        "Basic bm9jb2xvbg==",
        "Digest abc",
        "Bearer",
        "Bearer wrong",
        "Basic " + "eDp3cm9uZw==",
    ],
)
@pytest.mark.parametrize("path", ["/produce/orders/x", "/topics", "/webhook?topic=orders", "/topics/unknown/path"])
async def test_a_wrong_credential(settings: Settings, store: Store, credential: str | None, path: str) -> None:
    headers = {} if credential is None else {"authorization": credential}
    transport = httpx.ASGITransport(create_app(settings, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as anybody:
        answer = await anybody.get(path)
    check_refusal(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert await store.topics.list_topics() == []


@pytest.mark.parametrize("user", ["", "default", "ü", "İ:"])
async def test_the_password_is_the_token_whoever_the_user_is(client: httpx.AsyncClient, user: str) -> None:
    if ":" in user:
        check_refusal(await client.get("/topics", auth=(user, FULL)), 401)
    else:
        assert (await client.get("/topics", auth=(user, FULL))).status_code == 200


async def test_a_user_name_in_latin_1(client: httpx.AsyncClient, settings: Settings) -> None:
    """The official client encodes it like that."""
    answer = await client.get("/topics", auth=httpx.BasicAuth("ü".encode("latin-1"), settings.token.encode()))
    assert answer.status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_token_by_bearer(settings: Settings, store: Store, scheme: str) -> None:
    transport = httpx.ASGITransport(create_app(settings, store))
    headers = {"authorization": f"{scheme} {PRODUCER}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as anybody:
        await one(await anybody.post("/produce/orders", content=b'{"value":"v"}'))


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (FULL, "/produce/orders-eu/x", 200),
        (FULL, "/produce/other/x", 403),
        (PRODUCER, "/produce/orders/x", 200),
        (PRODUCER, "/produce/orders-eu/x", 403),
        (CONSUMER, "/produce/orders/x", 403),
        ("publisher-token", "/produce/anything/x", 200),
        ("reader-token", "/produce/orders/x", 403),
        (PRODUCER, "/webhook?topic=orders", 200),
        (PRODUCER, "/webhook?topic=other", 403),
        (CONSUMER, "/webhook?topic=orders", 403),
    ],
)
async def test_what_a_credential_allows(
    client: httpx.AsyncClient, store: Store, token: str, path: str, status: int
) -> None:
    answer = await client.get(path, auth=("x", token))
    if status == 403:
        check_refusal(answer, 403, "forbidden")
        assert await store.topics.list_topics() == []
    else:
        assert answer.status_code == 200, answer.text


async def test_one_forbidden_topic_forbids_all(client: httpx.AsyncClient, store: Store) -> None:
    body = b'[{"topic":"orders","value":"x"},{"topic":"other","value":"x"}]'
    check_refusal(await client.post("/produce", content=body, auth=("x", PRODUCER)), 403, "not for topic other")
    assert await store.topics.list_topics() == []


async def test_an_unknown_topic_where_none_is_created(settings: Settings, store: Store) -> None:
    transport = httpx.ASGITransport(create_app(replace(settings, auto_create_topics=False), store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", auth=("x", settings.token)) as client:
        check_refusal(await client.get("/produce/orders/x"), 404, "topic orders does not exist")
        check_refusal(await client.get("/produce/orders/x", auth=("x", CONSUMER)), 403)
        await store.topics.create_topic("orders", TopicConfig(partitions=1))
        body = b'[{"topic":"orders","value":"x"},{"topic":"other","value":"x"}]'
        check_refusal(await client.post("/produce", content=body), 404, "topic other does not exist")
        answer = await client.get("/produce/orders/x")
        assert (answer.status_code, answer.json()["offset"]) == (200, 0)


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/topics/a/b", 404, None),
        ("GET", "/topics/a/b/c?pass=secret", 404, None),
        ("PUT", "/produce", 405, "GET, POST"),
        ("DELETE", "/produce/orders/x", 405, "GET, POST"),
        ("OPTIONS", "/webhook", 405, "GET, POST"),
        ("POST", "/topics", 405, "GET"),
    ],
)
async def test_an_unknown_path_or_method(
    client: httpx.AsyncClient, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = await client.request(method, path)
    check_refusal(answer, status)
    assert answer.headers.get("allow") == allow
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/produce/orders/x", "/produce/orders", "/webhook?topic=orders", "/topics"])
async def test_head_is_refused_and_does_nothing(client: httpx.AsyncClient, store: Store, path: str) -> None:
    answer = await client.head(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (405, "no-store")
    assert "GET" in answer.headers["allow"]
    assert await store.topics.list_topics() == []


@pytest.mark.parametrize("path", ["/v2/topics", "/v2/topics/produce", "/v2/queues"])
async def test_paths_of_qstash_stay_where_they_were(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["content-type"] == "application/json"
    assert "status" not in (answer.json() or {})


@pytest.mark.parametrize("path", ["/produce/orders", "/webhook?topic=orders"])
async def test_a_body_over_the_limit(client: httpx.AsyncClient, store: Store, path: str) -> None:
    check_refusal(await client.post(path, content=b" " * (LIMIT + 1)), 413, f"{LIMIT} bytes")
    bomb = gzip.compress(b" " * (LIMIT + 1))
    check_refusal(await client.post(path, content=bomb, headers={"content-encoding": "gzip"}), 413, f"{LIMIT} bytes")
    assert await store.topics.list_topics() == []


async def test_a_body_of_the_limit(client: httpx.AsyncClient) -> None:
    body = json.dumps([{"value": "x" * 1000}] * 10).encode()
    answer = await client.post("/produce/orders", content=body + b" " * (LIMIT - len(body)))
    assert answer.status_code == 200


async def test_one_record_over_the_limit(client: httpx.AsyncClient, store: Store) -> None:
    for value, status in (("x" * 1930, 200), ("x" * 1931, 413)):
        answer = await client.post("/produce", json=[{"topic": "orders", "value": value}])
        assert answer.status_code == status
    answer = await client.post("/produce", json=[{"topic": "a", "value": "x"}, {"topic": "b", "value": "x" * 1931}])
    check_refusal(answer, 413, "message 1: a record of 2001 bytes")
    assert [topic.name for topic in await store.topics.list_topics()] == ["orders"]


async def test_too_many_messages(client: httpx.AsyncClient) -> None:
    assert (await client.post("/produce/orders", json=[{"value": "x"}] * 50)).status_code == 200
    check_refusal(await client.post("/produce/orders", json=[{"value": "x"}] * 51), 413, "more than 50 messages")


async def test_a_url_over_the_limit(client: httpx.AsyncClient) -> None:
    path = "/produce/orders/x?other="
    assert (await client.get(path + "y" * (16_384 - len(path)))).status_code == 200
    check_refusal(await client.get(path + "y" * (16_385 - len(path))), 414, "16384 bytes")


async def test_one_request_too_many(settings: Settings, store: Store) -> None:
    clock = StandingClock()
    transport = httpx.ASGITransport(create_app(replace(settings, topics_burst_limit=2), store, clock))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", auth=("x", settings.token)) as client:
        for _ in range(2):
            assert (await client.get("/topics")).status_code == 200
        answer = await client.get("/produce/orders/x")
        check_refusal(answer, 429, "more than 2 requests in this second")
        assert answer.headers["retry-after"] == "1"
        assert await store.topics.list_topics() == []
        # What is not let in takes nothing from the others, and QStash's API has a limit of its own.
        check_refusal(await client.get("/topics", auth=("x", "wrong")), 401)
        assert (await client.get("/v2/keys", headers={"authorization": f"Bearer {settings.token}"})).status_code != 429
        clock.ms += 1000
        assert (await client.get("/topics")).status_code == 200


async def test_one_topic_too_many(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise QuotaExceeded("topic orders: there are 1000 topics already, the limit")

    monkeypatch.setattr(RedisTopicLog, "create_topic", refuse)
    transport = httpx.ASGITransport(create_app(settings, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", auth=("x", settings.token)) as client:
        answer = await client.get("/produce/orders/x")
    check_refusal(answer, 429, "the limit")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("error", "status", "text", "retry_after"),
    [
        (StorageUnavailable("redis://secret@host is away"), 503, "the store does not answer", "1"),
        (StorageFull("OOM command not allowed"), 503, "the store is full", "10"),
        (RuntimeError("Traceback: secret internals"), 500, "internal error, request id", None),
        (asyncio.CancelledError("at the end of the grace period"), 503, "the service is stopping", "1"),
    ],
)
async def test_the_store_fails(
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    text: str,
    retry_after: str | None,
) -> None:
    await one(await client.post("/produce/orders", json={"value": "x"}))

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(RedisTopicLog, "append", fail)
    for path, body in (
        ("/produce/orders/x", b""),
        ("/produce/orders", b'{"value":"x"}'),
        ("/produce/orders", b'[{"value":"x"},{"value":"y"}]'),
    ):
        answer = await client.post(path, content=body)
        check_refusal(answer, status, text)
        assert answer.headers.get("retry-after") == retry_after
        assert str(error) not in answer.text
        names_a_message = "message 0 is not confirmed, others may be stored" in answer.text
        assert names_a_message == (body.startswith(b"[") and isinstance(error, StorageError))


# The webhook.

FROM_A_WEBHOOK = {
    "X-GitHub-Event": "push", "Event-Origin": "shop", "X-Signature": "sha256=\u00e9", "Accept-Language": "en",
    "Access-Control-Request-Method": "POST", "Age": "1", "Cache-Control": "no-cache", "CF-Ray": "1",
    "Content-Type": "application/x-www-form-urlencoded", "Content-Language": "en", "Cookie": "a=b", "Date": "today",
    "DNT": "1", "Forwarded": "for=1.2.3.4", "From": "a@b.c", "If-None-Match": "x", "Keep-Alive": "1", "Origin": "x",
    "Pragma": "x", "Priority": "u=1", "Proxy-Authorization": "x", "Range": "x", "Referer": "x", "Sec-Fetch-Mode": "x",
    "TE": "trailers", "Via": "x", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Real-IP": "1.2.3.4",
    "User-Agent": "hookshot",
}  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_webhook(client: httpx.AsyncClient, store: Store, method: str) -> None:
    body = b'a=b&c=%20\xff\x00,{"x":1,}'
    headers = [(name.encode(), value.encode()) for name, value in FROM_A_WEBHOOK.items()] + [(b"X-GitHub-Event", b"2")]
    answer = await client.request(method, "/webhook?topic=orders", content=body, headers=headers)
    record = await stored(store, await one(answer))
    assert (record.key, record.value) == (None, body)
    assert record.headers == (
        ("x-github-event", b"push"),
        ("event-origin", b"shop"),
        ("x-signature", "sha256=\u00e9".encode()),
        ("x-github-event", b"2"),
    )


async def test_a_webhook_without_a_body(client: httpx.AsyncClient, store: Store) -> None:
    record = await stored(store, await one(await client.post("/webhook/?topic=orders")))
    assert (record.value, record.headers) == (b"", ())


async def test_a_compressed_webhook_is_stored_as_it_was_before(client: httpx.AsyncClient, store: Store) -> None:
    """The header that would tell how to read it is not stored."""
    headers = {"content-encoding": "gzip"}
    answer = await client.post("/webhook?topic=orders", content=gzip.compress(b"event"), headers=headers)
    assert (await stored(store, await one(answer))).value == b"event"


async def test_the_credential_of_a_webhook_in_its_url(settings: Settings, store: Store, events: Events) -> None:
    transport = httpx.ASGITransport(create_app(settings, store))
    path = f"/webhook?topic=orders&user=me&pass={PRODUCER}"
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as sender:
        metadata = await one(await sender.post(path, content=b"event"))
        # Where the header is, it decides alone.
        check_refusal(await sender.post(path, content=b"event", auth=("me", "wrong")), 401)
        check_refusal(await sender.post("/webhook?topic=orders&user=me&pass=wrong"), 401)
        check_refusal(await sender.post("/webhook?topic=orders&user=me"), 401)
        check_refusal(await sender.post(f"/webhook?topic=other&user=me&pass={PRODUCER}"), 403)
        # It is for the webhook alone.
        check_refusal(await sender.get(f"/topics?user=me&pass={PRODUCER}"), 401)
    assert (await stored(store, metadata)).headers == ()
    logged = json.dumps(events())
    assert PRODUCER not in logged
    assert "wrong" not in logged


# The list of topics, and what is counted and logged.


async def test_only_topics_of_the_credential_are_listed(client: httpx.AsyncClient, store: Store) -> None:
    for name, partitions in (("orders", 2), ("orders-eu", 4), ("audit", 1)):
        await store.topics.create_topic(name, TopicConfig(partitions=partitions))
    assert (await client.get("/topics")).json() == {"audit": 1, "orders": 2, "orders-eu": 4}
    assert (await client.get("/topics", auth=("x", FULL))).json() == {"orders": 2, "orders-eu": 4}
    assert (await client.get("/topics/", auth=("x", PRODUCER))).json() == {"orders": 2}


async def test_every_request_is_logged(client: httpx.AsyncClient, events: Events) -> None:
    await client.get("/produce/orders/x?key=k", headers={"x-request-id": "mine"})
    await client.get("/produce/a%20b/x", headers={"x-request-id": "bad"})
    await client.get("/topics/a/b", headers={"x-request-id": "lost"})
    served, refused, lost = events()
    assert (served["event"], served["route"], served["status"]) == ("request.served", "produce", 200)
    assert (refused["event"], refused["route"], refused["status"]) == ("request.refused", "produce", 400)
    assert (lost["event"], lost["route"], lost["status"]) == ("request.refused", "unmatched", 404)
    assert [event["request_id"] for event in (served, refused, lost)] == ["mine", "bad", "lost"]
