"""When the retries of a message or the firings of a schedule would be, without creating one."""

import msgspec

from qstash_clone.domain.backoff import default_delay_ms
from qstash_clone.domain.cron import Cron
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


def next_firings(cron: Cron, after_ms: int, count: int) -> tuple[int, ...]:
    """The first `count` firings after a time, as Unix times in milliseconds; fewer if there are no more."""
    firings: list[int] = []
    firing_ms = cron.next_after(after_ms)
    while firing_ms is not None and len(firings) < count:
        firings.append(firing_ms)
        firing_ms = cron.next_after(firing_ms)
    return tuple(firings)
