"""Moves of the clock of messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.virtual_clock import LATEST_MS, Advance, ClockMove, Freeze, MoveTo, VirtualClock, moved
from qstash_clone.errors import InvalidRequest

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
RUNNING = VirtualClock(real_ms=NOW_MS)


def later(clock: VirtualClock, ms: int) -> VirtualClock:
    """The same clock after some real time."""
    return VirtualClock(real_ms=clock.real_ms + ms, offset_ms=clock.offset_ms, frozen_ms=clock.frozen_ms)


def test_an_unmoved_clock_is_that_of_redis() -> None:
    assert (RUNNING.now_ms, RUNNING.ahead_ms) == (NOW_MS, 0)


def test_an_advanced_clock_goes_on_running() -> None:
    clock = moved(moved(RUNNING, Advance(DAY_MS)), Advance(DAY_MS))
    assert later(clock, 500).now_ms == NOW_MS + 2 * DAY_MS + 500
    assert clock.ahead_ms == 2 * DAY_MS


def test_a_clock_goes_to_a_moment() -> None:
    assert moved(moved(RUNNING, Advance(5)), MoveTo(NOW_MS + DAY_MS)).now_ms == NOW_MS + DAY_MS


def test_a_frozen_clock_shows_the_same_time_until_it_is_moved() -> None:
    clock = later(moved(moved(RUNNING, Advance(DAY_MS)), Freeze(True)), 5_000)
    assert clock.now_ms == NOW_MS + DAY_MS
    assert clock.ahead_ms == DAY_MS - 5_000
    assert later(moved(clock, Advance(10)), 5_000).now_ms == NOW_MS + DAY_MS + 10
    assert later(moved(clock, MoveTo(NOW_MS + 2 * DAY_MS)), 5_000).now_ms == NOW_MS + 2 * DAY_MS
    assert moved(clock, Freeze(True)).now_ms == clock.now_ms


def test_a_thawed_clock_goes_on_from_where_it_stood() -> None:
    clock = moved(later(moved(RUNNING, Freeze(True)), 5_000), Freeze(False))
    assert (clock.now_ms, clock.frozen_ms, clock.ahead_ms) == (NOW_MS, None, -5_000)
    assert later(clock, 70).now_ms == NOW_MS + 70
    assert moved(RUNNING, Freeze(False)) == RUNNING


@pytest.mark.parametrize("clock", [RUNNING, moved(RUNNING, Freeze(True))])
@pytest.mark.parametrize("move", [MoveTo(NOW_MS - 1), Advance(-1)])
def test_no_clock_goes_back(clock: VirtualClock, move: ClockMove) -> None:
    with pytest.raises(InvalidRequest, match=f"never goes back: {NOW_MS - 1}"):
        moved(clock, move)
    assert moved(clock, MoveTo(NOW_MS)).now_ms == NOW_MS


def test_time_ends() -> None:
    assert moved(RUNNING, MoveTo(LATEST_MS)).now_ms == LATEST_MS
    with pytest.raises(InvalidRequest, match="year 3000"):
        moved(RUNNING, MoveTo(LATEST_MS + 1))
    with pytest.raises(InvalidRequest) as error:
        moved(RUNNING, Advance(10**1000))
    assert len(str(error.value)) < 300


MOVES = st.one_of(st.integers(0, DAY_MS).map(Advance), st.integers(0, 2**44).map(MoveTo), st.booleans().map(Freeze))


@given(st.lists(st.tuples(MOVES, st.integers(0, DAY_MS))))
def test_whatever_is_done_no_time_comes_twice(steps: list[tuple[ClockMove, int]]) -> None:
    clock = RUNNING
    for move, ms in steps:
        try:
            after = moved(clock, move)
        except InvalidRequest:
            continue
        assert after.now_ms >= clock.now_ms
        clock = later(after, ms)
        assert clock.now_ms >= after.now_ms
