"""What an attempt leads to."""

import msgspec
import pytest

from qstash_clone.domain.message import AttemptRecord, Claim, Message, Settlement, SettlementKind
from qstash_clone.domain.outcome import AttemptResult, BackoffPolicy, KeptAnswer, decide, quarantine_record
from qstash_clone.ids import MessageId

NOW_MS = 1_700_000_000_000
POLICY = BackoffPolicy(coefficient=2.0, cap_ms=86_400_000)
BROKEN = AttemptResult(status=500, headers=(("Content-Type", "text/plain"),), body=b"broken", duration_ms=12)


def claim(retried: int = 0, max_retries: int = 3, expression: str | None = None) -> Claim:
    return Claim(
        partition=0,
        entry_id=b"1-1",
        id=MessageId(bytes(12)),
        generation=1,
        retried=retried,
        claims=1,
        created_ms=0,
        due_ms=0,
        message=Message(url="https://e.com/", max_retries=max_retries, retry_delay_expression=expression),
        body=b"",
        body_bytes=0,
    )


def judge(taken: Claim, result: AttemptResult) -> Settlement:
    return decide(taken, result, POLICY, NOW_MS)


@pytest.mark.parametrize("status", [200, 201, 204, 226, 299])
def test_every_2xx_is_a_delivery(status: int) -> None:
    taken = claim()
    assert judge(taken, AttemptResult(status=status, body=b"x")) == Settlement(
        claim=taken, kind=SettlementKind.DELIVERED
    )


@pytest.mark.parametrize("status", [101, 199, 300, 301, 304, 307, 400, 404, 410, 429, 489, 500, 503, 599])
def test_every_other_status_is_a_failure(status: int) -> None:
    settlement = judge(claim(), AttemptResult(status=status))
    assert settlement.kind is SettlementKind.RETRY
    assert settlement.attempt == AttemptRecord(status=status, error=f"destination answered {status}")


def test_a_failure_without_an_answer_has_status_0_and_its_reason() -> None:
    settlement = judge(claim(max_retries=0), AttemptResult(error="connection refused", duration_ms=3))
    assert settlement.kind is SettlementKind.FAILED
    assert settlement.attempt == AttemptRecord(status=0, error="connection refused", duration_ms=3)


def test_an_answer_that_broke_off_is_a_failure_whatever_its_status() -> None:
    settlement = judge(claim(), AttemptResult(status=200, error="destination broke off its answer"))
    assert settlement.kind is SettlementKind.RETRY
    assert settlement.attempt is not None
    assert settlement.attempt.status == 0


@pytest.mark.parametrize(
    ("retried", "max_retries", "kind"),
    [
        (0, 0, SettlementKind.FAILED),
        (0, 1, SettlementKind.RETRY),
        (1, 1, SettlementKind.FAILED),
        (2, 3, SettlementKind.RETRY),
        (3, 3, SettlementKind.FAILED),
        (9, 3, SettlementKind.FAILED),
    ],
)
def test_retries_end_with_the_budget(retried: int, max_retries: int, kind: SettlementKind) -> None:
    assert judge(claim(retried, max_retries), BROKEN).kind is kind


def test_the_attempt_is_recorded() -> None:
    assert judge(claim(max_retries=0), BROKEN).attempt == AttemptRecord(
        status=500,
        error="destination answered 500",
        headers=(("Content-Type", "text/plain"),),
        body=b"broken",
        duration_ms=12,
    )


@pytest.mark.parametrize("line", [("Upstash-Nonretryable-Error", "true"), ("upstash-nonretryable-error", " True ")])
def test_489_with_the_header_fails_at_once(line: tuple[str, str]) -> None:
    settlement = judge(claim(), AttemptResult(status=489, headers=(line,)))
    assert settlement.kind is SettlementKind.FAILED
    assert settlement.attempt is not None
    assert settlement.attempt.error == "destination answered 489 and asked not to try again"


@pytest.mark.parametrize(
    ("status", "value"), [(489, "false"), (489, ""), (489, "1"), (488, "true"), (500, "true"), (404, "true")]
)
def test_either_alone_is_an_ordinary_failure(status: int, value: str) -> None:
    result = AttemptResult(status=status, headers=(("Upstash-Nonretryable-Error", value),))
    assert judge(claim(), result).kind is SettlementKind.RETRY


def test_the_default_backoff_follows_policy_and_count() -> None:
    assert [judge(claim(retried), BROKEN).delay_ms for retried in range(3)] == [7000, 54_000, 403_000]
    steeper = BackoffPolicy(coefficient=2.5, cap_ms=100_000)
    assert decide(claim(0), BROKEN, steeper, NOW_MS).delay_ms == 12_000
    assert decide(claim(1), BROKEN, steeper, NOW_MS).delay_ms == 100_000


@pytest.mark.parametrize(
    ("expression", "retried", "delay_ms"),
    [
        ("15000", 2, 15_000),
        ("7000 * retried", 0, 0),
        ("pow(retried, 2) * 1000", 2, 4000),
        ("1 / 0", 0, 7000),  # not a number: the default
        ("no longer valid (", 1, 54_000),  # as written by a release with another grammar
    ],
)
def test_an_expression_replaces_the_default(expression: str, retried: int, delay_ms: int) -> None:
    assert judge(claim(retried, expression=expression), BROKEN).delay_ms == delay_ms


@pytest.mark.parametrize(
    ("value", "delay_ms"), [("30", 30_000), ("0", 0), ("Tue, 14 Nov 2023 22:14:20 GMT", 60_000), ("nonsense", 15_000)]
)
def test_a_usable_response_header_wins_over_the_expression(value: str, delay_ms: int) -> None:
    result = AttemptResult(status=429, headers=(("Retry-After", value),))
    assert judge(claim(expression="15000"), result).delay_ms == delay_ms


def test_a_final_failure_has_no_delay() -> None:
    result = AttemptResult(status=429, headers=(("Retry-After", "30"),))
    assert judge(claim(max_retries=0), result).delay_ms == 0


def test_less_of_the_answer_is_kept_while_attempts_follow() -> None:
    kept = KeptAnswer(retry_body_bytes=3, final_body_bytes=5)
    retry = decide(claim(), BROKEN, POLICY, NOW_MS, kept=kept)
    final = decide(claim(max_retries=0), BROKEN, POLICY, NOW_MS, kept=kept)
    assert retry.attempt is not None
    assert final.attempt is not None
    assert (retry.attempt.body, final.attempt.body) == (b"bro", b"broke")


def test_a_delivered_message_keeps_nothing_of_the_answer() -> None:
    assert judge(claim(), msgspec.structs.replace(BROKEN, status=200)).attempt is None


@pytest.mark.parametrize(("max_retries", "kept"), [(3, ("A", "B")), (0, ("A", "Long", "B", "C"))])
def test_headers_are_kept_as_long_as_they_fit(max_retries: int, kept: tuple[str, ...]) -> None:
    result = AttemptResult(status=500, headers=(("A", "12"), ("Long", "x" * 50), ("B", "34"), ("C", "5")))
    limits = KeptAnswer(retry_header_bytes=6, final_header_bytes=100)
    settlement = decide(claim(max_retries=max_retries), result, POLICY, NOW_MS, kept=limits)
    assert settlement.attempt is not None
    assert tuple(name for name, _ in settlement.attempt.headers) == kept


def test_what_is_kept_of_a_message_that_is_given_up() -> None:
    record = quarantine_record(5)
    assert (record.status, record.headers, record.body, record.duration_ms) == (0, (), b"", 0)
    assert "5 claims" in record.error
