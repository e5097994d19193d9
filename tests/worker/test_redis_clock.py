"""The worker's idea of Redis's time."""

import pytest

from tests.worker.rig import ManualClock
from worker import redis_clock
from worker.redis_clock import RedisClock


class Events:
    """Collects the names of events."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def emit(self, event: str, /, **fields: object) -> None:
        self.names.append(event)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    events = Events()
    monkeypatch.setattr(redis_clock, "emit", events.emit)
    return events


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_time_goes_on_between_replies(clock: ManualClock) -> None:
    following = RedisClock(clock, 5_000, lambda: None)
    assert abs(following.now_ms() - clock.now_ms()) <= 1_000
    following.observe(1_000_000_000_000)
    clock.advance(1_234.9)
    assert following.now_ms() == 1_000_000_001_234


def test_a_jump_is_noticed_and_a_slow_reply_is_none(clock: ManualClock, events: Events) -> None:
    jumps: list[int] = []
    following = RedisClock(clock, 5_000, lambda: jumps.append(1))
    now_ms = clock.now_ms()
    following.observe(now_ms)
    clock.advance(4_000)
    following.observe(now_ms)
    assert jumps == []
    following.observe(now_ms + 60_000)
    assert jumps == [1]
    following.observe(now_ms)
    assert jumps == [1, 1]
    assert "clock.jumped" in events.names


def test_skew_is_warned_of_once(clock: ManualClock, events: Events) -> None:
    following = RedisClock(clock, 5_000_000, lambda: None)
    for skew_ms in (0, 5_000, 6_000, 0, -5_000):
        following.observe(clock.now_ms() - skew_ms)
    assert events.names == ["clock.skewed", "clock.skewed"]


def test_a_moved_clock_of_messages_is_neither_skew_nor_a_jump(clock: ManualClock, events: Events) -> None:
    jumps: list[int] = []
    following = RedisClock(clock, 5_000, lambda: jumps.append(1))
    following.observe(clock.now_ms())
    following.follow_messages(7 * 86_400_000)
    following.observe(clock.now_ms())
    assert (jumps, events.names) == ([], [])
    assert abs(following.now_ms() - clock.now_ms()) <= 1
    assert following.message_now_ms() - following.now_ms() == 7 * 86_400_000


def test_a_step_of_the_clock_of_messages_is_told_once(clock: ManualClock) -> None:
    steps: list[int] = []
    following = RedisClock(clock, 5_000, lambda: None, on_advance=lambda: steps.append(1))
    for ahead_ms in (0, 500, 3_600_000, 3_600_000, 3_599_000, 3_598_000):
        following.follow_messages(ahead_ms)
    assert steps == [1]
