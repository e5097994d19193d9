"""Which row of the table a request to a Kafka REST API belongs to."""

import pytest

from qstash_clone.api.errors import WrongMethod
from qstash_clone.api.requests import Head
from qstash_clone.api.topics.calls import Answer, Call
from qstash_clone.api.topics.credentials import Grant, Right
from qstash_clone.api.topics.table import Found, TopicApi, TopicRow, TopicTable
from qstash_clone.errors import NotFound


def api() -> TopicApi:
    return TopicApi(lambda head: Grant(Right.READ), lambda error, head: Answer(500, b"{}"), 100)


async def handler(call: Call) -> Answer:
    return Answer(200, b"{}")


UPSTASH, V1, V2 = api(), api(), api()
TABLE = TopicTable(
    [
        TopicRow("GET POST", "/produce/{topic}/{message:path}", handler, UPSTASH, "path"),
        TopicRow("GET POST", "/produce/{topic}", handler, UPSTASH, "topic"),
        TopicRow("GET POST", "/produce", handler, UPSTASH, "produce"),
        TopicRow("GET", "/topics", handler, UPSTASH, "topics"),
        TopicRow("GET", "/topics/{topic}", handler, UPSTASH, "topics"),
        TopicRow("PATCH", "/topics/{topic}", handler, UPSTASH, "change"),
        TopicRow("POST", "/topics/{topic}/records", handler, V1, "v1"),
        TopicRow("POST", "/v2/topics/{topic}/records", handler, V2, "v2"),
    ]
)


def find(method: str, raw_path: bytes) -> Found | None:
    return TABLE.find(Head(method, raw_path, b"", [], {}, "", b"1"))


@pytest.mark.parametrize(
    ("method", "path", "label", "segments"),
    [
        ("POST", b"/produce", "produce", ()),
        ("GET", b"/PRODUCE/", "produce", ()),
        ("GET", b"//produce", "produce", ()),
        ("GET", b"/produce/T", "topic", ("T",)),
        ("GET", b"/produce/T/", "topic", ("T",)),
        ("GET", b"/produce//", "topic", ("",)),
        ("GET", b"/produce/t/a", "path", ("t", "a")),
        ("GET", b"/produce/t/a//b/", "path", ("t", "a", "", "b")),
        ("GET", b"/produce/t//", "path", ("t", "")),
        ("GET", b"/produce/t/a%2Fb", "path", ("t", "a%2Fb")),
        ("GET", b"/topics", "topics", ()),
        ("PATCH", b"/topics/records", "change", ("records",)),
        ("POST", b"/topics/T/Records", "v1", ("T",)),
        ("POST", b"/V2/topics/t/records/", "v2", ("t",)),
    ],
)
def test_a_row_is_found(method: str, path: bytes, label: str, segments: tuple[str, ...]) -> None:
    found = find(method, path)
    assert found is not None
    assert found.row is not None
    assert (found.label, found.segments, found.row.label) == (label, segments, label)


@pytest.mark.parametrize(
    "path", [b"/", b"//", b"/news", b"/v2", b"/v2/topics", b"/v2/topics/t", b"/v2/topics/t/endpoints", b"///produce"]
)
def test_other_paths_belong_to_somebody_else(path: bytes) -> None:
    assert find("GET", path) is None


@pytest.mark.parametrize("path", [b"/topics/t/other", b"/topics/t/records/more", b"/topics/"])
def test_what_is_unknown_belongs_to_the_first_api_with_that_segment(path: bytes) -> None:
    found = find("DELETE", path)
    assert found is not None
    assert (found.row, found.api is UPSTASH) == (None, True)
    error = found.refusal(Head("DELETE", path, b"pass=secret", [], {}, "", b"1"))
    assert type(error) is (WrongMethod if path == b"/topics/" else NotFound)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("method", "path", "api", "allowed"),
    [
        ("HEAD", b"/topics", UPSTASH, ("GET",)),
        ("HEAD", b"/topics/t", UPSTASH, ("GET", "PATCH")),
        ("PUT", b"/produce/t/m", UPSTASH, ("GET", "POST")),
        ("GET", b"/topics/t/records", V1, ("POST",)),
        ("GET", b"/v2/topics/t/records", V2, ("POST",)),
    ],
)
def test_another_method_belongs_to_the_api_of_the_path(
    method: str, path: bytes, api: TopicApi, allowed: tuple[str, ...]
) -> None:
    found = find(method, path)
    assert found is not None
    assert (found.row, found.api is api, found.allowed) == (None, True, allowed)
