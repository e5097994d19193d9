from typing import Any

import msgspec
import pytest

from qstash_clone.domain.deduplication import DeduplicationRequest, digest_of_content, digest_of_id
from qstash_clone.domain.destination import (
    Destination,
    GroupDestination,
    LlmDestination,
    UrlDestination,
    parse_path_destination,
)
from qstash_clone.domain.headers import PublishOptions
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import CallbackSpec, Deduplication, Extras, Message, NewMessage, Redaction
from qstash_clone.domain.planning import plan_deduplication, plan_publish
from qstash_clone.errors import NotFound, NotSupportedYet, QuotaExceeded
from qstash_clone.ids import MessageId

ID = MessageId(b"\x01" * 12)
NOW_MS = 1_700_000_000_123
LIMITS = Limits(
    default_retries=3, max_retries=100, default_timeout_ms=900_000, max_timeout_ms=7_200_000, max_delay_ms=864_000_000
)
OPTIONS = PublishOptions(
    method="PUT",
    headers=(("Content-Type", "text/plain"), ("X", "1")),
    max_retries=5,
    timeout_ms=30_000,
    retry_delay_expression="retried",
    delay_ms=10_000,
    not_before_ms=None,
    labels=("a",),
)


def destination(url: str) -> UrlDestination:
    parsed = parse_path_destination(url.encode(), b"").destination
    assert isinstance(parsed, UrlDestination)
    return parsed


def plan(to: Destination | None = None, **changes: Any) -> NewMessage:
    options = msgspec.structs.replace(OPTIONS, **changes)
    to = to or destination("https://E.com:8443/p")
    return plan_publish(ID, to, options, b"\x00body", "203.0.113.9", limits=LIMITS, now_ms=NOW_MS)


def test_message_is_what_the_publisher_asked_for() -> None:
    assert plan() == NewMessage(
        id=ID,
        message=Message(
            url="https://E.com:8443/p",
            method="PUT",
            headers=(("Content-Type", "text/plain"), ("X", "1")),
            caller_ip="203.0.113.9",
            max_retries=5,
            timeout_ms=30_000,
            retry_delay_expression="retried",
            labels=("a",),
        ),
        body=b"\x00body",
        lane="h:e.com:8443",
        delay_ms=10_000,
        not_before_ms=None,
    )


def test_a_point_in_time_wins_over_a_delay() -> None:
    planned = plan(not_before_ms=NOW_MS + 5000)
    assert (planned.delay_ms, planned.not_before_ms) == (0, NOW_MS + 5000)


def test_a_point_in_the_past_is_left_to_the_store() -> None:
    assert plan(not_before_ms=0).not_before_ms == 0


def test_a_point_too_far_away_exceeds_the_quota() -> None:
    assert plan(not_before_ms=NOW_MS + LIMITS.max_delay_ms).not_before_ms == NOW_MS + LIMITS.max_delay_ms
    with pytest.raises(QuotaExceeded) as caught:
        plan(not_before_ms=NOW_MS + LIMITS.max_delay_ms + 877)
    assert str(caught.value) == "Upstash-Not-Before: 1700864001 is more than the maximum of 864000s from now"


def test_no_url_group_exists() -> None:
    with pytest.raises(NotFound, match=r"^topic my-group not found$"):
        plan(GroupDestination("my-group"))


def test_llm_is_not_served_yet() -> None:
    with pytest.raises(NotSupportedYet, match=r"^api/llm: not supported yet$"):
        plan(LlmDestination())


def test_most_messages_have_no_extras() -> None:
    assert plan().message.extras is None


@pytest.mark.parametrize(
    "extras",
    [
        {"callback": CallbackSpec(url="https://c.example")},
        {"failure_callback": CallbackSpec(url="https://f.example")},
        {"redaction": Redaction(body=True)},
    ],
)
def test_extras_travel_with_the_message(extras: dict[str, Any]) -> None:
    assert plan(**extras).message.extras == Extras(**extras)


def test_no_deduplication_unless_it_is_asked_for() -> None:
    assert plan_deduplication(destination("https://e.com"), OPTIONS, b"") is None
    assert plan().deduplication is None


@pytest.mark.parametrize(
    ("to", "text"),
    [
        (destination("https://E.com/a?b"), "https://E.com/a?b"),
        (GroupDestination("my-group"), "my-group"),
        (LlmDestination(), "api/llm"),
    ],
)
def test_deduplication(to: Destination, text: str) -> None:
    by_content = DeduplicationRequest(window_ms=5000, content_headers=((b"upstash-retries", b"1"),))
    options = msgspec.structs.replace(OPTIONS, deduplication=by_content)
    digest = digest_of_content(
        scope="all-upstash", destination=text, queue_name=None, headers=by_content.content_headers, body=b"1"
    )
    assert plan_deduplication(to, options, b"1") == Deduplication(digest=digest, window_ms=5000)
    options = msgspec.structs.replace(OPTIONS, deduplication=DeduplicationRequest(window_ms=5000, id="a"))
    assert plan_deduplication(to, options, b"1") == Deduplication(digest=digest_of_id("a"), window_ms=5000)


def test_deduplication_travels_with_the_message() -> None:
    deduplication = Deduplication(digest=b"\x07" * 16, window_ms=5000)
    planned = plan_publish(
        ID,
        destination("https://e.com"),
        OPTIONS,
        b"",
        "203.0.113.9",
        limits=LIMITS,
        now_ms=NOW_MS,
        deduplication=deduplication,
    )
    assert planned.deduplication == deduplication
