"""Times on a wall clock: against a walk from minute to minute, and over long distances."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.wall_clock import WallClock

MINUTE_MS = 60_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIELDS = (range(60), range(24), range(1, 32), range(1, 13), range(7))
EVERY = [list(field) for field in FIELDS]


def ms_of(text: str) -> int:
    return int((datetime.fromisoformat(f"{text}+00:00") - EPOCH) / timedelta(milliseconds=1))


def shown(wall_ms: int) -> str:
    return f"{EPOCH + timedelta(milliseconds=wall_ms):%Y-%m-%dT%H:%M}"


def matches(lists: list[list[int]], either: bool, wall_ms: int) -> bool:
    at = EPOCH + timedelta(milliseconds=wall_ms)
    minutes, hours, days, months, weekdays = lists
    day, weekday = at.day in days, at.isoweekday() % 7 in weekdays
    return (
        at.minute in minutes
        and at.hour in hours
        and at.month in months
        and (day or weekday if either else day and weekday)
    )


@given(
    st.tuples(*(st.just(list(field)) | st.lists(st.sampled_from(field), min_size=1, max_size=3) for field in FIELDS)),
    st.booleans(),
    st.integers(ms_of("1969-12-30T00:00"), ms_of("2105-01-01T00:00")),
)
def test_it_agrees_with_a_walk(lists: tuple[list[int], ...], either: bool, wall_ms: int) -> None:
    minutes, hours, days, months, weekdays = lists
    if not either:
        # A day that matches is needed.
        days, months = EVERY[2], EVERY[3]
    found = WallClock(minutes, hours, days, months, weekdays, either=either)
    fields = [minutes, hours, days, months, weekdays]
    first_ms, last_ms = found.first_from(wall_ms), found.last_until(wall_ms)
    assert last_ms <= wall_ms <= first_ms
    assert first_ms % MINUTE_MS == last_ms % MINUTE_MS == 0
    assert matches(fields, either, first_ms)
    assert matches(fields, either, last_ms)
    span_ms = 2 * 24 * 60 * MINUTE_MS
    between = range(max(last_ms + MINUTE_MS, wall_ms - wall_ms % MINUTE_MS - span_ms), wall_ms + 1, MINUTE_MS)
    assert not any(matches(fields, either, at_ms) for at_ms in between)
    between = range(-(-wall_ms // MINUTE_MS) * MINUTE_MS, min(first_ms, wall_ms + span_ms), MINUTE_MS)
    assert not any(matches(fields, either, at_ms) for at_ms in between)


@pytest.mark.parametrize(
    ("days", "months", "weekdays", "first", "last"),
    [
        ([29], [2], EVERY[4], "2104-02-29T10:30", "2096-02-29T10:30"),
        ([29], [2], [0], "2128-02-29T10:30", "2088-02-29T10:30"),
        ([31], EVERY[3], EVERY[4], "2100-03-31T10:30", "2100-01-31T10:30"),
        (EVERY[2], [12], EVERY[4], "2100-12-01T10:30", "2099-12-31T10:30"),
        ([1], [3], EVERY[4], "2100-03-01T10:30", "2099-03-01T10:30"),
    ],
)
def test_far_away(days: list[int], months: list[int], weekdays: list[int], first: str, last: str) -> None:
    clock = WallClock([30], [10], days, months, weekdays, either=False)
    at_ms = ms_of("2100-02-28T10:31")
    assert (shown(clock.first_from(at_ms)), shown(clock.last_until(at_ms))) == (first, last)


def test_a_time_that_matches_is_found_from_itself() -> None:
    clock = WallClock([0, 30], [9, 17], *EVERY[2:], either=False)
    at_ms = ms_of("2026-05-05T09:30")
    assert clock.first_from(at_ms) == clock.last_until(at_ms) == at_ms
    assert shown(clock.first_from(at_ms + 1)) == "2026-05-05T17:00"
    assert shown(clock.last_until(at_ms - 1)) == "2026-05-05T09:00"
    assert shown(clock.last_until(ms_of("2026-05-05T08:00"))) == "2026-05-04T17:30"
    assert shown(clock.first_from(ms_of("2026-05-05T17:31"))) == "2026-05-06T09:00"
