"""The limit on requests to produce: so many a second on average, as many at once."""

import pytest

from qstash_clone.errors import RateLimited
from qstash_clone.topics.rate import TokenBucket


class Stopwatch:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def taken(bucket: TokenBucket, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            bucket.take()
        except RateLimited:
            continue
        count += 1
    return count


def test_so_many_at_once_and_then_on_average() -> None:
    stopwatch = Stopwatch()
    bucket = TokenBucket(10, stopwatch)
    assert taken(bucket, 20) == 10
    stopwatch.now_s += 0.25
    assert taken(bucket, 20) == 2
    stopwatch.now_s += 0.25
    assert taken(bucket, 20) == 3
    stopwatch.now_s += 3600
    assert taken(bucket, 20) == 10


def test_what_is_refused_does_not_count() -> None:
    stopwatch = Stopwatch()
    bucket = TokenBucket(1, stopwatch)
    assert taken(bucket, 1) == 1
    for _ in range(9):
        stopwatch.now_s += 0.1
        with pytest.raises(RateLimited, match="more than 1 requests"):
            bucket.take()
    stopwatch.now_s += 0.2
    assert taken(bucket, 2) == 1


def test_0_is_no_limit() -> None:
    assert taken(TokenBucket(0, Stopwatch()), 1000) == 1000
