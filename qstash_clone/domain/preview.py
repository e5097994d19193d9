"""When the retries of a message would be, without publishing one."""

import msgspec

from qstash_clone.domain.backoff import default_delay_ms
from qstash_clone.domain.outcome import BackoffPolicy
from qstash_clone.domain.retry_expression import RetryExpression


class PlannedRetry(msgspec.Struct, frozen=True, kw_only=True):
    """One retry, if every attempt fails at once and no answer asks for another time."""

    retry: int
    """From 1 on; `Upstash-Retried` of its attempt."""
    delay_ms: int
    """After the attempt before it."""
    after_ms: int
    """After the first attempt."""
    by_default: bool
    """The default backoff decides, because there is no expression or it has no value for this retry."""


def next_retry_times(expression: RetryExpression | None, count: int, policy: BackoffPolicy) -> tuple[PlannedRetry, ...]:
    """The first `count` retries of a message with this `Upstash-Retry-Delay`, or with none."""
    retries: list[PlannedRetry] = []
    after_ms = 0
    for retried in range(count):
        delay_ms = None if expression is None else expression.evaluate_ms(retried)
        by_default = delay_ms is None
        if delay_ms is None:
            delay_ms = default_delay_ms(retried, coefficient=policy.coefficient, cap_ms=policy.cap_ms)
        after_ms += delay_ms
        retries.append(PlannedRetry(retry=retried + 1, delay_ms=delay_ms, after_ms=after_ms, by_default=by_default))
    return tuple(retries)
