"""The OpenAPI document: it describes every route, says what the reference pages say, and a wrong answer is found."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from jsonschema import Draft202012Validator

from qstash_clone.api.app import REFUSALS, create_app, route_table
from qstash_clone.api.openapi.configuration import CONFIGURATION
from qstash_clone.api.openapi.document import OPERATIONS, UndescribedRoute, operations_of
from qstash_clone.api.routing import Row
from qstash_clone.domain.callback_headers import is_callback_setting
from qstash_clone.domain.headers import is_configuration
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.support import documented
from tests.support.documented import Document

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def rows_of(settings: Settings) -> list[Row]:
    return route_table(settings, Mock(), Mock(), Mock())


@pytest.fixture
def document(settings: Settings) -> Document:
    return documented.build(replace(settings, dev=True))


async def test_it_is_served_without_a_credential(settings: Settings, store: Store) -> None:
    transport = httpx.ASGITransport(create_app(settings, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as anybody:
        answer = await anybody.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == documented.build(settings).document
    assert settings.token not in answer.text


def test_every_route_is_described(settings: Settings) -> None:
    found = operations_of(rows_of(replace(settings, dev=True)), REFUSALS)
    assert set(OPERATIONS) - set(found) == set(), "described, but not served"
    assert "GET /dev/clock" not in operations_of(rows_of(settings), REFUSALS)


def test_a_route_without_a_description_is_found(settings: Settings) -> None:
    rows = [*rows_of(settings), Row("GET", "/v2/news", Mock(), "unmatched")]
    with pytest.raises(UndescribedRoute, match="GET /v2/news"):
        operations_of(rows, REFUSALS)


def test_every_reference_leads_somewhere_and_ids_are_unique(document: Document) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [one for name, each in value.items() for one in ([each] if name == "$ref" else references(each))]  # pyright: ignore
        return [one for each in value for one in references(each)] if isinstance(value, list) else []  # pyright: ignore

    components = document.document["components"]
    found = set(references(document.document))
    named = {f"#/components/{kind}/{name}" for kind in components for name in components[kind]}
    assert found <= named
    assert {one for one in named - found if "securitySchemes" not in one} == set(), "described, but not used"
    ids = [operation["operationId"] for _, _, operation in document.operations()]
    assert len(ids) == len(set(ids))


def test_parameters_of_the_path_are_those_in_it(document: Document) -> None:
    for _, path, operation in document.operations():
        named = [one["name"] for one in document.parameters(operation) if one["in"] == "path"]
        assert sorted(named) == sorted(re.findall(r"\{(\w+)\}", path)), path


def test_schemas_are_schemas(document: Document) -> None:
    for schema in document.document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)  # pyright: ignore[reportUnknownMemberType]
    for _, _, operation in document.operations():
        for parameter in document.parameters(operation):
            Draft202012Validator.check_schema(parameter["schema"])  # pyright: ignore[reportUnknownMemberType]


def test_its_headers_are_those_that_a_publish_knows() -> None:
    for parameter in CONFIGURATION:
        name = parameter.name.lower().encode()
        assert is_configuration(name) or is_callback_setting(name), parameter.name


def test_its_headers_are_those_of_the_reference_page() -> None:
    table = (REFERENCE / "headers.md").read_text().partition("\n## ")[0]
    cells = re.findall(r"^\| (`Upstash.+?) \|", table, re.MULTILINE)
    described = {name for cell in cells for name in re.findall(r"`(Upstash[\w-]+)`", cell)}
    assert described == {one.name for one in CONFIGURATION if not re.match("Upstash-(Failure-)?Callback-", one.name)}


def test_its_statuses_are_those_of_the_reference_page(document: Document) -> None:
    """As far as they belong to one endpoint; the page names what holds for all in a sentence."""
    everywhere = {401, 403, 408, 414, 429, 431, 500, 503}
    for methods, paths, cells in _endpoints_of_the_page():
        for path in paths:
            for method in methods:
                found = document.find(method, re.sub("[{}]", "", path))
                assert found is not None, f"{method} {path} is on the page only"
                statuses = {int(status) for status in found[1]["responses"]}
                named = {int(status) for status in re.findall(r"\b[2-5][0-9]{2}\b", cells)}
                assert statuses - everywhere == named - everywhere, f"{method} {path}"


def _endpoints_of_the_page() -> list[tuple[list[str], list[str], str]]:
    rows = re.findall(
        r"^\| ((?:GET|POST|PUT|PATCH|DELETE).*?) \| (.*?) \| (.*?) \|", (REFERENCE / "api.md").read_text(), re.MULTILINE
    )
    found: list[tuple[list[str], list[str], str]] = []
    for request, success, errors in rows:
        methods = re.findall(r"\b(?:GET|POST|PUT|PATCH|DELETE)\b", request.partition("`")[0])
        first, *more = re.findall(r"`(/.*?)`", request)
        base = first.rpartition("/")[0]
        paths = [first, *(one if one.startswith("/v2/") else base + one for one in more)]
        # `/dev/clock` is 404 elsewhere, which is no answer of the operation.
        found.append((methods, paths, success + " " + (errors if "/dev/" not in first else errors.replace("404", ""))))
    return found


MESSAGE = (
    b'{"messageId":"msg_1","url":"https://e.com","method":"POST","header":{},"maxRetries":3,"notBefore":1,"createdAt":1'
)


@pytest.mark.parametrize(
    ("status", "content_type", "body", "complaint"),
    [
        (200, "application/json", MESSAGE + b"}", None),
        (200, "application/json", MESSAGE + b',"news":1}', "'news' was unexpected"),
        (200, "application/json", MESSAGE + b',"label":null}', "None is not of type 'string'"),
        (200, "application/json", b"{}", "'messageId' is a required property"),
        (200, "text/plain", MESSAGE + b"}", "content type text/plain"),
        (404, "application/json", b'{"error":"message x not found"}', None),
        (404, "application/json", b'{"error":""}', "''"),
        (409, "application/json", b'{"error":"no"}', "answers 409"),
    ],
)
def test_a_wrong_answer_is_found(
    document: Document, status: int, content_type: str, body: bytes, complaint: str | None
) -> None:
    complaints = document.complaints("GET", "/v2/messages/msg_1", status, content_type, body)
    if complaint is None:
        assert complaints == []
    else:
        assert any(complaint in one for one in complaints), complaints


def test_what_nothing_describes_may_only_be_refused(document: Document) -> None:
    assert document.complaints("GET", "/v2/news", 200, "application/json", b"{}")
    assert document.complaints("GET", "/v2/news", 404, "application/json", b'{"error":"no such path"}') == []
    assert document.complaints("GET", "/v2/news", 404, "application/json", b"{}")


@pytest.mark.parametrize(
    ("method", "target", "path"),
    [
        ("POST", "/v2/publish/https://e.com/a/b?c", "/v2/publish/{destination}"),
        ("POST", "//v2/Publish/", "/v2/publish/{destination}"),
        ("POST", "/v2/enqueue/q/https://e.com", "/v2/enqueue/{queue}/{destination}"),
        ("POST", "/v2/schedules/https://e.com/pause", "/v2/schedules/{scheduleIdOrDestination}"),
        ("POST", "/v2/schedules/scd_1/pause", "/v2/schedules/{scheduleId}/pause"),
        ("POST", "/v2/schedules/a%20b/pause", "/v2/schedules/{scheduleIdOrDestination}"),
        ("POST", "/v2/dlq/retry", "/v2/dlq/retry"),
        ("HEAD", "/v2/dlq/1-0", "/v2/dlq/{dlqId}"),
        ("DELETE", "/v2/messages/", "/v2/messages/"),
        ("GET", "/v2/deduplication/a/b", "/v2/deduplication/{deduplicationId}"),
    ],
)
def test_the_operation_of_a_request(document: Document, method: str, target: str, path: str) -> None:
    found = document.find(method, target)
    assert found is not None
    assert found[0] == path
