"""`POST /topics/{topic}/records`: any body, keys and headers in the query, schemas, and each error in its shape."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.api.app import create_app
from qstash_clone.api.topics.event_streams import shown_time
from qstash_clone.api.topics.event_streams_v1 import parse_headers
from qstash_clone.errors import StorageFull, StorageTimeout, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from qstash_clone.topics.avro_schema import parse_schema
from qstash_clone.topics.schemas import digest_of
from tests.api.conftest import Events, RunningServer
from tests.api.kafka import JSON_UTF8, UUID, failing_append, schema_text, stored_records

PATH = "/topics/orders/records"
SCHEMA_HEADER = "com.ibm.eventstreams.schemaregistry."


async def send(
    client: httpx.AsyncClient, body: bytes = b"paid", query: str = "", content_type: str = "text/plain", **headers: str
) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"{PATH}?{query}" if query else PATH
    return await client.post(path, content=body, headers={"content-type": content_type, **names})


def refused(answer: httpx.Response, status: int, code: int | None = None, **others: str) -> str:
    """Hold an answer against the shape of errors; returns its text."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, JSON_UTF8), answer.text
    body = answer.json()
    assert set(body) == {"error_code", "message", "error"}
    inner = body["error"]
    assert (body["error_code"], inner["error_code"]) == (status, status)
    assert body["message"] == inner["message"] != ""
    assert re.fullmatch(UUID, inner["incident"])
    assert answer.headers["x-trace-id"] == inner["incident"]
    assert inner.get("kafka_error_code") == code
    expected = {"topic": "orders", **others}
    assert {name: inner[name] for name in set(inner) & {"topic", "schema"}} == expected
    return body["message"]


async def register(store: Store, subject: str, text: str) -> None:
    schema = parse_schema(text)
    await store.schemas.register_schema(subject, digest_of(schema), schema.text, None)


async def test_the_example_of_the_contract(client: httpx.AsyncClient, store: Store) -> None:
    answer = await send(client, query="key=6f2d39&keyType=binary&headers=src:776562")
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON_UTF8), answer.text
    metadata = answer.json().pop("metadata")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", metadata.pop("timestamp"))
    assert metadata == {"topic": "orders", "partition": 2, "offset": 0}
    (record,) = await stored_records(store, "orders")
    assert (record.key, record.value, record.headers) == (b"o-9", b"paid", (("src", b"web"),))


@pytest.mark.parametrize("binary", [b"\0\xff\x80", bytes(range(256)), b"x" * 65_536])
@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "Text/Plain; charset=iso-8859-1",
        "application/octet-stream",
        "application/xml",
        "text/xml",
        "vnd.ibm-event-streams.binary.v1",
        "vnd.ibm-event-streams.text.v1",
        "application/vnd.ibm-event-streams.binary.v1",
        "application/vnd.ibm-event-streams.text.v1",
    ],
)
async def test_the_body_is_the_value_byte_for_byte(
    client: httpx.AsyncClient, store: Store, content_type: str, binary: bytes
) -> None:
    assert (await send(client, binary, content_type=content_type)).status_code == 200
    (record,) = await stored_records(store, "orders")
    assert (record.key, record.value, record.headers) == (None, binary, ())


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "vnd.ibm-event-streams.json.v1", "application/vnd.ibm-event-streams.json.v1; charset=utf-8"],
)
@pytest.mark.parametrize("body", [b' {"records": [ {"value": "x"} ] }', b"1e999", b'"\\u00fc"', b"\xef\xbb\xbf[1]"])
async def test_json_is_read_and_stored_unchanged(
    client: httpx.AsyncClient, store: Store, content_type: str, body: bytes
) -> None:
    assert (await send(client, body, content_type=content_type)).status_code == 200
    assert [record.value for record in await stored_records(store, "orders")] == [body]


@pytest.mark.parametrize("body", [b"{", b"[1,]", b"x", b'"\xff"', b" ", b"NaN", b"[" * 50_000])
async def test_400_for_what_is_no_json(client: httpx.AsyncClient, store: Store, body: bytes) -> None:
    assert "not JSON" in refused(await send(client, body, content_type="application/json"), 400)
    assert (await send(client, body)).status_code == 200


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("", None),
        ("key=", b""),
        ("key=&keyType=binary", b""),
        ("key=o-9", b"o-9"),
        ("key=%C4%B0stanbul+1&keyType=text", "\u0130stanbul 1".encode()),
        ("key=00FFa0&keyType=binary", b"\x00\xff\xa0"),
        ("key=00ff&keyType=BINARY", b"\x00\xff"),
        ("key=00ff", b"00ff"),
        ("key=a&key=b", b"a"),
    ],
)
async def test_keys(client: httpx.AsyncClient, store: Store, query: str, key: bytes | None) -> None:
    assert (await send(client, query=query)).status_code == 200
    (record,) = await stored_records(store, "orders")
    assert record.key == key


@pytest.mark.parametrize(
    "query", ["key=0&keyType=binary", "key=0g&keyType=binary", "key=0 1&keyType=binary", "key=%FF"]
)
async def test_400_for_a_key_that_cannot_be_read(client: httpx.AsyncClient, query: str) -> None:
    assert "key" in refused(await send(client, query=query), 400)


@pytest.mark.parametrize("key_type", ["json", "base64", "hex"])
async def test_400_for_another_type_of_key(client: httpx.AsyncClient, key_type: str) -> None:
    assert key_type in refused(await send(client, query=f"key=aa&keyType={key_type}"), 400)


async def test_a_key_has_4096_bytes_at_most(client: httpx.AsyncClient, store: Store) -> None:
    assert (await send(client, query="key=" + "k" * 4096)).status_code == 200
    assert (await send(client, query="keyType=binary&key=" + "00" * 4096)).status_code == 200
    assert "4097" in refused(await send(client, query="key=" + "k" * 4097), 400, 10)
    assert "4097" in refused(await send(client, query="keyType=binary&key=" + "00" * 4097), 400, 10)
    assert len(await stored_records(store, "orders")) == 2


async def test_headers_are_in_base_16(client: httpx.AsyncClient, store: Store) -> None:
    query = "headers=colour:626c7565,size:34,colour:,x%3Ay:00FF,%C3%BC:aB"
    # The value of the parameter is decoded before it is split, so an encoded colon is one.
    assert "the value of 'x'" in refused(await send(client, query=query), 400)
    assert (await send(client, query=query.replace("x%3Ay", "x-y"))).status_code == 200
    assert (await send(client, query="headers=")).status_code == 200
    records = sorted(await stored_records(store, "orders"), key=lambda record: -len(record.headers))
    assert [record.headers for record in records] == [
        (("colour", b"blue"), ("size", b"4"), ("colour", b""), ("x-y", b"\x00\xff"), ("\u00fc", b"\xab")),
        (),
    ]


@pytest.mark.parametrize("headers", ["colour", ":00", "a:0", "a:0g", "a:00,", ",a:00", "a:00,,b:00", "a:00 ", "a:b:00"])
async def test_400_for_headers_that_are_malformed(client: httpx.AsyncClient, headers: str) -> None:
    assert refused(await send(client, query="headers=" + headers), 400).startswith("headers: ")


_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=",:"), min_size=1, max_size=10)


@given(st.lists(st.tuples(_NAMES, st.binary(max_size=20)), max_size=5), st.booleans())
def test_any_headers_come_back(headers: list[tuple[str, bytes]], is_upper: bool) -> None:
    pairs = (f"{name}:{value.hex().upper() if is_upper else value.hex()}" for name, value in headers)
    assert parse_headers(",".join(pairs)) == tuple(headers)


def basic(token: str, user: str = "token") -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


@pytest.mark.parametrize("way", ["bearer", "bearer without a blank", "basic", "basic of a user", "x-auth-token"])
async def test_three_ways_of_authorization(client: httpx.AsyncClient, settings: Settings, way: str) -> None:
    token = settings.token
    del client.headers["authorization"]
    given: dict[str, dict[str, str]] = {
        "bearer": {"authorization": f"Bearer {token}"},
        "bearer without a blank": {"authorization": f"bearer{token}"},
        "basic": {"authorization": basic(token)},
        "basic of a user": {"authorization": basic(token, "scram-user")},
        "x-auth-token": {"x-auth-token": token},
    }
    answer = await client.post(PATH, content=b"x", headers={"content-type": "text/plain", **given[way]})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nonsense"},
        {"authorization": basic("nonsense")},
        {"authorization": "Basic !"},
        {"authorization": "Digest x"},
        {"x-auth-token": "nonsense"},
    ],
)
async def test_401(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Before anything else about the request is looked at."""
    del client.headers["authorization"]
    answer = await client.post(PATH, content=b"", headers=headers)
    refused(answer, 401)
    challenges = answer.headers.get_list("www-authenticate")
    assert challenges == ["Bearer", 'Basic realm="kafka", charset="UTF-8"']


async def test_401_although_another_header_has_the_token(client: httpx.AsyncClient, settings: Settings) -> None:
    refused(await send(client, authorization="Bearer nonsense", x_auth_token=settings.token), 401)


async def test_405(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH)
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "content_type", ["", "text/html", "application/x-www-form-urlencoded", "vnd.kafka.json.v2+json"]
)
async def test_415(client: httpx.AsyncClient, content_type: str) -> None:
    assert "vnd.ibm-event-streams" in refused(await send(client, content_type=content_type), 415)


async def test_415_without_a_content_type(client: httpx.AsyncClient) -> None:
    refused(await client.post(PATH, content=b"x"), 415)


async def in_parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "vnd.ibm-event-streams.text.v1"])
async def test_411_for_a_length_that_is_not_announced(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post(PATH, content=in_parts(b"pa", b"id"), headers={"content-type": content_type})
    refused(answer, 411)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "application/xml", "application/octet-stream"]
)
async def test_411_for_an_empty_body(client: httpx.AsyncClient, content_type: str) -> None:
    assert refused(await send(client, b"", content_type=content_type), 411) == "the body is empty"


@pytest.mark.parametrize("content_type", ["application/json", "text/xml"])
async def test_other_bodies_may_come_in_parts(client: httpx.AsyncClient, store: Store, content_type: str) -> None:
    answer = await client.post(PATH, content=in_parts(b'{"a"', b":1}"), headers={"content-type": content_type})
    assert answer.status_code == 200
    assert [record.value for record in await stored_records(store, "orders")] == [b'{"a":1}']
    answer = await client.post(PATH, content=in_parts(), headers={"content-type": content_type})
    refused(answer, 411)


async def test_parts_on_a_real_connection(server: RunningServer, settings: Settings) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers={"x-auth-token": settings.token}) as client:
        plain = {"content-type": "text/plain"}
        refused(await client.post(PATH, content=in_parts(b"pa", b"id"), headers=plain), 411)
        assert (await client.post(PATH, content=b"paid", headers=plain)).status_code == 200
        refused(await client.post(PATH, headers=plain), 411)


async def test_400_for_a_body_that_is_too_large(client: httpx.AsyncClient, store: Store) -> None:
    assert (await send(client, b"x" * 65_536)).status_code == 200
    assert "65536" in refused(await send(client, b"x" * 65_537), 400, 10)
    answer = await client.post(PATH, content=in_parts(b"x" * 65_536, b"x"), headers={"content-type": "text/xml"})
    refused(answer, 400, 10)
    assert len(await stored_records(store, "orders")) == 1


async def test_414(client: httpx.AsyncClient) -> None:
    room = 10 * 1024 - len(PATH) - 1
    assert (await send(client, query="x=" + "y" * (room - 2))).status_code == 200
    refused(await send(client, query="x=" + "y" * (room - 1)), 414)


@pytest.mark.parametrize("topic", ["a%20b", "%2E%2E", "a" * 250])
async def test_400_for_a_topic_that_cannot_be(client: httpx.AsyncClient, topic: str) -> None:
    answer = await client.post(f"/topics/{topic}/records", content=b"x", headers={"content-type": "text/plain"})
    assert (answer.status_code, "topic" in answer.json()["error"]) == (400, False)
    assert "topic_name" in answer.json()["message"]
    assert answer.json()["message"].endswith("use 1 to 249 of A-Z a-z 0-9 . _ - (and more than . or ..)")


async def test_403(settings: Settings, store: Store) -> None:
    token = "c" * 20
    limited = replace(settings, topic_credentials=(f"consume-only:*:{token}",), auto_create_topics=False)
    transport = httpx.ASGITransport(create_app(limited, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        refused(await send(client, x_auth_token=token), 403, 29)


async def test_404(settings: Settings, store: Store) -> None:
    transport = httpx.ASGITransport(create_app(replace(settings, auto_create_topics=False), store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        refused(await send(client, x_auth_token=settings.token), 404, 3)
    assert await store.topics.list_topics() == []


async def test_408(client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_append(monkeypatch, store, StorageTimeout("secret"))
    answer = await send(client)
    assert "secret" not in refused(answer, 408, 7)
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("error", [StorageUnavailable("secret"), StorageFull("secret"), asyncio.CancelledError()])
async def test_503(
    client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    failing_append(monkeypatch, store, error)
    answer = await send(client)
    assert "secret" not in refused(answer, 503)
    assert answer.headers["retry-after"] in ("1", "10")


async def test_500(client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch, events: Events) -> None:
    failing_append(monkeypatch, store, ZeroDivisionError("secret"))
    answer = await send(client)
    assert "secret" not in refused(answer, 500)
    (event,) = [event for event in events() if event["event"] == "request.failed"]
    assert event["trace"] == answer.headers["x-trace-id"]


# Schemas


async def test_a_schema_is_named_in_the_headers(client: httpx.AsyncClient, store: Store) -> None:
    await register(store, "order", schema_text(id="long"))
    await register(store, "order", schema_text(id="long", state="string"))
    for content_type, encoding in (
        ("application/json", b"JSON"),
        ("application/octet-stream", b"BINARY"),
        ("text/plain", None),
    ):
        query = "schemaname=order&schemaversion=1&headers=a:00"
        answer = await send(client, b'{"not": "checked"}', query, content_type)
        assert answer.status_code == 200, answer.text
        records = await stored_records(store, "orders")
        expected = [("a", b"\0"), (SCHEMA_HEADER + "schema.id", b"order"), (SCHEMA_HEADER + "schema.version", b"1")]
        if encoding is not None:
            expected.append((SCHEMA_HEADER + "encoding", encoding))
        assert tuple(expected) in [record.headers for record in records]
    await send(client, b"x", "schemaname=order&schemaversion=latest")
    versions = [
        dict(record.headers)[SCHEMA_HEADER + "schema.version"] for record in await stored_records(store, "orders")
    ]
    assert sorted(version or b"" for version in versions) == [b"1", b"1", b"1", b"2"]


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b'{"id": 7}', "application/json", None),
        (b'\xef\xbb\xbf{"id": 7}', "application/json", None),
        (b"\x0e", "application/octet-stream", None),
        (b'{"id": "7"}', "application/json", 'id: "7" is no long'),
        (b'{"other": 7}', "application/json", "has no field 'other'"),
        (b"\x0e\x0e", "application/octet-stream", "the datum ends at byte 1 of 2"),
        (b"\xff", "application/octet-stream", "which it needs"),
        (b"7", "text/plain", "only JSON and octet-stream can be checked"),
    ],
)
async def test_a_body_is_checked_against_its_schema_if_asked(
    client: httpx.AsyncClient, store: Store, body: bytes, content_type: str, message: str | None
) -> None:
    await register(store, "order", schema_text(id="long"))
    query = "schemaname=order&schemaversion=1&schemavalidation="
    answer = await send(client, body, query + "true", content_type)
    if message is None:
        assert answer.status_code == 200, answer.text
    else:
        assert message in refused(answer, 400, schema="order")
    assert (await send(client, body, query + "false", content_type)).status_code == 200


@pytest.mark.parametrize("query", ["schemaname=other&schemaversion=1", "schemaname=order&schemaversion=2"])
@pytest.mark.parametrize("more", ["", "&schemavalidation=true"])
async def test_404_for_a_schema_that_is_unknown(client: httpx.AsyncClient, store: Store, query: str, more: str) -> None:
    await register(store, "order", schema_text(id="long"))
    refused(await send(client, query=query + more), 404, schema=query[11:16])
    assert await store.topics.list_topics() == []


@pytest.mark.parametrize("version", ["0", "x", "1.0", "99999999999", "-1"])
async def test_404_for_a_version_that_cannot_be(client: httpx.AsyncClient, store: Store, version: str) -> None:
    await register(store, "order", schema_text(id="long"))
    refused(await send(client, query=f"schemaname=order&schemaversion={version}"), 404, schema="order")


@pytest.mark.parametrize(
    "query",
    ["schemaname=order", "schemaversion=1", "schemavalidation=true", "schemaname=order&schemaversion="],
)
async def test_400_for_half_a_reference(client: httpx.AsyncClient, query: str) -> None:
    assert "schemaversion" in refused(await send(client, query=query), 400)


async def test_400_for_a_flag_that_is_none(client: httpx.AsyncClient) -> None:
    assert "schemavalidation" in refused(await send(client, query="schemavalidation=yes"), 400)


async def test_the_token_is_in_no_log(client: httpx.AsyncClient, settings: Settings, events: Events) -> None:
    del client.headers["authorization"]
    await send(client, x_auth_token=settings.token)
    await send(client, query="schemaname=x", x_auth_token=settings.token)
    await send(client, authorization=basic("nonsense-secret"))
    logged = json.dumps(events())
    for secret in (settings.token, "nonsense-secret", basic("nonsense-secret")):
        assert secret not in logged


def test_the_time_is_shown_as_rfc_3339_has_it() -> None:
    shown = [shown_time(ms) for ms in (0, 1, 999, 1_714_557_601_007)]
    assert shown == [
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:00.001Z",
        "1970-01-01T00:00:00.999Z",
        "2024-05-01T10:00:01.007Z",
    ]
