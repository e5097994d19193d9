"""The request of an attempt."""

from typing import Any

import msgspec
import pytest

from qstash_clone.domain.delivery import OutgoingRequest, build_request
from qstash_clone.domain.llm import LlmUpstream
from qstash_clone.domain.message import Claim, Extras, Headers, Message, Redaction
from qstash_clone.ids import MessageId, format_message_id

ID = MessageId(bytes(range(12)))
OWN_LINES: Headers = (
    ("Upstash-Signature", "a.b.c"),
    ("Upstash-Message-Id", format_message_id(ID)),
    ("Upstash-Retried", "2"),
    ("Upstash-Caller-Ip", "203.0.113.9"),
)
MESSAGE = Message(url="https://e.com//a%2F?b", caller_ip="203.0.113.9")


def build(
    message: Message, body: bytes = b"", region: str | None = None, llm: LlmUpstream | None = None
) -> OutgoingRequest:
    claim = Claim(
        partition=0,
        entry_id=b"1-1",
        id=ID,
        generation=5,
        retried=2,
        claims=1,
        created_ms=0,
        due_ms=0,
        message=message,
        body=b"",
        body_bytes=len(body),
    )
    return build_request(claim, body, "a.b.c", region, llm)


def test_a_plain_message_has_only_the_own_headers() -> None:
    assert build(MESSAGE, b"body").headers == (("User-Agent", "Upstash-QStash"), *OWN_LINES)


def test_method_url_and_body_are_those_of_the_message() -> None:
    message = msgspec.structs.replace(MESSAGE, method="GET")
    request = build(message, b"\x00\xff body of a GET")
    assert (request.method, request.url, request.body) == ("GET", MESSAGE.url, b"\x00\xff body of a GET")


def test_forwarded_headers_keep_order_and_repetition() -> None:
    lines = (("X-B", "1"), ("Content-Type", "text/plain"), ("X-A", "caf\u00e9"), ("X-B", "2"), ("Authorization", "t"))
    request = build(msgspec.structs.replace(MESSAGE, headers=lines))
    assert request.headers == (*lines, ("User-Agent", "Upstash-QStash"), *OWN_LINES)


def test_a_forwarded_user_agent_replaces_the_own_one() -> None:
    request = build(msgspec.structs.replace(MESSAGE, headers=(("User-Agent", "mine"),)))
    assert request.headers == (("User-Agent", "mine"), *OWN_LINES)


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Content-Length",
        "Expect",
        "Host",
        "Keep-Alive",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Te",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Upstash-Caller-Ip",
        "Upstash-Message-Id",
        "Upstash-Region",
        "Upstash-Retried",
        "Upstash-Schedule-Id",
        "Upstash-Signature",
        "Upstash-Topic-Name",
    ],
)
def test_headers_of_the_connection_and_of_the_service_are_not_forwarded(name: str) -> None:
    lines = ((name, "forged"), ("Upstash-Something", "kept"))
    request = build(msgspec.structs.replace(MESSAGE, headers=lines))
    assert request.headers == (("Upstash-Something", "kept"), ("User-Agent", "Upstash-QStash"), *OWN_LINES)


def test_the_region_is_sent_if_there_is_one() -> None:
    assert build(MESSAGE, region="EU-WEST-1").headers[-1] == ("Upstash-Region", "EU-WEST-1")


def test_where_a_message_comes_from_is_said() -> None:
    def lines_after_the_own(**extras: Any) -> Headers:
        return build(msgspec.structs.replace(MESSAGE, extras=Extras(**extras))).headers[1 + len(OWN_LINES) :]

    assert lines_after_the_own(url_group="orders", endpoint_name="billing") == (("Upstash-Topic-Name", "orders"),)
    assert lines_after_the_own(schedule_id="nightly") == (("Upstash-Schedule-Id", "nightly"),)
    assert lines_after_the_own(schedule_id="nightly", url_group="orders") == (
        ("Upstash-Schedule-Id", "nightly"),
        ("Upstash-Topic-Name", "orders"),
    )
    assert build(msgspec.structs.replace(MESSAGE, extras=Extras(redaction=Redaction(body=True)))).headers == (
        ("User-Agent", "Upstash-QStash"),
        *OWN_LINES,
    )


def test_the_key_of_the_llm_upstream_takes_the_place_of_a_forwarded_one() -> None:
    lines = (("Content-Type", "application/json"), ("Authorization", "Bearer of the publisher"))
    message = msgspec.structs.replace(MESSAGE, headers=lines, extras=Extras(api="llm"))
    request = build(message, llm=LlmUpstream(MESSAGE.url, "k3y"))
    assert request.headers == (
        lines[0],
        ("User-Agent", "Upstash-QStash"),
        ("Authorization", "Bearer k3y"),
        *OWN_LINES,
    )


@pytest.mark.parametrize(
    ("message", "upstream"),
    [
        (MESSAGE, LlmUpstream(MESSAGE.url, "k3y")),
        (msgspec.structs.replace(MESSAGE, extras=Extras(api="llm")), LlmUpstream("https://other.example", "k3y")),
        (msgspec.structs.replace(MESSAGE, extras=Extras(api="llm")), LlmUpstream(MESSAGE.url)),
        (msgspec.structs.replace(MESSAGE, extras=Extras(api="llm")), None),
    ],
)
def test_nothing_else_gets_a_key(message: Message, upstream: LlmUpstream | None) -> None:
    message = msgspec.structs.replace(message, headers=(("Authorization", "own"),))
    assert build(message, llm=upstream).headers == (
        ("Authorization", "own"),
        ("User-Agent", "Upstash-QStash"),
        *OWN_LINES,
    )
