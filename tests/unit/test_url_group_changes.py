from typing import Any

import pytest

from qstash_clone.domain.egress import EgressPolicy
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import CallbackSpec, Headers
from qstash_clone.domain.url_group_changes import (
    MAX_ENDPOINT_NAME_CHARACTERS,
    MAX_ITEMS,
    parse_default_headers,
    parse_endpoints,
    parse_removals,
)
from qstash_clone.domain.url_groups import Endpoint, EndpointPattern
from qstash_clone.errors import InvalidRequest, QuotaExceeded

URL = "https://a.example/x?y=1"
LIMITS = Limits(default_retries=3, max_retries=10, default_timeout_ms=5_000, max_timeout_ms=10_000, max_delay_ms=60_000)
EGRESS = EgressPolicy()


def parse_headers(headers: Any, max_headers: int = 20, max_bytes: int = 1_000) -> Headers:
    return parse_default_headers({"headers": headers}, LIMITS, max_headers=max_headers, max_bytes=max_bytes)[0]


def test_endpoints_as_they_are_given() -> None:
    body = {
        "endpoints": [
            {"url": URL},
            {"url": "http://b.example", "name": "with a blank, ü"},
            {"name": None, "url": "http://[2606:4700::1111]:8080/"},
            {"url": URL, "name": ""},
        ]
    }
    assert parse_endpoints(body, EGRESS) == [
        Endpoint(url=URL),
        Endpoint(url="http://b.example", name="with a blank, ü"),
        Endpoint(url="http://[2606:4700::1111]:8080/"),
        Endpoint(url=URL),
    ]


def test_removals_as_they_are_given() -> None:
    body = {"endpoints": [{"url": "anything"}, {"name": "x"}, {"url": URL, "name": "x"}, {"url": "", "name": "x"}]}
    assert parse_removals(body) == [
        EndpointPattern(url="anything"),
        EndpointPattern(name="x"),
        EndpointPattern(url=URL, name="x"),
        EndpointPattern(name="x"),
    ]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, 'endpoints: "null" is not an array'),
        ({"endpoints": None}, 'endpoints: "null" is not an array'),
        ({"endpoints": []}, r'endpoints: "\[\]" is not an array'),
        ({"endpoints": {"url": URL}}, "endpoints: .* is not an array"),
        ({"endpoints": URL}, "endpoints: .* is not an array"),
        ({"endpoint": [{"url": URL}]}, '"endpoint" does not belong to the endpoints of a URL group, use endpoints'),
        ({"endpoints": [{"url": URL}], "name": "g"}, '"name" does not belong'),
        ({"endpoints": [{"url": URL}, URL]}, r"endpoints\[1\]: .* is not an object"),
        ({"endpoints": [None]}, r"endpoints\[0\]: .*null.* is not an object"),
        ({"endpoints": [{"url": URL, "nmae": "x"}]}, '"nmae" does not belong to an endpoint, use url and name'),
        ({"endpoints": [{"url": 7}]}, r'endpoints\[0\]: the url "7" is not a string'),
        ({"endpoints": [{"url": URL, "name": ["x"]}]}, r"endpoints\[0\]: the name .* is not a string"),
        ({"endpoints": [{"url": URL, "name": "x" * (MAX_ENDPOINT_NAME_CHARACTERS + 1)}]}, "more than 256 characters"),
        ({"endpoints": [{"url": URL}] * (MAX_ITEMS + 1)}, "endpoints: 1001 are more than the 1000 of one request"),
    ],
)
def test_endpoints_that_cannot_be_understood(body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        parse_endpoints(body, EGRESS)
    with pytest.raises(InvalidRequest, match=complaint):
        parse_removals(body)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (None, r"endpoints\[1\]: the url is missing"),
        ("", r"endpoints\[1\]: the url is missing"),
        ("a.example/x", r"invalid url of endpoints\[1\]: endpoint has invalid scheme, add http:// or https://"),
        ("ftp://a.example", "endpoint has invalid scheme"),
        ("my-group", "endpoint has invalid scheme"),
        ("api/llm", "endpoint has invalid scheme"),
        ("https://", "the host is empty"),
        ("https://user:secret@a.example", "a user before the host is not supported"),
        ("https://a.example/#top", r"a fragment \(#\) is never sent"),
        ("https://a.example/a b", "must be percent-encoded"),
        ("https://a.example/" + "x" * 17_000, "more than 16384 characters"),
        ("http://10.0.0.1/", 'address "10.0.0.1" is not allowed'),
        ("http://[::1]/", 'address "::1" is not allowed'),
    ],
)
def test_an_endpoint_has_to_be_a_destination(url: str | None, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        parse_endpoints({"endpoints": [{"url": URL}, {"url": url, "name": "x"}]}, EGRESS)


@pytest.mark.parametrize("item", [{}, {"url": None}, {"url": "", "name": None}])
def test_a_removal_has_to_say_which_one(item: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"endpoints\[0\]: give the url, the name or both"):
        parse_removals({"endpoints": [item]})


def test_default_headers_in_one_spelling() -> None:
    given = {
        "upstash-retries": "5",
        "UPSTASH-FORWARD-x-API-key": [" a ", "b"],
        "content-type": "text/plain",
        "Upstash-Header-Forward": ["true"],
        "Upstash-Label": [],
        "Upstash-Forward-X-B": "ü",
    }
    assert parse_headers(given) == (
        ("Upstash-Retries", "5"),
        ("Upstash-Forward-X-Api-Key", "a"),
        ("Upstash-Forward-X-Api-Key", "b"),
        ("Content-Type", "text/plain"),
        ("Upstash-Header-Forward", "true"),
        ("Upstash-Forward-X-B", "ü".encode().decode("latin-1")),
    )


def test_no_default_headers_at_all() -> None:
    assert parse_headers({}) == ()


def test_callbacks_among_the_default_headers_are_told() -> None:
    body = {"headers": {"Upstash-Callback": "https://cb.example", "Upstash-Callback-Retries": "1"}}
    _, options = parse_default_headers(body, LIMITS, max_headers=20, max_bytes=1_000)
    assert options.callback == CallbackSpec(url="https://cb.example", max_retries=1, timeout_ms=5_000)


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        (None, 'headers: "null" is not an object'),
        (["Upstash-Retries"], "headers: .* is not an object"),
        ("Upstash-Retries: 3", "headers: .* is not an object"),
        ({"X-Custom": "1"}, '"X-Custom" is not possible here'),
        ({"Authorization": "Bearer x"}, '"Authorization" is not possible here'),
        ({"Upstash-Retires": "1"}, '"Upstash-Retires" is not possible here'),
        ({"Upstash-Forward-": "1"}, '"Upstash-Forward-" is not possible here'),
        ({"Upstash-Callback-Cron": "1"}, '"Upstash-Callback-Cron" is not possible here'),
        ({"Upstash-Failure-Callback-Forward-": "1"}, "is not possible here"),
        ({"Upstash Retries": "1"}, '"Upstash Retries" is not a header name'),
        ({"": "1"}, '"" is not a header name'),
        ({"Upstash-Retries": 3}, 'the value of "Upstash-Retries" is neither a string nor an array of strings'),
        ({"Upstash-Retries": ["3", None]}, "is neither a string nor an array of strings"),
        ({"Upstash-Header-Forward": True}, "is neither a string nor an array of strings"),
        ({"Upstash-Forward-X": "a\r\nX: b"}, "headers: Upstash-Forward-X: the value contains a control character"),
        ({"Upstash-Retries": "many"}, 'Upstash-Retries: invalid number "many"'),
        ({"Upstash-Delay": "5x"}, "Upstash-Delay: invalid duration"),
        ({"Upstash-Callback": "nowhere"}, "invalid callback url"),
        ({"Upstash-Cron": "every day"}, "Upstash-Cron: "),
        ({"Upstash-Flow-Control-Key": "k"}, "Upstash-Flow-Control"),
        ({"Upstash-Callback-Retries": "many"}, 'Upstash-Callback-Retries: invalid number "many"'),
        ({"Upstash-Failure-Callback-Flow-Control-Key": "k"}, "Upstash-Failure-Callback-Flow-Control"),
        ({"Upstash-Schedule-Id": "a b"}, 'Upstash-Schedule-Id: invalid name "a b"'),
        ({"Upstash-Queue-Name": "a/b"}, 'Upstash-Queue-Name: invalid name "a/b"'),
    ],
)
def test_default_headers_that_would_break_a_publish(headers: Any, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        parse_headers(headers)


@pytest.mark.parametrize("name", ["Upstash-Retries", "Upstash-Callback-Retries", "Upstash-Failure-Callback-Retries"])
def test_default_headers_over_a_limit(name: str) -> None:
    assert parse_headers({name: "10"}) == ((name, "10"),)
    with pytest.raises(QuotaExceeded, match=name):
        parse_headers({name: "11"})


def test_names_that_a_schedule_may_have_are_possible() -> None:
    given = (("Upstash-Schedule-Id", "nightly"), ("Upstash-Queue-Name", "q.1"))
    assert parse_headers(dict(given)) == given


def test_too_many_or_too_long_default_headers() -> None:
    lines = [str(number) for number in range(21)]
    with pytest.raises(InvalidRequest, match="headers: 21 are more than the limit of 20"):
        parse_headers({"Upstash-Forward-X": lines})
    with pytest.raises(InvalidRequest, match="headers: 1001 bytes are more than the limit of 1000"):
        parse_headers({"Upstash-Forward-X": "v" * (1001 - len("Upstash-Forward-X"))})
    assert len(parse_headers({"Upstash-Forward-X": "v" * (1000 - len("Upstash-Forward-X"))})) == 1


def test_other_fields_than_headers() -> None:
    with pytest.raises(InvalidRequest, match='"endpoints" does not belong to the headers of a URL group, use headers'):
        parse_default_headers({"headers": {}, "endpoints": []}, LIMITS, max_headers=1, max_bytes=1)
