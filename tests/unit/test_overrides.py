"""Other options for a message that is published again."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import CallbackSpec, Extras, FlowControl, Message, Redaction
from qstash_clone.domain.overrides import AT_ONCE, Delay, delay_of, override
from qstash_clone.errors import InvalidRequest, QuotaExceeded

LIMITS = Limits(
    default_retries=3, max_retries=100, default_timeout_ms=900_000, max_timeout_ms=7_200_000, max_delay_ms=864_000_000
)
MESSAGE = Message(
    url="https://e.com/p",
    method="PATCH",
    headers=(("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2"), ("X-B", "3")),
    caller_ip="192.0.2.1",
    max_retries=9,
    timeout_ms=5000,
    retry_delay_expression="1000",
    labels=("a", "b"),
    extras=Extras(callback=CallbackSpec(url="https://e.com/cb"), redaction=Redaction(body=True)),
)

Lines = list[tuple[bytes, bytes]]


def changed(*headers: tuple[str, str], query: Lines | None = None, message: Message = MESSAGE) -> dict[str, object]:
    """The fields that differ afterwards."""
    lines = [(name.encode(), value.encode()) for name, value in headers]
    result = override(message, lines, query or [], LIMITS)
    return {
        name: getattr(result, name)
        for name in Message.__struct_fields__
        if getattr(result, name) != getattr(message, name)
    }


def test_what_is_not_mentioned_stays() -> None:
    assert override(MESSAGE, [(b"content-type", b"x/y"), (b"host", b"h"), (b"x-a", b"9")], [], LIMITS) is MESSAGE
    assert changed(("upstash-telemetry-sdk", "x"), ("upstash-deduplication-id", "y")) == {}


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("upstash-method", "put", "method", "PUT"),
        ("upstash-retries", "0", "max_retries", 0),
        ("upstash-timeout", "1m", "timeout_ms", 60_000),
        ("upstash-retry-delay", "retried", "retry_delay_expression", "retried"),
        ("upstash-label", "c", "labels", ("c",)),
        ("upstash-label", "", "labels", ()),
    ],
)
def test_each_option_replaces_its_own(name: str, value: str, field: str, expected: object) -> None:
    assert changed((name, value)) == {field: expected}
    assert changed(query=[(name.encode(), value.encode())]) == {field: expected}


def test_forwarded_headers_merge_by_name() -> None:
    assert changed(("upstash-forward-x-a", "new"), ("upstash-forward-x-c", "more")) == {
        "headers": (("Content-Type", "text/plain"), ("X-B", "3"), ("X-A", "new"), ("X-C", "more"))
    }


def test_the_content_type_is_changed_by_forwarding_one_only() -> None:
    given = [(b"content-type", b"of/request"), (b"upstash-forward-content-type", b"of/message")]
    assert override(MESSAGE, given, [], LIMITS).headers[-1] == ("Content-Type", "of/message")
    assert override(MESSAGE, [*given[:1], (b"upstash-retries", b"1")], [], LIMITS).headers == MESSAGE.headers


def test_callbacks_are_replaced_one_by_one() -> None:
    assert MESSAGE.extras is not None
    result = override(MESSAGE, [(b"upstash-failure-callback", b"https://e.com/f")], [], LIMITS).extras
    assert result is not None
    assert result.callback == MESSAGE.extras.callback
    assert result.failure_callback is not None
    assert result.failure_callback.url == "https://e.com/f"
    assert result.redaction == MESSAGE.extras.redaction


def test_flow_control_is_replaced_as_a_whole() -> None:
    limited = msgspec.structs.replace(
        MESSAGE, extras=Extras(flow_control=FlowControl(key="old", parallelism=1), url_group="orders")
    )
    lines = [(b"upstash-flow-control-key", b"new"), (b"upstash-flow-control-value", b"rate=2")]
    assert override(limited, lines, [], LIMITS).extras == Extras(
        flow_control=FlowControl(key="new", rate=2), url_group="orders"
    )
    assert override(limited, [(b"upstash-retries", b"1")], [], LIMITS).extras == limited.extras
    with pytest.raises(InvalidRequest, match=r"^Upstash-Flow-Control-Value: it needs a key"):
        override(limited, lines[1:], [], LIMITS)


@pytest.mark.parametrize(
    ("old", "text", "expected"),
    [
        (Redaction(body=True), "header", Redaction(body=True, all_headers=True)),
        (Redaction(all_headers=True), "header[X]", Redaction(all_headers=True)),
        (Redaction(header_names=("A", "B")), "header[b],header[c]", Redaction(header_names=("A", "B", "C"))),
        (Redaction(header_names=("A",)), "headers", Redaction(all_headers=True)),
        (Redaction(body=True), "", Redaction(body=True)),
        (None, "body", Redaction(body=True)),
        (None, "", None),
    ],
)
def test_redaction_only_grows(old: Redaction | None, text: str, expected: Redaction | None) -> None:
    message = msgspec.structs.replace(MESSAGE, extras=None if old is None else Extras(redaction=old))
    result = override(message, [(b"upstash-redact-fields", text.encode())], [], LIMITS)
    assert (None if result.extras is None else result.extras.redaction) == expected


def test_a_plain_message_stays_plain() -> None:
    assert override(Message(url="https://e.com"), [(b"upstash-retries", b"1")], [], LIMITS).extras is None


@pytest.mark.parametrize("name", ["upstash-delay", "upstash-not-before"])
def test_a_delay_changes_nothing_of_the_message(name: str) -> None:
    assert changed((name, "1")) == {}


def delay(*headers: tuple[str, str], query: Lines | None = None) -> Delay:
    """Of a retry at second 1000."""
    return delay_of([(name.encode(), value.encode()) for name, value in headers], query or [], LIMITS, now_ms=1_000_000)


def test_a_retry_begins_at_once_unless_it_says_otherwise() -> None:
    assert delay() == delay(("upstash-retries", "1"), ("x-delay", "5s")) == AT_ONCE
    assert delay(("upstash-delay", "1h30m")) == Delay(delay_ms=5_400_000)
    assert delay(("upstash-not-before", "1500")) == Delay(not_before_ms=1_500_000)
    assert delay(("upstash-not-before", "1500"), ("upstash-delay", "5s")) == Delay(not_before_ms=1_500_000)
    assert delay(query=[(b"upstash-delay", b"90")]) == Delay(delay_ms=90_000)
    assert delay(("upstash-delay", "1s"), query=[(b"upstash-delay", b"90")]) == Delay(delay_ms=1000)


def test_a_delay_is_checked_like_that_of_a_publish() -> None:
    with pytest.raises(InvalidRequest, match=r"^Upstash-Delay: invalid duration"):
        delay(("upstash-delay", "soon"))
    for header in (("upstash-delay", "10d1s"), ("upstash-not-before", "865001")):
        with pytest.raises(QuotaExceeded, match="maximum of 864000s"):
            delay(header)
    assert delay(("upstash-not-before", "865000")) == Delay(not_before_ms=865_000_000)


def test_a_retry_is_no_schedule() -> None:
    with pytest.raises(InvalidRequest, match=r"^Upstash-Cron: a retry is one message"):
        changed(("upstash-cron", "* * * * *"))


def test_values_are_checked_like_those_of_a_publish() -> None:
    with pytest.raises(InvalidRequest, match="Upstash-Retries"):
        changed(("upstash-retries", "x"))
    with pytest.raises(QuotaExceeded, match="Upstash-Retries"):
        changed(("upstash-retries", "101"))


@given(st.lists(st.sampled_from(["upstash-retries", "upstash-timeout", "upstash-forward-x-z"]), max_size=3))
def test_destination_publisher_and_source_never_change(names: list[str]) -> None:
    extras = Extras(source_message_id=b"s" * 12, url_group="orders", endpoint_name="billing", schedule_id="nightly")
    message = msgspec.structs.replace(MESSAGE, extras=extras)
    result = override(message, [(name.encode(), b"5") for name in names], [], LIMITS)
    assert (result.url, result.caller_ip, result.extras) == (message.url, message.caller_ip, extras)
