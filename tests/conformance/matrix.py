"""Which end-to-end tests really saw which part of the protocol: rows from the OpenAPI document, claims from recordings.

A row is text: `GET /v2/dlq 200` is a status, `GET /v2/dlq ?count` a parameter of the query, `POST /v2/queues .paused` a
field of the body, `POST /v2/batch [].queue` one of an item, `POST /v2/publish/{destination} Upstash-Delay` a header.
Parameters, fields and headers count only if the request succeeded, and in a batch the item. Rows that begin with `*`
belong to no operation.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

from qstash_clone.domain.header_names import canonical_name
from qstash_clone.settings import Settings
from tests.support import documented
from tests.support.documented import Document, Schema
from tests.support.tap import Exchange

RECORDED: Final = Path(__file__).with_name("recorded.json")
Claims = Mapping[str, Sequence[str]]
"""Rows, each with tests that saw it; a test is `test_dlq.py::test_retry[all]`."""

_EVERYWHERE: Final = {
    401: "no token, or a wrong one",
    403: "a token that may not do this",
    404: "no such path",
    405: "a path with another method",
    408: "a request that does not arrive in time",
    429: "too many requests in a second",
    431: "too many or too long headers",
    503: "no store",
}
_DEFECT: Final = 500
"""No request is meant to be answered so: there is nothing to see, and no row for it."""
_OF_NO_OPERATION: Final = {*_EVERYWHERE, _DEFECT} - {404}
_CREDENTIALS: Final = {
    "* Authorization": "`Authorization: Bearer <token>`",
    "* ?qstash_token": "`qstash_token` in the query",
    "* ?upstash-*": "`upstash-*` in the query, as headers of a publish",
    "* Upstash-Telemetry-*": "`Upstash-Telemetry-*`, which are ignored",
}
_FORWARD: Final = re.compile(r"(Upstash-(?:(?:Failure-)?Callback-)?Forward-).+")
_FORWARDING: Final = tuple(f"Upstash-{kind}Forward-<Name>" for kind in ("", "Callback-", "Failure-Callback-"))
_COLUMNS: Final = {
    "publish": "POST /v2/publish/{destination} ",
    "enqueue": "POST /v2/enqueue/{queue}/{destination} ",
    "item of a batch": "POST /v2/batch [].headers ",
    "schedule": "POST /v2/schedules/{scheduleIdOrDestination} ",
    "retry of a dead letter": "POST /v2/dlq/retry/{dlqId} ",
    "retry of many": "POST /v2/dlq/retry ",
}
"""Where headers can be given: a name, and how its rows begin."""
_HEADER_TESTS: Final = "test_every_header"
"""Their parameters end with the name of a column."""
_SDK_TESTS: Final = ("test_python_sdk", "test_typescript_sdk")


@cache
def document() -> Document:
    """The one that rows are taken from; the clock of `dev` and the Kafka REST APIs are no part of the protocol."""
    whole = _whole_document().document
    paths = {
        path: {method: one for method, one in methods.items() if "x-api" not in one}
        for path, methods in whole["paths"].items()
    }
    return Document({**whole, "paths": {path: methods for path, methods in paths.items() if methods}})


@cache
def _whole_document() -> Document:
    return documented.build(Settings())


@cache
def _prefixes_of_other_apis() -> frozenset[str]:
    paths = {path for _, path, operation in _whole_document().operations() if "x-api" in operation}
    return frozenset(path.split("/")[1] for path in paths) - {"v2"}


def _is_of_another_api(method: str, raw_path: str) -> bool:
    """Whether a request is for a Kafka REST API, also where that does not know it."""
    if raw_path.lstrip("/").partition("/")[0].lower() in _prefixes_of_other_apis():
        return True
    found = _whole_document().find(method, raw_path)
    return found is not None and "x-api" in found[1]


def rows_of(exchange: Exchange) -> Iterator[str]:
    """The rows that a request with its answer has a part in."""
    raw_path, _, query = exchange.target.partition("?")
    if _is_of_another_api(exchange.method, raw_path):
        return
    found = document().find(exchange.method, raw_path)
    if found is None or exchange.status in _OF_NO_OPERATION:
        yield f"* {exchange.status}"
        return
    path, operation = found
    name = f"{exchange.method} {_without_slash(path, operation)}"
    yield f"{name} {exchange.status}"
    if exchange.status >= 300:
        return
    for parameter in filter(None, query.split("&")):
        yield from _query_row(name, unquote(parameter.partition("=")[0]), operation)
    known = _headers_of(operation)
    for header in {_header_row(header) for header, _ in exchange.headers}:
        if header in known:
            yield f"{name} {header}"
        elif header in ("Authorization", "Upstash-Telemetry-*"):
            yield f"* {header}"
    yield from _body_rows(name, exchange, operation)


def all_rows() -> list[str]:
    """Those of every operation, whether anybody saw them or not; in the order of the document."""
    rows = [f"* {status}" for status in _EVERYWHERE] + list(_CREDENTIALS)
    for method, path, operation in document().operations():
        if _without_slash(path, operation) == path:
            rows += _rows_of_operation(f"{method} {path}", operation)
    return rows


def merge(recordings: Sequence[Mapping[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Of each row two tests that saw it in every recording: a poll that is lucky once is no claim.

    Recordings tell for each test which rows it saw. One of the two tests is of an SDK, where one of those saw it. Of a
    header the test is named that is about the header, before others that happen to send it.
    """
    first, *others = recordings
    seen = {
        test: set(rows).intersection(*(set(other.get(test, ())) for other in others)) for test, rows in first.items()
    }
    merged: dict[str, list[str]] = {}
    for row in all_rows():
        tests = sorted(test for test, rows in seen.items() if row in rows)
        of_sdks = [test for test in tests if test.startswith(_SDK_TESTS)]
        ours = [test for test in tests if not test.startswith(_SDK_TESTS)]
        column = next((name for name, prefix in _COLUMNS.items() if row.startswith(f"{prefix}Upstash-")), None)
        if column is not None:
            ends = (f"[{column}]", f"-{column}]")
            ours.sort(key=lambda test: not (test.startswith(_HEADER_TESTS) and test.endswith(ends)))
        if tests:
            merged[row] = (ours[:1] + of_sdks[:1]) if of_sdks and ours else (ours or of_sdks)[:2]
    return merged


def claims_of(test: str) -> set[str]:
    """The rows that the committed recording says this test saw."""
    return {row for row, tests in read().items() if test in tests}


@cache
def read() -> Claims:
    """The committed recording."""
    return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


def render(claims: Claims) -> str:
    """The page."""
    rows = all_rows()
    seen = sum(row in claims for row in rows)
    lines = [_HEAD.format(seen=seen, rows=len(rows))]
    lines += ["## Every request\n", "| What | Seen in |", "|---|---|"]
    lines += [f"| {status}: {text} | {_cell(claims, f'* {status}')} |" for status, text in _EVERYWHERE.items()]
    lines += [f"| {text} | {_cell(claims, row)} |" for row, text in _CREDENTIALS.items()]
    lines += _headers_table(claims)
    for tag in (one["name"] for one in document().document["tags"]):
        section: list[str] = []
        for method, path, operation in document().operations():
            if operation["tags"] == [tag] and _without_slash(path, operation) == path:
                section += _lines_of_operation(claims, f"{method} {path}", operation)
        if section:
            lines += [f"\n## {tag}\n", "| Request | | Seen in |", "|---|---|---|", *section]
    return "\n".join(lines) + "\n"


_HEAD: Final = """\
# Conformance

Which end-to-end tests saw which part of the protocol. These tests run real processes; a proxy before the api notes
every request and the status of its answer, whoever sent it: plain HTTP, curl, or the official SDKs for Python and
TypeScript. Nothing here is declared: a row names up to two tests that saw it, one of them of an SDK if there is one,
and each of them fails if it does not see it any more. A parameter, a field or a header counts only where the request,
or the item of a batch, succeeded. A status of 500 has no row: it stands for a defect, which no request is known to
bring about. What it would look like is held by the tests of the api, which put a defect in.

{seen} of {rows} rows were seen. Operations marked with a star are not part of QStash. This page is generated by
`make docs` from `tests/conformance/recorded.json`, which `make matrix` records.
"""


_WHERE: Final = """\
An empty cell is a header that has no business there: a retry is one message, and neither a repeat nor a schedule; a
schedule has no single moment before which it does nothing; the queue of an enqueue is in its path.
"""


def _headers_table(claims: Claims) -> list[str]:
    """Configuration headers are the same for several operations: one row for each header."""
    lines = [
        "\n## Headers of a publish\n",
        _WHERE,
        "| Header | " + " | ".join(_COLUMNS) + " |",
        "|---" * (len(_COLUMNS) + 1) + "|",
    ]
    rows = set(all_rows())
    for header in _headers_of(document().find("POST", "/v2/publish/x")[1]):  # type: ignore[index]
        cells = (
            _cell(claims, prefix + header, at_most=1) if prefix + header in rows else " "
            for prefix in _COLUMNS.values()
        )
        lines.append(f"| `{header}` | {' | '.join(cells)} |")
    return lines


def _lines_of_operation(claims: Claims, name: str, operation: Schema) -> list[str]:
    shown = f"`{name}`" + (" *" if operation.get("x-extension") else "")
    lines: list[str] = []
    for row in _rows_of_operation(name, operation):
        what = row.removeprefix(f"{name} ")
        if what.startswith(("Upstash-", "[].headers ")):
            continue
        lines.append(f"| {'' if lines else shown} | {_shown(what)} | {_cell(claims, row)} |")
    return lines


def _shown(what: str) -> str:
    if what.isdigit():
        return what
    kind = {"?": "query", ".": "body", "[": "item"}[what[0]]
    return f"{kind} `{what.lstrip('?.[]')}`"


def _cell(claims: Claims, row: str, at_most: int = 2) -> str:
    tests = claims.get(row, ())
    return ", ".join(f"`{test.replace('|', '¦')}`" for test in tests[:at_most]) or "—"


def _rows_of_operation(name: str, operation: Schema) -> list[str]:
    statuses = [int(status) for status in operation["responses"]]
    rows = [f"{name} {status}" for status in statuses if status not in _OF_NO_OPERATION]
    rows += [f"{name} ?{one['name']}" for one in document().parameters(operation) if one["in"] == "query"]
    rows += [f"{name} .{field}" for field in _fields_of(operation)]
    rows += [f"{name} {header}" for header in _headers_of(operation)]
    if name == "POST /v2/batch":
        rows += [
            f"{name} [].{field}" for field in document().document["components"]["schemas"]["BatchItem"]["properties"]
        ]
        rows += [f"{name} [].headers {header}" for header in _headers_of_a_publish()]
    return rows


def _without_slash(path: str, operation: Schema) -> str:
    return path[:-1] if operation["operationId"].endswith("WithSlash") else path


def _query_row(name: str, parameter: str, operation: Schema) -> Iterator[str]:
    if parameter.lower() == "qstash_token":
        yield "* ?qstash_token"
    elif parameter.lower().startswith("upstash-"):
        yield "* ?upstash-*"
    elif parameter in [one["name"] for one in document().parameters(operation) if one["in"] == "query"]:
        yield f"{name} ?{parameter}"


def _body_rows(name: str, exchange: Exchange, operation: Schema) -> Iterator[str]:
    if "application/json" not in operation.get("requestBody", {}).get("content", {}) or not exchange.body.strip():
        return
    body: object = json.loads(exchange.body)
    if isinstance(body, dict):
        for field in cast("dict[str, object]", body):
            if field in _fields_of(operation):
                yield f"{name} .{field}"
    elif isinstance(body, list):
        for item in _accepted(cast("list[object]", body), json.loads(exchange.answer)):
            yield from (f"{name} [].{field}" for field in item)
            given: object = item.get("headers")
            names = list(cast("dict[str, object]", given)) if isinstance(given, dict) else []
            headers = {_header_row(header) for header in names}
            yield from (f"{name} [].headers {header}" for header in headers & set(_headers_of_a_publish()))


def _accepted(items: list[object], results: list[object]) -> Iterator[dict[str, Any]]:
    """The items of a batch that were not refused."""
    for item, result in zip(items, results, strict=True):
        if not isinstance(result, dict) or "error" not in result:
            yield cast("dict[str, Any]", item)


def _fields_of(operation: Schema) -> list[str]:
    content = operation.get("requestBody", {}).get("content", {})
    schema: Schema = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = document().document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return list(schema.get("properties", {}))


def _headers_of_a_publish() -> list[str]:
    found = document().find("POST", "/v2/publish/x")
    assert found is not None
    return _headers_of(found[1])


def _headers_of(operation: Schema) -> list[str]:
    headers = [one["name"] for one in document().parameters(operation) if one["in"] == "header"]
    configuration = [header for header in headers if header.startswith("Upstash-")]
    return [*configuration, *_FORWARDING] if configuration else []


def _header_row(name: str) -> str:
    canonical = canonical_name(name.encode("ascii", "replace"))
    if canonical.startswith("Upstash-Telemetry-"):
        return "Upstash-Telemetry-*"
    return _FORWARD.sub(r"\1<Name>", canonical)


if __name__ == "__main__":
    print(render(read()), end="")
