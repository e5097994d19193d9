"""`POST /v2/topics/{topic}/records`: every type of payload, schemas, limits, and each error in its shape."""

import asyncio
import base64
import gzip
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import fastavro
import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.clock import SystemClock
from qstash_clone.errors import QuotaExceeded, StorageFull, StorageTimeout, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage import connection
from qstash_clone.storage.store import Store, open_store
from qstash_clone.topics.partitioning import partition_of_key
from qstash_clone.topics.schemas import SubjectVersion
from tests.api.conftest import Events
from tests.api.kafka import JSON_UTF8, UUID, failing_append, schema_text, stored_records

PATH = "/v2/topics/orders/records"
TEXT = {"type": "text", "data": "paid"}
SCHEMA = schema_text(id="long", state="string")
AVRO = {"type": "avro", "data": '{"id": 7, "state": "paid"}', "schema": SCHEMA}
AVRO_BYTES = b"\x0e\x08paid"


class StoppedClock(SystemClock):
    """Goes on when told to."""

    ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms


Opened = Callable[[Settings], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def opened(store: Store) -> AsyncIterator[Opened]:
    """Clients of applications with other settings on the same store."""
    clients: list[httpx.AsyncClient] = []

    async def open_client(settings: Settings) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {settings.token}"}
        transport = httpx.ASGITransport(create_app(settings, store), raise_app_exceptions=True)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers))
        return clients[-1]

    yield open_client
    for client in clients:
        await client.aclose()


async def send(client: httpx.AsyncClient, body: Any, path: str = PATH, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(path, content=content, headers={"content-type": "application/json", **names})


def refused(answer: httpx.Response, status: int, code: str, target: tuple[str, str] | None = None) -> str:
    """Hold an answer against the shape of errors; returns its text."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, JSON_UTF8), answer.text
    body = answer.json()
    assert set(body) == {"trace", "error"}
    assert re.fullmatch(UUID, body["trace"])
    assert answer.headers["x-trace-id"] == body["trace"]
    error = body["error"]
    assert set(error) == {"code", "message", "more_info"} | ({"target"} if target else set[str]())
    assert error["code"] == code
    assert error["more_info"].startswith("https://")
    if target:
        assert error["target"] == {"type": target[0], "name": target[1]}
    return error["message"]


async def test_the_example_of_the_contract(client: httpx.AsyncClient, store: Store) -> None:
    answer = await send(
        client,
        {
            "headers": [{"name": "src", "value": "d2Vi"}],
            "key": {"type": "text", "data": "o-9"},
            "value": {"type": "json", "data": '{"state":"paid"}'},
        },
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON_UTF8), answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "x-trace-id" not in answer.headers
    body = answer.json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body.pop("timestamp"))
    assert body == {
        "topic_name": "orders",
        "partition_id": 2,
        "offset": 0,
        "key": {"type": "text"},
        "value": {"type": "json"},
    }
    (record,) = await stored_records(store, "orders")
    assert (record.key, record.value, record.headers) == (b"o-9", b'{"state":"paid"}', (("src", b"web"),))


async def test_the_time_of_the_answer_is_that_of_the_record(client: httpx.AsyncClient, store: Store) -> None:
    answer = (await send(client, {"value": TEXT})).json()
    (record,) = await stored_records(store, "orders")
    assert datetime.fromisoformat(answer["timestamp"]).timestamp() * 1000 == pytest.approx(record.timestamp_ms)


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        ({"type": "text", "data": "g\u00fcn \U0001f600 \u0000"}, "g\u00fcn \U0001f600 \u0000".encode()),
        ({"type": "text", "data": ""}, b""),
        ({"type": "TEXT", "data": "x"}, b"x"),
        ({"type": "binary", "data": base64.b64encode(bytes(range(256))).decode()}, bytes(range(256))),
        ({"type": "binary", "data": "+/8="}, b"\xfb\xff"),
        ({"type": "binary", "data": "+/8"}, b"\xfb\xff"),
        ({"type": "binary", "data": ""}, b""),
        ({"type": "json", "data": ' {"a": [1, 2] } '}, b' {"a": [1, 2] } '),
        ({"type": "json", "data": '"text"'}, b'"text"'),
        ({"type": "json", "data": "1e999"}, b"1e999"),
        (
            {"type": "json", "data": {"b": [1.50, None, "\u00fc"], "a": 1e2}},
            '{"b":[1.5,null,"\u00fc"],"a":100.0}'.encode(),
        ),
        ({"type": "json", "data": [1, 2]}, b"[1,2]"),
        ({"type": "json", "data": 12345678901234567890123}, b"12345678901234567890123"),
        ({"type": "json", "data": None}, b"null"),
        ({"type": "json", "data": True}, b"true"),
    ],
)
async def test_payloads_are_stored_as_their_type_says(
    client: httpx.AsyncClient, store: Store, payload: dict[str, Any], stored: bytes
) -> None:
    body = json.dumps({"key": payload, "value": payload}, ensure_ascii=False).encode()
    answer = await send(client, body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["key"] == answer.json()["value"] == {"type": payload["type"].lower()}
    (record,) = await stored_records(store, "orders")
    assert (record.key, record.value) == (stored, stored)
    assert answer.json()["partition_id"] == await partition_of_key(stored, 4)


async def test_json_in_its_place_keeps_its_numbers_and_escapes(client: httpx.AsyncClient, store: Store) -> None:
    await send(client, b'{"value":{"type":"json","data": {"n": 1.10e+2, "s": "\\u00e9\\/", "a": [ ]} }}')
    (record,) = await stored_records(store, "orders")
    assert record.value == b'{"n":1.10e+2,"s":"\\u00e9\\/","a":[]}'


async def test_headers_may_repeat_and_be_empty(client: httpx.AsyncClient, store: Store) -> None:
    headers = [
        {"name": "color", "value": "YmxhY2s="},
        {"name": "color", "value": ""},
        {"name": "\u00fc", "value": "AP8", "more": 1},
    ]
    assert (await send(client, {"headers": headers, "value": TEXT})).status_code == 200
    (record,) = await stored_records(store, "orders")
    assert record.headers == (("color", b"black"), ("color", b""), ("\u00fc", b"\x00\xff"))
    assert record.key is None


async def test_null_is_nothing_and_unknown_fields_are_ignored(client: httpx.AsyncClient, store: Store) -> None:
    body = b'\xef\xbb\xbf{"headers":null,"key":null,"other":[1],"value":{"type":"text","data":"x","data":"y","z":1}}'
    answer = await send(client, body)
    assert answer.status_code == 200, answer.text
    assert "key" not in answer.json()
    (record,) = await stored_records(store, "orders")
    assert (record.key, record.value, record.headers) == (None, b"y", ())


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "Bearer", "BEARER   "])
async def test_the_token_follows_its_scheme_after_any_number_of_blanks(
    client: httpx.AsyncClient, settings: Settings, scheme: str
) -> None:
    assert (await send(client, {"value": TEXT}, authorization=scheme + settings.token)).status_code == 200


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/json;x=y"]
)
async def test_parameters_of_the_content_type_are_allowed(client: httpx.AsyncClient, content_type: str) -> None:
    assert (await send(client, {"value": TEXT}, content_type=content_type)).status_code == 200


async def test_a_body_may_be_packed(client: httpx.AsyncClient, store: Store) -> None:
    packed = gzip.compress(json.dumps({"value": TEXT}).encode())
    assert (await send(client, packed, content_encoding="gzip")).status_code == 200
    assert [record.value for record in await stored_records(store, "orders")] == [b"paid"]


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"token:{token}".encode()).decode()


@pytest.mark.parametrize("path", [PATH, "/v2/topics/a%20b/records"])
@pytest.mark.parametrize("scheme", ["none", "wrong", "basic", "digest", "empty"])
async def test_401(settings: Settings, opened: Opened, path: str, scheme: str) -> None:
    """Before the content type, the size and the path are looked at."""
    client = await opened(settings)
    given = {
        "wrong": "Bearer nonsense",
        "basic": basic(settings.token),
        "digest": f"Digest {settings.token}",
        "empty": "Bearer",
    }
    if scheme == "none":
        del client.headers["authorization"]
    else:
        client.headers["authorization"] = given[scheme]
    answer = await client.post(path, content=b"x" * 70_000, headers={"content-type": "text/plain"})
    refused(answer, 401, "unauthorized", ("header", "Authorization"))
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_405_and_the_paths_beside_it(client: httpx.AsyncClient) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
        answer = await client.request(method, PATH)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        if method != "HEAD":
            refused(answer, 405, "method_not_allowed")
    assert (await client.get("/v2/topics/orders")).json() == {"error": "topic orders not found"}
    assert (await client.post("/v2/topics/orders/record", content=b"{}")).json()["error"].startswith("no such path")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/jsonx", ""])
async def test_415(client: httpx.AsyncClient, store: Store, content_type: str) -> None:
    """Before the size is looked at."""
    answer = await send(client, b"x" * 70_000, content_type=content_type)
    refused(answer, 415, "unsupported_media_type", ("header", "Content-Type"))
    assert await stored_records(store, "orders") == []


async def test_415_without_a_content_type(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, content=json.dumps({"value": TEXT}))
    refused(answer, 415, "unsupported_media_type", ("header", "Content-Type"))


def sized(size: int) -> bytes:
    """A request of so many bytes."""
    empty = json.dumps({"value": {"type": "text", "data": ""}}).encode()
    return empty.replace(b'""', b'"' + b"x" * (size - len(empty)) + b'"')


async def test_413(client: httpx.AsyncClient, store: Store) -> None:
    assert (await send(client, sized(65_536))).status_code == 200
    refused(await send(client, sized(65_537)), 413, "payload_too_large")
    refused(await send(client, b"\xff" * 65_537), 413, "payload_too_large")
    refused(await send(client, gzip.compress(sized(65_537)), content_encoding="gzip"), 413, "payload_too_large")

    async def in_parts() -> AsyncIterator[bytes]:
        for begin in range(0, 65_537, 10_000):
            yield sized(65_537)[begin : begin + 10_000]

    answer = await client.post(PATH, content=in_parts(), headers={"content-type": "application/json"})
    refused(answer, 413, "payload_too_large")
    assert len(await stored_records(store, "orders")) == 1


async def test_414(client: httpx.AsyncClient) -> None:
    refused(await send(client, {"value": TEXT}, PATH + "?x=" + "y" * 16_384), 414, "uri_too_long")


@pytest.mark.parametrize(("type_", "letter"), [("text", "k"), ("binary", "k"), ("json", "1"), ("avro", "k")])
async def test_a_key_has_4096_bytes_at_most(client: httpx.AsyncClient, store: Store, type_: str, letter: str) -> None:
    def key(size: int) -> dict[str, Any]:
        data = letter * size
        if type_ == "binary":
            return {"type": type_, "data": base64.b64encode(data.encode()).decode()}
        if type_ == "avro":
            # The frame has five bytes, the length of a string two.
            return {"type": type_, "data": json.dumps("k" * (size - 7)), "schema": '"string"'}
        return {"type": type_, "data": data}

    path = PATH + "?serializer=confluent"
    assert (await send(client, {"key": key(4096), "value": TEXT}, path)).status_code == 200
    message = refused(
        await send(client, {"key": key(4097), "value": TEXT}, path), 400, "invalid_value", ("field", "data")
    )
    assert message == "key.data is longer than 4096 bytes"
    (record,) = await stored_records(store, "orders")
    assert len(record.key or b"") == 4096


@pytest.mark.parametrize(
    ("body", "code", "target", "message"),
    [
        (b"", "invalid_json", None, "the body is empty"),
        (b" \r\n", "invalid_json", None, "the body is empty"),
        (b"{", "invalid_json", None, "the body is not JSON"),
        (b'{"value":{"type":"text","data":"x"},}', "invalid_json", None, "the body is not JSON"),
        (b"[]", "invalid_json", None, "the body must be a JSON object"),
        (b'"x"', "invalid_json", None, "the body must be a JSON object"),
        (b'{"value":{"type":"text","data":"\xff"}}', "invalid_json", None, "the body is not JSON"),
        (b'{"value":{"type":"text","data":"\\ud800"}}', "invalid_json", None, "the body is not JSON"),
        (b'{"a":' * 10_000, "invalid_json", None, "the body is not JSON"),
        ({}, "missing_field", ("field", "value"), "value is required"),
        ({"value": None}, "missing_field", ("field", "value"), "value is required"),
        ({"value": "paid"}, "invalid_type", ("field", "value"), "value must be an object"),
        ({"value": {"data": "x"}}, "invalid_type", ("field", "type"), "value.type must be one of"),
        ({"value": {"type": None, "data": "x"}}, "invalid_type", ("field", "type"), "value.type must be one of"),
        ({"value": {"type": 1, "data": "x"}}, "invalid_type", ("field", "type"), "value.type must be one of"),
        ({"value": {"type": "jsonschema", "data": "x"}}, "invalid_type", ("field", "type"), "text, binary, json, avro"),
        ({"value": {"type": "protobuf", "data": "x"}}, "invalid_type", ("field", "type"), "value.type must be"),
        ({"value": {"type": "text"}}, "missing_field", ("field", "data"), "value.data is required"),
        ({"value": {"type": "json"}}, "missing_field", ("field", "data"), "value.data is required"),
        ({"value": {"type": "text", "data": 1}}, "invalid_type", ("field", "data"), "value.data must be a string"),
        ({"value": {"type": "binary", "data": {}}}, "invalid_type", ("field", "data"), "value.data must be a string"),
        ({"value": {"type": "json", "data": "{"}}, "invalid_value", ("field", "data"), "value.data is not JSON"),
        ({"value": {"type": "json", "data": ""}}, "invalid_value", ("field", "data"), "value.data is not JSON"),
        ({"value": {"type": "binary", "data": "-_8="}}, "invalid_value", ("field", "data"), "value.data is not base64"),
        ({"value": {"type": "binary", "data": "Y Q="}}, "invalid_value", ("field", "data"), "value.data is not base64"),
        ({"value": {"type": "binary", "data": "YQ=\n"}}, "invalid_value", ("field", "data"), "is not base64"),
        ({"value": {"type": "binary", "data": "A"}}, "invalid_value", ("field", "data"), "value.data is not base64"),
        ({"value": {"type": "binary", "data": "YQ="}}, "invalid_value", ("field", "data"), "value.data is not base64"),
        ({"value": TEXT, "key": "k"}, "invalid_type", ("field", "key"), "key must be an object"),
        ({"value": TEXT, "key": {"data": "k"}}, "invalid_type", ("field", "type"), "key.type must be one of"),
        ({"value": TEXT, "headers": {}}, "invalid_type", ("field", "headers"), "headers must be an array"),
        ({"value": TEXT, "headers": ["x"]}, "invalid_type", ("field", "headers"), "headers[0] must be an object"),
        (
            {"value": TEXT, "headers": [{"value": ""}]},
            "missing_field",
            ("field", "name"),
            "headers[0].name is required",
        ),
        ({"value": TEXT, "headers": [{"name": "", "value": ""}]}, "invalid_value", ("field", "name"), "not be empty"),
        ({"value": TEXT, "headers": [{"name": 1, "value": ""}]}, "invalid_type", ("field", "name"), "must be a string"),
        ({"value": TEXT, "headers": [{"name": "a"}]}, "missing_field", ("field", "value"), "headers[0].value is"),
        ({"value": TEXT, "headers": [{"name": "a", "value": "!"}]}, "invalid_value", ("field", "value"), "not base64"),
    ],
)
async def test_400(
    client: httpx.AsyncClient, store: Store, body: Any, code: str, target: tuple[str, str] | None, message: str
) -> None:
    assert message in refused(await send(client, body), 400, code, target)
    assert await store.topics.list_topics() == []


@pytest.mark.parametrize("topic", ["a%20b", "a%2Fb", "%ff", "%zz", "%2E%2E", "a" * 201])
async def test_400_for_a_topic_that_cannot_be(client: httpx.AsyncClient, topic: str) -> None:
    answer = await client.request(
        "POST",
        httpx.URL("http://api", raw_path=f"/v2/topics/{topic}/records".encode()),
        content=json.dumps({"value": TEXT}),
        headers={"content-type": "application/json"},
    )
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (400, "invalid_value")
    assert "topic_name" in body["error"]["message"]
    assert (await send(client, {"value": TEXT}, f"/v2/topics/{'a' * 200}/records")).status_code == 200


@pytest.mark.parametrize("serializer", ["", "avro", "Confluent"])
async def test_400_for_another_serializer(client: httpx.AsyncClient, serializer: str) -> None:
    answer = await send(client, {"value": TEXT}, f"{PATH}?serializer={serializer}")
    refused(answer, 400, "invalid_value", ("parameter", "serializer"))


async def test_403(opened: Opened, settings: Settings, store: Store) -> None:
    """Before it is looked whether the topic exists."""
    limited = replace(
        settings,
        read_only_tokens=("r" * 20,),
        topic_credentials=("consume-only:*:" + "c" * 20, "produce-only:other*:" + "o" * 20),
        auto_create_topics=False,
    )
    client = await opened(limited)
    for token in ("r" * 20, "c" * 20, "o" * 20):
        refused(await send(client, {"value": TEXT}, authorization=f"Bearer {token}"), 403, "forbidden")
    # After the body.
    answer = await send(client, {"value": 1}, authorization="Bearer " + "r" * 20)
    refused(answer, 400, "invalid_type", ("field", "value"))
    answer = await send(client, {"value": TEXT}, authorization="Bearer " + "o" * 20, path="/v2/topics/other1/records")
    refused(answer, 404, "topic_not_found", ("parameter", "topic_name"))


async def test_404(opened: Opened, settings: Settings, store: Store) -> None:
    client = await opened(replace(settings, auto_create_topics=False))
    answer = await send(client, {"value": AVRO}, PATH + "?serializer=confluent")
    refused(answer, 404, "topic_not_found", ("parameter", "topic_name"))
    assert await store.topics.list_topics() == []
    assert await store.schemas.list_subjects() == {}


async def test_408(client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_append(monkeypatch, store, StorageTimeout("Redis did not answer in time: secret"))
    answer = await send(client, {"value": TEXT})
    assert "secret" not in refused(answer, 408, "request_timeout")
    assert answer.headers["retry-after"] == "1"


async def test_408_of_a_redis_that_was_reached_and_is_too_slow(
    settings: Settings, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "COMMAND_TIMEOUT_S", 0.1)
    store = await open_store(settings)
    transport = httpx.ASGITransport(create_app(settings, store), raise_app_exceptions=True)
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        assert (await send(client, {"value": TEXT})).status_code == 200
        await redis_client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        try:
            refused(await send(client, {"value": TEXT}), 408, "request_timeout")
        finally:
            await redis_client.execute_command("CLIENT", "UNPAUSE")
        assert (await send(client, {"value": TEXT})).status_code == 200
    await store.aclose()


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (StorageUnavailable("secret is away"), "1"),
        (StorageFull("secret is full"), "10"),
        (asyncio.CancelledError(), "1"),
    ],
)
async def test_503(
    client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException, pause: str
) -> None:
    failing_append(monkeypatch, store, error)
    answer = await send(client, {"value": TEXT})
    assert "secret" not in refused(answer, 503, "service_unavailable")
    assert answer.headers["retry-after"] == pause


async def test_500(client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch, events: Events) -> None:
    failing_append(monkeypatch, store, ZeroDivisionError("secret"))
    answer = await send(client, {"value": TEXT})
    assert refused(answer, 500, "internal_error").startswith("internal error, request id ")
    (event,) = [event for event in events() if event["event"] == "request.failed"]
    assert event["trace"] == answer.headers["x-trace-id"]
    assert "ZeroDivisionError" in event["traceback"]


async def test_429(settings: Settings, store: Store) -> None:
    """All Kafka REST APIs share the limit."""
    clock = StoppedClock()
    app = create_app(replace(settings, topics_burst_limit=3), store, clock)
    headers = {"authorization": f"Bearer {settings.token}"}
    plain = {"content-type": "text/plain"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", headers=headers) as client:
        assert (await send(client, {"value": TEXT})).status_code == 200
        assert (await client.post("/topics/orders/records", content=b"x", headers=plain)).status_code == 200
        assert (await client.get("/confluent/subjects")).status_code == 200
        answer = await send(client, {"value": TEXT})
        refused(answer, 429, "too_many_requests")
        assert answer.headers["retry-after"] == "1"
        legacy = await client.post("/topics/orders/records", content=b"x", headers=plain)
        registry = await client.get("/confluent/subjects")
        assert (legacy.status_code, legacy.json()["error_code"]) == (429, 429)
        assert (registry.status_code, registry.json()["error_code"]) == (429, 429)
        clock.ms += 1000
        assert (await send(client, {"value": TEXT})).status_code == 200


async def test_429_for_one_topic_too_many(
    settings: Settings, client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create(*_: Any) -> Any:
        raise QuotaExceeded("there are 1000 topics already")

    monkeypatch.setattr(store.topics, "create_topic", create)
    answer = await send(client, {"value": TEXT})
    assert refused(answer, 429, "too_many_requests") == "there are 1000 topics already"


async def test_an_error_is_in_the_log_with_its_trace(client: httpx.AsyncClient, events: Events) -> None:
    answer = await send(client, {"value": 1})
    (event,) = [event for event in events() if event["event"] == "request.refused"]
    assert event["trace"] == answer.json()["trace"]
    assert (event["route"], event["status"]) == ("records_v2", 400)


# Avro


def read_avro(encoded: bytes | None, schema: str) -> Any:
    library: Any = fastavro
    return library.schemaless_reader(io.BytesIO(encoded or b""), library.parse_schema(json.loads(schema)), None)


async def test_avro_is_framed_with_the_id_of_its_schema(client: httpx.AsyncClient, store: Store) -> None:
    key = {"type": "avro", "data": '"o-9"', "schema": '{"type": "string"}'}
    answer = await send(client, {"key": key, "value": AVRO}, PATH + "?serializer=confluent")
    assert answer.status_code == 200, answer.text
    assert answer.json()["key"] == {"type": "avro", "schema_id": 1, "schema_artifact_id": "orders-key"}
    assert answer.json()["value"] == {"type": "avro", "schema_id": 2, "schema_artifact_id": "orders-value"}
    (record,) = await stored_records(store, "orders")
    assert (record.key, record.value) == (b"\0\0\0\0\1\x06o-9", b"\0\0\0\0\2" + AVRO_BYTES)
    assert read_avro((record.value or b"")[5:], SCHEMA) == {"id": 7, "state": "paid"}
    assert record.headers == ()
    assert await store.schemas.get_subject("orders-key") == (SubjectVersion(1, 1),)
    assert await store.schemas.get_subject("orders-value") == (SubjectVersion(1, 2),)


async def test_an_equal_schema_has_the_same_id(client: httpx.AsyncClient, store: Store) -> None:
    other = json.dumps(dict(reversed(json.loads(SCHEMA).items())), indent=4)
    for schema in (SCHEMA, other, SCHEMA):
        answer = await send(client, {"value": {**AVRO, "schema": schema}}, PATH + "?serializer=confluent")
        assert answer.json()["value"]["schema_id"] == 1
    third = schema_text(id="long", state="string", more="int")
    data = '{"id": 1, "state": "", "more": 3}'
    answer = await send(client, {"value": {**AVRO, "schema": third, "data": data}}, PATH + "?serializer=confluent")
    assert answer.json()["value"]["schema_id"] == 2
    assert await store.schemas.list_subjects() == {"orders-value": (SubjectVersion(1, 1), SubjectVersion(2, 2))}


@pytest.mark.parametrize(
    ("strategy", "subject"),
    [
        (None, "orders-value"),
        ("topic", "orders-value"),
        ("record", "com.acme.Order-value"),
        ("topicrecord", "orders-com.acme.Order-value"),
        ("TopicRecord", "orders-com.acme.Order-value"),
    ],
)
async def test_strategies_name_the_subject(
    client: httpx.AsyncClient, store: Store, strategy: str | None, subject: str
) -> None:
    value = {**AVRO, "schema_name_strategy": strategy}
    answer = await send(client, {"key": value, "value": value}, PATH + "?serializer=confluent")
    assert answer.json()["value"]["schema_artifact_id"] == subject
    assert answer.json()["key"]["schema_artifact_id"] == subject.removesuffix("value") + "key"
    assert set(await store.schemas.list_subjects()) == {subject, subject.removesuffix("value") + "key"}


async def test_a_schema_is_referred_to_by_its_id(client: httpx.AsyncClient, store: Store) -> None:
    await send(client, {"value": AVRO}, PATH + "?serializer=confluent")
    value: dict[str, Any] = {"type": "avro", "data": AVRO["data"], "schema_id": 1}
    answer = await send(client, {"value": value}, "/v2/topics/other/records?serializer=confluent")
    assert answer.json()["value"] == {"type": "avro", "schema_id": 1, "schema_artifact_id": "other-value"}
    assert set(await store.schemas.list_subjects()) == {"orders-value"}
    # A schema that is sent counts.
    value = {**AVRO, "schema": '"int"', "schema_id": 1, "data": "3"}
    answer = await send(client, {"value": value}, "/v2/topics/other/records?serializer=confluent")
    assert answer.json()["value"]["schema_id"] == 2
    assert [record.value for record in await stored_records(store, "other")].count(b"\0\0\0\0\2\x06") == 1


@pytest.mark.parametrize(
    ("changes", "code", "target", "message"),
    [
        ({"data": '{"id": "7", "state": "paid"}'}, "invalid_schema", "data", 'does not match the schema: id: "7"'),
        ({"data": '{"id": 7}'}, "invalid_schema", "data", "state: it is missing"),
        ({"data": "{"}, "invalid_schema", "data", "is not JSON"),
        ({"data": {"id": 7}}, "invalid_type", "data", "value.data must be a string"),
        ({"data": None}, "missing_field", "data", "value.data is required"),
        ({"schema": "{"}, "invalid_schema", "schema", "is not JSON"),
        ({"schema": '"nothing"'}, "invalid_schema", "schema", "there is no type 'nothing'"),
        ({"schema": {"type": "int"}}, "invalid_type", "schema", "value.schema must be a string"),
        ({"schema": None}, "missing_field", "schema", "value.schema is required"),
        ({"schema": None, "schema_id": 5}, "invalid_schema", "schema_id", "Schema 5 not found"),
        ({"schema": None, "schema_id": "5"}, "invalid_type", "schema_id", "must be the id of a schema"),
        ({"schema": None, "schema_id": 0}, "invalid_type", "schema_id", "must be the id of a schema"),
        ({"schema": None, "schema_id": 1.0}, "invalid_type", "schema_id", "must be the id of a schema"),
        ({"schema": None, "schema_id": True}, "invalid_type", "schema_id", "must be the id of a schema"),
        ({"schema_name_strategy": "x"}, "invalid_value", "schema_name_strategy", "topic, record, topicrecord"),
        ({"schema_name_strategy": 1}, "invalid_type", "schema_name_strategy", "must be a string"),
        (
            {"schema_name_strategy": "record", "schema": '"int"', "data": "1"},
            "invalid_value",
            "schema_name_strategy",
            "needs a schema that has a name",
        ),
    ],
)
async def test_400_for_avro(
    client: httpx.AsyncClient, store: Store, changes: dict[str, Any], code: str, target: str, message: str
) -> None:
    answer = await send(client, {"value": {**AVRO, **changes}}, PATH + "?serializer=confluent")
    assert message in refused(answer, 400, code, ("field", target))
    assert await store.schemas.list_subjects() == {}
    assert await store.topics.list_topics() == []


async def test_400_for_avro_without_its_serializer(client: httpx.AsyncClient) -> None:
    refused(await send(client, {"value": AVRO}), 400, "missing_field", ("parameter", "serializer"))


async def test_the_rule_of_the_registry_holds(client: httpx.AsyncClient, store: Store) -> None:
    await store.schemas.set_level(None, "BACKWARD")
    path = PATH + "?serializer=confluent"
    assert (await send(client, {"value": AVRO}, path)).status_code == 200
    other = {**AVRO, "schema": schema_text(id="string"), "data": '{"id": "x"}'}
    message = refused(await send(client, {"value": other}, path), 400, "invalid_schema", ("field", "schema"))
    assert "/id: long cannot be read as string" in message
    assert (await send(client, {"value": AVRO}, path)).status_code == 200
    assert len(await stored_records(store, "orders")) == 2


async def test_403_for_a_schema_that_may_not_be_registered(opened: Opened, settings: Settings, store: Store) -> None:
    one, some = "o" * 20, "s" * 20
    credentials = ("produce-only:orders:" + one, "produce-only:ord*:" + some)
    client = await opened(replace(settings, topic_credentials=credentials))
    path = PATH + "?serializer=confluent"
    value = {**AVRO, "schema_name_strategy": "topicrecord"}
    answer = await send(client, {"value": value}, path, authorization=f"Bearer {one}")
    assert "orders-com.acme.Order-value" in refused(answer, 403, "forbidden")
    assert await store.topics.list_topics() == []
    assert (await send(client, {"value": value}, path, authorization=f"Bearer {some}")).status_code == 200
    # It is there now.
    assert (await send(client, {"value": value}, path, authorization=f"Bearer {one}")).status_code == 200
    record = {**AVRO, "schema_name_strategy": "record"}
    refused(await send(client, {"value": record}, path, authorization=f"Bearer {some}"), 403, "forbidden")
    assert (await send(client, {"value": AVRO}, path, authorization=f"Bearer {one}")).status_code == 200
