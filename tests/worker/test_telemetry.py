"""One wide event per attempt, without anything secret in it."""

from typing import Any

import pytest

from qstash_clone.domain.message import Claim, Message, Settlement, SettlementKind
from qstash_clone.domain.outcome import AttemptResult
from qstash_clone.ids import MessageId, format_message_id
from qstash_clone.observability import DELIVERY_LATENESS, REDELIVERIES
from qstash_clone.storage.interface import SettleResult
from worker import telemetry

ID = MessageId(bytes(range(12)))


def make_claim(claims: int = 1, url: str = "https://user:secret@host.example:8443/path?token=secret") -> Claim:
    return Claim(
        partition=0,
        entry_id=b"1-1",
        id=ID,
        generation=claims,
        retried=2,
        claims=claims,
        created_ms=0,
        due_ms=1_000,
        message=Message(url=url),
        body=b"",
        body_bytes=0,
    )


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is written at level debug."""
    written: list[dict[str, Any]] = []

    def emit(event: str, /, *, level: int = 0, **fields: Any) -> None:
        written.append({"event": event, **fields})

    def is_enabled(level: int) -> bool:
        return True

    monkeypatch.setattr(telemetry, "emit", emit)
    monkeypatch.setattr(telemetry, "is_enabled", is_enabled)
    return written


def test_an_attempt_is_one_event(events: list[dict[str, Any]]) -> None:
    settlement = Settlement(claim=make_claim(), kind=SettlementKind.DELIVERED)
    telemetry.attempt_settled(settlement, AttemptResult(status=204, duration_ms=12), SettleResult.SETTLED)
    assert events == [
        {
            "event": "attempt.settled",
            "message_id": format_message_id(ID),
            "host": "host.example:8443",
            "attempt": 3,
            "status": 204,
            "duration_ms": 12,
            "decision": "delivered",
        }
    ]


def test_a_failed_repeated_attempt_says_why_and_what_follows(events: list[dict[str, Any]]) -> None:
    settlement = Settlement(claim=make_claim(claims=2), kind=SettlementKind.RETRY, delay_ms=7_000)
    telemetry.attempt_settled(settlement, AttemptResult(error="connection refused"), SettleResult.SETTLED)
    [event] = events
    assert (event["decision"], event["error"], event["next_delay_ms"], event["claims"]) == (
        "retry",
        "connection refused",
        7_000,
        2,
    )


def test_the_store_has_the_last_word_on_the_decision(events: list[dict[str, Any]]) -> None:
    settlement = Settlement(claim=make_claim(), kind=SettlementKind.RETRY)
    telemetry.attempt_settled(settlement, AttemptResult(status=500), SettleResult.CANCELED)
    assert events[0]["decision"] == "canceled"


def test_lateness_is_that_of_first_claims_only() -> None:
    count, total, redeliveries = DELIVERY_LATENESS.count, DELIVERY_LATENESS.sum, REDELIVERIES.value
    telemetry.attempt_begins(make_claim(), 3_500)
    assert (DELIVERY_LATENESS.count, REDELIVERIES.value) == (count + 1, redeliveries)
    assert DELIVERY_LATENESS.sum == pytest.approx(total + 2.5)
    telemetry.attempt_begins(make_claim(claims=2), 100_000)
    assert (DELIVERY_LATENESS.count, REDELIVERIES.value) == (count + 1, redeliveries + 1)


def test_promotions_are_told_for_debugging(events: list[dict[str, Any]]) -> None:
    telemetry.promoted(3)
    assert events == [{"event": "timers.promoted", "count": 3}]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://host.example", "host.example"),
        ("https://host.example?query", "host.example"),
        ("http://[::1]:80/x", "[::1]:80"),
        ("http://a:b@c@host.example/@x", "host.example"),
    ],
)
def test_only_the_host_of_a_url_is_shown(url: str, host: str) -> None:
    assert telemetry.host_of(url) == host
