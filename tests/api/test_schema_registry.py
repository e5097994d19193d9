"""The schema registry under both of its prefixes: subjects, ids, deletion, levels, rights, errors in their shape."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.errors import StorageTimeout, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.api.kafka import schema_text

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
ONE, TWO = schema_text(id="long"), schema_text(id="long", state="string")
WITH_DEFAULT = json.dumps(
    {
        "type": "record",
        "name": "Order",
        "namespace": "com.acme",
        "fields": [{"name": "id", "type": "long"}, {"name": "state", "type": "string", "default": "new"}],
    }
)


@pytest.fixture(params=["/schema-registry", "/confluent"])
async def registry(
    request: pytest.FixtureRequest, settings: Settings, store: Store
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(settings, store))
    auth = ("any-user", settings.token)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://api{request.param}", auth=auth) as client:
        yield client


def ok(answer: httpx.Response) -> Any:
    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE), answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int, code: int) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, CONTENT_TYPE), answer.text
    assert set(answer.json()) == {"error_code", "message"}
    assert answer.json()["error_code"] == code
    return answer.json()["message"]


async def register(client: httpx.AsyncClient, subject: str, text: str, **others: Any) -> int:
    answer = await client.post(f"/subjects/{subject}/versions", json={"schema": text, **others})
    return ok(answer)["id"]


async def test_schemas_have_ids_and_subjects_have_versions(registry: httpx.AsyncClient) -> None:
    assert ok(await registry.get("/subjects")) == []
    assert await register(registry, "orders-value", ONE) == 1
    assert await register(registry, "orders-value", TWO, schemaType="AVRO", references=[]) == 2
    assert await register(registry, "orders-value", ONE) == 1
    assert await register(registry, "other-value", TWO) == 2
    assert ok(await registry.get("/subjects")) == ["orders-value", "other-value"]
    assert ok(await registry.get("/subjects?subjectPrefix=ot")) == ["other-value"]
    assert ok(await registry.get("/subjects/orders-value/versions")) == [1, 2]
    expected = {"subject": "orders-value", "version": 2, "id": 2, "schema": TWO.replace(" ", "")}
    for version in ("2", "latest", "-1"):
        assert ok(await registry.get(f"/subjects/orders-value/versions/{version}")) == expected
    assert ok(await registry.get("/subjects/orders-value/versions/1/schema")) == json.loads(ONE)
    assert ok(await registry.get("/schemas/ids/1")) == {"schema": ONE.replace(" ", "")}
    assert ok(await registry.get("/schemas/ids/1/schema")) == json.loads(ONE)
    assert ok(await registry.get("/schemas/ids/2/subjects")) == ["orders-value", "other-value"]
    assert ok(await registry.get("/schemas/ids/2/versions")) == [
        {"subject": "orders-value", "version": 2},
        {"subject": "other-value", "version": 1},
    ]
    assert ok(await registry.get("/schemas/types")) == ["AVRO"]
    assert ok(await registry.get("/mode")) == {"mode": "READWRITE"}
    assert ok(await registry.get("")) == ok(await registry.get("/")) == {}


async def test_both_prefixes_are_one_registry(registry: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    await register(registry, "s", ONE)
    for prefix in ("/schema-registry", "/confluent", "/Confluent"):
        assert ok(await client.get(f"{prefix}/subjects")) == ["s"]


async def test_a_subject_is_any_text(registry: httpx.AsyncClient) -> None:
    name = "a/b c:\u00fc%"
    encoded = "a%2Fb%20c%3A%C3%BC%25"
    assert await register(registry, encoded, ONE) == 1
    assert ok(await registry.get("/subjects")) == [name]
    assert ok(await registry.get(f"/subjects/{encoded}/versions/1"))["subject"] == name
    for subject in ("a" * 513, "%0A"):
        answer = await registry.post(f"/subjects/{subject}/versions", json={"schema": ONE})
        assert "is no name of a subject" in refused(answer, 400, 400)
    refused(await registry.get("/subjects/%ff/versions"), 400, 400)


async def test_a_schema_is_looked_up_in_a_subject(registry: httpx.AsyncClient) -> None:
    await register(registry, "s", ONE)
    await register(registry, "s", TWO)
    shuffled = json.dumps(dict(reversed(json.loads(ONE).items())), indent=2)
    found = ok(await registry.post("/subjects/s", json={"schema": shuffled}))
    assert (found["subject"], found["version"], found["id"]) == ("s", 1, 1)
    refused(await registry.post("/subjects/s", json={"schema": WITH_DEFAULT}), 404, 40403)
    refused(await registry.post("/subjects/t", json={"schema": ONE}), 404, 40401)


async def test_what_is_not_there_has_numbers(registry: httpx.AsyncClient) -> None:
    await register(registry, "s", ONE)
    assert refused(await registry.get("/subjects/t/versions"), 404, 40401) == "Subject 't' not found."
    refused(await registry.get("/subjects/t/versions/1"), 404, 40401)
    refused(await registry.delete("/subjects/t"), 404, 40401)
    refused(await registry.delete("/subjects/t/versions/1"), 404, 40401)
    assert refused(await registry.get("/subjects/s/versions/2"), 404, 40402) == "Version 2 not found."
    refused(await registry.delete("/subjects/s/versions/2"), 404, 40402)
    for schema_id in ("2", "0", "x", "99999999999"):
        assert refused(await registry.get(f"/schemas/ids/{schema_id}"), 404, 40403) == f"Schema {schema_id} not found"
    refused(await registry.get("/schemas/ids/2/versions"), 404, 40403)
    refused(await registry.get("/config/s"), 404, 40408)
    refused(await registry.delete("/config/s"), 404, 40408)
    for version in ("0", "x", "2147483648", "1.0"):
        assert "valid version" in refused(await registry.get(f"/subjects/s/versions/{version}"), 422, 42202)
    refused(await registry.get("/nothing"), 404, 404)
    answer = await registry.put("/subjects")
    refused(answer, 405, 405)
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"schema": "{"}, 42201, "is not JSON"),
        ({"schema": '{"type": "nothing"}'}, 42201, "there is no type 'nothing'"),
        ({"schema": ONE, "schemaType": "PROTOBUF"}, 42201, "only AVRO"),
        ({"schema": "{}", "schemaType": "JSON"}, 42201, "only AVRO"),
        ({"schema": ONE, "references": [{"name": "a", "subject": "s", "version": 1}]}, 42201, "cannot refer to others"),
        ({}, 42201, "schema: it is required"),
        ({"schema": {"type": "int"}}, 422, "Expected `str"),
        ({"schema": ONE, "id": 5}, 42205, "is not in import mode"),
        ({"schema": ONE, "version": 5}, 42205, "is not in import mode"),
    ],
)
async def test_what_is_no_schema_is_refused(
    registry: httpx.AsyncClient, store: Store, body: dict[str, Any], code: int, message: str
) -> None:
    answer = await registry.post("/subjects/s/versions", json=body)
    assert message in refused(answer, 422, code)
    assert await store.schemas.list_subjects() == {}


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"\xff", b"[" * 100_000])
async def test_what_is_no_request_is_refused(registry: httpx.AsyncClient, body: bytes) -> None:
    refused(await registry.post("/subjects/s/versions", content=body), 422, 422)
    refused(await registry.put("/config", content=body), 422, 422)


@pytest.mark.parametrize("body", [b"", b" \n"])
async def test_an_empty_body_is_called_so(registry: httpx.AsyncClient, body: bytes) -> None:
    assert refused(await registry.post("/subjects/s", content=body), 422, 422) == "the body is empty"


async def test_a_body_has_a_limit(registry: httpx.AsyncClient) -> None:
    refused(await registry.post("/subjects/s/versions", content=b" " * (1024 * 1024 + 1)), 413, 413)


async def test_deletion_hides_first(registry: httpx.AsyncClient) -> None:
    for text in (ONE, TWO, WITH_DEFAULT):
        await register(registry, "s", text)
    refused(await registry.delete("/subjects/s/versions/1?permanent=true"), 404, 40407)
    assert ok(await registry.delete("/subjects/s/versions/1")) == 1
    refused(await registry.delete("/subjects/s/versions/1"), 404, 40406)
    assert ok(await registry.get("/subjects/s/versions")) == [2, 3]
    assert ok(await registry.get("/subjects/s/versions?deleted=true")) == [1, 2, 3]
    refused(await registry.get("/subjects/s/versions/1"), 404, 40402)
    assert ok(await registry.get("/subjects/s/versions/1?deleted=true"))["id"] == 1
    refused(await registry.post("/subjects/s", json={"schema": ONE}), 404, 40403)
    assert ok(await registry.post("/subjects/s?deleted=true", json={"schema": ONE}))["version"] == 1
    assert ok(await registry.get("/schemas/ids/1")) == {"schema": ONE.replace(" ", "")}
    assert ok(await registry.get("/schemas/ids/1/versions")) == []
    assert ok(await registry.get("/schemas/ids/1/versions?deleted=true")) == [{"subject": "s", "version": 1}]
    assert ok(await registry.delete("/subjects/s/versions/latest")) == 3
    assert ok(await registry.get("/subjects/s/versions/latest"))["version"] == 2
    assert ok(await registry.delete("/subjects/s/versions/1?permanent=true")) == 1
    assert ok(await registry.get("/subjects/s/versions?deleted=true")) == [2, 3]
    refused(await registry.delete("/subjects/s/versions/1?permanent=true"), 404, 40402)
    assert await register(registry, "s", ONE) == 1
    assert ok(await registry.get("/subjects/s/versions")) == [2, 4]


async def test_a_subject_is_deleted_in_two_steps(registry: httpx.AsyncClient, store: Store) -> None:
    await register(registry, "s", ONE)
    await register(registry, "s", TWO)
    ok(await registry.put("/config/s", json={"compatibility": "FULL"}))
    refused(await registry.delete("/subjects/s?permanent=true"), 404, 40405)
    assert ok(await registry.delete("/subjects/s")) == [1, 2]
    refused(await registry.delete("/subjects/s"), 404, 40404)
    refused(await registry.get("/subjects/s/versions"), 404, 40401)
    assert ok(await registry.get("/subjects")) == []
    assert ok(await registry.get("/subjects?deleted=true")) == ["s"]
    assert ok(await registry.delete("/subjects/s?permanent=true")) == [1, 2]
    refused(await registry.delete("/subjects/s?permanent=true"), 404, 40401)
    assert ok(await registry.get("/subjects?deleted=true")) == []
    refused(await registry.get("/config/s"), 404, 40408)
    # Records that name the id stay readable, and it is not given to another schema.
    assert ok(await registry.get("/schemas/ids/1")) == {"schema": ONE.replace(" ", "")}
    assert await register(registry, "s", WITH_DEFAULT) == 3
    assert ok(await registry.get("/subjects/s/versions")) == [1]


async def test_levels(registry: httpx.AsyncClient) -> None:
    assert ok(await registry.get("/config")) == {"compatibilityLevel": "NONE"}
    assert ok(await registry.put("/config", json={"compatibility": "backward"})) == {"compatibility": "BACKWARD"}
    assert ok(await registry.get("/config")) == {"compatibilityLevel": "BACKWARD"}
    assert ok(await registry.get("/config/s?defaultToGlobal=true")) == {"compatibilityLevel": "BACKWARD"}
    assert ok(await registry.put("/config/s", json={"compatibility": "NONE"})) == {"compatibility": "NONE"}
    assert ok(await registry.get("/config/s")) == {"compatibilityLevel": "NONE"}
    assert ok(await registry.delete("/config/s")) == {"compatibilityLevel": "NONE"}
    assert ok(await registry.delete("/config")) == {"compatibilityLevel": "BACKWARD"}
    assert ok(await registry.get("/config")) == {"compatibilityLevel": "NONE"}
    for body in ({"compatibility": "SIDEWAYS"}, {}, {"compatibility": None}):
        assert "Valid values are NONE, BACKWARD" in refused(await registry.put("/config/s", json=body), 422, 42203)
    refused(await registry.put("/config/%0A", json={"compatibility": "FULL"}), 400, 400)


@pytest.mark.parametrize(
    ("level", "accepted"),
    [
        ("NONE", [ONE, TWO, WITH_DEFAULT]),
        # What has no default was not written before; what is dropped is only ignored.
        ("BACKWARD", [ONE, WITH_DEFAULT]),
        ("BACKWARD_TRANSITIVE", [ONE, WITH_DEFAULT]),
        ("FORWARD", [ONE, TWO, WITH_DEFAULT]),
        ("FULL", [ONE, WITH_DEFAULT]),
        ("FULL_TRANSITIVE", [ONE, WITH_DEFAULT]),
    ],
)
async def test_a_level_decides_what_may_follow(registry: httpx.AsyncClient, level: str, accepted: list[str]) -> None:
    await register(registry, "s", ONE)
    ok(await registry.put("/config/s", json={"compatibility": level}))
    for text in (ONE, TWO, WITH_DEFAULT):
        verdict = await registry.post("/compatibility/subjects/s/versions/latest?verbose=true", json={"schema": text})
        assert ok(verdict)["is_compatible"] == (not ok(verdict)["messages"]) == (text in accepted)
        answer = await registry.post("/subjects/s/versions", json={"schema": text})
        if text in accepted:
            ok(answer)
        else:
            assert "/state: the field is not written, and has no default" in refused(answer, 409, 409)


async def test_a_transitive_level_looks_at_all_versions(registry: httpx.AsyncClient) -> None:
    await register(registry, "s", ONE)
    await register(registry, "s", TWO)
    for level, is_compatible in (("BACKWARD", True), ("BACKWARD_TRANSITIVE", False)):
        ok(await registry.put("/config/s", json={"compatibility": level}))
        answer = await registry.post("/compatibility/subjects/s/versions", json={"schema": TWO})
        assert ok(answer) == {"is_compatible": is_compatible}
    answer = await registry.post("/compatibility/subjects/s/versions/1?verbose=true", json={"schema": TWO})
    assert ok(answer)["messages"] == [
        "it cannot read what was written with version 1: /state: the field is not written, and has no default"
    ]
    ok(await registry.delete("/subjects/s/versions/1"))
    assert ok(await registry.post("/compatibility/subjects/s/versions", json={"schema": TWO}))["is_compatible"]


async def test_compatibility_with_what_is_not_there(registry: httpx.AsyncClient) -> None:
    answer = await registry.post("/compatibility/subjects/s/versions", json={"schema": ONE})
    assert ok(answer) == {"is_compatible": True}
    refused(await registry.post("/compatibility/subjects/s/versions/latest", json={"schema": ONE}), 404, 40401)
    await register(registry, "s", ONE)
    refused(await registry.post("/compatibility/subjects/s/versions/2", json={"schema": ONE}), 404, 40402)
    refused(await registry.post("/compatibility/subjects/s/versions/x", json={"schema": ONE}), 422, 42202)
    refused(await registry.post("/compatibility/subjects/s/versions/1", json={"schema": "x"}), 422, 42201)


async def test_so_many_schemas_and_no_more(settings: Settings, store: Store, registry: httpx.AsyncClient) -> None:
    await register(registry, "s", ONE)
    store.schemas._max_schemas = 1  # pyright: ignore[reportPrivateUsage]
    assert "1 schemas already" in refused(await registry.post("/subjects/s/versions", json={"schema": TWO}), 422, 42206)


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"u:{token}".encode()).decode()


@pytest.mark.parametrize("value", [None, "Bearer nonsense", basic("nonsense"), "Digest x", "Basic !"])
async def test_401(settings: Settings, store: Store, value: str | None) -> None:
    transport = httpx.ASGITransport(create_app(settings, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api/confluent") as client:
        answer = await client.get("/subjects", headers={} if value is None else {"authorization": value})
    refused(answer, 401, 401)
    assert answer.headers["www-authenticate"].startswith("Basic")


READING = (
    "/subjects",
    "/subjects/orders-value/versions",
    "/subjects/orders-value/versions/1",
    "/schemas/ids/1",
    "/schemas/ids/1/versions",
    "/schemas/types",
    "/config",
    "/config/orders-value?defaultToGlobal=true",
    "/mode",
)


@pytest.mark.parametrize("who", ["read-only", "publish-only", "produce-only", "consume-only", "full"])
async def test_rights(settings: Settings, store: Store, who: str) -> None:
    token = "t" * 20
    limited = {
        "read-only": replace(settings, read_only_tokens=(token,)),
        "publish-only": replace(settings, publish_only_tokens=(token,)),
    }.get(who) or replace(settings, topic_credentials=(f"{who}:ord*:{token}",))
    transport = httpx.ASGITransport(create_app(limited, store))
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api/confluent", headers=headers) as client:
        await register(client, "orders-value", ONE)
        await register(client, "other-value", ONE)
        client.headers["authorization"] = f"Bearer {token}"
        for path in READING:
            ok(await client.get(path))
        ok(await client.post("/subjects/orders-value", json={"schema": ONE}))
        ok(await client.post("/compatibility/subjects/orders-value/versions", json={"schema": ONE}))
        answer = await client.post("/subjects/orders-value/versions", json={"schema": TWO})
        if who in ("publish-only", "produce-only", "full"):
            assert ok(answer) == {"id": 2}
        else:
            refused(answer, 403, 403)
        for method, path in (
            ("DELETE", "/subjects/orders-value"),
            ("DELETE", "/subjects/orders-value/versions/1"),
            ("PUT", "/config"),
            ("PUT", "/config/orders-value"),
            ("DELETE", "/config"),
            ("DELETE", "/config/orders-value"),
        ):
            refused(await client.request(method, path, json={"compatibility": "FULL"}), 403, 403)
        if not who.endswith(("read-only", "publish-only")):
            assert ok(await client.get("/subjects")) == ["orders-value"]
            refused(await client.get("/subjects/other-value/versions"), 403, 403)
            refused(await client.post("/subjects/other-value/versions", json={"schema": TWO}), 403, 403)
            assert ok(await client.get("/schemas/ids/1/subjects")) == ["orders-value"]
        else:
            assert ok(await client.get("/subjects")) == ["orders-value", "other-value"]


async def test_a_credential_for_one_topic_is_for_its_subjects(settings: Settings, store: Store) -> None:
    token = "t" * 20
    limited = replace(settings, topic_credentials=(f"full:orders:{token}",))
    transport = httpx.ASGITransport(create_app(limited, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api/confluent", auth=("u", token)) as client:
        assert await register(client, "orders-value", ONE) == await register(client, "orders-key", ONE) == 1
        for subject in ("orders", "orders-x-value", "com.acme.Order-value"):
            refused(await client.post(f"/subjects/{subject}/versions", json={"schema": ONE}), 403, 403)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StorageTimeout("secret"), 503, 50002),
        (StorageUnavailable("secret"), 503, 50001),
        (ZeroDivisionError("secret"), 500, 500),
    ],
)
async def test_a_store_that_fails(
    registry: httpx.AsyncClient,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    code: int,
) -> None:
    async def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(store.schemas, "list_subjects", fail)
    assert "secret" not in refused(await registry.get("/subjects"), status, code)


async def test_a_change_that_is_overtaken_is_made_again(
    registry: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(registry, "s", ONE)
    replace_subject = store.schemas.replace_subject
    races = 3

    async def overtaken(subject: str, *versions: Any) -> bool:
        nonlocal races
        if races:
            races -= 1
            digest = races.to_bytes(32, "big")
            await store.schemas.register_schema(subject, digest, f'"{races}"', None)
        return await replace_subject(subject, *versions)

    monkeypatch.setattr(store.schemas, "replace_subject", overtaken)
    assert ok(await registry.delete("/subjects/s/versions/1")) == 1
    assert ok(await registry.get("/subjects/s/versions")) == [2, 3, 4]
    races = 1000
    for path in ("/subjects/s/versions/2", "/subjects/s"):
        refused(await registry.delete(path), 503, 50001)
    races = 0
    assert 2 in ok(await registry.get("/subjects/s/versions"))


async def test_a_registration_that_is_overtaken_is_checked_again(
    registry: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(registry, "s", ONE)
    ok(await registry.put("/config", json={"compatibility": "BACKWARD"}))
    register_schema = store.schemas.register_schema
    is_first = True

    async def overtaken(*call: Any) -> Any:
        nonlocal is_first
        if is_first:
            is_first = False
            await register_schema("s", b"x" * 32, '"string"', None)
        return await register_schema(*call)

    monkeypatch.setattr(store.schemas, "register_schema", overtaken)
    answer = await registry.post("/subjects/s/versions", json={"schema": WITH_DEFAULT})
    assert "version 2: /: string cannot be read as com.acme.Order" in refused(answer, 409, 409)
    assert ok(await registry.get("/subjects/s/versions")) == [1, 2]
