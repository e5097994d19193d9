"""What an attempt leads to: delivered, another attempt at a certain time, or dead-lettered."""

from functools import lru_cache

import msgspec

from qstash_clone.domain.backoff import default_delay_ms
from qstash_clone.domain.message import AttemptRecord, Claim, Headers, Settlement, SettlementKind
from qstash_clone.domain.response_delay import delay_from_headers_ms
from qstash_clone.domain.retry_expression import RetryExpression, parse

_NON_RETRYABLE_STATUS = 489
_NON_RETRYABLE_HEADER = "upstash-nonretryable-error"


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one HTTP exchange; a failed one is a value as well, never an exception."""

    status: int = 0
    """0 if there was no complete HTTP answer."""
    headers: Headers = ()
    """Of the answer; names canonical, values decoded as latin-1."""
    body: bytes = b""
    """Of the answer, as it came: no content coding is undone."""
    is_body_cut: bool = False
    """The answer's body was longer than this; the rest was not read."""
    error: str | None = None
    """Why there is no answer: one sentence for people."""
    duration_ms: int = 0
    """From the start of connecting to the last byte."""

    @property
    def is_success(self) -> bool:
        return self.error is None and 200 <= self.status <= 299


class BackoffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The default backoff, see `backoff.default_delay_ms`."""

    coefficient: float = 2.0
    cap_ms: int = 86_400_000


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a failed attempt's answer is stored, in bytes.

    While more attempts follow that is enough to see why; each of them adds to the record, and there may be thousands.
    The last one's answer is what the dead letter shows.
    """

    retry_body_bytes: int = 4096
    retry_header_bytes: int = 4096
    final_body_bytes: int = 1_048_576
    final_header_bytes: int = 65_536


_KEPT_BY_DEFAULT = KeptAnswer()


def decide(
    claim: Claim, result: AttemptResult, policy: BackoffPolicy, now_ms: int, *, kept: KeptAnswer = _KEPT_BY_DEFAULT
) -> Settlement:
    """Judge an attempt, see docs/protocol/retries.md; `now_ms` is unix time, for dates in the answer's headers."""
    if result.is_success:
        return Settlement(claim=claim, kind=SettlementKind.DELIVERED)
    is_final = _is_non_retryable(result)
    error = result.error
    if error is None:
        error = f"destination answered {result.status}"
        if is_final:
            error += " and asked not to try again"
    is_final = is_final or claim.retried >= claim.message.max_retries
    attempt = AttemptRecord(
        status=result.status if result.error is None else 0,
        error=error,
        headers=_cut_headers(result.headers, kept.final_header_bytes if is_final else kept.retry_header_bytes),
        body=result.body[: kept.final_body_bytes if is_final else kept.retry_body_bytes],
        duration_ms=result.duration_ms,
    )
    if is_final:
        return Settlement(claim=claim, kind=SettlementKind.FAILED, attempt=attempt)
    delay_ms = _next_delay_ms(claim, result, policy, now_ms)
    return Settlement(claim=claim, kind=SettlementKind.RETRY, delay_ms=delay_ms, attempt=attempt)


def quarantine_record(max_claims: int) -> AttemptRecord:
    """What is kept of a message that is given up without an attempt: it probably ends the workers that take it."""
    return AttemptRecord(
        status=0,
        error=f"given up after {max_claims} claims without a result: each time the worker that had the message stopped"
        " or lost its lease",
    )


def _is_non_retryable(result: AttemptResult) -> bool:
    return result.status == _NON_RETRYABLE_STATUS and any(
        name.lower() == _NON_RETRYABLE_HEADER and value.strip().lower() == "true" for name, value in result.headers
    )


def _next_delay_ms(claim: Claim, result: AttemptResult, policy: BackoffPolicy, now_ms: int) -> int:
    asked_ms = delay_from_headers_ms(result.headers, now_ms)
    if asked_ms is not None:
        return asked_ms
    text = claim.message.retry_delay_expression
    if text is not None:
        expression = _parsed(text)
        own_ms = expression.evaluate_ms(claim.retried) if expression is not None else None
        if own_ms is not None:
            return own_ms
    return default_delay_ms(claim.retried, coefficient=policy.coefficient, cap_ms=policy.cap_ms)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> RetryExpression | None:
    try:
        return parse(text)
    except ValueError:
        # It was parsed when it was published; a store written by a release with another grammar must not end a worker.
        return None


def _cut_headers(headers: Headers, limit_bytes: int) -> Headers:
    kept: list[tuple[str, str]] = []
    left_bytes = limit_bytes
    for line in headers:
        size_bytes = len(line[0]) + len(line[1])
        if size_bytes <= left_bytes:
            kept.append(line)
            left_bytes -= size_bytes
    return tuple(kept)
