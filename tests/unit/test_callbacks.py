import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.callbacks import plan_callbacks
from qstash_clone.domain.message import (
    CallbackMessage,
    CallbackSpec,
    Claim,
    Extras,
    FlowControl,
    Headers,
    Message,
    NewMessage,
    Redaction,
    Settlement,
    SettlementKind,
)
from qstash_clone.domain.outcome import AttemptResult
from qstash_clone.ids import MessageId, format_message_id

SOURCE_ID = MessageId(b"\x01" * 12)
CALLBACK = CallbackSpec(url="https://cb.example:8443/x", timeout_ms=30_000)
FAILURE_CALLBACK = CallbackSpec(url="http://failed.example/", timeout_ms=30_000)
MESSAGE = Message(
    url="https://e.com/hook?x=1",
    method="PUT",
    headers=(("Content-Type", "text/plain"), ("X", "1"), ("X", "caf\xc3\xa9")),
    caller_ip="203.0.113.9",
    max_retries=5,
    timeout_ms=1000,
    retry_delay_expression="1000",
    labels=("a", "b"),
    extras=Extras(callback=CALLBACK, failure_callback=FAILURE_CALLBACK),
)
RESULT = AttemptResult(status=404, headers=(("Content-Type", "text/plain"), ("Z", "\xff")), body=b"not \x00 found")


def claim_of(message: Message = MESSAGE, retried: int = 2, lane: str = "h:e.com") -> Claim:
    return Claim(
        partition=0,
        entry_id=b"1-0",
        id=SOURCE_ID,
        generation=1,
        retried=retried,
        claims=1,
        created_ms=1_700_000_000_000,
        due_ms=1_700_000_009_000,
        message=message,
        body=b"the bo",
        body_bytes=8,
        not_before_ms=1_700_000_001_000,
        lane=lane,
    )


def ids() -> Callable[[], MessageId]:
    numbers: Iterator[int] = iter(range(2, 100))
    return lambda: MessageId(bytes([next(numbers)]) * 12)


def plan(
    kind: SettlementKind,
    *,
    message: Message = MESSAGE,
    result: AttemptResult = RESULT,
    body: bytes = b"the body",
    lane: str = "h:e.com",
) -> tuple[CallbackMessage, ...]:
    claim = claim_of(message, lane=lane)
    return plan_callbacks(claim, body, Settlement(claim=claim, kind=kind), result, ids())


def with_extras(**extras: Any) -> Message:
    return msgspec.structs.replace(MESSAGE, extras=Extras(**extras))


def report_of(planned: CallbackMessage) -> dict[str, Any]:
    return json.loads(planned.message.body)


def urls_of(planned: tuple[CallbackMessage, ...]) -> list[str]:
    return [callback.message.message.url for callback in planned]


@pytest.mark.parametrize("kind", [SettlementKind.DELIVERED, SettlementKind.RETRY])
def test_a_callback_after_every_attempt(kind: SettlementKind) -> None:
    assert urls_of(plan(kind)) == [CALLBACK.url]
    assert plan(kind, message=with_extras(failure_callback=FAILURE_CALLBACK)) == ()


def test_a_failure_callback_with_the_end() -> None:
    planned = plan(SettlementKind.FAILED)
    assert urls_of(planned) == [CALLBACK.url, FAILURE_CALLBACK.url]
    assert [callback.message.id for callback in planned] == [b"\x02" * 12, b"\x03" * 12]
    only = plan(SettlementKind.FAILED, message=with_extras(failure_callback=FAILURE_CALLBACK))
    assert urls_of(only) == [FAILURE_CALLBACK.url]


@pytest.mark.parametrize("kind", SettlementKind)
def test_nothing_without_a_wish_for_it(kind: SettlementKind) -> None:
    assert plan(kind, message=msgspec.structs.replace(MESSAGE, extras=None)) == ()
    assert plan(kind, message=with_extras(redaction=Redaction(body=True))) == ()


@pytest.mark.parametrize("kind", SettlementKind)
def test_a_callback_has_no_callbacks(kind: SettlementKind) -> None:
    message = with_extras(callback=CALLBACK, failure_callback=FAILURE_CALLBACK, source_message_id=b"\x09" * 12)
    assert plan(kind, message=message) == ()


def test_the_report() -> None:
    (planned,) = plan(SettlementKind.RETRY)
    assert planned.dlq_id_at is None
    assert report_of(planned) == {
        "status": 404,
        "header": {"Content-Type": ["text/plain"], "Z": ["\xff"]},
        "body": b64encode(b"not \x00 found").decode(),
        "retried": 2,
        "maxRetries": 5,
        "sourceMessageId": format_message_id(SOURCE_ID),
        "url": "https://e.com/hook?x=1",
        "method": "PUT",
        "sourceHeader": {"Content-Type": ["text/plain"], "X": ["1", "caf\xe9"]},
        "sourceBody": b64encode(b"the body").decode(),
        "notBefore": "1700000001000",
        "createdAt": "1700000000000",
        "callerIP": "203.0.113.9",
    }


def test_the_report_tells_where_the_source_comes_from() -> None:
    def told(**extras: Any) -> dict[str, Any]:
        (planned,) = plan(SettlementKind.RETRY, message=with_extras(callback=CALLBACK, **extras))
        report = report_of(planned)
        return {name: report[name] for name in ("topicName", "endpointName", "scheduleId") if name in report}

    assert told() == {}
    assert told(url_group="orders") == {"topicName": "orders"}
    assert told(url_group="orders", endpoint_name="billing", schedule_id="nightly") == {
        "topicName": "orders",
        "endpointName": "billing",
        "scheduleId": "nightly",
    }


def test_a_callback_names_the_schedule_of_its_source_but_no_group() -> None:
    message = with_extras(callback=CALLBACK, url_group="orders", endpoint_name="billing", schedule_id="nightly")
    (planned,) = plan(SettlementKind.DELIVERED, message=message)
    assert planned.message.message.extras == Extras(source_message_id=SOURCE_ID, schedule_id="nightly")


@pytest.mark.parametrize(
    ("lane", "control", "route"),
    [
        ("h:e.com", None, "h:cb.example"),
        ("f:source", None, "h:cb.example"),
        ("q:jobs f:source", None, f"h:cb.example s:jobs/{SOURCE_ID.hex()}"),
        ("h:e.com", FlowControl(key="k", rate=1), "f:k"),
        ("q:jobs", FlowControl(key="k", rate=1), f"f:k s:jobs/{SOURCE_ID.hex()}"),
    ],
)
def test_a_callback_waits_by_its_own_key_or_host_and_holds_the_slot_of_a_member(
    lane: str, control: FlowControl | None, route: str
) -> None:
    spec = CallbackSpec(url="https://cb.example", flow_control=control)
    (planned,) = plan(SettlementKind.DELIVERED, message=with_extras(callback=spec), lane=lane)
    assert planned.message.lane == route
    assert planned.message.message.extras == Extras(source_message_id=SOURCE_ID, flow_control=control)


def test_the_report_of_an_attempt_without_an_answer() -> None:
    (planned,) = plan(
        SettlementKind.RETRY, result=AttemptResult(status=200, error="the answer was cut off", body=b""), body=b""
    )
    report = report_of(planned)
    assert (report["status"], report["header"], report["body"], report["sourceBody"]) == (0, {}, "", "")


def test_the_report_of_a_failure_has_a_place_for_the_dead_letter() -> None:
    callback, failure_callback = plan(SettlementKind.FAILED)
    at = failure_callback.dlq_id_at
    assert at is not None
    body = failure_callback.message.body
    assert json.loads(body[:at] + b"1725323658779-0" + body[at:]) == {
        "dlqId": "1725323658779-0",
        **report_of(callback),
    }


def test_the_message() -> None:
    (planned,) = plan(SettlementKind.DELIVERED)
    assert planned.message == NewMessage(
        id=MessageId(b"\x02" * 12),
        message=Message(
            url="https://cb.example:8443/x",
            method="POST",
            headers=(("Content-Type", "application/json"),),
            caller_ip="203.0.113.9",
            max_retries=5,
            timeout_ms=30_000,
            retry_delay_expression="1000",
            labels=("a", "b"),
            extras=Extras(source_message_id=SOURCE_ID),
        ),
        body=planned.message.body,
        lane="h:cb.example:8443",
        delay_ms=0,
    )


def test_settings_of_the_callback_win_over_the_source() -> None:
    spec = CallbackSpec(
        url="https://cb.example",
        method="PATCH",
        headers=(("X-Key", "k"),),
        max_retries=0,
        timeout_ms=9000,
        retry_delay_expression="7",
        delay_ms=4000,
        labels=(),
    )
    (planned,) = plan(SettlementKind.DELIVERED, message=with_extras(callback=spec))
    assert planned.message.message == Message(
        url="https://cb.example",
        method="PATCH",
        headers=(("Content-Type", "application/json"), ("X-Key", "k")),
        caller_ip="203.0.113.9",
        max_retries=0,
        timeout_ms=9000,
        retry_delay_expression="7",
        labels=(),
        extras=Extras(source_message_id=SOURCE_ID),
    )
    assert planned.message.delay_ms == 4000


def test_a_forwarded_content_type_is_the_one_of_the_callback() -> None:
    headers: Headers = (("X", "1"), ("Content-Type", "application/vnd.report+json"))
    spec = CallbackSpec(url="https://cb.example", headers=headers)
    (planned,) = plan(SettlementKind.DELIVERED, message=with_extras(callback=spec))
    assert planned.message.message.headers == headers
    assert planned.message.message.timeout_ms == Message(url="").timeout_ms


@pytest.mark.parametrize(
    ("source", "own"),
    [
        (Redaction(body=True), Redaction(body=True)),
        (Redaction(all_headers=True), Redaction(body=True, all_headers=True)),
        (Redaction(header_names=("X",)), Redaction(body=True, header_names=("X",))),
    ],
)
def test_what_is_hidden_of_the_source_is_hidden_of_the_callback_but_sent(source: Redaction, own: Redaction) -> None:
    (planned,) = plan(SettlementKind.DELIVERED, message=with_extras(callback=CALLBACK, redaction=source))
    assert planned.message.message.extras == Extras(source_message_id=SOURCE_ID, redaction=own)
    assert b64decode(report_of(planned)["sourceBody"]) == b"the body"
    assert report_of(planned)["sourceHeader"]["X"][0] == "1"


_values = st.text(st.characters(max_codepoint=255), max_size=12)
_headers = st.lists(st.tuples(st.sampled_from(["X", "Y", "Content-Type"]), _values), max_size=4).map(tuple)


@given(
    status=st.integers(0, 599), answer=st.binary(max_size=50), body=st.binary(max_size=50), of_answer=_headers,
    of_source=_headers, error=st.none() | st.text(max_size=10),
)  # fmt: skip
def test_reports_survive_json_whatever_is_in_them(
    status: int, answer: bytes, body: bytes, of_answer: Headers, of_source: Headers, error: str | None
) -> None:
    callback, failure_callback = plan(
        SettlementKind.FAILED,
        message=msgspec.structs.replace(MESSAGE, headers=of_source),
        result=AttemptResult(status=status, headers=of_answer, body=answer, error=error),
        body=body,
    )
    report = report_of(callback)
    assert b64decode(report["body"]) == answer
    assert b64decode(report["sourceBody"]) == body
    assert report["status"] == (status if error is None else 0)
    for shown, headers in ((report["header"], of_answer), (report["sourceHeader"], of_source)):
        assert sum(map(len, shown.values())) == len(headers)
        for name, value in headers:
            raw = value.encode("latin-1")
            assert any(text.encode("utf-8") == raw or text.encode("latin-1", "replace") == raw for text in shown[name])
    at = failure_callback.dlq_id_at
    assert at is not None
    spliced = failure_callback.message.body[:at] + b"1-0" + failure_callback.message.body[at:]
    assert json.loads(spliced) == {**report, "dlqId": "1-0"}
