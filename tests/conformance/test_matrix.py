"""The page on conformance: what makes a row, what becomes a claim, and that the committed page is what was seen."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.conformance import matrix
from tests.conformance.matrix import all_rows, merge, read, render, rows_of
from tests.support.raw_http import RawHttp
from tests.support.tap import Exchange, Tap

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "conformance.md"


def test_the_page_is_what_was_recorded() -> None:
    assert PAGE.read_text() == render(read()), "run `make docs`"


def test_claims_are_about_rows_and_tests_that_exist() -> None:
    assert read().keys() <= set(all_rows())
    for row, tests in read().items():
        assert 1 <= len(tests) <= 2, row
        for test in tests:
            module, name = re.split(r"::|\[", test)[:2]
            assert f"def {name}(" in (ROOT / "tests" / "e2e" / module).read_text(), test


def test_every_operation_of_the_protocol_was_seen_with_success() -> None:
    for method, path, operation in matrix.document().operations():
        if operation["tags"] == ["Refused"] or operation["operationId"].endswith("WithSlash"):
            continue
        if path.startswith("/v2/"):
            rows = [f"{method} {path} {status}" for status in operation["responses"] if int(status) < 300]
            assert any(row in read() for row in rows), f"{method} {path}"


@pytest.mark.parametrize(
    ("exchange", "rows"),
    [
        (Exchange("GET", "/v2/dlq/?count=3&%75rl=x", status=200), ["200", "?count", "?url"]),
        (Exchange("GET", "/v2/dlq?count=3", status=400), ["400"]),
        (Exchange("DELETE", "/v2/dlq", body=bytearray(b'{"dlqIds": ["1-0"]}'), status=200), ["200", ".dlqIds"]),
        (Exchange("DELETE", "/v2/dlq", body=bytearray(b" "), status=200), ["200"]),
    ],
)
def test_rows_of_a_request(exchange: Exchange, rows: list[str]) -> None:
    assert list(rows_of(exchange)) == [f"{exchange.method} /v2/dlq {row}" for row in rows]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/produce/t/v", 200), ("GET", "/Topics", 401), ("GET", "/topics/a/b", 404), ("PUT", "/produce", 405)],
)
def test_the_kafka_apis_have_no_rows(method: str, target: str, status: int) -> None:
    assert list(rows_of(Exchange(method, target, status=status))) == []
    assert not any("/produce" in row or " /topics" in row for row in all_rows())


def test_rows_of_a_publish() -> None:
    headers = [("authorization", "Bearer t"), ("upstash-forward-x", "1"), ("upstash-delay", "1s"), ("x-other", "1")]
    exchange = Exchange("POST", "/v2/publish/https://e.com/?upstash-retries=1&a=b", headers, status=202)
    name = "POST /v2/publish/{destination}"
    assert set(rows_of(exchange)) == {
        f"{name} 202",
        f"{name} Upstash-Forward-<Name>",
        f"{name} Upstash-Delay",
        "* Authorization",
        "* ?upstash-*",
    }


def test_rows_of_a_batch() -> None:
    items = [
        {"destination": "g", "headers": {"upstash-callback-forward-x": "1"}},
        {"queue": "q", "headers": None},
        {"body": "x", "headers": {"Upstash-Retries": "many"}},
        7,
    ]
    results = [[{"messageId": "m"}], {"messageId": "m"}, {"error": "no number"}, {"error": "no object"}]
    exchange = Exchange(
        "POST",
        "/v2/batch",
        body=bytearray(json.dumps(items).encode()),
        status=200,
        answer=bytearray(json.dumps(results).encode()),
    )
    assert set(rows_of(exchange)) == {
        "POST /v2/batch 200",
        "POST /v2/batch [].destination",
        "POST /v2/batch [].headers",
        "POST /v2/batch [].queue",
        "POST /v2/batch [].headers Upstash-Callback-Forward-<Name>",
    }


@pytest.mark.parametrize(
    ("target", "status"), [("/v2/dlq", 401), ("/v2/news", 404), ("/v2/messages/", 429), ("/v2/dlq", 500)]
)
def test_what_holds_for_every_request(target: str, status: int) -> None:
    assert list(rows_of(Exchange("GET", target, status=status))) == [f"* {status}"]


def test_what_cannot_be_seen_has_no_row() -> None:
    rows = set(all_rows())
    assert "* 500" not in rows
    for prefix, header in (
        ("POST /v2/schedules/{scheduleIdOrDestination}", "Upstash-Not-Before"),
        ("POST /v2/enqueue/{queue}/{destination}", "Upstash-Queue-Name"),
        ("POST /v2/dlq/retry/{dlqId}", "Upstash-Cron"),
        ("POST /v2/dlq/retry", "Upstash-Deduplication-Id"),
    ):
        assert f"{prefix} {header}" not in rows
        assert f"POST /v2/publish/{{destination}} {header}" in rows


def test_a_claim_was_seen_every_time() -> None:
    row = "GET /v2/dlq 200"
    once = {"test_a.py::test": [row], "test_b.py::test": [row], "test_python_sdk.py::test": [row]}
    assert merge([once, once]) == {row: ["test_a.py::test", "test_python_sdk.py::test"]}
    assert merge([once, {"test_b.py::test": [row], "test_a.py::test": []}]) == {row: ["test_b.py::test"]}
    assert merge([once, {}]) == {}


def test_a_header_is_claimed_by_the_test_that_is_about_it() -> None:
    row = "POST /v2/publish/{destination} Upstash-Delay"
    about_it, about_another = (f"test_every_header.py::test[Upstash-Delay-{way}]" for way in ("publish", "enqueue"))
    seen = {test: [row] for test in ("test_a.py::test", about_another, about_it)}
    assert merge([seen, seen]) == {row: [about_it, "test_a.py::test"]}


async def test_a_tap_hands_on_and_notes() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"x")
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        writer.close()

    tap = Tap()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = await asyncio.to_thread(tap.before, server.sockets[0].getsockname()[1])
        assert await asyncio.to_thread(tap.before, server.sockets[0].getsockname()[1]) == port
        first, second = (b"POST /%d?a HTTP/1.1\r\nA-B: c\r\nContent-Length: 1\r\n\r\nx" % number for number in (1, 2))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first + second)
        answered = await reader.read()
        writer.close()
        noted = [(one.method, one.target, one.headers[0], one.body, one.status, one.answer) for one in tap.exchanges]
    assert answered.count(b"no") == 2
    assert noted == [("POST", f"/{number}?a", ("a-b", "c"), b"x", 413, b"no") for number in (1, 2)]
    await asyncio.to_thread(tap.close)


async def test_what_is_no_http_is_handed_on_too() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nEcho: " + await reader.readline() + b"\r\n")
        writer.close()

    tap = Tap()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = await asyncio.to_thread(tap.before, server.sockets[0].getsockname()[1])
        answered = await RawHttp(port).exchange(b"nonsense\r\n")
    assert (answered.status, answered.header("echo"), tap.exchanges) == (400, "nonsense", [])
    await asyncio.to_thread(tap.close)
