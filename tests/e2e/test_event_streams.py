"""The examples of IBM's two producer APIs and the guide to moving from them, with curl; what is stored comes back."""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import System

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "move-from-event-streams.md"
STRICT_CURL = 'set -euo pipefail\ncurl() { command curl --silent --show-error --fail-with-body "$@"; echo; }\n'
JSON_UTF8 = "application/json; charset=utf-8"
REGISTRY = "application/vnd.schemaregistry.v1+json"
SCHEMA = '{"type":"record","name":"Order","namespace":"com.acme","fields":[{"name":"id","type":"long"}]}'


async def curl(system: System, path: str, *arguments: str, status: int = 200, content_type: str = JSON_UTF8) -> Any:
    """The answer, which must have this status."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", f"{system.url}{path}", *arguments, "-w", "\n%{http_code} %{content_type}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    body, _, told = out.decode().rpartition("\n")
    assert told == f"{status} {content_type}", body
    return json.loads(body)


def bearer(system: System) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {system.settings.token}"


async def fetched(system: System, topic: str, partition: int, offset: int) -> Any:
    wanted = json.dumps({"topic": topic, "partition": partition, "offset": offset})
    found = await curl(system, "/fetch", *bearer(system), "-d", wanted)
    return {name: found[0][name] for name in ("offset", "key", "value", "headers")}


async def test_version_2(system: System) -> None:
    body = {
        "headers": [{"name": "src", "value": "d2Vi"}, {"name": "colour", "value": "YmxhY2s="}],
        "key": {"type": "text", "data": "o-9"},
        "value": {"type": "json", "data": '{"state":"paid"}'},
    }
    as_json = ("-H", "Content-Type: application/json")
    answer = await curl(system, "/v2/topics/es2/records", *bearer(system), *as_json, "-d", json.dumps(body))
    assert (answer["topic_name"], answer["partition_id"]) == ("es2", 2)
    assert (answer["key"], answer["value"]) == ({"type": "text"}, {"type": "json"})
    assert await fetched(system, "es2", 2, answer["offset"]) == {
        "offset": answer["offset"],
        "key": "o-9",
        "value": '{"state":"paid"}',
        "headers": [{"key": "src", "value": "web"}, {"key": "colour", "value": "black"}],
    }
    # The form that the reference prints: no blank behind the scheme.
    packed = ("-H", f"Authorization: Bearer{system.settings.token}")
    text = json.dumps({"value": {"type": "binary", "data": "AAECAw"}})
    answer = await curl(system, "/v2/topics/es2/records", *packed, *as_json, "-d", text)
    found = await fetched(system, "es2", answer["partition_id"], answer["offset"])
    assert (found["key"], found["value"]) == ("", "\0\x01\x02\x03")


async def test_version_2_refuses_in_its_shape(system: System) -> None:
    as_json = ("-H", "Content-Type: application/json")
    path = "/v2/topics/es2/records"
    for status, code, arguments in (
        (401, "unauthorized", (*as_json, "-u", f"token:{system.settings.token}", "-d", "{}")),
        (415, "unsupported_media_type", (*bearer(system), "-d", "{}")),
        (400, "invalid_type", (*bearer(system), *as_json, "-d", '{"value":{"data":"x"}}')),
        (400, "invalid_json", (*bearer(system), *as_json, "-X", "POST")),
    ):
        answer = await curl(system, path, *arguments, status=status)
        assert set(answer) == {"trace", "error"}
        assert answer["error"]["code"] == code
    answer = await curl(system, path, *bearer(system), *as_json, "-d", '{"value":{"data":"x"}}', status=400)
    assert answer["error"]["target"] == {"type": "field", "name": "type"}
    too_large = json.dumps({"value": {"type": "text", "data": "x" * 65_536}})
    answer = await curl(system, path, *bearer(system), *as_json, "-d", too_large, status=413)
    assert answer["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("way", ["bearer", "basic", "x-auth-token"])
async def test_version_1(system: System, way: str) -> None:
    token = system.settings.token
    credential = {
        "bearer": bearer(system),
        "basic": ("-u", f"token:{token}"),
        "x-auth-token": ("-H", f"X-Auth-Token: {token}"),
    }[way]
    path = "/topics/es1/records?key=6f2d39&keyType=binary&headers=src:776562"
    plain = ("-H", "Content-Type: text/plain")
    metadata = (await curl(system, path, *credential, *plain, "--data-binary", "paid"))["metadata"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", metadata["timestamp"])
    assert (metadata["topic"], metadata["partition"]) == ("es1", 2)
    assert await fetched(system, "es1", 2, metadata["offset"]) == {
        "offset": metadata["offset"],
        "key": "o-9",
        "value": "paid",
        "headers": [{"key": "src", "value": "web"}],
    }


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/json", '{"a": 1}'), ("application/xml", "<a/>"), ("application/octet-stream", "\x01\x02")],
)
async def test_version_1_stores_any_body(system: System, content_type: str, body: str) -> None:
    header = ("-H", f"Content-Type: {content_type}", "--data-binary", body)
    metadata = (await curl(system, "/topics/es1/records", *bearer(system), *header))["metadata"]
    found = await fetched(system, "es1", metadata["partition"], metadata["offset"])
    assert (found["key"], found["value"]) == ("", body)


async def test_version_1_refuses_in_its_shape(system: System) -> None:
    plain = ("-H", "Content-Type: text/plain")
    chunked = ("-H", "Transfer-Encoding: chunked", "--data-binary", "x")
    for status, arguments in (
        (401, (*plain, "-d", "x")),
        (411, (*bearer(system), *plain, *chunked)),
        (411, (*bearer(system), *plain, "-X", "POST")),
        (415, (*bearer(system), "-d", "x")),
        (400, (*bearer(system), *plain, "--data-binary", "x" * 65_537)),
    ):
        answer = await curl(system, "/topics/es1/records", *arguments, status=status)
        assert (answer["error_code"], answer["error"]["error_code"]) == (status, status)
        assert answer["error"]["topic"] == "es1"
    path = "/topics/es1/records?schemaname=nothing&schemaversion=1"
    answer = await curl(system, path, *bearer(system), *plain, "-d", "x", status=404)
    assert answer["error"]["schema"] == "nothing"
    answer = await curl(
        system, "/topics/es1/records?key=" + "k" * 10_300, *bearer(system), *plain, "-d", "x", status=414
    )
    assert answer["error_code"] == 414


async def test_avro_goes_through_the_registry(system: System) -> None:
    as_json = ("-H", "Content-Type: application/json")
    wanted = json.dumps({"value": {"type": "avro", "schema": SCHEMA, "data": '{"id": 7}'}})
    path = "/v2/topics/es-avro/records?serializer=confluent"
    answer = await curl(system, path, *bearer(system), *as_json, "-d", wanted)
    schema_id = answer["value"]["schema_id"]
    assert answer["value"] == {"type": "avro", "schema_id": schema_id, "schema_artifact_id": "es-avro-value"}
    found = await fetched(system, "es-avro", answer["partition_id"], answer["offset"])
    assert found["value"].encode() == b"\0" + schema_id.to_bytes(4, "big") + b"\x0e"
    for prefix in ("/schema-registry", "/confluent"):
        who = ("-u", f"anybody:{system.settings.token}")
        answer = await curl(system, f"{prefix}/subjects/es-avro-value/versions/latest", *who, content_type=REGISTRY)
        assert answer == {"subject": "es-avro-value", "version": 1, "id": schema_id, "schema": SCHEMA}
        again = json.dumps({"schema": SCHEMA})
        answer = await curl(
            system, f"{prefix}/subjects/es-avro-value/versions", *who, "-d", again, content_type=REGISTRY
        )
        assert answer == {"id": schema_id}
        answer = await curl(system, f"{prefix}/schemas/ids/{schema_id}", *who, content_type=REGISTRY)
        assert answer == {"schema": SCHEMA}
    path = "/topics/es-avro/records?schemaname=es-avro-value&schemaversion=1&schemavalidation=true"
    metadata = (await curl(system, path, *bearer(system), *as_json, "-d", '{"id": 8}'))["metadata"]
    found = await fetched(system, "es-avro", metadata["partition"], metadata["offset"])
    assert {header["key"].rpartition("registry.")[2]: header["value"] for header in found["headers"]} == {
        "schema.id": "es-avro-value",
        "schema.version": "1",
        "encoding": "JSON",
    }
    answer = await curl(system, path, *bearer(system), *as_json, "-d", '{"id": "8"}', status=400)
    assert answer["error"]["schema"] == "es-avro-value"


async def test_the_guide_to_moving(system: System, tmp_path: Path) -> None:
    """Word for word; each answer stands on a line of its own."""
    commands = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", STRICT_CURL + commands,
        env=os.environ | {"QSTASH_URL": system.url, "QSTASH_TOKEN": system.settings.token},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, output.decode()
    *_, avro, consumed = [json.loads(line) for line in output.decode().splitlines()]
    assert avro["value"]["schema_artifact_id"] == "orders-value"
    values = {record["value"] for record in consumed}
    assert {'{"state":"paid"}', "shipped", '{"state": "delivered"}'} <= values
    assert os.listdir(tmp_path) == []
