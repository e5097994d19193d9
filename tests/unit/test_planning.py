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
from qstash_clone.domain.message import (
    CallbackSpec,
    Deduplication,
    Extras,
    FlowControl,
    Message,
    NewMessage,
    Redaction,
)
from qstash_clone.domain.planning import plan_deduplication, plan_fan_out, plan_lanes, plan_publish, publishable
from qstash_clone.domain.url_groups import Endpoint, UrlGroup
from qstash_clone.errors import InvalidRequest, NotFound, QuotaExceeded
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


GROUP = UrlGroup(
    name="orders",
    created_ms=1,
    updated_ms=1,
    endpoints=(Endpoint(url="https://a.example/x", name="billing dept"), Endpoint(url="http://b.example:81")),
)
CONTROL = FlowControl(key="k", rate=1)


def plan(queue: str | None = None, **changes: Any) -> NewMessage:
    options = msgspec.structs.replace(OPTIONS, **changes)
    return plan_publish(
        ID,
        destination("https://E.com:8443/p"),
        options,
        b"\x00body",
        "203.0.113.9",
        limits=LIMITS,
        now_ms=NOW_MS,
        queue=queue,
    )


def fan_out(
    queue: str | None = None,
    deduplication: Deduplication | None = None,
    **changes: Any,
) -> list[NewMessage]:
    return plan_fan_out(
        [ID, MessageId(b"\x02" * 12)],
        GROUP,
        msgspec.structs.replace(OPTIONS, **changes),
        b"body",
        "203.0.113.9",
        limits=LIMITS,
        now_ms=NOW_MS,
        deduplication=deduplication,
        queue=queue,
    )


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


def test_a_group_can_be_published_to_if_it_has_endpoints() -> None:
    assert publishable("orders", GROUP) is GROUP
    with pytest.raises(NotFound, match=r"^topic my-group not found$"):
        publishable("my-group", None)
    with pytest.raises(InvalidRequest, match=r"^topic orders has no endpoints$"):
        publishable("orders", msgspec.structs.replace(GROUP, endpoints=()))


def test_every_endpoint_of_a_group_gets_a_message() -> None:
    first, second = fan_out()
    assert first == NewMessage(
        id=ID,
        message=Message(
            url="https://a.example/x",
            method="PUT",
            headers=(("Content-Type", "text/plain"), ("X", "1")),
            caller_ip="203.0.113.9",
            max_retries=5,
            timeout_ms=30_000,
            retry_delay_expression="retried",
            labels=("a",),
            extras=Extras(url_group="orders", endpoint_name="billing dept"),
        ),
        body=b"body",
        lane="h:a.example",
        delay_ms=10_000,
    )
    assert second == msgspec.structs.replace(
        first,
        id=b"\x02" * 12,
        message=msgspec.structs.replace(first.message, url="http://b.example:81", extras=Extras(url_group="orders")),
        lane="h:b.example:81",
    )


def test_the_first_message_of_a_group_decides_about_repeats_of_all() -> None:
    deduplication = Deduplication(digest=b"\x07" * 16, window_ms=5000)
    assert [message.deduplication for message in fan_out(deduplication=deduplication)] == [deduplication, None]


def test_a_group_is_held_to_the_longest_delay_too() -> None:
    with pytest.raises(QuotaExceeded):
        fan_out(not_before_ms=NOW_MS + LIMITS.max_delay_ms + 877)
    assert fan_out(not_before_ms=5000)[1].not_before_ms == 5000


@pytest.mark.parametrize(
    ("queue", "control", "route"),
    [
        (None, None, "h:e.com:8443"),
        ("jobs", None, "q:jobs"),
        (None, CONTROL, "f:k"),
        ("jobs", CONTROL, "q:jobs f:k"),
    ],
)
def test_queue_and_key_decide_where_a_message_waits(queue: str | None, control: FlowControl | None, route: str) -> None:
    assert plan(queue, flow_control=control).lane == route
    if queue or control:
        assert [message.lane for message in fan_out(queue, flow_control=control)] == [route, route]


def test_lanes_of_a_publish_are_those_of_its_callbacks_too() -> None:
    def lanes(queue: str | None = None, **changes: Any) -> tuple[str, ...]:
        return plan_lanes(msgspec.structs.replace(OPTIONS, **changes), queue)

    plain = CallbackSpec(url="https://c.example")
    limited = CallbackSpec(url="https://c.example", flow_control=FlowControl(key="c", rate=1))
    alike = CallbackSpec(url="https://c.example", flow_control=CONTROL)
    assert lanes() == ()
    assert lanes(callback=plain) == ()
    assert lanes("jobs") == ("q:jobs",)
    assert lanes(flow_control=CONTROL) == ("f:k",)
    assert lanes("jobs", flow_control=CONTROL, callback=limited, failure_callback=plain) == ("q:jobs", "f:k", "f:c")
    assert lanes(failure_callback=limited) == ("f:c",)
    assert lanes(flow_control=CONTROL, callback=alike) == ("f:k",)


def test_most_messages_have_no_extras() -> None:
    assert plan().message.extras is None


@pytest.mark.parametrize(
    "extras",
    [
        {"callback": CallbackSpec(url="https://c.example")},
        {"failure_callback": CallbackSpec(url="https://f.example")},
        {"redaction": Redaction(body=True)},
        {"flow_control": CONTROL},
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
    in_queue = digest_of_content(
        scope="all-upstash", destination=text, queue_name="jobs", headers=by_content.content_headers, body=b"1"
    )
    assert plan_deduplication(to, options, b"1", "jobs") == Deduplication(digest=in_queue, window_ms=5000)
    assert in_queue != digest
    options = msgspec.structs.replace(OPTIONS, deduplication=DeduplicationRequest(window_ms=5000, id="a"))
    for queue in (None, "jobs"):
        assert plan_deduplication(to, options, b"1", queue) == Deduplication(digest=digest_of_id("a"), window_ms=5000)


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
