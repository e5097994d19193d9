import pytest

from qstash_clone.domain.cron import parse_cron
from qstash_clone.domain.outcome import BackoffPolicy
from qstash_clone.domain.preview import PlannedRetry, next_firings, next_retry_times
from qstash_clone.domain.retry_expression import parse

POLICY = BackoffPolicy(coefficient=2.0, cap_ms=86_400_000)


def test_the_default() -> None:
    planned = next_retry_times(None, 6, POLICY)
    assert [retry.delay_ms for retry in planned] == [7000, 54_000, 403_000, 2_980_000, 22_026_000, 86_400_000]
    assert [retry.after_ms for retry in planned][:3] == [7000, 61_000, 464_000]
    assert all(retry.by_default for retry in planned)


def test_an_expression_and_the_default_where_it_has_no_value() -> None:
    assert next_retry_times(parse("1000 / retried"), 3, POLICY) == (
        PlannedRetry(retry=1, delay_ms=7000, after_ms=7000, by_default=True),
        PlannedRetry(retry=2, delay_ms=1000, after_ms=8000, by_default=False),
        PlannedRetry(retry=3, delay_ms=500, after_ms=8500, by_default=False),
    )


@pytest.mark.parametrize("expression", [None, "1000"])
def test_as_many_as_asked_for(expression: str | None) -> None:
    parsed = None if expression is None else parse(expression)
    assert next_retry_times(parsed, 0, POLICY) == ()
    assert [retry.retry for retry in next_retry_times(parsed, 100, POLICY)] == list(range(1, 101))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_firings_as_asked_for(count: int) -> None:
    hour_ms = 3_600_000
    assert (
        next_firings(parse_cron("cron", "0 * * * *"), hour_ms, count) == (2 * hour_ms, 3 * hour_ms, 4 * hour_ms)[:count]
    )


def test_firings_may_come_to_an_end() -> None:
    """02:30 on the last Sunday of March is left out by clocks since 1981."""
    cron = parse_cron("cron", "TZ=Europe/Berlin 30 2 25-31 3 */7")
    assert len(next_firings(cron, 0, 100)) == 11
